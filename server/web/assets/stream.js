// One streamed chat completion: the request, its clock, and what went wrong in words.
import { SseParser } from './sse.js';

// Parsing gives way to the page after this long.
const kSliceMs = 8;

export class RequestError extends Error {
  constructor(message, { status = 0, code = null, param = null, retryAfterS = null } = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.param = param;
    this.retryAfterS = retryAfterS;
  }
}

export function authorization(key) {
  return key ? { authorization: `Bearer ${key}` } : {};
}

// Seconds of a Retry-After header, which holds a number or a date; null when there is none.
export function retryAfter(headers, now = Date.now()) {
  const value = headers.get('retry-after');
  if (value === null) return null;
  if (/^\d+(\.\d+)?$/.test(value.trim())) return Number(value);
  const date = Date.parse(value);
  return Number.isNaN(date) ? null : Math.max(0, (date - now) / 1000);
}

// The error that a reply with a status other than 200 stands for.
export async function errorOf(response) {
  let error = null;
  try {
    const body = await response.json();
    error = body.error ?? body.detail ?? null;
  } catch {
    // Not JSON: a proxy's page, say.
  }
  const known = {
    401: 'This server asks for an API key.',
    403: 'This key may not do that.',
    413: 'The conversation is too long for one request.',
    429: 'The server asks you to wait.',
    502: 'A proxy in between cannot reach the server.',
    503: 'The server is not ready.',
    504: 'The request took too long.',
  };
  const message = typeof error === 'string' ? error : error?.message;
  return new RequestError(message || known[response.status] || `The server answered with status ${response.status}.`, {
    status: response.status,
    code: error?.code ?? null,
    param: error?.param ?? null,
    retryAfterS: retryAfter(response.headers),
  });
}

export async function listModels(key) {
  let response;
  try {
    response = await fetch('/v1/models', { headers: authorization(key) });
  } catch {
    throw new RequestError('The server cannot be reached.');
  }
  if (!response.ok) throw await errorOf(response);
  return (await response.json()).data;
}

function pause() {
  if (globalThis.scheduler?.yield) return scheduler.yield();
  return new Promise((resolve) => { setTimeout(resolve, 0); });
}

// Streams one answer. `onText(text, tokens)` is called with all that a read brought at once. Resolves to
// { finish, usage, tokens, timing: { start, first, last, end } } with times in ms of performance.now(); throws RequestError,
// or an AbortError when `signal` says so.
export async function complete({ body, key, signal, onText }) {
  const timing = { start: performance.now(), first: null, last: null, end: null };
  const result = { finish: null, usage: null, tokens: 0, timing };
  let response;
  try {
    response = await fetch('/v1/chat/completions', {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...authorization(key) },
      body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }),
      signal,
    });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new RequestError('The server cannot be reached.');
  }
  if (!response.ok) throw await errorOf(response);

  let text = '';
  let tokens = 0;
  let done = false;
  const parser = new SseParser((data) => {
    if (data === '[DONE]') {
      done = true;
      return;
    }
    let event;
    try {
      event = JSON.parse(data);
    } catch {
      throw new RequestError('The server sent an event that is not JSON.');
    }
    if (event.error) {
      const error = event.error;
      throw new RequestError(error.message ?? 'The server gave the answer up.', { code: error.code ?? null });
    }
    if (event.usage) result.usage = event.usage;
    const choice = event.choices?.[0];
    if (choice === undefined) return;
    const piece = choice.delta?.content;
    if (typeof piece === 'string' && piece !== '') {
      text += piece;
      tokens += 1;
    }
    if (choice.finish_reason) result.finish = choice.finish_reason;
  });
  const deliver = () => {
    if (tokens === 0) return;
    const now = performance.now();
    timing.first ??= now;
    timing.last = now;
    result.tokens += tokens;
    onText(text, tokens);
    text = '';
    tokens = 0;
  };

  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let sliceBegin = performance.now();
  try {
    for (;;) {
      const { value, done: ended } = await reader.read();
      parser.push(ended ? decoder.decode() : decoder.decode(value, { stream: true }));
      deliver();
      if (ended) break;
      if (performance.now() - sliceBegin > kSliceMs) {
        await pause();
        sliceBegin = performance.now();
      }
    }
  } catch (error) {
    deliver();
    await reader.cancel().catch(() => {});
    if (error.name === 'AbortError' || error instanceof RequestError) throw error;
    throw new RequestError('The connection to the server broke off.');
  }
  timing.end = performance.now();
  if (!done) throw new RequestError('The connection to the server broke off.');
  return result;
}

// What to show of an answer. The server's own times go before what the page saw, since a whole short answer may come in
// one read. Members that are not known are left out.
export function measure(result) {
  const { timing, usage } = result;
  const server = usage?.reticle ?? {};
  const completion = usage?.completion_tokens ?? result.tokens;
  const stats = { tokens: completion };
  if (usage) {
    stats.promptTokens = usage.prompt_tokens;
    const cached = usage.prompt_tokens_details?.cached_tokens;
    if (cached > 0) stats.cachedTokens = cached;
  }
  const seenMs = timing.last !== null ? timing.last - timing.first : 0;
  if (server.completion_ms > 0 && completion > 1) {
    stats.speed = (completion - 1) / (server.completion_ms / 1000);
    stats.speedBy = 'server';
  } else if (seenMs > 0 && completion > 1) {
    stats.speed = (completion - 1) / (seenMs / 1000);
    stats.speedBy = 'page';
  }
  if (timing.first !== null) stats.firstMs = timing.first - timing.start;
  const positive = (name, value) => {
    if (Number.isFinite(value) && value > 0) stats[name] = value;
  };
  positive('queueMs', server.queue_ms);
  positive('prefillMs', server.prompt_ms);
  positive('decodeMs', server.completion_ms);
  positive('deviceMs', server.device_ms);
  positive('joules', server.energy_j ?? server.joules ?? server.energy_mj / 1000);
  if (typeof server.device === 'string') stats.device = server.device.slice(0, 80);
  if (result.finish) stats.finish = result.finish;
  return stats;
}
