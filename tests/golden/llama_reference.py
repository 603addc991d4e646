#!/usr/bin/env python3
"""Logits of small Llama models in float64, written without a look at the C++ code.

Writes data/llama_logits.txt, which golden_test.cc compares the CPU backend with:

    tests/golden/llama_reference.py            writes the file
    tests/golden/llama_reference.py --check    recomputes it and exits 1 if a value differs

The models are not stored: both sides make the same bytes from an integer hash (see `words` and
`tensor_bytes`; golden_model.cc says the same in C++). Here the bytes are decoded as the GGUF format
defines them and the model is computed in float64 with NumPy and nothing else.
"""
import os
import sys

import numpy as np

DATA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data", "llama_logits.txt")

# ---- Deterministic bytes ----


def words(seed, count, stream=0):
    """`count` 64-bit words: splitmix64's finaliser of (seed << 32) + (stream << 28) + i."""
    x = np.arange(count, dtype=np.uint64) + np.uint64((seed << 32) + (stream << 28))
    with np.errstate(over="ignore"):
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


# name: (values in a block, bytes of a block, exponent that makes weights of rms 1/16 or so)
TYPES = {
    "F32": (1, 4, 26),
    "F16": (1, 2, 13),
    "BF16": (1, 2, 10),
    "Q8_0": (32, 34, 11),
    "Q4_0": (32, 18, 7),
    "Q4_1": (32, 20, 7),
    "Q5_0": (32, 22, 8),
    "Q5_1": (32, 24, 8),
    "Q4_K": (256, 144, 13),
    "Q5_K": (256, 176, 14),
    "Q6_K": (256, 210, 16),
}
# Byte offsets of the half-precision scale and of the half-precision minimum in a block, and the
# minimum in units of the scale: it centres the weights on zero.
SCALE_AT = {"Q8_0": 0, "Q4_0": 0, "Q4_1": 0, "Q5_0": 0, "Q5_1": 0, "Q4_K": 0, "Q5_K": 0, "Q6_K": 208}
MIN_AT = {"Q4_1": (2, -7.5), "Q5_1": (2, -15.5), "Q4_K": (2, 7.5), "Q5_K": (2, 15.5)}


def tensor_bytes(kind, count, seed, exponent_shift=0):
    """The bytes of `count` values. Blocks are random but for scale (16 + r) / 16 * 2^-exponent, r
    in 0..15 from stream 1, and minimum. Floats are random integers times 2^-exponent."""
    per_block, block_bytes, exponent = TYPES[kind]
    exponent -= exponent_shift
    if per_block == 1:
        random = words(seed, count)
        if kind == "F32":
            integers = (random >> np.uint64(40)).astype(np.int64) - (1 << 23)
            return (integers * 2.0**-exponent).astype("<f4").tobytes()
        if kind == "F16":
            integers = (random >> np.uint64(53)).astype(np.int64) - 1024
            return (integers * 2.0**-exponent).astype("<f2").tobytes()
        integers = (random >> np.uint64(56)).astype(np.int64) - 128
        wide = (integers * 2.0**-exponent).astype("<f4").view("<u4")
        return (wide >> 16).astype("<u2").tobytes()
    blocks = count // per_block
    total = blocks * block_bytes
    raw = words(seed, (total + 7) // 8).astype("<u8").view(np.uint8)[:total]
    raw = raw.reshape(blocks, block_bytes).copy()
    scale = (16 + (words(seed, blocks, 1) & np.uint64(15)).astype(np.int64)) / 16 * 2.0**-exponent
    at = SCALE_AT[kind]
    raw[:, at : at + 2] = scale.astype("<f2").view(np.uint8).reshape(blocks, 2)
    if kind in MIN_AT:
        at, factor = MIN_AT[kind]
        raw[:, at : at + 2] = (scale * factor).astype("<f2").view(np.uint8).reshape(blocks, 2)
    # Scales within a block differ by a factor of two at most, as those of trained models.
    if kind in ("Q4_K", "Q5_K"):
        raw[:, 4:12] |= 0xA0  # 6-bit scales and minima: 32 to 63
    if kind == "Q6_K":
        scales = (raw[:, 192:208] & 63).astype(np.int64) + 64
        scales = np.where(raw[:, 192:208] & 64, -scales, scales)  # either sign, 64 to 127
        raw[:, 192:208] = scales.astype(np.int8).view(np.uint8)
    return raw.tobytes()


# ---- Decoding, from the description of the formats ----


def half(block, at):
    return block[:, at : at + 2].copy().view("<f2").astype(np.float64)  # [blocks, 1]


def nibbles(packed):
    return np.concatenate([packed & 15, packed >> 4], axis=1).astype(np.float64)


def five_bits(high, packed):
    bits = np.unpackbits(high, axis=1, bitorder="little").astype(np.float64)
    return nibbles(packed) + 16 * bits


def k_scales(packed):
    """Eight 6-bit scales and eight 6-bit minima out of 12 bytes."""
    p = packed.astype(np.int64)
    low_scale, low_min, rest = p[:, 0:4], p[:, 4:8], p[:, 8:12]
    scales = np.concatenate([low_scale & 63, (rest & 15) | (low_scale >> 6) << 4], axis=1)
    minima = np.concatenate([low_min & 63, (rest >> 4) | (low_min >> 6) << 4], axis=1)
    return scales.astype(np.float64), minima.astype(np.float64)


def decode_k45(block, with_fifth):
    scales, minima = k_scales(block[:, 4:16])
    quants = block[:, 48:176] if with_fifth else block[:, 16:144]
    values = np.empty((len(block), 8, 32))
    for pair in range(4):
        part = quants[:, 32 * pair : 32 * pair + 32]
        values[:, 2 * pair] = part & 15
        values[:, 2 * pair + 1] = part >> 4
    if with_fifth:
        for sub in range(8):
            values[:, sub] += 16.0 * ((block[:, 16:48] >> sub) & 1)
    scale = half(block, 0) * scales
    minimum = half(block, 2) * minima
    return (scale[:, :, None] * values - minimum[:, :, None]).reshape(len(block), 256)


def decode_q6k(block):
    low, high = block[:, 0:128], block[:, 128:192]
    scales = block[:, 192:208].view(np.int8).astype(np.float64)
    values = np.empty((len(block), 256))
    for part in range(2):
        l = low[:, 64 * part : 64 * part + 64].astype(np.int64)
        h = high[:, 32 * part : 32 * part + 32].astype(np.int64)
        for quarter in range(4):
            four = l[:, 32 * (quarter % 2) : 32 * (quarter % 2) + 32] >> (4 * (quarter // 2)) & 15
            two = h >> (2 * quarter) & 3
            start = 128 * part + 32 * quarter
            values[:, start : start + 32] = (four | two << 4) - 32
    return half(block, 208) * np.repeat(scales, 16, axis=1) * values


def decode(kind, raw):
    if kind == "F32":
        return np.frombuffer(raw, "<f4").astype(np.float64)
    if kind == "F16":
        return np.frombuffer(raw, "<f2").astype(np.float64)
    if kind == "BF16":
        wide = np.frombuffer(raw, "<u2").astype("<u4") << 16
        return wide.view("<f4").astype(np.float64)
    block = np.frombuffer(raw, np.uint8).reshape(-1, TYPES[kind][1])
    if kind == "Q8_0":
        values = half(block, 0) * block[:, 2:].view(np.int8)
    elif kind == "Q4_0":
        values = half(block, 0) * (nibbles(block[:, 2:]) - 8)
    elif kind == "Q4_1":
        values = half(block, 0) * nibbles(block[:, 4:]) + half(block, 2)
    elif kind == "Q5_0":
        values = half(block, 0) * (five_bits(block[:, 2:6], block[:, 6:]) - 16)
    elif kind == "Q5_1":
        values = half(block, 0) * five_bits(block[:, 4:8], block[:, 8:]) + half(block, 2)
    elif kind == "Q6_K":
        values = decode_q6k(block)
    else:
        values = decode_k45(block, kind == "Q5_K")
    return values.reshape(-1)


# ---- The model ----


class Case:
    """One model and prompt. `llama3` is the factor of Llama 3.1's rope scaling, 0 for none."""

    def __init__(self, name, kind="F32", seed=1, dim=256, layers=2, heads=8, kv_heads=2, head_dim=32,
                 ffn=512, vocab=99, tokens=40, positions=(0, 1, 17, 39), rope_base=10000.0,
                 linear=1.0, llama3=0.0, tied=False):
        self.name, self.kind, self.seed = name, kind, seed
        self.dim, self.layers, self.heads, self.kv_heads = dim, layers, heads, kv_heads
        self.head_dim, self.ffn, self.vocab, self.tokens = head_dim, ffn, vocab, tokens
        self.positions, self.rope_base, self.linear = positions, rope_base, linear
        self.llama3, self.tied = llama3, tied

    def header(self):
        return (f"case {self.name} {self.kind} {self.seed} {self.dim} {self.layers} {self.heads} "
                f"{self.kv_heads} {self.head_dim} {self.ffn} {self.vocab} {self.tokens} "
                f"{self.rope_base:.1f} {self.linear:.1f} {self.llama3:.1f} {int(self.tied)}")

    def weights(self):
        """Matrices [out, in] and norms, numbered in the order of their seeds. The embedding has rms
        1 and what a layer adds about a quarter of that, as in trained models."""
        number = [1000 * self.seed]

        def matrix(rows, columns, shift=0):
            number[0] += 1
            raw = tensor_bytes(self.kind, rows * columns, number[0], shift)
            return decode(self.kind, raw).reshape(rows, columns)

        def norm():
            number[0] += 1
            random = (words(number[0], self.dim) >> np.uint64(48)).astype(np.int64) - (1 << 15)
            return (1.0 + random * 2.0**-17).astype("<f4").astype(np.float64)

        q_dim, kv_dim = self.heads * self.head_dim, self.kv_heads * self.head_dim
        w = {"token_embd": matrix(self.vocab, self.dim, 4)}
        w["layers"] = []
        for _ in range(self.layers):
            w["layers"].append({
                "attn_norm": norm(), "q": matrix(q_dim, self.dim), "k": matrix(kv_dim, self.dim),
                "v": matrix(kv_dim, self.dim), "o": matrix(self.dim, q_dim, -1), "ffn_norm": norm(),
                "gate": matrix(self.ffn, self.dim), "up": matrix(self.ffn, self.dim),
                "down": matrix(self.dim, self.ffn, -1)})
        w["output_norm"] = norm()
        w["output"] = w["token_embd"] if self.tied else matrix(self.vocab, self.dim)
        return w

    def prompt(self):
        return (words(self.seed, self.tokens, 2) % np.uint64(self.vocab)).astype(np.int64)

    def frequencies(self):
        i = np.arange(self.head_dim // 2)
        f = self.rope_base ** (-2.0 * i / self.head_dim) / self.linear
        if not self.llama3:
            return f
        # Llama 3.1: original context 8192, low_freq_factor 1, high_freq_factor 4.
        wavelength = 2 * np.pi / f
        smooth = np.clip((8192 / wavelength - 1) / (4 - 1), 0, 1)
        return f * ((1 - smooth) / self.llama3 + smooth)

    def logits(self):
        """Logits behind each of `positions`, [positions, vocab]."""
        w = self.weights()
        x = w["token_embd"][self.prompt()]
        angles = np.arange(self.tokens)[:, None] * self.frequencies()
        cos, sin = np.cos(angles)[:, None, :], np.sin(angles)[:, None, :]

        def rotate(heads):
            a, b = heads[..., 0::2], heads[..., 1::2]
            out = np.empty_like(heads)
            out[..., 0::2] = a * cos[-len(heads):] - b * sin[-len(heads):]
            out[..., 1::2] = a * sin[-len(heads):] + b * cos[-len(heads):]
            return out

        for number, layer in enumerate(w["layers"]):
            # In the last layer only what is behind the first asked position matters.
            first = min(self.positions) if number + 1 == self.layers else 0
            h = rms_norm(x) * layer["attn_norm"]
            k = rotate((h @ layer["k"].T).reshape(len(h), self.kv_heads, self.head_dim))
            v = (h @ layer["v"].T).reshape(len(h), self.kv_heads, self.head_dim)
            h, x = h[first:], x[first:]
            q = rotate((h @ layer["q"].T).reshape(len(h), self.heads, self.head_dim))
            k = np.repeat(k, self.heads // self.kv_heads, axis=1)
            v = np.repeat(v, self.heads // self.kv_heads, axis=1)
            scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(self.head_dim)
            hidden = np.arange(len(k))[None, :] > np.arange(first, len(k))[:, None]
            scores = np.where(hidden[None], -np.inf, scores)
            scores = np.exp(scores - scores.max(axis=2, keepdims=True))
            scores /= scores.sum(axis=2, keepdims=True)
            attended = np.einsum("hqk,khd->qhd", scores, v).reshape(len(q), -1)
            x = x + attended @ layer["o"].T
            h = rms_norm(x) * layer["ffn_norm"]
            gate = h @ layer["gate"].T
            x = x + (gate / (1 + np.exp(-gate)) * (h @ layer["up"].T)) @ layer["down"].T
        rows = rms_norm(x[np.array(self.positions) - (self.tokens - len(x))]) * w["output_norm"]
        return rows @ w["output"].T


def rms_norm(x):
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + 1e-5)


CASES = [Case(kind, kind, seed=i + 1) for i, kind in enumerate(TYPES)] + [
    Case("F32-tied", seed=21, tied=True),
    Case("Q4_0-tied", "Q4_0", seed=22, tied=True),
    Case("Q6_K-tied", "Q6_K", seed=23, tied=True),
    Case("F32-llama3-rope", seed=24, rope_base=500000.0, llama3=8.0),
    Case("Q8_0-llama3-rope", "Q8_0", seed=25, rope_base=500000.0, llama3=32.0),
    Case("F32-linear-rope", seed=26, linear=4.0),
    Case("F32-odd-shapes", seed=27, dim=90, heads=6, kv_heads=3, head_dim=22, ffn=70, vocab=53,
         tokens=19, positions=(0, 18)),
    Case("F16-one-head", "F16", seed=28, dim=64, heads=1, kv_heads=1, head_dim=64, ffn=96),
    Case("Q8_0-narrow", "Q8_0", seed=29, dim=96, heads=3, kv_heads=3, head_dim=32, ffn=160),
    Case("F32-deep", seed=30, dim=64, layers=8, heads=4, kv_heads=1, head_dim=16, ffn=128),
    Case("F32-long", seed=31, dim=32, layers=1, heads=4, kv_heads=1, head_dim=32, ffn=64, vocab=64,
         tokens=8210, positions=(8191, 8192, 8209), rope_base=500000.0, llama3=8.0),
    Case("Q8_0-long", "Q8_0", seed=32, dim=32, layers=1, heads=4, kv_heads=1, head_dim=32, ffn=64,
         vocab=64, tokens=8210, positions=(8193, 8209), rope_base=500000.0, llama3=8.0),
]


def write(to):
    to.write("# Written by llama_reference.py; do not edit. A case: name, type, seed, dim, layers, "
             "heads,\n# kv_heads, head_dim, ffn, vocab, tokens, rope_base, linear, llama3, tied; "
             "then a line for each position.\n")
    for case in CASES:
        to.write(case.header() + "\n")
        for position, row in zip(case.positions, case.logits()):
            to.write(f"logits {position} " + " ".join(f"{value:.8g}" for value in row) + "\n")


def check():
    import io
    fresh = io.StringIO()
    write(fresh)
    with open(DATA, encoding="ascii") as file:
        old = file.read().split()
    new = fresh.getvalue().split()
    if len(old) != len(new):
        return False
    for a, b in zip(old, new):
        if a == b:
            continue
        try:
            # Another NumPy may sum in another order.
            if abs(float(a) - float(b)) > 1e-6 * max(1.0, abs(float(a))):
                return False
        except ValueError:
            return False
    return True


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        sys.exit(0 if check() else 1)
    with open(DATA, "w", encoding="ascii") as output:
        write(output)
