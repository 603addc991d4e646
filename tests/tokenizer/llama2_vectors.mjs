// Compares our tokens with those of llama-tokenizer-js for the vocabulary of Llama 2, which the
// package carries: it is written to a GGUF file in FOLDER and read from there. The package has the
// merges in order but no scores; Llama's score is minus the place behind the first merged token, and
// -1e9 for runs of spaces, whose merges all come last.
//
//   node llama2_vectors.mjs COMPARING_PROGRAM FOLDER
//
// One thing is corrected in the copy that gives the expected tokens: among equal merges the leftmost
// goes first by adding position / text length to the rank, but the position counts byte tokens and
// the length UTF-16 units, so the sum can pass the next rank.
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';

import { compareAndExit, fail, importCorrected, packageFile } from './compare.mjs';
import { float32s, int32s, string, strings, writeGguf } from './gguf.mjs';
import { makeTexts } from './texts.mjs';

const [program, folder] = process.argv.slice(2);
if (!folder) fail('usage: llama2_vectors.mjs COMPARING_PROGRAM FOLDER');
mkdirSync(folder, { recursive: true });

const file = packageFile('llama-tokenizer-js', 'llama-tokenizer.js');
const corrected = (await importCorrected(file, folder, [
  ['leftNode.origPos / prompt.length', 'leftNode.origPos / (8 * prompt.length)'],
])).default;

const tokens = corrected.vocabById;
const kFirstMerged = 259;
const score = (token, id) =>
  id < kFirstMerged ? 0 : /^\u2581\u2581+$/.test(token) ? -1e9 : kFirstMerged + 1 - id;
const kTypes = { unknown: 2, control: 3, normal: 1, byte: 6 };
const model = join(folder, 'llama2.gguf');
writeGguf(model, {
  'general.architecture': string('llama'),
  'tokenizer.ggml.model': string('llama'),
  'tokenizer.ggml.tokens': strings(tokens),
  'tokenizer.ggml.scores': float32s(tokens.map(score)),
  'tokenizer.ggml.token_type': int32s(tokens.map((_, id) =>
    id === 0 ? kTypes.unknown : id < 3 ? kTypes.control : id < kFirstMerged ? kTypes.byte : kTypes.normal)),
});

const texts = makeTexts(19700101, 12000);
texts.push('a'.repeat(3000), ' '.repeat(3000), '1'.repeat(3000), '\u4e2d'.repeat(1000), '='.repeat(3000));
compareAndExit(program, model, folder,
  texts.map((text) => ({ text, special: false, ids: corrected.encode(text, false, true) })));
