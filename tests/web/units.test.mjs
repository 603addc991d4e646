// The page's scripts without a browser: markdown, events, numbers and the store.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { webcrypto } from 'node:crypto';
import { readFileSync, readdirSync } from 'node:fs';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import { elements, fakeDocument, serialise } from './fake_dom.mjs';

globalThis.crypto ??= webcrypto;  // Node 18 has it in its module only

const folder = fileURLToPath(new URL('../../server/web/assets/', import.meta.url));
const load = async (name) => {
  // The folder has no package.json that says "module".
  const source = readFileSync(folder + name, 'utf8').replaceAll(/from '\.\/(\w+\.js)'/g, (_, file) =>
    `from 'data:text/javascript;base64,${Buffer.from(readFileSync(folder + file)).toString('base64')}'`);
  return import(`data:text/javascript;base64,${Buffer.from(source).toString('base64')}`);
};
const { MarkdownWriter, parseInline, safeAddress } = await load('markdown.js');
const { SseParser } = await load('sse.js');
const { measure, retryAfter } = await load('stream.js');
const { Store, kDefaults, messagesFor, newChat, samplingOf, titleOf, toMarkdown } = await load('store.js');
const { formatJoules, formatMs, formatSpeed } = await load('format.js');

// A generator of its own, so that a failure can be repeated.
function randomOf(seed) {
  let state = seed;
  return (n) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * n);
  };
}

function render(text, cuts = []) {
  const root = fakeDocument.createElement('root');
  const writer = new MarkdownWriter(root, { doc: fakeDocument });
  let begin = 0;
  for (const cut of [...cuts, text.length]) {
    writer.write(text.slice(begin, cut));
    begin = cut;
  }
  writer.end();
  return root;
}

const html = (text) => serialise(render(text));

test('scripts are valid, and load nothing from elsewhere', () => {
  for (const name of readdirSync(folder)) {
    const text = readFileSync(folder + name, 'utf8');
    if (name.endsWith('.js')) {
      execFileSync(process.execPath, ['--input-type=module', '--check'], { input: text });
      assert.doesNotMatch(text, /innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|setAttribute\('on/, name);
    }
    if (!name.endsWith('.json')) {
      const addresses = (text.match(/https?:\/\/[^\s'"`)]+/g) ?? []).filter((url) => !/^https?:\/\/(?:www\.w3\.org\/|$|['"`])/.test(url));
      assert.deepEqual(addresses.filter((url) => /^https?:\/\/\w/.test(url)), [], name);
    }
    if (name.endsWith('.html')) {
      assert.doesNotMatch(text, /<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=|<style/, name);
    }
  }
});

test('markdown: blocks', () => {
  assert.equal(html('One\ntwo\n\nthree'), '<p>One\ntwo</p><p>three</p>');
  assert.equal(html('# A\n## B\ntext'), '<h3>A</h3><h4>B</h4><p>text</p>');
  assert.equal(html('#no\n\n####### no'), '<p>#no</p><p>####### no</p>');
  assert.equal(html('- a\n- b\n  - c\n- d'), '<ul><li>a</li><li>b<ul><li>c</li></ul></li><li>d</li></ul>');
  assert.equal(html('3. a\n4. b'), '<ol start="3"><li>a</li><li>b</li></ol>');
  assert.equal(html('1. a\n\n   more\n2. b'), '<ol><li>a<p>more</p></li><li>b</li></ol>');
  assert.equal(html('> one\n> two\n\nthree'), '<blockquote><p>one\ntwo</p></blockquote><p>three</p>');
  assert.equal(html('a\n\n---\n\nb'), '<p>a</p><hr></hr><p>b</p>');
  assert.equal(html('| a | b |\n|---|---|\n| 1 | **2** |\nend'),
    '<div><table><thead><tr><th>a</th><th>b</th></tr></thead><tbody><tr><td>1</td><td><strong>2</strong></td></tr></tbody></table></div><p>end</p>');
  assert.equal(html('| no table |\nnext'), '<p>| no table |\nnext</p>');
  assert.equal(html('5 - 3 * 2 = -1'), '<p>5 - 3 * 2 = -1</p>');
  assert.equal(html('a\r\nb'), '<p>a\nb</p>');
});

test('markdown: code', () => {
  const code = (text) => `<figure><pre><code><span>${text}</span></code></pre></figure>`;
  assert.equal(html('```js\nlet a = "<b>";\n```\nx'), `${code('let a = "&lt;b>";\n')}<p>x</p>`);
  assert.equal(html('~~~\n```\n~~~'), code('```\n'));
  assert.equal(html('````\n```\n````'), code('```\n'));
  assert.equal(html('```\nnot closed'), code('not closed'));
  assert.equal(html('- a\n  ```\n  x\n    y\n  ```'), `<ul><li>a${code('x\n  y\n')}</li></ul>`);
  const long = Array.from({ length: 500 }, (_, i) => `line ${i}`).join('\n');
  assert.equal(render(`\`\`\`\n${long}\n\`\`\``).textContent, `${long}\n`);
});

test('markdown: inline', () => {
  const inline = (text) => html(text).replace(/^<p>|<\/p>$/g, '');
  assert.equal(inline('**a** *b* ***c*** ~~d~~ `e`'), '<strong>a</strong> <em>b</em> <strong><em>c</em></strong> <del>d</del> <code>e</code>');
  assert.equal(inline('snake_case_name and __x__'), 'snake_case_name and <strong>x</strong>');
  assert.equal(inline('2 * 3 * 4 and **open'), '2 * 3 * 4 and **open');
  assert.equal(inline('``a ` b`` \\*no\\*'), '<code>a ` b</code> *no*');
  assert.equal(inline('**a *b* c**'), '<strong>a <em>b</em> c</strong>');
  assert.equal(inline('[x](https://e.org/a_(b)) https://e.org/c.'),
    '<a href="https://e.org/a_(b)">x</a> <a href="https://e.org/c">https://e.org/c</a>.');
  assert.equal(inline('(see http://e.org/a)'), '(see <a href="http://e.org/a">http://e.org/a</a>)');
  assert.equal(inline('&lt;b&gt; <i>'), '&amp;lt;b&amp;gt; &lt;i>');
});

const kHostile = [
  '<script>alert(1)</script>', '<img src=x onerror=alert(1)>', '[x](javascript:alert(1))', '[x](JaVaScRiPt:alert(1))',
  '[x](java\nscript:alert(1))', '[x](\u0001javascript:alert(1))', '[x](data:text/html,<script>alert(1)</script>)', '[x](vbscript:a)',
  '![x](javascript:alert(1))', '<a href="javascript:alert(1)">x</a>', '[x](https://a.b" onclick="alert(1))', '[<img src=x>](https://a.b)',
  '```"><script>alert(1)</script>\nx\n```', '| <script> | b |\n|---|---|\n| <img onerror=x> | [a](javascript:x) |', '`<b onmouseover=x>`',
  '[a]: javascript:alert(1)\n[a]', '<javascript:alert(1)>', 'javascript:alert(1)', '[x](https:alert(1))', '[x](//evil.example)',
  '# <svg onload=alert(1)>', '> <iframe src=x>', '- <style>*{}</style>', '&#106;avascript:alert(1)', '[x](&#106;avascript:alert(1))',
];

test('markdown: whatever the text, elements and addresses come from short lists', () => {
  const tags = new Set(['p', 'h3', 'h4', 'h5', 'h6', 'ul', 'ol', 'li', 'blockquote', 'hr', 'figure', 'pre', 'code', 'span', 'div', 'table',
    'thead', 'tbody', 'tr', 'th', 'td', 'strong', 'em', 'del', 'a']);
  const names = new Set(['href', 'title', 'rel', 'target', 'start']);
  const random = randomOf(7);
  const bits = [...kHostile, '**', '*', '`', '```\n', '\n', '\n\n', '> ', '- ', '1. ', '| a | b |\n', '|---|---|\n', '[', '](', ')', 'https://e.org/', '\\', '_', 'w ', '\u202e'];
  const texts = [...kHostile];
  for (let i = 0; i < 1500; i += 1) texts.push(Array.from({ length: 1 + random(12) }, () => bits[random(bits.length)]).join(''));
  for (const text of texts) {
    for (const element of elements(render(text))) {
      assert.ok(tags.has(element.tag), `${element.tag} from ${JSON.stringify(text)}`);
      for (const [name, value] of Object.entries(element.attributes)) {
        assert.ok(names.has(name), `${name} from ${JSON.stringify(text)}`);
        if (name === 'href') {
          assert.match(value, /^https?:\/\/[^\s"<>]*$/);
          assert.equal(element.attributes.rel, 'noopener noreferrer nofollow');
        }
        if (name === 'start') assert.match(value, /^\d+$/);
      }
    }
  }
  for (const address of ['javascript:x', 'data:x', '//e.org', 'https://', 'http:x', 'https://a b', 'ftp://e.org', '']) {
    assert.equal(safeAddress(address), null, address);
  }
});

test('markdown: the same tree for every cut of the text', () => {
  const random = randomOf(11);
  const sample = 'Intro with **bold *and* more**, `code` and https://e.org/x?a=b&c=d, end.\n\n# Head\n\n1. one\n2. two\n   - three *four*\n\n' +
    '```py\nprint("**no**")\n\n```\n\n| a | b |\n|:--|--:|\n| 1 | `2` |\n\n> quoted [link](https://e.org/y) text\n> more\n\n---\nlast ~~line~~ \\*x\\* 2 * 3';
  const bits = ['**', '*', '`', '``', '_', '~~', '[a](https://e.org)', '[', ']', '(', ')', '\n', '\n\n', '- ', '12. ', '# ', '> ', '```\n', '|a|b|\n|-|-|\n|c|\n',
    'word', ' ', 'http://e.org/p', '\\', '!', '***', '---\n', 'é', '😀'];
  const texts = [sample, ...kHostile];
  for (let i = 0; i < 400; i += 1) texts.push(Array.from({ length: 1 + random(30) }, () => bits[random(bits.length)]).join(''));
  for (const text of texts) {
    const whole = html(text);
    const every = Array.from({ length: Math.max(text.length - 1, 0) }, (_, i) => i + 1);
    assert.equal(serialise(render(text, every)), whole, JSON.stringify(text));
    for (let i = 0; i < 2; i += 1) {
      const cuts = every.filter(() => random(4) === 0);
      assert.equal(serialise(render(text, cuts)), whole, `${JSON.stringify(text)} cut at ${cuts}`);
    }
  }
});

test('markdown: no text is lost, and long ones stay linear', () => {
  const words = Array.from({ length: 20000 }, (_, i) => `word${i}`).join(' ');
  const root = render(words, Array.from({ length: words.length >> 6 }, (_, i) => (i + 1) << 6));
  assert.equal(root.textContent, words);
  assert.ok(elements(root).length > 20, 'a long paragraph is one box');
  // Openers that never close are what could make each character look at all that follow.
  for (const opener of ['**a ', '`', '[', '*a', '[a](', '![', '~~x', '_a ', '> '.repeat(50)]) {
    const text = opener.repeat(2000);
    const { parts, used } = parseInline(text, true);
    assert.equal(used, text.length);
    assert.ok(parts.length > 0);
    render(text, [1000, 2000]);
  }
});

function events(text, step) {
  const seen = [];
  const parser = new SseParser((data) => seen.push(data));
  for (let at = 0; at < text.length; at += step) parser.push(text.slice(at, at + step));
  return seen;
}

test('events: the same for every cut', () => {
  const text = '\ufeff: hello\n\ndata: one\r\n\r\nevent: x\ndata:two\ndata: three\n\ndata\n\rdata: four\r\rdatax: no\n\nid: 5\n\ndata: {"a":"b c"}\n\ndata: not yet';
  for (let step = 1; step <= text.length; step += 1) {
    assert.deepEqual(events(text, step), ['one', 'two\nthree', '', 'four', '{"a":"b c"}'], `in steps of ${step}`);
  }
  assert.throws(() => {
    const parser = new SseParser(() => {});
    for (let i = 0; i < 5; i += 1) parser.push('x'.repeat(4 << 20));
  }, /16 MiB/);
});

test('numbers: the server\'s clock goes before the page\'s', () => {
  const timing = { start: 100, first: 110, last: 120, end: 121 };
  const usage = { prompt_tokens: 9, completion_tokens: 101, prompt_tokens_details: { cached_tokens: 4 },
    reticle: { queue_ms: 0.1, prompt_ms: 2, completion_ms: 5, device_ms: 6, energy_mj: 250 } };
  const stats = measure({ timing, usage, tokens: 101, finish: 'stop' });
  assert.equal(stats.speed, 20000);
  assert.equal(stats.firstMs, 10);
  assert.equal(stats.joules, 0.25);
  assert.deepEqual([stats.queueMs, stats.prefillMs, stats.decodeMs, stats.deviceMs], [0.1, 2, 5, 6]);
  const other = measure({ timing, usage: null, tokens: 11, finish: null });
  assert.equal(other.speed, 1000);
  assert.equal(other.speedBy, 'page');
  assert.ok(!('joules' in other) && !('queueMs' in other));
  usage.reticle.energy_mj = 0;
  assert.ok(!('joules' in measure({ timing, usage, tokens: 1, finish: null })));
  assert.deepEqual([formatSpeed(16960), formatSpeed(9.44), formatMs(0.15), formatMs(12.34), formatMs(2500), formatJoules(0.0118)],
    ['16,960', '9.4', '150 µs', '12.3 ms', '2.50 s', '11.8 mJ']);
});

test('Retry-After is seconds or a date', () => {
  const headers = (value) => new Headers(value === null ? {} : { 'retry-after': value });
  assert.equal(retryAfter(headers('7')), 7);
  assert.equal(retryAfter(headers(null)), null);
  assert.equal(retryAfter(headers('soon')), null);
  assert.equal(retryAfter(headers('Thu, 01 Jan 1970 00:01:00 GMT'), 30000), 30);
});

class FakeStorage {
  constructor(limit = Infinity) {
    this.map = new Map();
    this.limit = limit;
  }

  get length() { return this.map.size; }
  key(i) { return [...this.map.keys()][i] ?? null; }
  getItem(key) { return this.map.get(key) ?? null; }
  removeItem(key) { this.map.delete(key); }
  setItem(key, value) {
    if (value.length > this.limit) throw new Error('quota');
    this.map.set(key, String(value));
  }
}

test('store: chats come back, damaged ones do not', () => {
  const local = new FakeStorage();
  const store = new Store(local, new FakeStorage());
  const chat = newChat();
  chat.title = titleOf('A question\nof two lines');
  chat.turns.push({ question: 'q', answers: [{ model: 'm', label: 'm · d', text: 'a' }, { model: 'n', label: 'n', text: 'b' }] });
  assert.ok(store.save(chat));
  assert.deepEqual(store.load(chat.id).turns, chat.turns);
  assert.deepEqual(store.list().map((item) => item.title), ['A question']);
  local.setItem('reticle.chat.bad', '{"id":"bad"}');
  local.setItem('reticle.chat.worse', 'not json');
  local.setItem('reticle.chat.odd', '{"id":"odd","title":5,"turns":[null,{"answers":[]},{"question":7,"answers":[{"text":{}}]}]}');
  assert.equal(store.load('bad'), null);
  assert.deepEqual(store.load('odd').turns, [{ question: '', answers: [{ model: '', label: '', text: '' }] }]);
  assert.equal(store.list().length, 2);
  store.removeAll();
  assert.equal(store.list().length, 0);
  assert.match(toMarkdown(chat), /\*\*m · d\*\*\n\na\n/);
});

test('store: settings of the wrong kind are the defaults; a full browser is told', () => {
  const local = new FakeStorage();
  local.setItem('reticle.settings', '{"temperature":"hot","top_k":3,"models":["a"],"extra":1}');
  const settings = new Store(local, new FakeStorage()).settings();
  assert.equal(settings.temperature, kDefaults.temperature);
  assert.equal(settings.top_k, 3);
  assert.deepEqual(settings.models, ['', '']);
  let full = 0;
  const small = new Store(new FakeStorage(10), new FakeStorage(), () => { full += 1; });
  assert.equal(small.save(newChat()), false);
  assert.equal(full, 1);
});

test('store: the key stays in the tab unless it is to be kept', () => {
  const [local, session] = [new FakeStorage(), new FakeStorage()];
  const store = new Store(local, session);
  store.saveKey('k1', false);
  assert.equal(store.key(), 'k1');
  assert.equal(local.length, 0);
  store.saveKey('k2', true);
  assert.equal(session.length, 0);
  assert.equal(store.key(), 'k2');
  store.saveKey('', true);
  assert.equal(store.key(), '');
  assert.equal(local.length, 0);
});

test('requests: each column sees its own answers, and settings that are set', () => {
  const chat = newChat();
  chat.turns.push({ question: 'q1', answers: [{ model: 'm', text: 'a' }, { model: 'n', text: 'b' }] },
    { question: 'q2', answers: [{ model: 'm', text: '' }] }, { question: 'q3', answers: [{ model: 'm', text: '' }] });
  assert.deepEqual(messagesFor(chat, 2, 1, 'sys').map((m) => m.content), ['sys', 'q1', 'b', 'q3']);
  assert.deepEqual(messagesFor(chat, 0, 0, ' ').map((m) => m.content), ['q1']);
  assert.deepEqual(samplingOf({ ...kDefaults, temperature: 0 }), { temperature: 0 });
  assert.deepEqual(samplingOf({ ...kDefaults, top_p: 0.5, top_k: 4, max_tokens: 9, seed: '-7' }),
    { temperature: kDefaults.temperature, top_p: 0.5, top_k: 4, max_tokens: 9, seed: -7 });
});
