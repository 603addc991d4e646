// A server for the page's tests: the pages come from the real program, with its headers; the answers are canned.
import http from 'node:http';

// The streams by model name: { text, piece, rate } or { status, headers, body }. A piece is the characters of a token.
export async function startCanned(upstream, models) {
  const requests = [];
  const server = http.createServer((request, response) => {
    let body = '';
    request.on('data', (data) => { body += data; });
    request.on('end', () => {
      if (request.url === '/v1/models') {
        response.writeHead(200, { 'content-type': 'application/json' });
        response.end(JSON.stringify({ object: 'list', data: Object.keys(models).map((id) => ({ id, object: 'model' })) }));
      } else if (request.url === '/v1/chat/completions') {
        const asked = JSON.parse(body);
        requests.push({ ...asked, authorization: request.headers.authorization ?? null });
        const model = models[asked.model];
        answer(response, asked.model, typeof model === 'function' ? model(requests[requests.length - 1]) : model);
      } else {
        const proxied = http.request(upstream + request.url, { method: request.method }, (reply) => {
          response.writeHead(reply.statusCode, reply.headers);
          reply.pipe(response);
        });
        proxied.end();
      }
    });
  });
  await new Promise((resolve) => { server.listen(0, '127.0.0.1', resolve); });
  return { url: `http://127.0.0.1:${server.address().port}`, requests, close: () => server.closeAllConnections?.() ?? server.close(), server };
}

function answer(response, name, model) {
  if (model.status) {
    response.writeHead(model.status, { 'content-type': 'application/json', ...model.headers });
    response.end(JSON.stringify(model.body));
    return;
  }
  const event = (fields) => `data: ${JSON.stringify({ id: 'c', object: 'chat.completion.chunk', created: 1, model: name,
    system_fingerprint: 'f', choices: [], usage: null, ...fields })}\n\n`;
  const piece = model.piece ?? 4;
  const count = Math.ceil(model.text.length / piece);
  const rate = model.rate ?? Infinity;
  const begin = performance.now();
  let at = 0;
  response.writeHead(200, { 'content-type': 'text/event-stream' });
  const more = () => {
    const due = rate === Infinity ? Math.min(count, at + 2000) : Math.min(count, Math.floor(((performance.now() - begin) * rate) / 1000));
    const parts = [];
    for (; at < due; at += 1) {
      parts.push(event({ choices: [{ index: 0, delta: { content: model.text.slice(at * piece, (at + 1) * piece) }, finish_reason: null }] }));
    }
    const flows = parts.length === 0 || response.write(parts.join(''));
    if (response.destroyed) return;
    if (at < count) {
      if (flows) setTimeout(more, rate === Infinity ? 0 : 4);
      else response.once('drain', more);
      return;
    }
    response.end(event({ choices: [{ index: 0, delta: {}, finish_reason: 'stop' }] }) + event({ usage: { prompt_tokens: 12,
      completion_tokens: count, total_tokens: count + 12, prompt_tokens_details: { cached_tokens: 4 },
      reticle: { queue_ms: 0.1, prompt_ms: 1.5, completion_ms: model.completionMs ?? 5, device_ms: 6, energy_mj: 250 } } }) + 'data: [DONE]\n\n');
  };
  more();
}
