// The official openai package, unmodified, against a server: chat and completions, streamed and
// whole, tools in the request, errors, and a client that stops reading.
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const [baseURL, model, packages] = process.argv.slice(2);
const require = createRequire(pathToFileURL(`${packages}/package.json`));
const OpenAI = require('openai');
const client = new OpenAI({ baseURL, apiKey: 'none', maxRetries: 0 });
const messages = [{ role: 'user', content: 'Hello there' }];

const list = await client.models.list();
assert.deepEqual(list.data.map((m) => m.id), [model]);
assert.equal((await client.models.retrieve(model)).id, model);

// Greedy output is the same whole and streamed.
const chat = await client.chat.completions.create({
  model, messages, temperature: 0, max_completion_tokens: 24, logprobs: true, top_logprobs: 2 });
assert.equal(chat.object, 'chat.completion');
assert.equal(chat.choices[0].message.role, 'assistant');
assert.ok(chat.choices[0].message.content.length > 0);
assert.ok(['stop', 'length'].includes(chat.choices[0].finish_reason));
assert.ok(chat.usage.completion_tokens > 0 && chat.usage.completion_tokens <= 24);
assert.equal(chat.choices[0].logprobs.content[0].top_logprobs.length, 2);

let text = '';
let finish = null;
let usage = null;
const stream = await client.chat.completions.create({
  model, messages, temperature: 0, max_completion_tokens: 24, stream: true,
  stream_options: { include_usage: true } });
for await (const chunk of stream) {
  assert.equal(chunk.object, 'chat.completion.chunk');
  text += chunk.choices[0]?.delta?.content ?? '';
  finish = chunk.choices[0]?.finish_reason ?? finish;
  usage = chunk.usage ?? usage;
}
assert.equal(text, chat.choices[0].message.content);
assert.equal(finish, chat.choices[0].finish_reason);
assert.equal(usage.completion_tokens, chat.usage.completion_tokens);

// The helper that assembles streams, and a request with tools.
const run = client.chat.completions.stream({
  model, messages, temperature: 0, max_completion_tokens: 24,
  tools: [{ type: 'function', function: { name: 'now', parameters: { type: 'object',
    properties: {} } } }], tool_choice: 'none' });
assert.equal(await run.finalContent(), text);

const completion = await client.completions.create({
  model, prompt: ['One', 'Two'], temperature: 0, max_tokens: 6, n: 2, echo: true, logprobs: 1 });
assert.deepEqual(completion.choices.map((c) => c.index), [0, 1, 2, 3]);
assert.ok(completion.choices[2].text.startsWith('Two'));
assert.equal(completion.choices[0].text, completion.choices[1].text);
assert.equal(completion.choices[0].logprobs.token_logprobs[0], null);

let streamed = '';
for await (const chunk of await client.completions.create({
  model, prompt: 'One', temperature: 0, max_tokens: 6, stream: true })) {
  streamed += chunk.choices[0].text;
}
assert.equal('One' + streamed, completion.choices[0].text);

// The same seed draws the same text.
const drawn = async (seed) => (await client.completions.create({
  model, prompt: 'Seed', max_tokens: 12, temperature: 1.5, seed })).choices[0].text;
assert.equal(await drawn(7), await drawn(7));

const refusal = async (promise) => promise.then(() => assert.fail('no error'), (error) => error);
let error = await refusal(client.chat.completions.create({ model: 'other', messages }));
assert.ok(error instanceof OpenAI.NotFoundError);
assert.equal(error.code, 'model_not_found');
assert.ok(error.request_id ?? error.requestID);
error = await refusal(client.chat.completions.create({ model, messages, max_tokens: -1 }));
assert.ok(error instanceof OpenAI.BadRequestError);
assert.equal(error.param, 'max_tokens');
error = await refusal(client.chat.completions.create({ model, messages, stream: true,
  response_format: { type: 'json_object' } }));
assert.ok(error instanceof OpenAI.BadRequestError);
assert.equal(error.param, 'response_format');

// Leaving a stream early cancels it and leaves the server well.
const left = await client.completions.create({
  model, prompt: 'On and on', max_tokens: 200, stream: true });
for await (const chunk of left) {
  assert.ok(chunk.choices);
  break;
}
assert.equal((await client.models.list()).data.length, 1);
console.log('ok');
