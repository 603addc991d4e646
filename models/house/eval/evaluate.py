#!/usr/bin/python3
"""Scores the house model on the 100 held-out questions of questions.txt with greedy answers.

  evaluate.py [--model ../house.gguf]          plain NumPy forward pass of the GGUF file
  evaluate.py --url http://127.0.0.1:8080      any server with the OpenAI chat API
  options: --questions fresh.txt (the second set), --json FILE (all answers), --show (print each answer), --need N (exit 1 below N)
"""
import argparse
import json
import os
import re
import sys
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..")]
MAX_TOKENS = 128
DECLINES = r"do not know|outside of what"


class Question:
    def __init__(self, line):
        self.text, _, checks = line.partition(" => ")
        must, _, must_not = checks.partition(" !! ")
        self.must = [m.strip() for m in must.split(" && ")]
        self.must_not = [must_not.strip()] if must_not else []
        if not any("not know" in m for m in self.must):
            self.must_not.append(DECLINES)

    def passes(self, answer, ended):
        return (ended and all(re.search(p, answer, re.I) for p in self.must)
                and not any(re.search(p, answer, re.I) for p in self.must_not))


def read_questions(name="questions.txt"):
    with open(os.path.join(HERE, name), encoding="utf-8") as f:
        return [Question(line.rstrip("\n")) for line in f if line.strip() and not line.startswith("#")]


class FileModel:
    """Answers from the GGUF file through reference.py."""

    def __init__(self, path):
        import numpy as np
        import bpe
        import reference
        gguf = reference.Gguf(path)
        m = gguf.metadata
        tokens = m["tokenizer.ggml.tokens"]
        special = [t for t, kind in zip(tokens, m["tokenizer.ggml.token_type"]) if kind == 3]
        merges = [tuple(pair.split(" ")) for pair in m["tokenizer.ggml.merges"]]
        self.tokenizer = bpe.Tokenizer(tokens, merges, special)
        self.begin, self.end = m["tokenizer.ggml.bos_token_id"], m["tokenizer.ggml.eos_token_id"]
        self.model, self.argmax = reference.Llama(gguf, np.float32), np.argmax

    def prompt(self, messages):
        ids = [self.begin]
        for role, text in messages:
            ids += [self.tokenizer.special["<|%s|>" % role]] + self.tokenizer.encode(text.strip()) + [self.end]
        return ids + [self.tokenizer.special["<|assistant|>"]]

    def complete(self, ids):
        self.model.reset()
        out = []
        logits = self.model.feed(ids)
        while len(out) < MAX_TOKENS:
            token = int(self.argmax(logits))
            if token == self.end:
                return self.tokenizer.decode(out), True
            out.append(token)
            logits = self.model.feed([token])
        return self.tokenizer.decode(out), False

    def answer(self, messages):
        return self.complete(self.prompt(messages))


class ServerModel:
    """Answers from an OpenAI-compatible server."""

    def __init__(self, url, model):
        self.url, self.model = url.rstrip("/") + "/v1/chat/completions", model

    def answer(self, messages):
        body = {"model": self.model, "temperature": 0, "max_tokens": MAX_TOKENS,
                "messages": [{"role": role, "content": text} for role, text in messages]}
        request = urllib.request.Request(self.url, json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as reply:
            choice = json.load(reply)["choices"][0]
        return choice["message"]["content"], choice["finish_reason"] == "stop"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=os.path.join(HERE, "..", "house.gguf"))
    parser.add_argument("--url")
    parser.add_argument("--model-id", default="house")
    parser.add_argument("--questions", default="questions.txt")
    parser.add_argument("--json")
    parser.add_argument("--show", action="store_true")
    parser.add_argument("--need", type=int, default=0)
    args = parser.parse_args()
    model = ServerModel(args.url, args.model_id) if args.url else FileModel(args.model)
    results = []
    for question in read_questions(args.questions):
        answer, ended = model.answer([("user", question.text)])
        good = question.passes(answer, ended)
        results.append({"question": question.text, "answer": answer, "ended": ended, "passed": good})
        if args.show or not good:
            print("%s  %s\n      %s%s" % ("ok  " if good else "FAIL", question.text, answer, "" if ended else " [cut]"))
    passed, ended = sum(r["passed"] for r in results), sum(r["ended"] for r in results)
    print("%d of %d answered correctly, %d ended by themselves within %d tokens"
          % (passed, len(results), ended, MAX_TOKENS))
    if args.json:
        with open(args.json, "w", encoding="utf-8") as f:
            json.dump({"passed": passed, "ended": ended, "results": results}, f, indent=1)
            f.write("\n")
    sys.exit(0 if passed >= args.need else 1)


if __name__ == "__main__":
    main()
