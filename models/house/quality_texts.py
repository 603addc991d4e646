#!/usr/bin/python3
"""Writes the texts that `reticle tapeout` uses for the house model: quality/calibration.txt and quality/held_out.txt.

Documents come from the corpus with seeds that neither training nor its validation uses. Lines that hold only "===" part
documents; lines that hold only ">>>" part what is context (first) from what counts, alternately.
"""
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "corpus")]

import corpus  # noqa: E402

TEXTS = (("calibration.txt", 101, 130), ("held_out.txt", 102, 90))


def render(document):
    if document[0] == "prose":
        return "<|begin|>\n>>>\n%s<|end|>\n" % document[1]
    _, system, turns = document
    text = "<|begin|>"
    if system:
        text += "<|system|>%s<|end|>" % system
    for question, answer, _ in turns:
        text += "<|user|>%s<|end|><|assistant|>\n>>>\n%s<|end|>\n>>>\n" % (question, answer)
    return text[:-len(">>>\n")]


def main():
    os.makedirs(os.path.join(HERE, "quality"), exist_ok=True)
    for name, seed, count in TEXTS:
        with open(os.path.join(HERE, "quality", name), "w", encoding="utf-8") as out:
            out.write("===\n".join(render(d) for d in corpus.Corpus().documents(seed, count, noise=0.3, wide=1.0)))


if __name__ == "__main__":
    main()
