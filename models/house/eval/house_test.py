#!/usr/bin/python3
"""Checks house.gguf with NumPy alone: its shape, tokenizer and answers. Run: eval/house_test.py"""
import os
import random
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, ".."), os.path.join(HERE, "..", "corpus")]

import numpy as np  # noqa: E402

import bpe  # noqa: E402
import corpus  # noqa: E402
import evaluate  # noqa: E402
import recipe  # noqa: E402
import reference  # noqa: E402

PATH = os.path.join(HERE, "..", "house.gguf")


class HouseTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.gguf = reference.Gguf(PATH)
        cls.file_model = evaluate.FileModel(PATH)

    def test_file_is_small_and_complete(self):
        self.assertLessEqual(os.path.getsize(PATH), 8 << 20)
        self.assertEqual(len(self.gguf.tensors), 2 + 9 * recipe.LAYERS)
        for name, tensor in self.gguf.tensors.items():
            self.assertTrue(np.isfinite(tensor.astype(np.float32)).all(), name)
            self.assertEqual(tensor.shape[-1] % 256, 0, name)

    def test_special_tokens_are_control_tokens(self):
        m = self.gguf.metadata
        kinds = dict(zip(m["tokenizer.ggml.tokens"], m["tokenizer.ggml.token_type"]))
        self.assertEqual(len(kinds), recipe.VOCABULARY)
        self.assertEqual([t for t, kind in kinds.items() if kind == 3], list(recipe.SPECIAL_TOKENS))
        self.assertEqual(m["tokenizer.ggml.tokens"][m["tokenizer.ggml.bos_token_id"]], recipe.BEGIN)
        self.assertEqual(m["tokenizer.ggml.tokens"][m["tokenizer.ggml.eos_token_id"]], recipe.END)

    def test_every_token_encodes_to_itself(self):
        tokenizer = self.file_model.tokenizer
        for token, index in tokenizer.ids.items():
            if token not in tokenizer.special:
                self.assertEqual(tokenizer._word(token), [index])

    def test_text_survives_the_tokenizer(self):
        rng = random.Random(5)
        texts = ["", " ", "\n\n  x", "Größe 16,960 日本語 'll <|end|> 👍"]
        texts += ["".join(chr(rng.choice((rng.randrange(32, 127), rng.randrange(160, 0xD7FF)))) for _ in range(40))
                  for _ in range(200)]
        tokenizer = self.file_model.tokenizer
        for text in texts:
            ids = tokenizer.encode(text)
            self.assertEqual(tokenizer.decode(ids), text)
            self.assertFalse(set(ids) & set(tokenizer.special.values()))

    def test_feeding_in_pieces_gives_the_same_logits(self):
        ids = self.file_model.prompt([("user", "What is Reticle?")])
        whole, pieces = reference.Llama(self.gguf), reference.Llama(self.gguf)
        expected = whole.feed(ids)
        pieces.feed(ids[:3])
        for token in ids[3:]:
            actual = pieces.feed([token])
        np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-9)

    def test_answers_are_sentences_of_the_corpus_and_end(self):
        known = {a for i in corpus.Corpus().intents for a in i.answers}
        for question in ("What is Reticle?", "hello", "How fast is the HC1?", "how do i start the server"):
            answer, ended = self.file_model.answer([("user", question)])
            self.assertTrue(ended, question)
            self.assertIn(answer, known)

    def test_follow_up_uses_the_subject_of_the_chat(self):
        first = [("user", "What is the HC1?")]
        answer, _ = self.file_model.answer(first)
        answer, ended = self.file_model.answer(first + [("assistant", answer), ("user", "How much power does it use?")])
        self.assertTrue(ended)
        self.assertRegex(answer, "200 watts")

    def test_prose_goes_on_as_prose(self):
        ids = [self.file_model.begin] + self.file_model.tokenizer.encode("The KV cache holds")
        text, ended = self.file_model.complete(ids)
        self.assertRegex(text, "keys and values")
        self.assertTrue(text.endswith(".") or not ended)


if __name__ == "__main__":
    unittest.main()
