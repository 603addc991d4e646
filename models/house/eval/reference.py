"""A plain NumPy reader and forward pass for Llama-architecture GGUF files with F32 or F16 tensors.

Written for checking, independent of train.py: it computes in float64 by default and keeps a simple KV cache.
"""
import struct

import numpy as np

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
TENSOR_TYPES = {0: np.float32, 1: np.float16}


class Gguf:
    """metadata: dictionary; tensors: name -> array with the outermost dimension first."""

    def __init__(self, path):
        with open(path, "rb") as f:
            self.data = f.read()
        self.at = 0
        if self.data[:4] != b"GGUF":
            raise ValueError(path + " is not a GGUF file")
        self.at = 4
        version, tensor_count, key_count = self._take("<IQQ")
        if version != 3:
            raise ValueError("GGUF version %d is not supported" % version)
        self.metadata = {}
        for _ in range(key_count):
            key = self._string()
            self.metadata[key] = self._value(self._take("<I")[0])
        infos = []
        for _ in range(tensor_count):
            name = self._string()
            shape = self._take("<%dQ" % self._take("<I")[0])
            infos.append((name, shape) + self._take("<IQ"))
        alignment = self.metadata.get("general.alignment", 32)
        base = -(-self.at // alignment) * alignment
        self.tensors = {}
        for name, shape, kind, offset in infos:
            count = int(np.prod(shape))
            array = np.frombuffer(self.data, TENSOR_TYPES[kind], count, base + offset)
            self.tensors[name] = array.reshape(shape[::-1])

    def _take(self, layout):
        values = struct.unpack_from(layout, self.data, self.at)
        self.at += struct.calcsize(layout)
        return values

    def _string(self):
        length = self._take("<Q")[0]
        self.at += length
        return self.data[self.at - length:self.at].decode("utf-8")

    def _value(self, kind):
        if kind == 8:
            return self._string()
        if kind == 9:
            inner, count = self._take("<IQ")
            return [self._value(inner) for _ in range(count)]
        return self._take("<" + SCALARS[kind])[0]


class Llama:
    """One sequence: feed(ids) appends tokens and returns the logits after the last of them."""

    def __init__(self, gguf, dtype=np.float64):
        m = gguf.metadata
        self.layers = m["llama.block_count"]
        self.heads = m["llama.attention.head_count"]
        self.kv_heads = m["llama.attention.head_count_kv"]
        self.head_dim = m["llama.embedding_length"] // self.heads
        self.eps = m["llama.attention.layer_norm_rms_epsilon"]
        self.theta = m["llama.rope.freq_base"]
        self.w = {name: t.astype(dtype) for name, t in gguf.tensors.items()}
        self.dtype = dtype
        self.reset()

    def reset(self):
        self.cache = [(np.zeros((0, self.kv_heads, self.head_dim), self.dtype),) * 2 for _ in range(self.layers)]
        self.length = 0

    def _norm(self, x, name):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.eps) * self.w[name]

    def _rope(self, x, positions):
        """Turns the pairs (2i, 2i+1) of each head."""
        frequency = self.theta ** (-np.arange(0, self.head_dim, 2, dtype=np.float64) / self.head_dim)
        angle = positions[:, None, None] * frequency
        cos, sin = np.cos(angle).astype(self.dtype), np.sin(angle).astype(self.dtype)
        out = np.empty_like(x)
        out[..., 0::2] = x[..., 0::2] * cos - x[..., 1::2] * sin
        out[..., 1::2] = x[..., 0::2] * sin + x[..., 1::2] * cos
        return out

    def feed(self, ids):
        n, start = len(ids), self.length
        positions = np.arange(start, start + n)
        x = self.w["token_embd.weight"][np.asarray(ids)]
        for layer in range(self.layers):
            p = "blk.%d." % layer
            h = self._norm(x, p + "attn_norm.weight")
            q = (h @ self.w[p + "attn_q.weight"].T).reshape(n, self.heads, self.head_dim)
            k = (h @ self.w[p + "attn_k.weight"].T).reshape(n, self.kv_heads, self.head_dim)
            v = (h @ self.w[p + "attn_v.weight"].T).reshape(n, self.kv_heads, self.head_dim)
            q, k = self._rope(q, positions), self._rope(k, positions)
            k = np.concatenate([self.cache[layer][0], k])
            v = np.concatenate([self.cache[layer][1], v])
            self.cache[layer] = (k, v)
            group = self.heads // self.kv_heads
            k, v = np.repeat(k, group, 1), np.repeat(v, group, 1)
            scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(self.head_dim)
            scores = np.where(np.arange(start + n)[None, :] > positions[:, None], -np.inf, scores)
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            weights /= weights.sum(-1, keepdims=True)
            mixed = np.einsum("hqk,khd->qhd", weights, v).reshape(n, -1)
            x = x + mixed @ self.w[p + "attn_output.weight"].T
            h = self._norm(x, p + "ffn_norm.weight")
            gate = h @ self.w[p + "ffn_gate.weight"].T
            x = x + (gate / (1 + np.exp(-gate)) * (h @ self.w[p + "ffn_up.weight"].T)) @ self.w[p + "ffn_down.weight"].T
        self.length += n
        last = self._norm(x[-1], "output_norm.weight")
        return self.w.get("output.weight", self.w["token_embd.weight"]) @ last
