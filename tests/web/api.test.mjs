// /openapi.json against the real server, and how pages are served. node api.test.mjs FOLDER_WITH_node_modules
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import { createRequire } from 'node:module';
import test, { after } from 'node:test';
import { pathToFileURL } from 'node:url';
import { gunzipSync } from 'node:zlib';
import { Server } from '../integration/reticle_server.mjs';

const require = createRequire(pathToFileURL(`${process.argv[2]}/package.json`));
const Ajv = require('ajv/dist/2020').default;
const reticle = await Server.start(['--threads', '1']);
after(() => reticle.stop());

const description = await (await fetch(`${reticle.url}/openapi.json`)).json();
const ajv = new Ajv({ strict: false, allErrors: true });
ajv.addSchema(description, 'api');
const schemas = description.components.schemas;
const check = (name, value, what = '') => {
  const validate = ajv.getSchema(`api#/components/schemas/${name}`);
  assert.ok(validate(value), `${what} ${JSON.stringify(validate.errors)} in ${JSON.stringify(value).slice(0, 400)}`);
};
const post = async (path, body) => {
  const response = await fetch(reticle.url + path, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) });
  const text = await response.text();
  return { status: response.status, text, json: response.headers.get('content-type').includes('json') ? JSON.parse(text) : null };
};

const kBases = {
  ChatRequest: ['/v1/chat/completions', { messages: [{ role: 'user', content: 'Hi' }], max_tokens: 2 }, 'ChatCompletion'],
  CompletionRequest: ['/v1/completions', { prompt: 'Hi', max_tokens: 2 }, 'Completion'],
  TokenizeRequest: ['/tokenize', { prompt: 'Hi' }, 'TokenizeReply'],
  DetokenizeRequest: ['/detokenize', { tokens: [72] }, 'DetokenizeReply'],
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

for (const [schema, [path, base, reply]] of Object.entries(kBases)) {
  test(`${schema}: every field is as described`, async () => {
    for (const [name, property] of Object.entries(schemas[schema].properties)) {
      if (property['x-refused']) {
        const { status, json } = await post(path, { ...base, [name]: property.examples[0] });
        assert.equal(status, 400, name);
        assert.equal(json.error.code, 'unsupported_parameter', name);
        assert.equal(json.error.param, name);
        check('Error', json);
        continue;
      }
      const valid = validValues(property).filter((value) => !(name === 'max_tokens' && value > 1e6));
      assert.ok(valid.length > 0, name);
      for (const value of valid) {
        const body = requestWith(base, name, property, value);
        if (body.n > 2 || body.best_of > 1) continue;   // 128 answers: too much for a test
        if (name === 'prompt_logprobs' && body.stream) continue;
        const { status, json, text } = await post(path, body);
        assert.equal(status, 200, `${name} = ${JSON.stringify(value)}: ${text.slice(0, 300)}`);
        check(schema, body, name);
        if (json) check(reply, json, name);
      }
      for (const value of invalidValues(property)) {
        const { status, json } = await post(path, requestWith(base, name, property, value));
        assert.equal(status, 400, `${name} = ${JSON.stringify(value)} is taken`);
        check('Error', json);
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
    const schema = methods.get?.responses['200'].content['application/json']?.schema;
    if (!schema?.$ref) continue;
    check(schema.$ref.split('/').pop(), await (await fetch(reticle.url + path.replace('{id}', 'house'))).json(), path);
  }
  const missing = await fetch(`${reticle.url}/v1/models/none`);
  assert.equal(missing.status, 404);
  check('Error', await missing.json());
});

test('streamed events are as described', async () => {
  const ask = { max_tokens: 6, temperature: 0, stream: true, n: 2, stop: ['zzz'] };
  for (const [path, body, name] of [
    ['/v1/chat/completions', { messages: [{ role: 'user', content: 'Hi' }], logprobs: true, top_logprobs: 2 }, 'ChatCompletionChunk'],
    ['/v1/completions', { prompt: 'Hi', logprobs: 1 }, 'Completion'],
  ]) {
    for (const options of [undefined, { include_usage: true }, { include_usage: true, continuous_usage_stats: true }]) {
      const { status, text } = await post(path, { ...ask, ...body, ...(options ? { stream_options: options } : {}) });
      assert.equal(status, 200);
      const events = text.split('\n\n').filter((event) => event !== '').map((event) => event.replace(/^data: /, ''));
      assert.equal(events.pop(), '[DONE]');
      assert.ok(events.length > 6);
      for (const event of events) check(name, JSON.parse(event), path);
    }
  }
});

test('whole replies with all that can be asked for are as described', async () => {
  const chat = await post('/v1/chat/completions', { messages: [{ role: 'user', content: 'Hi' }], max_tokens: 3, logprobs: true, top_logprobs: 2, prompt_logprobs: 1, stop: 'a' });
  assert.equal(chat.status, 200, chat.text);
  check('ChatCompletion', chat.json);
  const completion = await post('/v1/completions', { prompt: ['a', 'b'], n: 2, max_tokens: 3, echo: true, logprobs: 2 });
  assert.equal(completion.status, 200, completion.text);
  check('Completion', completion.json);
  const scored = await post('/v1/completions', { prompt: 'a b', max_tokens: 1, prompt_logprobs: 2 });
  check('Completion', scored.json);
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
