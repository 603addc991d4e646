// The gRPC API as its users reach it: @grpc/grpc-js against a real `reticle serve`.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { after, before, test } from 'node:test';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import path from 'node:path';
import { Server, metric, until } from './reticle_server.mjs';

const require = createRequire(new URL('../npm/package.json', import.meta.url));
const grpc = require('@grpc/grpc-js');
const protoLoader = require('@grpc/proto-loader');
const protobuf = createRequire(require.resolve('@grpc/proto-loader'))('protobufjs');

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');
const options = { keepCase: true, longs: Number, enums: String, defaults: true, oneofs: true };
const api = grpc.loadPackageDefinition(
  protoLoader.loadSync('reticle/v1/inference.proto', { ...options, includeDirs: [`${root}/proto`] }));

const healthProto = protoLoader.fromJSON({ nested: { grpc: { nested: { health: { nested: { v1: { nested: {
  HealthCheckRequest: { fields: { service: { type: 'string', id: 1 } } },
  HealthCheckResponse: {
    fields: { status: { type: 'ServingStatus', id: 1 } },
    nested: { ServingStatus: { values: { UNKNOWN: 0, SERVING: 1, NOT_SERVING: 2, SERVICE_UNKNOWN: 3 } } },
  },
  Health: { methods: { Check: { requestType: 'HealthCheckRequest', responseType: 'HealthCheckResponse' } } },
} } } } } } } }, options);

// As google/rpc/status.proto and error_details.proto number them.
const kRpc = protobuf.Root.fromJSON({ nested: {
  Any: { fields: { type_url: { type: 'string', id: 1 }, value: { type: 'bytes', id: 2 } } },
  Status: { fields: { code: { type: 'int32', id: 1 }, message: { type: 'string', id: 2 }, details: { rule: 'repeated', type: 'Any', id: 3 } } },
  Duration: { fields: { seconds: { type: 'int64', id: 1 }, nanos: { type: 'int32', id: 2 } } },
  RetryInfo: { fields: { retryDelay: { type: 'Duration', id: 1 } } },
} });
const [kStatus, kRetryInfo] = [kRpc.lookupType('Status'), kRpc.lookupType('RetryInfo')];

let server, client;

before(async () => {
  server = await Server.start();
  client = new api.reticle.v1.InferenceService(server.grpcAddress, grpc.credentials.createInsecure());
});
after(async () => {
  client?.close();
  await server?.stop();
});

const unary = (method, request, callOptions = {}) => new Promise((resolve, reject) =>
  client[method](request, new grpc.Metadata(), callOptions, (error, reply) => (error ? reject(error) : resolve(reply))));

const stream = (request, callOptions = {}) => new Promise((resolve, reject) => {
  const messages = [];
  const call = client.GenerateStream(request, new grpc.Metadata(), callOptions);
  call.on('data', (message) => messages.push(message));
  call.on('error', reject);
  call.on('end', () => resolve(messages));
});

const greedy = (prompt, max_tokens = 24) => ({
  prompt, sampling: { temperature: 0 }, stop: { max_tokens, ignore_eos: true },
});
const code = (expected) => (error) => {
  assert.equal(error.code, grpc.status[expected], `${error.code} ${error.details}`);
  return true;
};

test('streamed and unary replies are the same tokens, and usage adds up', async () => {
  const whole = await unary('Generate', greedy('Reticle is'));
  assert.equal(whole.choices.length, 1);
  assert.equal(whole.choices[0].tokens.length, 24);
  assert.equal(whole.choices[0].finish_reason, 'FINISH_REASON_LENGTH');
  assert.equal(whole.usage.completion_tokens, 24);
  assert.ok(whole.usage.prompt_tokens > 0);

  const messages = await stream(greedy('Reticle is'));
  const last = messages.at(-1);
  assert.equal(last.usage.completion_tokens, 24);
  assert.equal(last.tokens.length, 0);
  assert.deepEqual(messages.flatMap((m) => m.tokens), whole.choices[0].tokens);
  assert.equal(messages.map((m) => m.text).join(''), whole.choices[0].text);
  assert.equal(messages.filter((m) => m.finish_reason !== 'FINISH_REASON_UNSPECIFIED').length, 1);
  assert.equal(new Set(messages.map((m) => m.request_id)).size, 1);
});

test('a conversation is answered and ends by itself', async () => {
  const reply = await unary('Generate', {
    chat: { messages: [{ role: 'user', content: 'Hello!' }] }, sampling: { temperature: 0 }, stop: { max_tokens: 200 },
  });
  assert.equal(reply.choices[0].finish_reason, 'FINISH_REASON_STOP');
  assert.ok(reply.choices[0].text.length > 2);
  assert.equal(reply.model, 'house');
});

test('choices differ by seed and repeat with it', async () => {
  const request = { prompt: 'Tokens', n: 3, sampling: { temperature: 2, seed: 7 }, stop: { max_tokens: 12, ignore_eos: true } };
  const [first, second] = [await unary('Generate', request), await unary('Generate', request)];
  assert.equal(first.choices.length, 3);
  assert.deepEqual(first.choices.map((c) => c.tokens), second.choices.map((c) => c.tokens));
  assert.ok(new Set(first.choices.map((c) => c.tokens.join())).size > 1);
});

test('log-probabilities come with each token', async () => {
  const reply = await unary('Generate', { ...greedy('Reticle is', 5), output: { logprobs: 3 } });
  const { tokens, logprobs } = reply.choices[0];
  assert.equal(logprobs.length, tokens.length);
  for (const [i, position] of logprobs.entries()) {
    assert.equal(position.chosen.token, tokens[i]);
    assert.equal(position.rank, 1);
    assert.equal(position.top.length, 3);
    assert.ok(position.chosen.logprob <= 0);
    assert.equal(position.top[0].token, tokens[i]);
  }
});

test('a stop text ends the choice before it', async () => {
  const { text } = (await unary('Generate', greedy('Reticle is', 24))).choices[0];
  const stop = text.trim().split(' ')[2];
  const reply = await unary('Generate', { ...greedy('Reticle is', 24), stop: { max_tokens: 24, stop: [stop], ignore_eos: true } });
  assert.equal(reply.choices[0].text, text.slice(0, text.indexOf(stop)));
  assert.equal(reply.choices[0].finish_reason, 'FINISH_REASON_STOP');
});

test('tokens and text round-trip', async () => {
  const text = 'Grüße, 世界! <|end|> 🎉';
  const { tokens, max_model_len } = await unary('Tokenize', { text, omit_special_tokens: true });
  assert.ok(tokens.length > 4 && max_model_len > 0);
  assert.equal((await unary('Detokenize', { tokens })).text, text);
  const byTokens = await unary('Generate', { ...greedy('x', 4), prompt_tokens: { ids: tokens }, prompt: undefined });
  assert.equal(byTokens.usage.prompt_tokens, tokens.length);
});

test('models are listed', async () => {
  const { models } = await unary('ListModels', {});
  assert.equal(models[0].id, 'house');
  assert.ok(models[0].vocab_size > 0 && models[0].max_model_len > 0 && models[0].created > 0);
});

test('bad requests say what is wrong', async () => {
  await assert.rejects(unary('Generate', { sampling: {} }), code('INVALID_ARGUMENT'));
  await assert.rejects(unary('Generate', { model: 'nobody', prompt: 'x' }), code('NOT_FOUND'));
  await assert.rejects(unary('Generate', { prompt: 'x', sampling: { temperature: -1 } }), (error) => {
    assert.match(error.details, /temperature.*-1/);
    return code('INVALID_ARGUMENT')(error);
  });
  await assert.rejects(unary('Generate', { prompt_tokens: { ids: [4000000000] } }), code('INVALID_ARGUMENT'));
  await assert.rejects(unary('Generate', { prompt: 'word '.repeat(20000) }), (error) => {
    assert.match(error.details, /\d+.*\d+/);
    return code('INVALID_ARGUMENT')(error);
  });
  await assert.rejects(stream({ prompt: 'x', n: 100000 }), code('INVALID_ARGUMENT'));
  await assert.rejects(unary('Detokenize', { tokens: [4000000000] }), code('INVALID_ARGUMENT'));
  assert.equal((await unary('Generate', greedy('still here', 2))).choices[0].tokens.length, 2);
});

test('cancelling a call ends its sequences', async () => {
  const call = client.GenerateStream({ prompt: 'x', n: 2, stop: { max_tokens: 2000, ignore_eos: true } });
  await new Promise((resolve) => call.once('data', resolve));
  call.on('error', () => {});
  call.cancel();
  await until(async () => (await metric(server, 'vllm:num_requests_running')) === 0, 'sequences still run');
  assert.ok((await metric(server, 'vllm:request_success_total', { finished_reason: 'abort' })) >= 1);
});

test('the deadline of a call ends its sequences', async () => {
  await assert.rejects(
    stream({ prompt: 'x', n: 8, stop: { max_tokens: 2000, ignore_eos: true } }, { deadline: Date.now() + 30 }),
    code('DEADLINE_EXCEEDED'));
  await until(async () => (await metric(server, 'vllm:num_requests_running')) === 0, 'sequences still run');
});

test('a client that stops reading holds back nobody else', async () => {
  const slow = client.GenerateStream({ prompt: 'x', n: 4, stop: { max_tokens: 1500, ignore_eos: true } });
  slow.on('error', () => {});
  await new Promise((resolve) => slow.once('data', resolve));
  slow.pause();
  for (let i = 0; i < 5; ++i) assert.equal((await unary('Generate', greedy('others go on', 8))).choices[0].tokens.length, 8);
  slow.cancel();
});

test('many streams at once each get their own tokens', async () => {
  const prompts = Array.from({ length: 32 }, (_, i) => `Number ${i} says`);
  const alone = [];
  for (const prompt of prompts) alone.push((await unary('Generate', greedy(prompt, 16))).choices[0].tokens.join());
  const together = await Promise.all(prompts.map((prompt) => stream(greedy(prompt, 16))));
  assert.deepEqual(together.map((messages) => messages.flatMap((m) => m.tokens).join()), alone);
});

test('with accounts: limits, tier and a true time to retry, in metadata', async (t) => {
  const folder = mkdtempSync(path.join(tmpdir(), 'reticle-grpc-'));
  const store = path.join(folder, 'tenants.db');
  const create = (tier) => JSON.parse(execFileSync(process.env.RETICLE, ['keys', 'create', 'name=A', 'email=a@example.org', `tier=${tier}`, '--store', store, '--json']));
  const [paid, free] = [create('paid'), create('free')];
  const tiers = await Server.start(['--threads', '1', '--free-tier', '--tenants-store', store, '--tier-limit', 'free.requests_per_minute=60', '--tier-limit', 'free.requests_per_day=5']);
  const at = new api.reticle.v1.InferenceService(tiers.grpcAddress, grpc.credentials.createInsecure());
  t.after(async () => {
    at.close();
    await tiers.stop();
    rmSync(folder, { recursive: true });
  });
  // The reply or error, and the metadata before and behind it.
  const call = (method, request, { key } = {}) => new Promise((resolve) => {
    const metadata = new grpc.Metadata();
    if (key) metadata.set('authorization', `Bearer ${key}`);
    const seen = { messages: [] };
    const done = (error, reply) => resolve(Object.assign(seen, { error, reply }));
    const begun = method === 'GenerateStream' ? at[method](request, metadata) : at[method](request, metadata, done);
    begun.on('metadata', (initial) => { seen.initial = initial.getMap(); });
    begun.on('status', (status) => {
      seen.trailing = status.metadata.getMap();
      if (method === 'GenerateStream') done(status.code === grpc.status.OK ? null : status);
    });
    if (method !== 'GenerateStream') return;
    begun.on('data', (message) => seen.messages.push(message));
    begun.on('error', () => {});
  });
  const limits = (seen) => Object.keys(seen.initial ?? {}).filter((name) => name.startsWith('x-ratelimit-')).sort();
  const both = ['limit', 'remaining', 'reset'].flatMap((what) => ['requests', 'requests-day', 'tokens', 'tokens-minute'].map((of) => `x-ratelimit-${what}-${of}`)).sort();

  assert.equal((await call('Generate', greedy('x'))).error.code, grpc.status.UNAUTHENTICATED);
  for (const [asked, given, key] of [['', 'default', paid.key], ['auto', 'default', paid.key], ['flex', 'flex', paid.key], ['priority', 'priority', paid.key], ['priority', 'default', free.key]]) {
    const whole = await call('Generate', { ...greedy('x', 2), service_tier: asked }, { key });
    assert.ifError(whole.error);
    assert.deepEqual([whole.reply.service_tier, whole.initial['service-tier']], [given, given]);
  }
  const streamed = await call('GenerateStream', { ...greedy('x', 2), service_tier: 'flex' }, { key: free.key });
  assert.equal(streamed.messages.at(-1).service_tier, 'flex');
  assert.equal(streamed.initial['service-tier'], 'flex');
  assert.deepEqual(limits(streamed), both);
  assert.equal(streamed.initial['x-ratelimit-remaining-requests'], '3');
  const wrong = await call('Generate', { ...greedy('x', 2), service_tier: 'gold' }, { key: free.key });
  assert.equal(wrong.error.code, grpc.status.INVALID_ARGUMENT);
  assert.deepEqual(limits(wrong), both);
  assert.deepEqual(limits(await call('ListModels', {}, { key: free.key })), both);
  // A turn each, like the two before.
  for (let i = 0; i < 2; ++i) assert.ifError((await call('Tokenize', { text: 'x' }, { key: free.key })).error);

  for (const method of ['Generate', 'GenerateStream', 'Tokenize']) {
    const request = method === 'Tokenize' ? { text: 'x' } : greedy('x', 2);
    const refused = await call(method, request, { key: free.key });
    assert.equal(refused.error.code, grpc.status.RESOURCE_EXHAUSTED, method);
    assert.deepEqual(limits(refused), both);
    assert.match(refused.error.details, /requests_per_day = 5/);
    // One in 86,400 / 5 seconds.
    const ms = Number(refused.trailing['retry-after-ms']);
    assert.ok(ms > 17000e3 && ms <= 17280e3, `${ms}`);
    assert.equal(Number(refused.trailing['retry-after']), Math.ceil(ms / 1000));
    const details = kStatus.decode(refused.trailing['grpc-status-details-bin']);
    assert.deepEqual([details.code, details.message], [8, refused.error.details]);
    assert.equal(details.details[0].type_url, 'type.googleapis.com/google.rpc.RetryInfo');
    const { retryDelay } = kRetryInfo.decode(details.details[0].value);
    assert.equal(Number(retryDelay.seconds) * 1000 + retryDelay.nanos / 1e6, ms);
  }
});

test('health says SERVING', async () => {
  const { Health } = grpc.loadPackageDefinition(healthProto).grpc.health.v1;
  const health = new Health(server.grpcAddress, grpc.credentials.createInsecure());
  for (const service of ['', 'reticle.v1.InferenceService']) {
    const reply = await new Promise((resolve, reject) =>
      health.Check({ service }, (error, value) => (error ? reject(error) : resolve(value))));
    assert.equal(reply.status, 'SERVING');
  }
  health.close();
});
