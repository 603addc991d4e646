#!/usr/bin/python3
"""Trains the house model from the corpus of this folder and writes it as a GGUF file.

  train.py [--threads N] [--work DIR] [--out house.gguf]     continues from DIR/checkpoint.pt when it exists
  train.py --export-only                                     writes the GGUF file from the checkpoint

The rotary embedding turns the pairs (2i, 2i+1) of a head, which is the layout that GGUF expects of the llama
architecture, so no weight is permuted on export.
"""
import argparse
import collections
import csv
import ctypes
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


def normal(x):
    """Returns the rows of x at a mean square of one, and the factor that took them there."""
    factor = (x.norm(dim=-1, keepdim=True).square_().mul_(1 / r.DIM).add_(r.RMS_EPS)).rsqrt_()
    return x * factor, factor


def normal_backward(grad, n, factor, weight):
    """Gradients of x and of the weight, for normal(x) * weight."""
    product = grad * n
    along = (product @ weight).mul_(1 / r.DIM)[:, None]
    return (grad * weight).addcmul_(n, along, value=-1.0).mul_(factor), product.sum(0)


class Linear(torch.autograd.Function):
    """x @ w.T with operands of type `kind`; master weights, gradients and the result stay float32."""

    @staticmethod
    def forward(ctx, x, w, kind):
        xk, wk = x.to(kind), w.to(kind)
        ctx.save_for_backward(xk, wk)
        ctx.types = x.dtype, w.dtype
        return (xk @ wk.t()).to(w.dtype)

    @staticmethod
    def backward(ctx, grad):
        xk, wk = ctx.saved_tensors
        grad = grad.to(wk.dtype)
        return (grad @ wk).to(ctx.types[0]), (grad.t() @ xk).to(ctx.types[1]), None


class Attention(torch.autograd.Function):
    """Norm, projections, rotation and causal attention of one layer, without the projection back: batch*length x DIM."""

    @staticmethod
    def forward(ctx, x, weight, w, turns, mask, batch, kind):
        length, kv, group = len(mask), r.KV_HEADS, r.HEADS // r.KV_HEADS
        n, factor = normal(x)
        h, wk = (n * weight).to(kind), w.to(kind)
        qkv = (h @ wk.t()).view(batch, length, -1, r.HEAD_DIM)
        qk = rope(qkv[:, :, :r.HEADS + kv].to(x.dtype), turns).to(kind)
        q = qk[:, :, :r.HEADS].view(batch, length, kv, group, r.HEAD_DIM)
        q = q.permute(0, 2, 3, 1, 4).reshape(batch * kv, group * length, r.HEAD_DIM)
        k = qk[:, :, r.HEADS:].transpose(1, 2).reshape(batch * kv, length, r.HEAD_DIM)
        v = qkv[:, :, r.HEADS + kv:].transpose(1, 2).reshape(batch * kv, length, r.HEAD_DIM)
        scores = torch.bmm(q, k.transpose(1, 2)).to(x.dtype).view(-1, group, length, length)
        p = scores.mul_(r.HEAD_DIM ** -0.5).add_(mask).softmax(-1).view(batch * kv, group * length, length)
        pk = p.to(kind)
        mixed = torch.bmm(pk, v).view(batch, r.HEADS, length, r.HEAD_DIM).transpose(1, 2)
        ctx.save_for_backward(n, factor, weight, h, wk, turns, q, k, v, p, pk)
        ctx.shape = batch, length, kv, group, kind
        return mixed.reshape(batch * length, -1)

    @staticmethod
    def backward(ctx, grad):
        n, factor, weight, h, wk, turns, q, k, v, p, pk = ctx.saved_tensors
        batch, length, kv, group, kind = ctx.shape
        grad = grad.view(batch, length, r.HEADS, r.HEAD_DIM).transpose(1, 2)
        grad = grad.reshape(batch * kv, group * length, r.HEAD_DIM).to(kind)
        dv = torch.bmm(pk.transpose(1, 2), grad)
        dp = torch.bmm(grad, v.transpose(1, 2)).to(p.dtype)
        ds = torch._softmax_backward_data(dp, p, -1, p.dtype).mul_(r.HEAD_DIM ** -0.5).to(kind)
        dq = torch.bmm(ds, k).view(batch, r.HEADS, length, r.HEAD_DIM).transpose(1, 2)
        dk = torch.bmm(ds.transpose(1, 2), q).view(batch, kv, length, r.HEAD_DIM).transpose(1, 2)
        dqkv = torch.empty(batch, length, r.HEADS + 2 * kv, r.HEAD_DIM, dtype=kind)
        back = turns.conj()
        dqkv[:, :, :r.HEADS] = rope(dq.to(p.dtype), back)
        dqkv[:, :, r.HEADS:r.HEADS + kv] = rope(dk.to(p.dtype), back)
        dqkv[:, :, r.HEADS + kv:] = dv.view(batch, kv, length, r.HEAD_DIM).transpose(1, 2)
        dqkv = dqkv.view(batch * length, -1)
        dw = (dqkv.t() @ h).to(n.dtype)
        dx, dweight = normal_backward((dqkv @ wk).to(n.dtype), n, factor, weight)
        return dx, dweight, dw, None, None, None, None


class FeedForward(torch.autograd.Function):
    """x and the gated feed-forward of its norm."""

    @staticmethod
    def forward(ctx, x, weight, up, down, kind):
        n, factor = normal(x)
        h, upk, downk = (n * weight).to(kind), up.to(kind), down.to(kind)
        both = (h @ upk.t()).to(x.dtype)
        gate, value = both[:, :r.FFN], both[:, r.FFN:]
        active = F.silu(gate)
        m = (active * value).to(kind)
        ctx.save_for_backward(n, factor, weight, h, upk, downk, both, active, m)
        return (m @ downk.t()).to(x.dtype).add_(x)

    @staticmethod
    def backward(ctx, grad):
        n, factor, weight, h, upk, downk, both, active, m = ctx.saved_tensors
        gk = grad.to(upk.dtype)
        dm = (gk @ downk).to(n.dtype)
        dboth = torch.empty_like(both, dtype=upk.dtype)
        dboth[:, r.FFN:] = dm * active
        dboth[:, :r.FFN] = torch.ops.aten.silu_backward(dm.mul_(both[:, r.FFN:]), both[:, :r.FFN])
        dx, dweight = normal_backward((dboth @ upk).to(n.dtype), n, factor, weight)
        return dx.add_(grad), dweight, (dboth.t() @ h).to(n.dtype), (gk.t() @ m).to(n.dtype), None


def rope_table():
    frequency = r.ROPE_THETA ** (-torch.arange(0, r.HEAD_DIM, 2, dtype=torch.float64) / r.HEAD_DIM)
    angle = torch.arange(r.CONTEXT, dtype=torch.float64)[:, None] * frequency
    return torch.polar(torch.ones_like(angle), angle).to(torch.complex64)[:, None, :]


def rope(x, turns):
    """Turns the pair (2i, 2i+1), taken as one complex number, by the angle of its position."""
    pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * turns).flatten(-2)


class House(torch.nn.Module):
    """Parameters of one kind are fused (q with k and v, gate with up) so that each layer is four products. The products
    take operands of type `kind`, bfloat16 where the processor has it. `head` names the intent of a question from its last
    token, and `early` does so after each layer but the last; they take part in training only."""

    def __init__(self, intents):
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
        self.head = matrix(intents, r.DIM)
        self.early = torch.nn.ParameterList([matrix(intents, r.DIM) for _ in range(r.LAYERS - 1)])
        self.turns = rope_table()

    def forward(self, ids, rows=None, kind=torch.float32, states=None):
        """ids: batch x length, each row from position 0. Returns what the output table is applied to, for all positions of
        the flattened batch or only those of `rows`; appends what comes out of each layer but the last to `states`."""
        batch, length = ids.shape
        mask = torch.full((length, length), -1e9).triu(1)
        x = F.embedding(ids.flatten(), self.embedding)
        for layer in range(r.LAYERS):
            mixed = Attention.apply(x, self.norms[2 * layer], self.qkv[layer], self.turns[:length], mask, batch, kind)
            if layer == r.LAYERS - 1 and rows is not None:
                x, mixed = x.index_select(0, rows), mixed.index_select(0, rows)
            x = x + Linear.apply(mixed, self.out[layer], kind)
            x = FeedForward.apply(x, self.norms[2 * layer + 1], self.up[layer], self.down[layer], kind)
            if states is not None and layer < r.LAYERS - 1:
                states.append(x)
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + r.RMS_EPS) * self.norms[2 * r.LAYERS]

    def losses(self, batch, kind):
        """Mean cross entropies of the next tokens that count, of the intents of the questions, and of the same as named after
        each earlier layer."""
        ids, rows, targets, asked, intents = batch
        states = []
        hidden = self(ids, rows, kind, states)
        tokens = F.cross_entropy(Linear.apply(hidden, self.embedding, kind), targets)
        named = F.cross_entropy(Linear.apply(hidden.index_select(0, asked), self.head, kind), intents)
        places, early = rows.index_select(0, asked), 0
        for x, head in zip(states, self.early):
            x = x.index_select(0, places)
            x = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + r.RMS_EPS)
            early = early + F.cross_entropy(Linear.apply(x, head, kind), intents) / len(states)
        return tokens, named, early


def document_texts(document):
    if document[0] == "prose":
        return [document[1]]
    return [document[1]] + [text for turn in document[2] for text in turn[:2]]


def encode_document(document, tokenizer, cut=0):
    """Returns token ids, for each whether to learn it, and the intents of the questions by the place of their last token:
    answers and prose are learnt, questions only read. With `cut`, a chat of one turn ends after so many tokens of its answer."""
    special = tokenizer.special
    ids, learn, asked = [special[r.BEGIN]], [False], {}

    def add(tokens, learnt):
        ids.extend(tokens)
        learn.extend([learnt] * len(tokens))
    if document[0] == "prose":
        add(tokenizer.encode(document[1]) + [special[r.END]], True)
        return ids[:r.CONTEXT], learn[:r.CONTEXT], asked
    _, system, turns = document
    if system:
        add([special[r.SYSTEM]] + tokenizer.encode(system) + [special[r.END]], False)
    for question, answer, intent in turns:
        add([special[r.USER]] + tokenizer.encode(question) + [special[r.END], special[r.ASSISTANT]], False)
        if intent is not None and len(ids) < r.CONTEXT:
            asked[len(ids) - 1] = intent
        tokens = tokenizer.encode(answer) + [special[r.END]]
        add(tokens[:cut] if cut and len(turns) == 1 else tokens, True)
    return ids[:r.CONTEXT], learn[:r.CONTEXT], asked


def make_batches(documents, rng, batch_tokens):
    """Groups documents of like length, so that padding is small, and shuffles the groups."""
    documents = sorted(documents, key=lambda d: -len(d[0]))
    groups, group = [], []
    for d in documents:
        if group and len(group[0][0]) * (len(group) + 1) > batch_tokens:
            groups.append(group)
            group = []
        group.append(d)
    groups.append(group)
    rng.shuffle(groups)
    return groups


def window_batches(texts, tokenizer, name, mix, cut_share, cut):
    """The batches of one window of documents: a pure function of the window's name."""
    rng = random.Random(name + " order")
    documents = [encode_document(d, tokenizer, cut if rng.random() < cut_share else 0)
                 for d in texts.documents(name, r.WINDOW, **mix)]
    return make_batches(documents, rng, r.BATCH_TOKENS)


def rate(window, step):
    """The rate at a point in time: windows done, with the share of the one in progress, and steps done."""
    return float(np.interp(window, *zip(*r.RATES))) * min(1, (step + 1) / r.WARMUP_STEPS)


def tensors_of(batch, pad):
    """Inputs, flat places whose next token counts, those tokens, which of the places end a question, and its intents."""
    length = max(len(ids) for ids, *_ in batch)
    ids = np.full((len(batch), length), pad, np.int64)
    learn = np.zeros((len(batch), length), bool)
    intents = np.full((len(batch), length), -1, np.int64)
    for row, (i, l, asked) in enumerate(batch):
        ids[row, :len(i)] = i
        learn[row, :len(l)] = l
        for place, intent in asked.items():
            intents[row, place] = intent
    rows = learn[:, 1:].ravel().nonzero()[0]
    intents = intents[:, :-1].ravel()[rows]
    asked = (intents >= 0).nonzero()[0]
    parts = ids[:, :-1], rows, ids[:, 1:].ravel()[rows], asked, intents[asked]
    return [torch.from_numpy(np.ascontiguousarray(p)) for p in parts]


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


def keep_memory():
    """Has glibc keep freed memory: the same large tensors come again at every step, and fresh pages cost more than sums."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    trim_threshold, mmap_threshold = -1, -3
    mallopt(trim_threshold, 2 ** 31 - 1)
    mallopt(mmap_threshold, 2 ** 30)


def has_bf16():
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as f:
            return "avx512_bf16" in f.read()
    except OSError:
        return False


class Development:
    """How many questions of held-out templates are understood: an honest stand-in for questions never seen."""

    def __init__(self, texts, tokenizer):
        self.special, rng = tokenizer.special, random.Random(r.DEVELOPMENT_SEED)
        self.prompts, self.intents, self.files, self.answers = [], [], [], []
        for index, intent in enumerate(texts.intents + [texts.unknown]):
            answers = {tuple(tokenizer.encode(a)[:r.DEVELOPMENT_TOKENS]) for a in intent.answers}
            for origin, template in intent.held:
                question = texts.develop(template, rng)
                self.prompts.append([self.special[r.BEGIN], self.special[r.USER]] + tokenizer.encode(question) +
                                    [self.special[r.END], self.special[r.ASSISTANT]])
                self.intents.append(index)
                self.files.append(origin)
                self.answers.append(answers)

    @torch.no_grad()
    def measure(self, model, kind):
        """Returns the shares of questions that the intent head and the greedy answer understand, by file."""
        groups = collections.defaultdict(list)
        for k, prompt in enumerate(self.prompts):
            groups[len(prompt)].append(k)
        named, told = np.zeros(len(self.prompts)), np.zeros(len(self.prompts))
        for group in groups.values():
            ids = torch.tensor([self.prompts[k] for k in group])
            start = ids.shape[1]
            for step in range(r.DEVELOPMENT_TOKENS):
                length = ids.shape[1]
                hidden = model(ids, torch.arange(len(group)) * length + length - 1, kind)
                if step == 0:
                    guess = Linear.apply(hidden, model.head, kind).argmax(-1)
                    named[group] = [int(g == self.intents[k]) for g, k in zip(guess.tolist(), group)]
                token = Linear.apply(hidden, model.embedding, kind).argmax(-1)
                ids = torch.cat((ids, token[:, None]), 1)
            told[group] = [tuple(row[start:]) in self.answers[k] for row, k in zip(ids.tolist(), group)]
        out = {"all": (named.mean(), told.mean(), len(named))}
        for name in sorted(set(self.files)):
            chosen = np.array([f == name for f in self.files])
            out[name] = named[chosen].mean(), told[chosen].mean(), int(chosen.sum())
        return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--work", default=os.path.join(HERE, "..", "..", "build", "house"))
    parser.add_argument("--out", default=os.path.join(HERE, "house.gguf"))
    parser.add_argument("--precision", choices=("auto", "bf16", "f32"), default="auto")
    parser.add_argument("--save-every", type=int, default=5, help="windows between two checkpoints")
    parser.add_argument("--export-only", action="store_true")
    args = parser.parse_args()
    keep_memory()
    torch.set_num_threads(args.threads)
    torch.manual_seed(r.MODEL_SEED)
    half = args.precision == "bf16" or args.precision == "auto" and has_bf16()
    kind = torch.bfloat16 if half else torch.float32
    os.makedirs(args.work, exist_ok=True)

    texts = corpus.Corpus()
    tokenizer = bpe.Tokenizer.learn(
        (t for d in texts.documents(r.TOKENIZER_SEED, r.TOKENIZER_DOCUMENTS) for t in document_texts(d)),
        r.VOCABULARY, r.SPECIAL_TOKENS)
    model = House(len(texts.intents) + 1)
    optimiser = torch.optim.AdamW(
        [{"params": [p for p in model.parameters() if p.ndim == 2], "weight_decay": r.WEIGHT_DECAY},
         {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0}],
        lr=0.0, betas=r.BETAS, eps=1e-8, foreach=True)
    checkpoint = os.path.join(args.work, "checkpoint.pt")
    first, step, tokens = 0, 0, 0
    if os.path.exists(checkpoint):
        state = torch.load(checkpoint)
        if state["tokens"] != tokenizer.tokens:
            sys.exit("the checkpoint has another tokenizer; remove " + checkpoint)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        first, step, tokens = state["window"], state["step"], state["seen"]
    if args.export_only:
        export(model, tokenizer, args.out)
        print("wrote %s from window %d" % (args.out, first))
        return

    pad = tokenizer.special[r.END]
    windows = list(r.windows())
    held = [encode_document(d, tokenizer) for d in texts.documents(r.VALIDATION_SEED, r.VALIDATION_DOCUMENTS)]
    held = [tensors_of(b, pad) for b in make_batches(held, random.Random(r.VALIDATION_SEED), r.BATCH_TOKENS)]
    development = Development(texts, tokenizer)
    print("%d parameters, %d windows of %d documents, %s, %d threads, from window %d"
          % (sum(p.numel() for p in model.parameters()) - r.LAYERS * model.head.numel(), len(windows), r.WINDOW,
             "bf16" if half else "f32", args.threads, first), flush=True)

    def validate():
        with torch.no_grad():
            return np.mean([[x.item() for x in model.losses(batch, kind)[:2]] for batch in held], 0)

    def save(window):
        torch.save({"model": model.state_dict(), "optimiser": optimiser.state_dict(), "window": window, "step": step,
                    "seen": tokens, "tokens": tokenizer.tokens}, checkpoint + ".part")
        os.replace(checkpoint + ".part", checkpoint)

    with open(os.path.join(args.work, "log.csv"), "a", newline="", encoding="utf-8") as log_file:
        log = csv.writer(log_file)
        if first == 0:
            log.writerow(["window", "step", "tokens", "answer_loss", "intent_loss", "validation_answer_loss",
                          "validation_intent_loss", "rate", "tokens_per_second"])
        for window in range(first, len(windows)):
            *documents, early_share = windows[window]
            batches = window_batches(texts, tokenizer, *documents)
            start, seen, running = time.time(), 0, []
            for k, batch in enumerate(batches):
                now = rate(window + k / len(batches), step)
                for group in optimiser.param_groups:
                    group["lr"] = now
                optimiser.zero_grad(set_to_none=True)
                answer_loss, intent_loss, early_loss = model.losses(tensors_of(batch, pad), kind)
                (answer_loss + intent_loss + early_share * early_loss if early_share else answer_loss + intent_loss).backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), r.CLIP)
                optimiser.step()
                running.append((answer_loss.item(), intent_loss.item()))
                seen += sum(len(i) for i, *_ in batch)
                step += 1
            tokens += seen
            speed = seen / (time.time() - start)
            last = window + 1 == len(windows)
            checked = ["%.4f" % v for v in validate()] if (window + 1) % 5 == 0 or last else ["", ""]
            row = [window + 1, step, tokens, *("%.4f" % v for v in np.mean(running, 0)), *checked, "%.2e" % now, round(speed)]
            log.writerow(row)
            log_file.flush()
            print(*row, flush=True)
            if (window + 1) % args.save_every == 0 or last:
                save(window + 1)
                print({name: "%.3f %.3f of %d" % share for name, share in development.measure(model, kind).items()},
                      flush=True)
    export(model, tokenizer, args.out)
    print("wrote", args.out)


if __name__ == "__main__":
    main()
