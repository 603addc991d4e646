// /openapi.json against the real server, and how pages are served. node api.test.mjs FOLDER_WITH_node_modules
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import http from 'node:http';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { after } from 'node:test';
import { pathToFileURL } from 'node:url';
import { gunzipSync } from 'node:zlib';
import { Server } from '../integration/reticle_server.mjs';

const require = createRequire(pathToFileURL(`${process.argv[2]}/package.json`));
const Ajv = require('ajv/dist/2020').default;
const reticle = await Server.start(['--threads', '1']);
after(() => reticle.stop());

const description = await (await fetch(`${reticle.url}/openapi.json`)).json();
const ajv = new Ajv({ strict: false, allErrors: true, formats: { email: true } });
ajv.addSchema(description, 'api');
const schemas = description.components.schemas;
const check = (name, value, what = '') => {
  const validate = ajv.getSchema(`api#/components/schemas/${name}`);
  assert.ok(validate(value), `${what} ${JSON.stringify(validate.errors)} in ${JSON.stringify(value).slice(0, 400)}`);
};

// Each reply that this file sees is held to the description of its path: status, type and body.
const kSeen = new Set();
const known = (path) => (description.paths[path] ? path : path.replace(/^(\/v1\/models\/).*/, '$1{id}'));
const ask = async (method, path, body = undefined, headers = {}, base = reticle.url) => {
  const response = await fetch(base + path, { method, headers, body });
  const text = await response.text();
  const type = (response.headers.get('content-type') ?? '').split(';')[0];
  const json = type === 'application/json' ? JSON.parse(text) : null;
  const operation = description.paths[known(path)]?.[method.toLowerCase()];
  if (operation) {
    const what = `${method} ${path} ${response.status}`;
    const media = operation.responses[response.status]?.content[type];
    assert.ok(media, `${what} ${type} is not described: ${text.slice(0, 300)}`);
    kSeen.add(`${method} ${known(path)} ${response.status}`);
    if (json && media.schema.$ref) check(media.schema.$ref.split('/').pop(), json, what);
    if (response.status === 429) assert.match(response.headers.get('retry-after'), /^[0-9]+$/, what);
    if (response.status === 503) assert.equal(response.headers.get('retry-after'), null, what);
    for (const event of media['x-event'] ? text.matchAll(/^data: (\{.*)$/gm) : []) {
      check(media['x-event'].$ref.split('/').pop(), JSON.parse(event[1]), what);
    }
  }
  return { status: response.status, text, json, headers: response.headers };
};
const kJson = { 'content-type': 'application/json' };
const post = (path, body, headers = {}, base = reticle.url) => ask('POST', path, JSON.stringify(body), { ...kJson, ...headers }, base);

const kBases = {
  ChatRequest: ['/v1/chat/completions', { messages: [{ role: 'user', content: 'Hi' }], max_tokens: 2 }],
  CompletionRequest: ['/v1/completions', { prompt: 'Hi', max_tokens: 2 }],
  TokenizeRequest: ['/tokenize', { prompt: 'Hi' }],
  DetokenizeRequest: ['/detokenize', { tokens: [72] }],
};

// Fields whose limits are those of another one, which their errors name.
const kParams = { max_completion_tokens: 'max_tokens' };

// A request that sets `name` to `value`, with what the field needs beside it.
function requestWith(base, name, property, value) {
  const body = { ...base, ...property['x-needs'], [name]: value };
  if (name === 'messages') delete body.prompt;
  if (name === 'max_completion_tokens') delete body.max_tokens;
  return body;
}

function validValues(property) {
  const values = [...(property.examples ?? []), ...(property.enum ?? [])];
  const types = [].concat(property.type ?? []);
  if (property.enum === undefined) {
    if (types.includes('boolean')) values.push(true, false);
    if (types.includes('number')) values.push(property.minimum ?? 0.5, property.maximum ?? 1);
    if (types.includes('integer') && property.maximum < 1000) values.push(property.maximum);
    if (types.includes('string') && property.examples === undefined) values.push(property.maxLength === 0 ? '' : 'text');
    if (types.includes('null')) values.push(null);
  }
  return values;
}

function invalidValues(property) {
  const values = [];
  const types = [].concat(property.type ?? []);
  if (types.length > 0) {
    if (!types.includes('string')) values.push('text');
    if (!types.includes('boolean')) values.push(true);
    if (!types.includes('object')) values.push({ a: 1 });
    if (!types.includes('array')) values.push([[]]);
    if (!types.includes('number') && !types.includes('integer')) values.push(7);
    if (types.includes('integer')) values.push(1.5);
  }
  const limit = (value) => value !== undefined && Math.abs(value) < 1e15;
  if (limit(property.minimum)) values.push(property.minimum - 1);
  if (limit(property.maximum)) values.push(property.maximum + 1);
  if (property.exclusiveMinimum !== undefined) values.push(property.exclusiveMinimum);
  if (property.enum && types.includes('boolean')) values.push(!property.enum[0]);
  if (property.enum && types.includes('string')) values.push('something else');
  if (property.maxLength === 0) values.push('x');
  if (property.items?.minimum === 0) values.push([-1]);
  if (property.anyOf) values.push(7.5, { a: 1 });
  return values;
}

for (const [schema, [path, base]] of Object.entries(kBases)) {
  test(`${schema}: every field is as described`, async () => {
    for (const [name, property] of Object.entries(schemas[schema].properties)) {
      if (property['x-refused']) {
        const { status, json } = await post(path, { ...base, [name]: property.examples[0] });
        assert.equal(status, 400, name);
        assert.equal(json.error.code, 'unsupported_parameter', name);
        assert.equal(json.error.param, name);
        continue;
      }
      const valid = validValues(property).filter((value) => !(name === 'max_tokens' && value > 1e6));
      assert.ok(valid.length > 0, name);
      for (const value of valid) {
        const body = requestWith(base, name, property, value);
        if (body.n > 2 || body.best_of > 1) continue;   // 128 answers: too much for a test
        if (name === 'prompt_logprobs' && body.stream) continue;
        const { status, text } = await post(path, body);
        assert.equal(status, 200, `${name} = ${JSON.stringify(value)}: ${text.slice(0, 300)}`);
        check(schema, body, name);
      }
      for (const value of invalidValues(property)) {
        const { status, json } = await post(path, requestWith(base, name, property, value));
        assert.equal(status, 400, `${name} = ${JSON.stringify(value)} is taken`);
        assert.ok([name, kParams[name]].includes(String(json.error.param).split(/[.[]/)[0]), `${name} = ${JSON.stringify(value)}: param ${json.error.param}`);
      }
    }
  });

  test(`${schema}: other fields are refused`, async () => {
    assert.equal(schemas[schema].additionalProperties, false);
    for (const name of ['temperatur', 'Temperature', '__proto__x', 'max_new_tokens', 'inputs', 'repeat_penalty', '']) {
      const { status, json } = await post(path, { ...base, [name]: 1 });
      assert.equal(status, 400, name);
      assert.equal(json.error.param ?? '', name);
    }
    for (const name of schemas[schema].required ?? []) {
      const body = { ...base };
      delete body[name];
      const { status, json } = await post(path, body);
      assert.equal(status, 400);
      assert.equal(json.error.param, name);
    }
  });
}

test('every field that the server reads is described, and no other', () => {
  const source = readFileSync(new URL('../../server/http/request_json.cc', import.meta.url), 'utf8');
  const table = (name) => {
    const begin = source.indexOf(`${name}[] = {`);
    assert.ok(begin > 0, name);
    const text = source.slice(begin, source.indexOf('\n};', begin));
    return [...text.matchAll(/(?:^ {4}\{"|RETICLE_PARAM\()([a-z_]+)/gm)].map((match) => match[1]);
  };
  const described = (name) => Object.keys(schemas[name].properties).sort();
  assert.deepEqual(described('ChatRequest'), [...table('kCommonFields'), ...table('kChatFields')].sort());
  assert.deepEqual(described('CompletionRequest'), [...table('kCommonFields'), ...table('kCompletionFields')].sort());
  assert.deepEqual(described('TokenizeRequest'), table('kTokenizeFields').sort());
  assert.deepEqual(described('DetokenizeRequest'), table('kDetokenizeFields').sort());
});

test('every endpoint of the API is described, and answers its methods alone', async () => {
  const source = readFileSync(new URL('../../server/http/api.cc', import.meta.url), 'utf8');
  const routes = [...source.matchAll(/^ {4}\{"(\/[^"]+)", Endpoint::/gm)].map((match) => match[1]);
  assert.ok(routes.length > 5);
  for (const route of routes) assert.ok(description.paths[route], `${route} is not described`);
  for (const [path, methods] of Object.entries(description.paths)) {
    if (Object.values(methods).some((operation) => operation['x-accounts'])) continue;   // not without accounts
    const url = reticle.url + path.replace('{id}', 'house');
    for (const method of ['GET', 'POST', 'PUT', 'DELETE']) {
      const response = await fetch(url, { method, body: method === 'GET' ? undefined : '{}' });
      await response.arrayBuffer();
      const known = methods[method.toLowerCase()] !== undefined;
      assert.equal(response.status !== 405 && response.status !== 404, known, `${method} ${path}: ${response.status}`);
    }
  }
});

test('replies without a body of request are as described', async () => {
  for (const [path, methods] of Object.entries(description.paths)) {
    if (!methods.get || methods.get['x-accounts']) continue;
    assert.equal((await ask('GET', path.replace('{id}', 'house'))).status, 200, path);
  }
  assert.equal((await ask('GET', '/v1/models/none')).status, 404);
});

test('streamed events are as described', async () => {
  const streamed = { max_tokens: 6, temperature: 0, stream: true, n: 2, stop: ['zzz'] };
  for (const [path, body] of [
    ['/v1/chat/completions', { messages: [{ role: 'user', content: 'Hi' }], logprobs: true, top_logprobs: 2 }],
    ['/v1/completions', { prompt: 'Hi', logprobs: 1 }],
  ]) {
    for (const options of [undefined, { include_usage: true }, { include_usage: true, continuous_usage_stats: true }]) {
      const { status, text } = await post(path, { ...streamed, ...body, ...(options ? { stream_options: options } : {}) });
      assert.equal(status, 200);
      const events = text.split('\n\n').filter((event) => event !== '').map((event) => event.replace(/^data: /, ''));
      assert.equal(events.pop(), '[DONE]');
      assert.ok(events.length > 6);
    }
  }
});

test('whole replies with all that can be asked for are as described', async () => {
  const chat = await post('/v1/chat/completions', { messages: [{ role: 'user', content: 'Hi' }], max_tokens: 3, logprobs: true, top_logprobs: 2, prompt_logprobs: 1, stop: 'a' });
  assert.equal(chat.status, 200, chat.text);
  const completion = await post('/v1/completions', { prompt: ['a', 'b'], n: 2, max_tokens: 3, echo: true, logprobs: 2 });
  assert.equal(completion.status, 200, completion.text);
  assert.equal((await post('/v1/completions', { prompt: 'a b', max_tokens: 1, prompt_logprobs: 2 })).status, 200);
});

test('GenerateRequest: every field is as described', async () => {
  const base = { prompt: [{ role: 'user', content: 'Hi' }], max_output_tokens: 2 };
  for (const [name, property] of Object.entries(schemas.GenerateRequest.properties)) {
    if (property['x-refused']) {
      const { status, json } = await post('/generate', { ...base, [name]: property.examples[0] });
      assert.deepEqual([status, json.detail[0].loc], [422, ['body', name]], name);
      continue;
    }
    const valid = validValues(property).filter((value) => !(property.type === 'string' && value === 'text'));
    assert.ok(valid.length > 0, name);
    for (const value of valid) {
      const body = { ...requestWith(base, name, property, value) };
      if (!(name === 'max_output_tokens' && value > 0)) body.max_output_tokens = 2;
      const { status, text } = await post('/generate', body);
      assert.equal(status, 200, `${name} = ${JSON.stringify(value)}: ${text.slice(0, 300)}`);
      check('GenerateRequest', body, name);
    }
    for (const value of invalidValues(property)) {
      if (name === 'prompt' && typeof value === 'string') continue;
      const { status, json } = await post('/generate', { ...base, [name]: value });
      assert.equal(status, 422, `${name} = ${JSON.stringify(value)} is taken`);
      assert.equal(json.detail[0].loc[1], name, `${name} = ${JSON.stringify(value)}: ${JSON.stringify(json)}`);
    }
  }
  assert.equal((await post('/generate', { ...base, anything: 1 })).status, 200);
  assert.equal((await post('/generate', {})).status, 422);
  assert.equal((await post('/generate', { ...base, stream: true, logprobs: true })).status, 200);
});

test('errors of every kind are as described', async () => {
  const long = { max_tokens: 4000, ignore_eos: true };
  const messages = [{ role: 'user', content: 'Hi' }];
  const bodies = {
    '/v1/chat/completions': { messages, ...long }, '/v1/completions': { prompt: 'Hi', ...long },
    '/generate': { prompt: messages, ignore_eos: true },
  };
  for (const [path, body] of Object.entries(bodies)) {
    assert.equal((await post(path, { ...body, model: 'none' })).status, 404, path);
    assert.equal((await post(path, body, { 'x-request-timeout-ms': '1' })).status, 504, path);
  }
  for (const path of [...Object.keys(bodies), '/tokenize', '/detokenize']) {
    const { hostname, port } = new URL(reticle.url);
    const status = await new Promise((resolve, reject) => {
      const request = http.request({ hostname, port, path, method: 'POST', headers: { 'content-length': 99999999 } }, (response) => {
        resolve(response.statusCode);
        request.destroy();
      });
      request.on('error', reject);
      request.flushHeaders();
    });
    assert.equal(status, 413, path);
    kSeen.add(`POST ${path} 413`);
  }
  for (const [path, body] of [['/tokenize', { prompt: 'a' }], ['/detokenize', { tokens: [1] }]]) {
    assert.equal((await post(path, { ...body, model: 'none' })).status, 404);
  }
});

// ---- accounts

test('with accounts: every path and every status is as described', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'reticle-api-'));
  const server = await Server.start(['--threads', '1', '--free-tier', '--tenants-store', join(folder, 'tenants.db'), '--auto-approve', '1',
    '--applications-per-hour', '12', '--tier-limit', 'free.requests_per_minute=20', '--tier-limit', 'free.tokens_per_minute=4000']);
  after(() => server.stop());
  after(() => rmSync(folder, { recursive: true }));
  const form = { email: 'a@example.org', name: 'A', use_case: 'to test', terms: true };
  const send = (path, body, headers = {}) => post(path, body, headers, server.url);
  const page = (fields) => ask('POST', '/apply', new URLSearchParams(fields), {}, server.url);
  const [one, two] = [await send('/v1/apply', form), await send('/v1/apply', form)];
  assert.deepEqual([one.status, two.status], [202, 202]);
  assert.equal((await send('/v1/apply/claim', { claim: two.json.claim })).status, 202);
  const { status, json: { key } } = await send('/v1/apply/claim', { claim: one.json.claim });
  assert.equal(status, 200);
  assert.equal((await send('/v1/apply/claim', { claim: one.json.claim })).status, 404);
  for (const [path, body, name] of [['/v1/apply', form, 'ApplyRequest'], ['/v1/apply/claim', { claim: two.json.claim }, 'ClaimRequest']]) {
    check(name, body);
    assert.equal(schemas[name].additionalProperties, false);
    assert.equal((await send(path, { ...body, more: 1 })).json.error.param, 'more');
    assert.equal((await send(path, { ...body, name: 'x'.repeat(20000) })).status, 413);
  }
  for (const [field, wrong] of [['email', 'nobody'], ['email', 7], ['name', ''], ['name', 'x'.repeat(201)], ['use_case', 'x'.repeat(4001)], ['terms', false]]) {
    const { status: refused, json } = await send('/v1/apply', { ...form, [field]: wrong });
    // The address has its turns; whichever comes first.
    if (refused === 429) break;
    assert.deepEqual([refused, json.error.param], [400, field]);
  }
  let last;
  for (let i = 0; i < 13; ++i) last = await send('/v1/apply', form);
  assert.equal(last.status, 429);
  assert.equal((await ask('GET', '/apply', undefined, {}, server.url)).status, 200);
  assert.equal((await page({ ...form, action: 'apply', terms: 'yes' })).status, 429);
  assert.equal((await page({ action: 'claim', claim: 'no' })).status, 404);
  assert.equal((await page({ action: 'claim', claim: two.json.claim })).status, 400);
  assert.equal((await page({ action: 'claim', claim: 'x'.repeat(20000) })).status, 413);
  for (let i = 0; i < 121; ++i) last = await send('/v1/apply/claim', { claim: 'no' });
  assert.equal(last.status, 429);

  const bearer = { authorization: `Bearer ${key}` };
  const messages = [{ role: 'user', content: 'Hi' }];
  const bodies = {
    '/v1/chat/completions': { messages, max_tokens: 2 }, '/v1/completions': { prompt: 'Hi', max_tokens: 2 },
    '/generate': { prompt: messages, max_output_tokens: 2 }, '/tokenize': { prompt: 'Hi' }, '/detokenize': { tokens: [72] },
  };
  for (const [path, body] of Object.entries(bodies)) {
    assert.equal((await send(path, body)).status, 401, path);
    const { status: good, json, headers } = await send(path, body, bearer);
    assert.equal(good, 200, `${path} ${JSON.stringify(json)}`);
    assert.equal(headers.get('x-ratelimit-limit-tokens'), '4000');
    if (path.startsWith('/v1')) assert.equal(json.service_tier, 'default');
  }
  for (const path of ['/v1/usage', '/v1/models', '/v1/models/house', '/models']) {
    assert.equal((await ask('GET', path, undefined, {}, server.url)).status, 401, path);
    assert.equal((await ask('GET', path, undefined, bearer, server.url)).status, 200, path);
  }
  const ready = await ask('GET', '/health/ready', undefined, {}, server.url);
  assert.deepEqual(ready.json.degraded, []);
  for (const path of ['/v1/chat/completions', '/v1/completions']) {
    assert.equal((await send(path, { ...bodies[path], max_tokens: 1900, n: 3 }, bearer)).status, 413, path);
  }
  for (const path of Object.keys(bodies)) {
    for (let i = 0; i < 40; ++i) {
      last = await send(path, bodies[path], bearer);
      if (last.status !== 200) break;
    }
    assert.equal(last.status, 429, path);
  }
});

test('nothing is described that was not seen', () => {
  // 403 and 503 are those of integration_tier and integration_http; the page's 200 and 202 of a form are integration_tier's.
  const elsewhere = (what) => / (403|503)$/.test(what) || /^POST \/apply 20[02]$/.test(what);
  for (const [path, methods] of Object.entries(description.paths)) {
    for (const [method, { responses }] of Object.entries(methods)) {
      for (const status of Object.keys(responses)) {
        const what = `${method.toUpperCase()} ${path} ${status}`;
        assert.ok(kSeen.has(what) || elsewhere(what), what);
      }
    }
  }
});

// ---- pages

function raw(path, headers = {}, method = 'GET') {
  return new Promise((resolve, reject) => {
    http.request(reticle.url + path, { method, headers }, (response) => {
      const parts = [];
      response.on('data', (part) => parts.push(part));
      response.on('end', () => resolve({ status: response.statusCode, headers: response.headers, body: Buffer.concat(parts) }));
    }).on('error', reject).end();
  });
}

test('pages: types, policy, compression and tags', async () => {
  for (const [path, type] of [['/', 'text/html; charset=utf-8'], ['/docs', 'text/html; charset=utf-8'], ['/openapi.json', 'application/json'],
    ['/assets/chat.js', 'text/javascript; charset=utf-8'], ['/assets/theme.css', 'text/css; charset=utf-8'], ['/favicon.svg', 'image/svg+xml']]) {
    const plain = await raw(path);
    assert.equal(plain.status, 200, path);
    assert.equal(plain.headers['content-type'], type);
    assert.equal(plain.headers['content-security-policy'], "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'");
    assert.equal(plain.headers['x-content-type-options'], 'nosniff');
    assert.equal(plain.headers['referrer-policy'], 'no-referrer');
    assert.equal(plain.headers['content-encoding'], undefined);
    assert.equal(plain.headers['access-control-allow-origin'], undefined);
    const packed = await raw(path, { 'accept-encoding': 'gzip, br' });
    if (packed.headers['content-encoding'] === 'gzip') assert.deepEqual(gunzipSync(packed.body), plain.body);
    else assert.deepEqual(packed.body, plain.body);
    assert.equal(packed.headers.vary, 'Accept-Encoding');
    const head = await raw(path, {}, 'HEAD');
    assert.equal(head.status, 200);
    assert.equal(head.body.length, 0);
    assert.equal(Number(head.headers['content-length']), plain.body.length);
    const known = await raw(path, { 'if-none-match': plain.headers.etag });
    assert.equal(known.status, 304);
    assert.equal(known.body.length, 0);
    assert.equal(known.headers.etag, plain.headers.etag);
    assert.equal((await raw(path, { 'if-none-match': '"other"' })).status, 200);
  }
});

test('pages: other methods and paths', async () => {
  const wrong = await raw('/', {}, 'POST');
  assert.equal(wrong.status, 405);
  assert.equal(wrong.headers.allow, 'GET, HEAD');
  for (const path of ['/assets/', '/assets/..%2f..%2fREADME.md', '/assets/../main.cc', '/index.html', '/docs/', '//']) {
    const { status, body } = await raw(path);
    assert.equal(status, 404, path);
    check('Error', JSON.parse(body));
  }
  // A 304 leaves the connection in step.
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  const one = (headers) => new Promise((resolve) => {
    http.get(`${reticle.url}/`, { agent, headers }, (response) => {
      response.resume();
      response.on('end', () => resolve(response));
    });
  });
  const { headers: { etag } } = await one({});
  assert.deepEqual([(await one({ 'if-none-match': etag })).statusCode, (await one({})).statusCode], [304, 200]);
  agent.destroy();
});
