// Compares our tokens with those of llama3-tokenizer-js for the vocabulary of Llama 3, which the
// package carries: it is written to a GGUF file in FOLDER and read from there.
//
//   node llama3_vectors.mjs COMPARING_PROGRAM FOLDER
//
// Three things in the package differ from the reference (tiktoken with the expression that Meta
// published) and are corrected in the copy that gives the expected tokens:
// - JavaScript's \s holds U+FEFF and lacks U+0085; the reference's \s is Unicode's White_Space.
// - (?i:'s) is spelled out as 's and 'S; without regard to case U+017F is an s too.
// - Among equal merges the leftmost goes first by adding position / text length to the rank, but the
//   position counts bytes and the length UTF-16 units, so beyond ASCII the sum can pass the next
//   rank.
// Where copy and package differ, the text must hold one of these causes.
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';

import { compareAndExit, fail, importCorrected, packageFile } from './compare.mjs';
import { bool, int32s, string, strings, uint32, writeGguf } from './gguf.mjs';
import { makeTexts } from './texts.mjs';

// Halves of a code point replaced, as String.toWellFormed does in newer releases of Node.
const wellFormed = (text) =>
  text.replace(/[\uD800-\uDBFF](?![\uDC00-\uDFFF])|(?<![\uD800-\uDBFF])[\uDC00-\uDFFF]/g, '\uFFFD');

const [program, folder] = process.argv.slice(2);
if (!folder) fail('usage: llama3_vectors.mjs COMPARING_PROGRAM FOLDER');
mkdirSync(folder, { recursive: true });

const bundle = packageFile('llama3-tokenizer-js', 'bundle/llama3-tokenizer-with-baked-data.js');
const original = (await import(bundle)).default;
const kWhiteSpace =
  '\\\\t-\\\\r \\\\x85\\\\xa0\\\\u1680\\\\u2000-\\\\u200a\\\\u2028\\\\u2029\\\\u202f\\\\u205f\\\\u3000';
const corrected = (await importCorrected(bundle, folder, [
  ['[^\\\\s\\\\p{L}', `[^${kWhiteSpace}\\\\p{L}`],
  ['|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"',
    `|[${kWhiteSpace}]*[\\\\r\\\\n]+|[${kWhiteSpace}]+(?![^${kWhiteSpace}])|[${kWhiteSpace}]+"`],
  ["(?:'([sS]|", "(?:'([sS\\u017f]|"],
  ['leftNode.origPos / prompt.length', 'leftNode.origPos / (8 * prompt.length)'],
])).default;

const tokens = original.vocabById;
const kBase = 128000;
const types = tokens.map((_, id) => (id < kBase ? 1 : 3));
const model = join(folder, 'llama3.gguf');
writeGguf(model, {
  'general.architecture': string('llama'),
  'tokenizer.ggml.model': string('gpt2'),
  'tokenizer.ggml.pre': string('llama-bpe'),
  'tokenizer.ggml.tokens': strings(tokens),
  'tokenizer.ggml.token_type': int32s(types),
  'tokenizer.ggml.merges': strings([...original.merges.keys()]),
  'tokenizer.ggml.bos_token_id': uint32(128000),
  'tokenizer.ggml.eos_token_id': uint32(128009),
  'tokenizer.ggml.add_bos_token': bool(false),
});

const kNoSpecials = /(?!)/g;
const kKnownCauses = /[^\0-\x7f]/;
const cases = [];
let differing = 0;
const texts = makeTexts(20261121, 10000);
for (const extra of ['\ufeff', '\u0085', '\u017f', "'\u017f"]) {
  for (const text of makeTexts(extra.codePointAt(0), 7200).slice(-400)) {
    const middle = text.length >> 1;
    texts.push(extra + text, text + extra, wellFormed(text.slice(0, middle) + extra + text.slice(middle)));
  }
}
texts.push('a'.repeat(3000), ' '.repeat(3000), '1'.repeat(3000), '\u4e2d'.repeat(1000), '='.repeat(3000));
for (const text of texts) {
  const ids = corrected.encode(text, { bos: false, eos: false, specialTokenRegex: kNoSpecials });
  const theirs = original.encode(text, { bos: false, eos: false, specialTokenRegex: kNoSpecials });
  if (ids.join() !== theirs.join()) {
    ++differing;
    if (!kKnownCauses.test(text)) fail(`copy and package differ on ASCII text ${JSON.stringify(text)}`);
  }
  cases.push({ text, special: false, ids });
}

const kSpecials = ['<|eot_id|>', '<|begin_of_text|>', '<|start_header_id|>', '<|reserved_special_token_247|>',
  '<|reserved_special_token_24|>', '<|eot_id|', '<|reserved_special_token_248|>', '<|python_tag|>'];
texts.slice(0, 4000).forEach((text, i) => {
  const special = kSpecials[i % kSpecials.length];
  const mixed = i % 3 ? special + text : text + special + special + text;
  cases.push({ text: mixed, special: true, ids: corrected.encode(mixed, { bos: false, eos: false }) });
});
console.log(`${differing} of ${texts.length} texts differ between the package and its corrected copy`);
compareAndExit(program, model, folder, cases);
