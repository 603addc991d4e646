#!/usr/bin/python3
"""Asserts that no held-out question, normalised, occurs in the training documents.

Usage: check_heldout.py [--seed N --documents N]; the defaults are those of train.py.
"""
import argparse
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "corpus"), os.path.join(HERE, "..")]

import corpus  # noqa: E402
import evaluate  # noqa: E402
import recipe  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=recipe.CORPUS_SEED)
    parser.add_argument("--documents", type=int, default=recipe.DOCUMENTS)
    args = parser.parse_args()
    held_out = {corpus.normalise(q.text): q.text for q in evaluate.read_questions()}
    if len(held_out) != 100:
        sys.exit("expected 100 different questions, found %d" % len(held_out))
    seen, leaked = set(), set()
    for document in corpus.Corpus().documents(args.seed, args.documents):
        if document[0] == "chat":
            for question, _ in document[2]:
                key = corpus.normalise(question)
                seen.add(key)
                if key in held_out:
                    leaked.add(key)
    print("%d documents hold %d different questions; %d of the 100 held-out questions are among them"
          % (args.documents, len(seen), len(leaked)))
    for key in sorted(leaked):
        print("  in the corpus:", held_out[key])
    sys.exit(1 if leaked else 0)


if __name__ == "__main__":
    main()
