#!/usr/bin/python3
"""Reads the corpus texts of this folder and makes training documents from them.

Text format (reticle.txt, hardwired.txt, serving.txt, smalltalk.txt, unknown.txt, wordings_*.txt):
  == NAME        begins an intent
  topic: T       follow-up questions apply after any intent with the same topic
  define: A|B    noun phrases; every phrasing of "what is ..." in WHATIS is applied to them
  q: TEMPLATE    a question;  (a|b|) is a choice, <name> a macro or word list, both may nest
  f: TEMPLATE    the same question asked as a follow-up, when the topic is known
  a: TEXT        one of the right answers
  more: TEXT     an answer to "tell me more"
A document is prose, or a chat: (system text or "", [(user, assistant), ...]).
synonyms.txt and contexts.txt then vary the wording of any question, known or unknown alike. With `noise`, that share of
the questions also loses, moves and gains words (words.txt), or is two questions of one intent in a row.
Everything is a pure function of the seed.
"""
import os
import random
import re

HERE = os.path.dirname(os.path.abspath(__file__))
INTENT_FILES = ("reticle.txt", "hardwired.txt", "serving.txt", "smalltalk.txt")
WORDING_FILES = ("wordings_reticle.txt", "wordings_serving.txt", "wordings_hardwired.txt", "wordings_unknown.txt")

# What documents are made of: the shares of prose, of very long chats, of chats held to one turn and of those with a system
# text; of questions outside the field, of questions from the further wordings, of noisy ones, and of those that lose words.
MIX = {"prose": 0.05, "long": 0.004, "short": 0.0, "system": 0.14, "unknown": 0.15, "wide": 0.6, "noise": 0.0,
       "drop": 0.0}

WHATIS = """what is X|what is X|what is X|what's X|whats X|what is X exactly|explain X|explain X to me|can you explain X
could you explain what X is|tell me about X|tell me about X|what does X mean|define X|X|X|what do you mean by X|what is meant by X
i do not understand X|describe X|give me a definition of X|help me understand X|I keep hearing about X|what do people mean by X
in simple terms, what is X|how would you define X|what do you know about X|what should I know about X|meaning of X|X meaning
what X means|do you know what X is|can you tell me what X is|any idea what X is|teach me about X|say something about X
ELI5 X|what exactly is X|what are X|please explain X|what on earth is X|what is this X thing|give me a short explanation of X
I would like to understand X|X explained|explain X in one sentence|what is X in short|so what is X|what is X and why does it matter
explain X like I am five|what can you tell me about X|who or what is X|and what is X|quick explanation of X|definition of X
what do we call X|have you heard of X|do you know X|do you know anything about X|tell me what X is|I want to know what X is
I want to learn about X|give me some information about X|info on X|what X is|talk about X|I need information about X
what is the thing called X|what does the term X mean|what does the word X mean|could you describe X|could you tell me about X
why do people talk about X|how do you explain X|what is the idea of X|introduce X|summarise X|is X something you know"""
MORE = ("tell me more|more|go on|can you tell me more|more details please|what else|and what else|explain more|"
        "say more about it|anything else|please go on|can you explain that a bit more|continue|i want to know more")
PREFIXES = ("hi, |hello, |hey, |please |please tell me, |quick question: |so, |ok, |well, |sorry, |one question: |"
            "a question: |can you tell me: |hello! |hi! |I have a question: |I am new here. |hey there, |question: |"
            "just wondering, |I was wondering: |excuse me, |also, |um, |for a start: |another question: |good morning, ")
SUFFIXES = " please|, please| thanks|, thanks| ? thanks|??|, do you know|, can you tell me| again| by the way| then| exactly"
FUNCTION_WORDS = set("a an the is are do does did can could will would should i me my you your it its of to in on for with and "
                     "or what which how please tell this that there be have has at from by".split())
QUESTION = re.compile(r"^(what|which|who|where|when|why|how|is|are|do|does|did|can|could|will|would|should|may|am|was|were|has|have|whats|any|got|must)\b", re.I)


def read_lines(name):
    with open(os.path.join(HERE, name), encoding="utf-8") as f:
        return [line.rstrip("\n") for line in f]


def read_synonyms(name):
    """Returns word or pair of words -> its replacements."""
    synonyms = {}
    for line in read_lines(name):
        if line and not line.startswith("#"):
            group = line.split("|")
            for word in group:
                synonyms.setdefault(word, []).extend(w for w in group if w != word)
    return synonyms


class Grammar:
    """Expands templates with choices and macros."""

    def __init__(self, macros):
        self.macros = {name: self._parse(text) for name, text in macros.items()}
        self.cache = {}

    def _parse(self, text):
        def alternatives(i):
            options, current, literal = [], [], []

            def flush():
                if literal:
                    current.append("".join(literal))
                    literal.clear()
            while i < len(text):
                c = text[i]
                if c == "(":
                    flush()
                    inner, i = alternatives(i + 1)
                    if i >= len(text):
                        raise ValueError("unbalanced: " + text)
                    current.append(inner)
                elif c == ")":
                    break
                elif c == "|":
                    flush()
                    options.append(current)
                    current = []
                elif c == "<" and (m := re.match(r"<([a-z0-9]+)>", text[i:])):
                    flush()
                    current.append((m.group(1),))
                    i += m.end() - 1
                else:
                    literal.append(c)
                i += 1
            flush()
            options.append(current)
            return options, i
        tree, end = alternatives(0)
        if end != len(text):
            raise ValueError("unbalanced: " + text)
        return tree

    def _emit(self, tree, rng):
        out = []
        for item in tree[rng.randrange(len(tree))]:
            if isinstance(item, str):
                out.append(item)
            elif isinstance(item, tuple):
                out.append(self._macro(item[0], rng))
            else:
                out.append(self._emit(item, rng))
        return "".join(out)

    def _macro(self, name, rng):
        if name == "n":
            return str(rng.randrange(2, rng.choice((20, 100, 1000, 3000))))
        if name == "pseudo":
            return pseudo_word(rng)
        if name == "whatis":
            raise ValueError("whatis is expanded by the caller")
        return self._emit(self.macros[name], rng)

    def expand(self, template, rng):
        tree = self.cache.get(template)
        if tree is None:
            tree = self.cache[template] = self._parse(template)
        return re.sub(r"\s+", " ", self._emit(tree, rng)).strip()


def pseudo_word(rng):
    onset = ["b", "br", "d", "dr", "f", "fl", "g", "gl", "h", "k", "kl", "l", "m", "n", "p", "pl", "r", "s", "sk", "sn",
             "st", "t", "tr", "v", "w", "z", "qu", "j", "bl", "gr", "cr", "th"]
    coda = ["", "", "n", "m", "r", "l", "s", "t", "x", "nd", "mp", "rk", "lt", "sh", "g", "p", "st", "ck"]
    word = "".join(rng.choice(onset) + rng.choice("aeiou") + (rng.choice(coda) if k % 2 else "")
                   for k in range(rng.choice((1, 2, 2, 2, 3, 3))))
    return word + rng.choice(("", "", "n", "r", "x", "le", "er", "on", "ium", "ing", "s"))


class Intent:
    def __init__(self, name):
        self.name, self.topic = name, ""
        self.defines, self.questions, self.followups, self.answers, self.more = [], [], [], [], []
        self.extra, self.held = [], []  # further wordings, and those held out


def parse_intents(lines):
    intents = []
    for number, line in enumerate(lines, 1):
        if not line or line.startswith("#") or line.startswith("list "):
            continue
        if line.startswith("== "):
            intents.append(Intent(line[3:].strip()))
            continue
        key, _, value = line.partition(": ")
        value = value.strip()
        intent = intents[-1]
        if key == "topic":
            intent.topic = value
        elif key == "define":
            intent.defines += value.split("|")
        elif key == "q":
            intent.questions.append(value)
        elif key == "f":
            intent.followups.append("(" + value + ")")
        elif key == "a":
            intent.answers.append(value)
        elif key == "more":
            intent.more.append(value)
        else:
            raise ValueError("line %d: unknown key %r" % (number, key))
    return intents


def weight(tree_text):
    """Rough number of phrasings of a template, damped: richer templates are drawn more often."""
    return (1 + tree_text.count("|") + 2 * tree_text.count("<")) ** 0.5


class Corpus:
    def __init__(self, hold_out=30):
        """One in `hold_out` further wordings stays out of the questions and is kept in `held` of its intent."""
        macros = {}
        for line in read_lines("macros.txt"):
            if line and not line.startswith("#"):
                name, _, value = line.partition(" = ")
                macros[name.strip()] = value
        unknown = read_lines("unknown.txt")
        for line in unknown:
            if line.startswith("list "):
                name, _, value = line[5:].partition(" = ")
                macros[name] = value
        self.grammar = Grammar(macros)
        self.whatis = [w for line in WHATIS.split("\n") for w in line.split("|")]
        self.intents = [i for name in INTENT_FILES for i in parse_intents(read_lines(name))]
        for intent in self.intents:
            intent.weights = [weight(q) for q in intent.questions]
            if intent.defines:
                intent.weights.append(sum(intent.weights) * 0.6 + 6)
            intent.draw = sum(intent.weights) ** 0.25
        self.unknown = parse_intents(["== unknown"] + unknown)[0]
        self.unknown.weights = [weight(q) for q in self.unknown.questions]
        by_name = {intent.name: intent for intent in self.intents + [self.unknown]}
        for name in WORDING_FILES:
            for more in parse_intents(["== unknown"] * ("unknown" in name) + read_lines(name)):
                intent = by_name[more.name]
                for k, template in enumerate(more.questions):
                    if k % hold_out == 4:
                        intent.held.append((name, template))
                    else:
                        intent.extra.append(template)
        self.index = {intent: k for k, intent in enumerate(self.intents + [self.unknown])}
        self.prose = [p.strip() for p in "\n".join(read_lines("prose.txt")).split("\n\n") if p.strip()]
        self.systems = [s for s in read_lines("system.txt") if s]
        self.synonyms = read_synonyms("synonyms.txt")
        contexts = [line.partition(" ") for line in read_lines("contexts.txt")]
        self.before = [text for kind, _, text in contexts if kind == "before"]
        self.after = [text for kind, _, text in contexts if kind == "after"]
        self.mix = dict(MIX)
        self.words = [w for line in read_lines("words.txt") if not line.startswith("#") for w in line.split()]
        self.held_out = {normalise(line.partition(" => ")[0])
                         for name in ("questions.txt", "fresh.txt")
                         for line in read_lines(os.path.join("..", "eval", name)) if " => " in line}
        self.draws = [i.draw for i in self.intents]
        self.by_topic = {}
        for intent in self.intents:
            if intent.followups:
                self.by_topic.setdefault(intent.topic, []).append(intent)

    # --- questions -------------------------------------------------------------------------------------------------
    def _question(self, intent, rng):
        if intent.extra and rng.random() < self.mix["wide"]:
            return self.grammar.expand(rng.choice(intent.extra), rng)
        index = rng.choices(range(len(intent.weights)), intent.weights)[0]
        if index == len(intent.questions):
            return rng.choice(self.whatis).replace("X", rng.choice(intent.defines))
        template = intent.questions[index]
        if template.startswith("<whatis> "):
            return rng.choice(self.whatis).replace("X", self.grammar.expand(template[9:], rng))
        return self.grammar.expand(template, rng)

    def _style(self, text, rng, plain=False):
        """Gives a question the looks of what people type: case, punctuation, politeness, typing errors."""
        ask = bool(QUESTION.match(text))
        if rng.random() < (0.2 if plain else 0.5):
            text = self._reword(text, rng, 0.25)
        if not plain:
            roll = rng.random()
            if roll < 0.03:
                text = keywords(text, rng)
            elif roll < 0.06:
                text = " ".join(w for w in text.split() if w.lower() not in FUNCTION_WORDS or rng.random() < 0.5) or text
            elif roll < 0.14:
                text = rng.choice(PREFIXES.split("|")) + text
            elif roll < 0.19:
                text += rng.choice(SUFFIXES.split("|"))
            elif roll < 0.28:
                text = rng.choice(self.before) + " " + text
            elif roll < 0.34:
                after = rng.choice(self.after)
                text += after if after[0] in ",.?" else " " + after
            if rng.random() < 0.07:
                text = typo(text, rng)
        roll = rng.random()
        if roll < 0.36:
            text = text.lower()
        elif roll < 0.38:
            text = text.upper()
        else:
            text = text[:1].upper() + text[1:]
        if text[-1] not in "?.!" and rng.random() < 0.62:
            text += "?" if ask else rng.choice((".", "", "!", "."))
        return text

    def develop(self, template, rng):
        """A question of a held-out template."""
        return self._style(self.grammar.expand(template, rng), rng, True)

    def _reword(self, text, rng, share):
        """Replaces that share of the words and pairs of words that have synonyms."""
        words, out, k = text.split(" "), [], 0
        while k < len(words):
            for size in (2, 1):
                options = self.synonyms.get(" ".join(words[k:k + size]).lower()) if k + size <= len(words) else None
                if options and rng.random() < share:
                    swap = rng.choice(options)
                    if swap.startswith("'") and out:
                        out[-1] += swap
                    else:
                        out.append(swap.lstrip("'") or swap)
                    k += size
                    break
            else:
                out.append(words[k])
                k += 1
        return " ".join(out)

    def _known(self, rng):
        return rng.choices(self.intents, self.draws)[0]

    def turn(self, rng):
        """One question that stands alone; returns (intent, question, answer)."""
        if rng.random() < self.mix["unknown"]:
            intent = self.unknown
        else:
            intent = self._known(rng)
        question = self._question(intent, rng)
        if self.mix["noise"] and rng.random() < self.mix["noise"]:
            if rng.random() < 0.2:
                question += rng.choice((". ", "? ", ", ", " and ", ": ")) + self._question(intent, rng)
            else:
                question = scramble(question, self.words, rng)
        if self.mix["drop"] and rng.random() < self.mix["drop"]:
            question = drop_words(question, rng)
        question = self._style(question, rng)
        return intent, question, rng.choice(intent.answers)

    def _followup(self, intent, rng):
        roll = rng.random()
        if intent.more and roll < 0.25:
            return intent, self._style(rng.choice(MORE.split("|")), rng, True), rng.choice(intent.more)
        options = self.by_topic.get(intent.topic, ()) if intent.topic != "talk" else ()
        if options and roll < 0.75:
            target = rng.choice(options)
        elif roll < 0.9:
            target = rng.choice(self.by_topic["talk"])
        else:
            target = self.unknown
        question = self.grammar.expand(rng.choice(target.followups), rng)
        return target, self._style(question, rng, True), rng.choice(target.answers)

    # --- documents -------------------------------------------------------------------------------------------------
    def chat(self, rng, turns=None):
        if turns is None:
            turns = rng.choices((1, 2, 3, 4, 6), (70, 17, 8, 4, 1))[0]
            if self.mix["short"] and rng.random() < self.mix["short"]:
                turns = 1
        system = rng.choice(self.systems) if rng.random() < self.mix["system"] else ""
        intent, question, answer = self.turn(rng)
        messages = [(question, answer, self.index[intent])]
        for _ in range(turns - 1):
            if rng.random() < 0.6:
                intent, question, answer = self._followup(intent, rng)
            else:
                intent, question, answer = self.turn(rng)
            messages.append((question, answer, None if answer in intent.more else self.index[intent]))
        return system, messages

    def paragraph(self, rng):
        """Plain text: written paragraphs, or answers of one field put together."""
        if rng.random() < 0.75:
            first = rng.randrange(len(self.prose))
            return " ".join(self.prose[(first + k) % len(self.prose)] for k in range(rng.choice((1, 1, 1, 2))))
        intent = self._known(rng)
        group = [i for i in self.intents if i.topic == intent.topic and i.topic != "talk"]
        picked = rng.sample(group, min(len(group), rng.choice((1, 2, 3)))) or [self.intents[0]]
        return " ".join(rng.choice(i.answers) for i in picked)

    def documents(self, seed, count, **mix):
        """mix: what differs from MIX. Yields up to `count` documents: ("prose", text) or ("chat", system, messages).
        A chat in which a held-out question of the evaluation came up by chance is left out."""
        rng = random.Random(seed)
        for _ in range(count):
            self.mix = {**MIX, **mix}
            document = self._document(rng)
            if document[0] == "prose" or not any(normalise(turn[0]) in self.held_out for turn in document[2]):
                yield document

    def _document(self, rng):
        roll = rng.random()
        if roll < self.mix["prose"]:
            return ("prose", self.paragraph(rng))
        if roll < self.mix["prose"] + self.mix["long"]:
            return ("chat",) + self.chat(rng, turns=rng.randrange(8, 36))
        return ("chat",) + self.chat(rng)


def keywords(text, rng):
    """What somebody types into a search box: the words that carry meaning, sometimes in another order."""
    words = [w for w in text.split() if w.lower() not in FUNCTION_WORDS] or text.split()
    if rng.random() < 0.5:
        rng.shuffle(words)
    return " ".join(words)


def drop_words(text, rng):
    """Drops up to every second word and often loses the order of the rest, so that each word has to tell what it can."""
    words, share = text.split(), rng.uniform(0.05, 0.5)
    kept = [w for w in words if rng.random() >= share] or [rng.choice(words)]
    if rng.random() < 0.4:
        rng.shuffle(kept)
    return " ".join(kept)


def scramble(text, words, rng):
    """Drops, adds and moves words, more often those that carry little."""
    out = []
    for word in text.split():
        if rng.random() >= (0.25 if word.lower() in FUNCTION_WORDS else 0.06):
            out.append(word)
        if rng.random() < 0.15:
            out.append(rng.choice(words))
    if len(out) > 3 and rng.random() < 0.3:
        k = rng.randrange(1, len(out))
        out = out[k:] + out[:k]
    if rng.random() < 0.2:
        out = [rng.choice(words) for _ in range(rng.randrange(1, 4))] + out
    return " ".join(out) or text


def typo(text, rng):
    words = text.split(" ")
    spots = [k for k, w in enumerate(words) if len(w) > 4 and w.isalpha()]
    if not spots:
        return text
    k = rng.choice(spots)
    w, p = words[k], rng.randrange(1, len(words[k]) - 1)
    kind = rng.randrange(3)
    if kind == 0:
        w = w[:p] + w[p + 1] + w[p] + w[p + 2:]
    elif kind == 1:
        w = w[:p] + w[p + 1:]
    else:
        w = w[:p] + w[p] + w[p:]
    words[k] = w
    return " ".join(words)


def normalise(text):
    """The form in which two questions count as the same."""
    return re.sub(r"[^a-z0-9]+", " ", text.lower()).strip()


if __name__ == "__main__":
    import sys
    for document in Corpus().documents(int(sys.argv[2]) if len(sys.argv) > 2 else 1, int(sys.argv[1]) if len(sys.argv) > 1 else 20):
        print(document)
