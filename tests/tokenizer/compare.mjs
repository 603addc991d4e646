// What the vector tests share: the npm packages, their corrected copies, and the comparison.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const kModules = join(dirname(fileURLToPath(import.meta.url)), '..', 'npm', 'node_modules');

export function fail(message) {
  console.error(message);
  process.exit(1);
}

// Path of `file` in an npm package; ends the test when the packages are not installed.
export function packageFile(name, file) {
  const path = join(kModules, name, file);
  if (!existsSync(path)) {
    fail(`${path} is missing: the npm packages of the tests are not installed; run ./dev setup`);
  }
  return path;
}

// Imports a copy of a package's file in which each [from, to] is replaced; every `from` must occur.
// The copy is made in the build folder.
export async function importCorrected(path, folder, replacements) {
  let source = readFileSync(path, 'utf8');
  for (const [from, to] of replacements) {
    if (!source.includes(from)) fail(`${path} no longer holds ${from}`);
    source = source.replaceAll(from, () => to);
  }
  mkdirSync(folder, { recursive: true });
  const copy = join(folder, 'corrected.mjs');
  writeFileSync(copy, source);
  return import(pathToFileURL(copy));
}

// Runs the comparing program on cases of {text (string or Buffer), special, ids} and ends the test
// with its verdict.
export function compareAndExit(program, model, folder, cases) {
  const parts = [];
  const uint32 = (value) => {
    const part = Buffer.alloc(4);
    part.writeUInt32LE(value);
    parts.push(part);
  };
  for (const { text, special, ids } of cases) {
    const bytes = Buffer.from(text);
    uint32(special ? 1 : 0);
    uint32(bytes.length);
    parts.push(bytes);
    uint32(ids.length);
    for (const id of ids) uint32(id);
  }
  const vectors = join(folder, 'vectors.bin');
  writeFileSync(vectors, Buffer.concat(parts));
  const result = spawnSync(program, [model, vectors, String(cases.length)], { stdio: 'inherit' });
  if (result.error) fail(`${program}: ${result.error.message}`);
  process.exit(result.status ?? 1);
}
