#!/usr/bin/python3
"""Asserts that the trainer's model, written as GGUF, gives the same logits in NumPy. Needs PyTorch."""
import os
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..")]

import numpy as np  # noqa: E402
import torch  # noqa: E402

import bpe  # noqa: E402
import recipe  # noqa: E402
import reference  # noqa: E402
import train  # noqa: E402


def main():
    torch.manual_seed(1)
    model = train.House(1)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_((p + 0.05 * torch.randn_like(p)).half().float())
    tokenizer = bpe.Tokenizer.learn(["some text to have a token or two " * 3] + [chr(k) * 4 for k in range(33, 127)],
                                    256 + 20 + len(recipe.SPECIAL_TOKENS), recipe.SPECIAL_TOKENS)
    ids = list(np.random.default_rng(2).integers(0, recipe.VOCABULARY, 300))
    with torch.no_grad():
        expected = (model(torch.tensor([ids]))[-1] @ model.embedding.t()).numpy()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "random.gguf")
        train.export(model, tokenizer, path)
        actual = reference.Llama(reference.Gguf(path)).feed(ids)
    error = np.linalg.norm(actual - expected) / np.linalg.norm(expected)
    print("relative error of the logits after %d tokens: %.2e" % (len(ids), error))
    sys.exit(0 if error < 1e-4 else 1)


if __name__ == "__main__":
    main()
