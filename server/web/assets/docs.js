// The API page, made from /openapi.json.
import { copyText, h, iconButton } from './dom.js';
import { formatMs } from './format.js';
import { authorization } from './stream.js';
import { Store } from './store.js';

const kShown = 200000;   // characters of a reply
const store = new Store(localStorage, sessionStorage);
const content = document.getElementById('content');

let description = null;

function resolve(schema) {
  if (!schema?.$ref) return schema ?? {};
  return schema.$ref.slice(2).split('/').reduce((at, name) => at[name], description);
}

function nameOf(schema) {
  return schema?.$ref?.split('/').pop() ?? null;
}

function typeOf(schema) {
  if (nameOf(schema)) return nameOf(schema);
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.anyOf) return [...new Set(schema.anyOf.map(typeOf).filter((type) => type !== 'null'))].join(' or ');
  const types = [].concat(schema.type ?? 'any').filter((type) => type !== 'null');
  if (types.includes('array') && schema.items) return `list of ${typeOf(schema.items)}`;
  return types.join(' or ') || 'null';
}

function ruleOf(schema) {
  const rules = [];
  const limit = (value) => (Math.abs(value) > 1e15 ? null : value);
  const low = schema.exclusiveMinimum ?? limit(schema.minimum ?? NaN);
  const high = limit(schema.maximum ?? NaN);
  const has = (value) => value !== null && !Number.isNaN(value);
  if (schema.exclusiveMinimum !== undefined) rules.push(`above ${low}${has(high) ? `, to ${high}` : ''}`);
  else if (has(low) && has(high)) rules.push(`${low} to ${high}`);
  else if (has(low)) rules.push(`at least ${low}`);
  else if (has(high)) rules.push(`at most ${high}`);
  if (schema.enum) rules.push(schema.enum.filter((value) => value !== null).map((value) => JSON.stringify(value)).join(', '));
  if (schema.default !== undefined) rules.push(`default ${JSON.stringify(schema.default)}`);
  return rules.join('; ');
}

function fields(schema) {
  const rows = [];
  for (const [name, property] of Object.entries(schema.properties ?? {})) {
    const required = schema.required?.includes(name);
    const rule = ruleOf(property);
    rows.push(h('div', {},
      h('dt', {}, h('code', {}, name), h('small', {}, typeOf(property), required ? h('span', { class: 'required' }, ', required') : null)),
      h('dd', {}, property.description ?? '', rule ? h('p', { class: 'rule' }, rule) : null)));
  }
  return h('dl', { class: 'fields' }, ...rows);
}

function request(operation) {
  const body = operation.requestBody?.content?.['application/json']?.schema;
  if (!body) return [];
  const schema = resolve(body);
  const offered = { ...schema, properties: {} };
  const refused = [];
  for (const [name, property] of Object.entries(schema.properties ?? {})) {
    if (property['x-refused']) refused.push(name);
    else offered.properties[name] = property;
  }
  const parts = [h('h3', {}, 'Request'), fields(offered)];
  if (refused.length > 0) {
    parts.push(h('h3', {}, 'Refused by name'), h('p', {}, ...refused.flatMap((name, i) => [i > 0 ? ', ' : '', h('code', {}, name)])));
  }
  return parts;
}

function parameters(operation) {
  if (!operation.parameters?.length) return [];
  const schema = { properties: {}, required: [] };
  for (const parameter of operation.parameters) {
    const p = resolve(parameter);
    schema.properties[p.name] = { ...p.schema, description: `${p.description ?? ''} (${p.in})`.trim() };
    if (p.required) schema.required.push(p.name);
  }
  return [h('h3', {}, 'Parameters'), fields(schema)];
}

function replies(operation) {
  const parts = [h('h3', {}, 'Replies')];
  const rows = Object.entries(operation.responses).map(([status, reply]) => {
    const kinds = Object.entries(reply.content ?? {}).map(([type, media]) => {
      const name = nameOf(media['x-event'] ?? media.schema);
      return name ? `${name}${media['x-event'] ? ', streamed' : ''}` : type;
    });
    return h('div', {}, h('dt', {}, h('code', {}, status)), h('dd', {}, reply.description, h('p', { class: 'rule' }, kinds.join(' or '))));
  });
  parts.push(h('dl', { class: 'fields' }, ...rows));
  const seen = new Set();
  const schemaDetails = (schema) => {
    const name = nameOf(schema);
    if (name === null || name === 'Error' || seen.has(name)) return;
    seen.add(name);
    const resolved = resolve(schema);
    if (resolved.properties) parts.push(h('details', {}, h('summary', {}, name), fields(resolved)));
  };
  for (const reply of Object.values(operation.responses)) {
    for (const media of Object.values(reply.content ?? {})) schemaDetails(media['x-event'] ?? media.schema);
  }
  return parts;
}

function exampleBody(operation) {
  const schema = resolve(operation.requestBody?.content?.['application/json']?.schema);
  if (!schema.properties) return null;
  const name = schema.properties.messages && !schema.properties.prompt ? 'messages'
    : schema.required?.[0] ?? 'prompt';
  const body = { [name]: schema.properties[name].examples?.[0] ?? schema.properties[name].items?.examples?.[0] };
  if (schema.properties.max_tokens) body.max_tokens = 40;
  if (schema.properties.temperature) body.temperature = 0;
  return JSON.stringify(body, null, 2);
}

function curl(method, path, body) {
  const parts = [`curl ${location.origin}${path}`];
  if (body !== null) parts.push(`-H 'content-type: application/json'`, `-d '${body.replace(/\s+/g, ' ').replaceAll("'", "'\\''")}'`);
  return parts.join(' \\\n  ');
}

function tryIt(method, path, operation) {
  const body = exampleBody(operation);
  const area = body === null ? null : h('textarea', { rows: Math.min(body.split('\n').length + 1, 12), spellcheck: 'false', 'aria-label': 'Body of the request' });
  if (area !== null) area.value = body;
  const id = path.includes('{') ? h('input', { 'aria-label': 'Value of the path\'s parameter' }) : null;
  if (id !== null) id.value = operation.parameters.find((p) => p.in === 'path').example ?? '';
  const status = h('output', {});
  const shown = h('pre', { hidden: true, tabindex: 0 });
  const target = () => (id === null ? path : path.replace(/\{[^}]*\}/, encodeURIComponent(id.value)));
  const send = h('button', { type: 'submit', class: 'primary' }, 'Send');
  const copy = iconButton('copy', 'Copy as a curl command', () => copyText(curl(method, target(), area?.value ?? null), copy));
  const form = h('form', { class: 'try' }, h('h3', {}, 'Try it'), id, area, h('div', { class: 'row' }, send, copy, status), shown);
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    send.disabled = true;
    status.textContent = '';
    shown.hidden = false;
    shown.textContent = '';
    const begin = performance.now();
    try {
      const response = await fetch(target(), {
        method: method.toUpperCase(),
        headers: { ...authorization(store.key()), ...(area === null ? {} : { 'content-type': 'application/json' }) },
        body: area?.value,
      });
      status.textContent = `${response.status} after ${formatMs(performance.now() - begin)}`;
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      const text = document.createTextNode('');
      shown.append(text);
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        if (text.length < kShown) text.appendData(value.slice(0, kShown - text.length));
      }
      if (response.headers.get('content-type')?.includes('json')) {
        try {
          text.data = JSON.stringify(JSON.parse(text.data), null, 2);
        } catch {
          // Cut off: as it came.
        }
      }
    } catch (error) {
      status.textContent = 'The server cannot be reached.';
      shown.textContent = String(error.message ?? error);
    }
    send.disabled = false;
  });
  return form;
}

function show() {
  const groups = new Map(description.tags.map((tag) => [tag.name, []]));
  const sections = [];
  for (const [path, methods] of Object.entries(description.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      const tag = operation.tags?.[0] ?? 'Other';
      if (!groups.has(tag)) groups.set(tag, []);
      groups.get(tag).push([path, operation]);
      sections.push(h('section', { class: 'endpoint', id: operation.operationId, 'aria-label': operation.summary },
        h('h2', {}, h('span', { class: `method ${method}` }, method), h('code', {}, path)),
        h('p', {}, operation.summary, operation.description ? `. ${operation.description}` : ''),
        ...parameters(operation), ...request(operation), ...replies(operation), tryIt(method, path, operation)));
    }
  }
  document.getElementById('contents').replaceChildren(...[...groups].filter(([, list]) => list.length > 0).flatMap(([tag, list]) => [
    h('h2', {}, tag),
    h('ul', {}, ...list.map(([path, operation]) => h('li', {}, h('a', { href: `#${operation.operationId}` }, path)))),
  ]));
  content.replaceChildren(h('h1', {}, 'API'), h('p', { class: 'intro' }, description.info.description), ...sections);
  if (location.hash.length > 1) document.getElementById(location.hash.slice(1))?.scrollIntoView();
}

try {
  const response = await fetch('/openapi.json');
  if (!response.ok) throw new Error(`status ${response.status}`);
  description = await response.json();
  show();
} catch (error) {
  document.getElementById('loading')?.replaceChildren(`The description of the API cannot be loaded: ${error.message}`);
}
