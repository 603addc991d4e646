#!/usr/bin/python3
"""Asserts that no held-out question, normalised, occurs in the documents that train.py reads."""
import itertools
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "corpus"), os.path.join(HERE, "..")]

import corpus  # noqa: E402
import evaluate  # noqa: E402
import recipe  # noqa: E402


def main():
    questions = evaluate.read_questions() + evaluate.read_questions("fresh.txt")
    held_out = {corpus.normalise(q.text): q.text for q in questions}
    if len(held_out) != 150:
        sys.exit("expected 150 different questions, found %d" % len(held_out))
    texts, seen, leaked = corpus.Corpus(), set(), set()
    streams = [texts.documents(recipe.TOKENIZER_SEED, recipe.TOKENIZER_DOCUMENTS)]
    streams += [texts.documents(name, recipe.WINDOW, **mix) for name, mix, *_ in recipe.windows()]
    for document in itertools.chain(*streams):
        if document[0] == "chat":
            for question, *_ in document[2]:
                key = corpus.normalise(question)
                seen.add(key)
                if key in held_out:
                    leaked.add(key)
    print("the documents hold %d different questions; %d of the 150 held-out questions are among them"
          % (len(seen), len(leaked)))
    for key in sorted(leaked):
        print("  in the corpus:", held_out[key])
    sys.exit(1 if leaked else 0)


if __name__ == "__main__":
    main()
