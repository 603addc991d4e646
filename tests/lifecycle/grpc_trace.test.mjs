// Request ids and W3C trace context over gRPC, and the log line of a call: @grpc/grpc-js against a real server.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import path from 'node:path';
import { Server, until } from '../integration/reticle_server.mjs';

const require = createRequire(new URL('../npm/package.json', import.meta.url));
const grpc = require('@grpc/grpc-js');
const protoLoader = require('@grpc/proto-loader');

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');
const api = grpc.loadPackageDefinition(protoLoader.loadSync('reticle/v1/inference.proto',
  { keepCase: true, longs: Number, enums: String, includeDirs: [`${root}/proto`] }));
const health = grpc.loadPackageDefinition(protoLoader.fromJSON({ nested: { grpc: { nested: { health: { nested: { v1: { nested: {
  HealthCheckRequest: { fields: { service: { type: 'string', id: 1 } } },
  HealthCheckResponse: { fields: { status: { type: 'int32', id: 1 } } },
  Health: { methods: { Check: { requestType: 'HealthCheckRequest', responseType: 'HealthCheckResponse' } } },
} } } } } } } }, {})).grpc.health.v1;
const trace = '4bf92f3577b34da6a3ce929d0e0e4736';
const parent = `00-${trace}-00f067aa0ba902b7-01`;

let server, client;

before(async () => {
  server = await Server.start(['--log-format', 'json']);
  client = new api.reticle.v1.InferenceService(server.grpcAddress, grpc.credentials.createInsecure());
});
after(async () => {
  client?.close();
  await server?.stop();
});

// The initial metadata of a call with this metadata, and its reply.
function call(method, request, entries) {
  const metadata = new grpc.Metadata();
  for (const [key, value] of entries) metadata.add(key, value);
  return new Promise((resolve, reject) => {
    let initial;
    const running = client[method](request, metadata, (error, reply) => (error ? reject(error) : resolve({ initial, reply })));
    running.on('metadata', (received) => { initial = received; });
  });
}
const one = (metadata, key) => {
  assert.equal(metadata.get(key).length, 1, key);
  return metadata.get(key)[0];
};
const lineOf = async (id) => {
  const lines = () => server.log.split('\n').filter((text) => text.startsWith('{')).map((text) => JSON.parse(text))
    .filter((line) => line.id === id);
  await until(() => lines().length > 0, () => `no line of ${id}`);
  assert.equal(lines().length, 1);
  return lines()[0];
};
const request = { prompt: 'Reticle is', stop: { max_tokens: 4, ignore_eos: true } };

test('a call goes on with its caller\'s trace and keeps its id', async () => {
  const { initial, reply } = await call('Generate', request, [['traceparent', parent], ['x-request-id', 'from.metadata']]);
  const [version, id, span, flags] = one(initial, 'traceparent').split('-');
  assert.deepEqual([version, id, flags], ['00', trace, '01']);
  assert.notEqual(span, '00f067aa0ba902b7');
  assert.equal(one(initial, 'x-request-id'), 'from.metadata');
  assert.equal(reply.request_id, 'from.metadata');
  const line = await lineOf('from.metadata');
  assert.equal(line.front, 'grpc');
  assert.equal(line.status, 0);
  assert.equal(line.finish, 'length');
  assert.equal(line.output_tokens, 4);
  assert.equal(line.trace_id, trace);
});

test('what is no traceparent begins a new trace, and the message\'s own id comes first', async () => {
  for (const bad of ['x', parent.toUpperCase(), `${parent}-`, parent.replace('00-', 'ff-')]) {
    const { initial } = await call('Generate', { ...request, request_id: 'own' }, [['traceparent', bad], ['x-request-id', 'other']]);
    assert.match(one(initial, 'traceparent'), /^00-[0-9a-f]{32}-[0-9a-f]{16}-00$/);
    assert.ok(!one(initial, 'traceparent').includes(trace));
    assert.equal(one(initial, 'x-request-id'), 'own');
  }
  const { initial } = await call('Generate', request, [['traceparent', parent], ['traceparent', parent]]);
  assert.ok(!one(initial, 'traceparent').includes(trace));
  assert.match(one(initial, 'x-request-id'), /^[0-9a-f]{32}$/);
});

test('other calls have both too', async () => {
  const { initial } = await call('Tokenize', { text: 'a' }, [['traceparent', parent], ['x-request-id', 'tok']]);
  assert.ok(one(initial, 'traceparent').includes(trace));
  assert.equal(one(initial, 'x-request-id'), 'tok');
});

test('a stream and a cancelled one leave their lines', async () => {
  const run = (id, max_tokens, leave) => new Promise((resolve) => {
    const metadata = new grpc.Metadata();
    metadata.add('x-request-id', id);
    const stream = client.GenerateStream({ prompt: 'Reticle is', stop: { max_tokens, ignore_eos: true } }, metadata);
    stream.on('data', () => { if (leave) stream.cancel(); });
    stream.on('error', () => {});
    stream.on('status', resolve);
  });
  assert.equal((await run('whole', 6, false)).code, grpc.status.OK);
  const whole = await lineOf('whole');
  assert.deepEqual([whole.stream, whole.finish, whole.output_tokens], [true, 'length', 6]);
  assert.equal((await run('left', 100000, true)).code, grpc.status.CANCELLED);
  const left = await lineOf('left');
  assert.deepEqual([left.finish, left.status], ['abort', grpc.status.CANCELLED]);
});

test('a server that drains says so and serves on for its delay', async () => {
  const draining = await Server.start(['--drain-delay-ms', '600000', '--device', 'cpu']);
  const credentials = grpc.credentials.createInsecure();
  const checker = new health.Health(draining.grpcAddress, credentials);
  const user = new api.reticle.v1.InferenceService(draining.grpcAddress, credentials);
  const status = () => new Promise((resolve) => { checker.Check({ service: '' }, (error, reply) => resolve(error ? -1 : reply.status)); });
  const generate = () => new Promise((resolve) => { user.Generate(request, (error) => resolve(error ? error.code : 0)); });
  try {
    assert.equal(await status(), 1);
    draining.process.kill('SIGTERM');
    await until(async () => await status() === 2, () => 'it does not say NOT_SERVING');
    assert.equal(await generate(), 0);
    // Nothing runs, so a second signal ends the delay and nothing else.
    draining.process.kill('SIGTERM');
    assert.equal((await draining.exited)[0], 0);
  } finally {
    checker.close();
    user.close();
    draining.process.kill('SIGKILL');
  }
});
