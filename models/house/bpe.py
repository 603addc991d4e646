"""Byte-level BPE with the pre-tokenisation of Llama 3: training, encoding and decoding."""
import functools
import re
import sys
import unicodedata
from collections import Counter, defaultdict


def _byte_alphabet():
    """GPT-2's mapping of bytes to printable characters: printable Latin-1 stays, the rest moves to 256 and up."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    mapping, extra = {}, 0
    for byte in range(256):
        if byte in printable:
            mapping[byte] = chr(byte)
        else:
            mapping[byte] = chr(256 + extra)
            extra += 1
    return mapping


BYTE_TO_CHAR = _byte_alphabet()
CHAR_TO_BYTE = {c: b for b, c in BYTE_TO_CHAR.items()}


def _char_class(initial):
    """The body of a regex class with every code point whose general category begins with `initial`."""
    ranges, start = [], None
    for code in range(sys.maxunicode + 2):
        inside = code <= sys.maxunicode and unicodedata.category(chr(code))[0] == initial
        if inside and start is None:
            start = code
        elif not inside and start is not None:
            ranges.append("\\U%08x-\\U%08x" % (start, code - 1))
            start = None
    return "".join(ranges)


@functools.lru_cache(None)
def _pattern(ascii_only):
    """For ASCII text short classes do the same, only faster."""
    letter, number = ("A-Za-z", "0-9") if ascii_only else (_char_class("L"), _char_class("N"))
    return re.compile(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
        rf"|[^\r\n{letter}{number}]?[{letter}]+"
        rf"|[{number}]{{1,3}}"
        rf"| ?[^\s{letter}{number}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+")


def to_alphabet(word):
    return "".join([BYTE_TO_CHAR[b] for b in word.encode("utf-8")])


def split_words(text):
    """Pre-tokens of the text, in the byte alphabet."""
    return [to_alphabet(word) for word in _pattern(text.isascii()).findall(text)]


def train(texts, merge_count):
    """Learns merges from texts; ties go to the pair that sorts first, so the result is reproducible."""
    counts = Counter()
    for text in texts:
        counts.update(split_words(text))
    words = [(list(word), count) for word, count in sorted(counts.items())]
    pair_counts, where = Counter(), defaultdict(set)
    for index, (pieces, count) in enumerate(words):
        for pair in zip(pieces, pieces[1:]):
            pair_counts[pair] += count
            where[pair].add(index)
    merges, known = [], set(CHAR_TO_BYTE)
    while len(merges) < merge_count:
        pair = min(pair_counts, key=lambda p: (-pair_counts[p], p))
        joined = pair[0] + pair[1]
        if joined not in known:  # a second way to the same token would need no new entry
            known.add(joined)
            merges.append(pair)
        for index in sorted(where.pop(pair)):
            pieces, count = words[index]
            for old in zip(pieces, pieces[1:]):
                pair_counts[old] -= count
            k = 0
            while k + 1 < len(pieces):
                if (pieces[k], pieces[k + 1]) == pair:
                    pieces[k:k + 2] = [joined]
                k += 1
            for new in zip(pieces, pieces[1:]):
                pair_counts[new] += count
                where[new].add(index)
        del pair_counts[pair]
    return merges


class Tokenizer:
    """tokens: list of strings in the byte alphabet, special tokens as they are; merges: list of pairs."""

    def __init__(self, tokens, merges, special):
        self.tokens = tokens
        self.ids = {token: i for i, token in enumerate(tokens)}
        self.ranks = {pair: rank for rank, pair in enumerate(merges)}
        self.special = {token: self.ids[token] for token in special}
        self.known = {}  # ids of the words met so far

    @classmethod
    def learn(cls, texts, size, special):
        merges = train(texts, size - 256 - len(special))
        tokens = [BYTE_TO_CHAR[b] for b in range(256)] + [a + b for a, b in merges] + list(special)
        tokenizer = cls(tokens, merges, special)
        for token in tokens[:size - len(special)]:
            if tokenizer._word(token) != [tokenizer.ids[token]]:
                raise ValueError("token %r does not encode to itself" % token)
        return tokenizer

    def _word(self, word):
        pieces = list(word)
        while len(pieces) > 1:
            rank, k = min((self.ranks.get(pair, sys.maxsize), k) for k, pair in enumerate(zip(pieces, pieces[1:])))
            if rank == sys.maxsize:
                break
            pieces[k:k + 2] = [pieces[k] + pieces[k + 1]]
        return [self.ids[p] for p in pieces]

    def encode(self, text):
        """Token ids of plain text: markers of special tokens in it are plain text."""
        ids = []
        for word in _pattern(text.isascii()).findall(text):
            found = self.known.get(word)
            if found is None:
                found = self.known[word] = self._word(to_alphabet(word))
            ids += found
        return ids

    def decode(self, ids):
        text = "".join(self.tokens[i] for i in ids if self.tokens[i] not in self.special)
        return bytes(CHAR_TO_BYTE[c] for c in text).decode("utf-8", "replace")
