#!/usr/bin/python3
"""Trains the house model from the corpus of this folder and writes it as a GGUF file.

  train.py [--threads N] [--work DIR] [--out house.gguf]     continues from DIR/checkpoint.pt when it exists
  train.py --export-only                                     writes the GGUF file from the checkpoint

The rotary embedding turns the pairs (2i, 2i+1) of a head, which is the layout that GGUF expects of the llama
architecture, so no weight is permuted on export.
"""
import argparse
import csv
import itertools
import math
import os
import random
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "corpus")]

import bpe  # noqa: E402
import corpus  # noqa: E402
import gguf  # noqa: E402
import recipe as r  # noqa: E402


class HalfLinear(torch.autograd.Function):
    """x @ w.T with bfloat16 operands and float32 sums; master weights and gradients stay float32."""

    @staticmethod
    def forward(ctx, x, w):
        xb, wb = x.to(torch.bfloat16), w.to(torch.bfloat16)
        ctx.save_for_backward(xb, wb)
        return (xb @ wb.t()).float()

    @staticmethod
    def backward(ctx, grad):
        xb, wb = ctx.saved_tensors
        gb = grad.to(torch.bfloat16)
        return (gb @ wb).float(), (gb.t() @ xb).float()


def linear(x, w, half):
    return HalfLinear.apply(x, w) if half else x @ w.t()


def rope_table():
    frequency = r.ROPE_THETA ** (-torch.arange(0, r.HEAD_DIM, 2, dtype=torch.float64) / r.HEAD_DIM)
    angle = torch.arange(r.CONTEXT, dtype=torch.float64)[:, None] * frequency
    return torch.polar(torch.ones_like(angle), angle).to(torch.complex64)[:, None, :]


def rope(x, turns):
    """Turns the pair (2i, 2i+1), taken as one complex number, by the angle of its position."""
    pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * turns).flatten(-2)


class House(torch.nn.Module):
    """Parameters of one kind are fused (q with k and v, gate with up) so that each layer is four products."""

    def __init__(self):
        super().__init__()
        def matrix(rows, columns, scale=1.0):
            return torch.nn.Parameter(torch.randn(rows, columns) * 0.02 * scale)
        deep = 1 / math.sqrt(2 * r.LAYERS)
        self.embedding = matrix(r.VOCABULARY, r.DIM)
        self.qkv = torch.nn.ParameterList(
            [matrix((r.HEADS + 2 * r.KV_HEADS) * r.HEAD_DIM, r.DIM) for _ in range(r.LAYERS)])
        self.out = torch.nn.ParameterList([matrix(r.DIM, r.HEADS * r.HEAD_DIM, deep) for _ in range(r.LAYERS)])
        self.up = torch.nn.ParameterList([matrix(2 * r.FFN, r.DIM) for _ in range(r.LAYERS)])
        self.down = torch.nn.ParameterList([matrix(r.DIM, r.FFN, deep) for _ in range(r.LAYERS)])
        self.norms = torch.nn.ParameterList(
            [torch.nn.Parameter(torch.ones(r.DIM)) for _ in range(2 * r.LAYERS + 1)])
        self.turns = rope_table()

    def norm(self, x, k):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + r.RMS_EPS) * self.norms[k]

    def forward(self, ids, half):
        """ids: batch x length, each row from position 0; returns batch*length x DIM, ready for the output table."""
        batch, length = ids.shape
        mask = torch.full((length, length), -1e9).triu(1)
        kv, group = r.KV_HEADS * r.HEAD_DIM, r.HEADS // r.KV_HEADS
        x = F.embedding(ids.flatten(), self.embedding)
        for layer in range(r.LAYERS):
            qkv = linear(self.norm(x, 2 * layer), self.qkv[layer], half)
            qk, v = qkv.split((r.DIM + kv, kv), -1)
            qk = rope(qk.view(batch, length, -1, r.HEAD_DIM), self.turns[:length])
            q = qk[:, :, :r.HEADS].view(batch, length, r.KV_HEADS, group, r.HEAD_DIM)
            q = q.permute(0, 2, 3, 1, 4).reshape(batch * r.KV_HEADS, group * length, r.HEAD_DIM)
            k = qk[:, :, r.HEADS:].permute(0, 2, 3, 1).reshape(batch * r.KV_HEADS, r.HEAD_DIM, length)
            v = v.view(batch, length, r.KV_HEADS, r.HEAD_DIM).transpose(1, 2).reshape(-1, length, r.HEAD_DIM)
            scores = (q @ k).view(-1, group, length, length) * (r.HEAD_DIM ** -0.5) + mask
            mixed = scores.softmax(-1).view(-1, group * length, length) @ v
            mixed = mixed.view(batch, r.HEADS, length, r.HEAD_DIM).transpose(1, 2).reshape(batch * length, -1)
            x = x + linear(mixed, self.out[layer], half)
            gate, up = linear(self.norm(x, 2 * layer + 1), self.up[layer], half).split(r.FFN, -1)
            x = x + linear(F.silu(gate) * up, self.down[layer], half)
        return self.norm(x, 2 * r.LAYERS)

    def loss(self, ids, learn, half):
        """Mean cross entropy of the next tokens that count: learn, batch x length, has true at their places."""
        chosen = learn[:, 1:].flatten().nonzero().flatten()
        hidden = self(ids[:, :-1], half)[chosen]
        return F.cross_entropy(linear(hidden, self.embedding, half), ids[:, 1:].flatten()[chosen])


def document_texts(document):
    if document[0] == "prose":
        return [document[1]]
    return [document[1]] + [text for turn in document[2] for text in turn]


def encode_document(document, tokenizer, cut=0):
    """Returns token ids and, for each, whether to learn it: answers and prose are learnt, questions only read.
    With `cut`, a chat of one turn ends after so many tokens of its answer."""
    special = tokenizer.special
    ids, learn = [special[r.BEGIN]], [False]

    def add(tokens, learnt):
        ids.extend(tokens)
        learn.extend([learnt] * len(tokens))
    if document[0] == "prose":
        add(tokenizer.encode(document[1]) + [special[r.END]], True)
        return ids[:r.CONTEXT], learn[:r.CONTEXT]
    _, system, turns = document
    if system:
        add([special[r.SYSTEM]] + tokenizer.encode(system) + [special[r.END]], False)
    for question, answer in turns:
        add([special[r.USER]] + tokenizer.encode(question) + [special[r.END], special[r.ASSISTANT]], False)
        tokens = tokenizer.encode(answer) + [special[r.END]]
        add(tokens[:cut] if cut and len(turns) == 1 else tokens, True)
    return ids[:r.CONTEXT], learn[:r.CONTEXT]


def make_batches(documents, rng, batch_tokens):
    """Groups documents of like length, so that padding is small, and shuffles the groups within a window."""
    batches, window = [], 6000
    for start in range(0, len(documents), window):
        pool = documents[start:start + window]
        rng.shuffle(pool)
        pool.sort(key=lambda d: len(d[0]))
        groups, group = [], []
        for d in reversed(pool):
            if group and len(group[0][0]) * (len(group) + 1) > batch_tokens:
                groups.append(group)
                group = []
            group.append(d)
        groups.append(group)
        rng.shuffle(groups)
        batches += groups
    return batches


def training_batches(texts, tokenizer):
    """Returns the batches of all phases in order, and the rate at each."""
    rng, batches, rates, streams = random.Random(r.ORDER_SEED), [], [], {}
    for seed, count, mix, batch_tokens, cut_share, first, last in r.PHASES:
        stream = streams.setdefault(seed, texts.documents(seed, sys.maxsize, **mix))
        cuts = random.Random(r.ORDER_SEED + 1)
        encoded = [encode_document(d, tokenizer, r.CUT if cuts.random() < cut_share else 0)
                   for d in itertools.islice(stream, count)]
        phase = make_batches(encoded, rng, batch_tokens)
        rates += [last + (first - last) * 0.5 * (1 + math.cos(math.pi * k / len(phase))) for k in range(len(phase))]
        batches += phase
    for step in range(r.WARMUP_STEPS):
        rates[step] *= (step + 1) / r.WARMUP_STEPS
    return batches, rates


def tensors_of(batch, pad):
    length = max(len(ids) for ids, _ in batch)
    ids = np.full((len(batch), length), pad, np.int64)
    learn = np.zeros((len(batch), length), bool)
    for row, (i, l) in enumerate(batch):
        ids[row, :len(i)] = i
        learn[row, :len(l)] = l
    return torch.from_numpy(ids), torch.from_numpy(learn)


def export(model, tokenizer, path):
    special = tokenizer.special
    tokens = tokenizer.tokens
    merges = sorted(tokenizer.ranks, key=tokenizer.ranks.get)
    metadata = [
        ("general.architecture", gguf.STRING, "llama"),
        ("general.type", gguf.STRING, "model"),
        ("general.name", gguf.STRING, "Reticle House"),
        ("general.author", gguf.STRING, "The Reticle authors"),
        ("general.description", gguf.STRING,
         "A small chat model that answers questions about Reticle, hardwired inference and serving."),
        ("general.license", gguf.STRING, "apache-2.0"),
        ("general.languages", gguf.STRING, ["en"]),
        ("general.file_type", gguf.UINT32, 1),
        ("llama.context_length", gguf.UINT32, r.CONTEXT),
        ("llama.embedding_length", gguf.UINT32, r.DIM),
        ("llama.block_count", gguf.UINT32, r.LAYERS),
        ("llama.feed_forward_length", gguf.UINT32, r.FFN),
        ("llama.attention.head_count", gguf.UINT32, r.HEADS),
        ("llama.attention.head_count_kv", gguf.UINT32, r.KV_HEADS),
        ("llama.attention.key_length", gguf.UINT32, r.HEAD_DIM),
        ("llama.attention.value_length", gguf.UINT32, r.HEAD_DIM),
        ("llama.attention.layer_norm_rms_epsilon", gguf.FLOAT32, r.RMS_EPS),
        ("llama.rope.dimension_count", gguf.UINT32, r.HEAD_DIM),
        ("llama.rope.freq_base", gguf.FLOAT32, r.ROPE_THETA),
        ("llama.vocab_size", gguf.UINT32, r.VOCABULARY),
        ("tokenizer.ggml.model", gguf.STRING, "gpt2"),
        ("tokenizer.ggml.pre", gguf.STRING, "llama-bpe"),
        ("tokenizer.ggml.tokens", gguf.STRING, tokens),
        ("tokenizer.ggml.token_type", gguf.INT32, [3 if t in special else 1 for t in tokens]),
        ("tokenizer.ggml.merges", gguf.STRING, [a + " " + b for a, b in merges]),
        ("tokenizer.ggml.bos_token_id", gguf.UINT32, special[r.BEGIN]),
        ("tokenizer.ggml.eos_token_id", gguf.UINT32, special[r.END]),
        ("tokenizer.ggml.eot_token_id", gguf.UINT32, special[r.END]),
        ("tokenizer.ggml.padding_token_id", gguf.UINT32, special[r.END]),
        ("tokenizer.ggml.add_bos_token", gguf.BOOL, True),
        ("tokenizer.ggml.add_eos_token", gguf.BOOL, False),
        ("tokenizer.chat_template", gguf.STRING, r.CHAT_TEMPLATE),
    ]
    kv = r.KV_HEADS * r.HEAD_DIM
    tensors = [("token_embd.weight", model.embedding, gguf.F16),
               ("output_norm.weight", model.norms[2 * r.LAYERS], gguf.F32)]
    for layer in range(r.LAYERS):
        q, k, v = model.qkv[layer].split((r.DIM, kv, kv))
        gate, up = model.up[layer].split(r.FFN)
        p = "blk.%d." % layer
        tensors += [(p + "attn_norm.weight", model.norms[2 * layer], gguf.F32),
                    (p + "attn_q.weight", q, gguf.F16), (p + "attn_k.weight", k, gguf.F16),
                    (p + "attn_v.weight", v, gguf.F16), (p + "attn_output.weight", model.out[layer], gguf.F16),
                    (p + "ffn_norm.weight", model.norms[2 * layer + 1], gguf.F32),
                    (p + "ffn_gate.weight", gate, gguf.F16), (p + "ffn_up.weight", up, gguf.F16),
                    (p + "ffn_down.weight", model.down[layer], gguf.F16)]
    temporary = path + ".part"
    gguf.write(temporary, metadata, [(name, t.detach().numpy(), kind) for name, t, kind in tensors])
    os.replace(temporary, path)


def has_bf16():
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as f:
            return "avx512_bf16" in f.read()
    except OSError:
        return False


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--work", default=os.path.join(HERE, "..", "..", "build", "house"))
    parser.add_argument("--out", default=os.path.join(HERE, "house.gguf"))
    parser.add_argument("--precision", choices=("auto", "bf16", "f32"), default="auto")
    parser.add_argument("--steps", type=int, default=0, help="stop after this step (the schedule stays)")
    parser.add_argument("--save-every", type=int, default=250)
    parser.add_argument("--export-only", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(r.MODEL_SEED)
    half = args.precision == "bf16" or args.precision == "auto" and has_bf16()
    os.makedirs(args.work, exist_ok=True)

    texts = corpus.Corpus()
    tokenizer = bpe.Tokenizer.learn(
        (t for d in texts.documents(r.TOKENIZER_SEED, r.TOKENIZER_DOCUMENTS) for t in document_texts(d)),
        r.VOCABULARY, r.SPECIAL_TOKENS)
    model = House()
    optimiser = torch.optim.AdamW(
        [{"params": [p for p in model.parameters() if p.ndim == 2], "weight_decay": r.WEIGHT_DECAY},
         {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0}],
        lr=0.0, betas=r.BETAS, eps=1e-8)
    checkpoint, first = os.path.join(args.work, "checkpoint.pt"), 0
    if os.path.exists(checkpoint):
        state = torch.load(checkpoint)
        if state["tokens"] != tokenizer.tokens:
            sys.exit("the checkpoint has another tokenizer; remove " + checkpoint)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        for group in optimiser.param_groups:
            group["betas"] = r.BETAS
        first = state["step"]
    if args.export_only:
        export(model, tokenizer, args.out)
        print("wrote %s from step %d" % (args.out, first))
        return

    pad = tokenizer.special[r.END]
    batches, rates = training_batches(texts, tokenizer)
    held = [encode_document(d, tokenizer) for d in texts.documents(r.VALIDATION_SEED, r.VALIDATION_DOCUMENTS)]
    held = [tensors_of(b, pad) for b in make_batches(held, random.Random(r.VALIDATION_SEED), 2048)]
    print("%d parameters, %d tokens in %d steps, %s, %d threads, from step %d"
          % (sum(p.numel() for p in model.parameters()), sum(len(i) for b in batches for i, _ in b), len(batches),
             "bf16" if half else "f32", args.threads, first), flush=True)

    def validate():
        with torch.no_grad():
            return sum(model.loss(i, l, half).item() for i, l in held) / len(held)

    def save(step):
        torch.save({"model": model.state_dict(), "optimiser": optimiser.state_dict(), "step": step,
                    "tokens": tokenizer.tokens}, checkpoint + ".part")
        os.replace(checkpoint + ".part", checkpoint)

    log_path = os.path.join(args.work, "log.csv")
    with open(log_path, "a", newline="", encoding="utf-8") as log_file:
        log = csv.writer(log_file)
        if first == 0:
            log.writerow(["step", "tokens", "train_loss", "validation_loss", "rate", "tokens_per_second"])
        start, seen, running, last = time.time(), 0, [], args.steps or len(batches)
        tokens = sum(len(i) for b in batches[:first] for i, _ in b)
        for step in range(first, min(last, len(batches))):
            for group in optimiser.param_groups:
                group["lr"] = rates[step]
            ids, learn = tensors_of(batches[step], pad)
            optimiser.zero_grad(set_to_none=True)
            loss = model.loss(ids, learn, half)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), r.CLIP)
            optimiser.step()
            running.append(loss.item())
            count = sum(len(i) for i, _ in batches[step])
            tokens, seen = tokens + count, seen + count
            if (step + 1) % 50 == 0 or step + 1 == len(batches):
                validation = "%.4f" % validate() if (step + 1) % 250 == 0 or step + 1 == len(batches) else ""
                row = [step + 1, tokens, "%.4f" % (sum(running) / len(running)), validation,
                       "%.2e" % rates[step], round(seen / (time.time() - start))]
                log.writerow(row)
                log_file.flush()
                print(*row, flush=True)
                running = []
            if (step + 1) % args.save_every == 0 or step + 1 == len(batches):
                save(step + 1)
    export(model, tokenizer, args.out)
    print("wrote", args.out)


if __name__ == "__main__":
    main()
