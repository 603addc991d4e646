// The chat page and the API page in a headless Chromium: what a reader sees and does, and hostile answers.
// node page.test.mjs FOLDER_WITH_node_modules
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';
import { Server } from '../integration/reticle_server.mjs';
import { startCanned } from './canned_server.mjs';

const require = createRequire(pathToFileURL(`${process.argv[2]}/package.json`));
const puppeteer = require('puppeteer-core');
const axe = readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');
const chromium = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(existsSync);
assert.ok(chromium, 'no Chromium is installed');

const kHostile = [
  '<script>window.pwned = 1</script>', '<img src=x onerror="window.pwned = 1">', '<svg onload="window.pwned = 1">',
  '[a](javascript:window.pwned=1)', '[b](JaVaScRiPt:window.pwned=1)', '[c](data:text/html,<script>window.pwned=1</script>)',
  '[d](&#106;avascript:window.pwned=1)', '![e](javascript:window.pwned=1)', '<a href="javascript:window.pwned=1">f</a>',
  '[g](https://e.org/" onclick="window.pwned=1)', '```"><script>window.pwned=1</script>\n<script>window.pwned=1</script>\n```',
  '| <script>window.pwned=1</script> | b |\n|---|---|\n| <img src=x onerror=window.pwned=1> | [h](javascript:window.pwned=1) |',
  '<iframe srcdoc="<script>parent.pwned=1</script>"></iframe>', '&lt;script&gt;window.pwned=1&lt;/script&gt;',
  '<form action="https://evil.example"><button>i</button></form>', '<style>body{display:none}</style>',
  '<meta http-equiv="refresh" content="0;url=https://evil.example">', '[good](https://example.org/page)',
].join('\n\n');
const kHundredK = `${'A word and another one, then **more** words. '.repeat(40)}\n\n- an item\n- and \`code\`\n\n\`\`\`js\n${'let x = 1;\n'.repeat(30)}\`\`\`\n\n`;

const retried = { count: 0 };
const models = {
  fast: { text: 'The **fast** answer.\n\n```py\nprint(1)\n```\n', completionMs: 0.5 },
  slow: { text: 'The slow answer.', completionMs: 50 },
  markdown: { text: '# A title\n\nWith [a link](https://example.org) and `code`.\n\n- one\n- two\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n> a quotation\n\n```js\nlet x = 1;\n```\n' },
  endless: { text: 'tick '.repeat(20000), piece: 5, rate: 200 },
  hostile: { text: kHostile, piece: 3 },
  flood: { text: kHundredK.repeat(200).slice(0, 400000), piece: 4 },
  closed: (request) => (request.authorization === 'Bearer k-123' ? models.fast
    : { status: 401, body: { error: { message: 'This server asks for a key.', type: 'authentication_error', param: null, code: 'invalid_api_key' } } }),
  busy: () => {
    retried.count += 1;
    return retried.count > 1 ? models.fast
      : { status: 429, headers: { 'retry-after': '1' }, body: { error: { message: 'Too many requests.', type: 'rate_limit_error', param: null, code: null } } };
  },
};

const reticle = await Server.start(['--threads', '1']);
const canned = await startCanned(reticle.url, models);
const browser = await puppeteer.launch({ executablePath: chromium, headless: true, timeout: 120000, protocolTimeout: 240000,
  args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--disable-background-networking'] });

let page;
const complaints = [];

async function open(url, width = 1200, height = 800, scheme = 'light') {
  if (page) await page.close();
  page = await browser.newPage();
  page.setDefaultTimeout(120000);
  await page.setViewport({ width, height });
  await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: scheme }]);
  page.on('pageerror', (error) => complaints.push(`error: ${error.message}`));
  page.on('request', (request) => {
    if (!request.url().startsWith(url) && !/^(?:data|blob|about):/.test(request.url())) complaints.push(`request: ${request.url()}`);
  });
  page.on('console', (message) => {
    if (/Content.Security.Policy/i.test(message.text())) complaints.push(message.text());
  });
  await page.goto(url);
}

async function ask(model, question) {
  await page.select('#model-0', model);
  await page.type('#prompt', question);
  await page.keyboard.press('Enter');
}

const settled = () => page.waitForFunction(() => !document.querySelector('.answer.live') && document.getElementById('stop').hidden);
const lastText = () => page.$$eval('.turn:last-child .text', (list) => list.map((element) => element.textContent));
const modelsListed = () => page.waitForFunction(() => document.getElementById('model-0').options.length > 1);

const tests = {
  async 'an answer with its numbers'() {
    await open(canned.url);
    await modelsListed();
    await ask('fast', 'Hello <b>you</b>');
    await settled();
    assert.equal(await page.$eval('.question p', (element) => element.textContent), 'Hello <b>you</b>');
    assert.equal(await page.$eval('.turn .text strong', (element) => element.textContent), 'fast');
    assert.equal(await page.$eval('.turn .text pre', (element) => element.textContent), 'print(1)\n');
    const stats = await page.$eval('.stats', (element) => element.textContent);
    for (const part of ['tok/s', 'first token', 'prefill', '1.5 ms', 'queue', '100 µs', 'device time', '6.0 ms', 'energy', '250 mJ', '12 →']) {
      assert.ok(stats.includes(part), `${part} in ${stats}`);
    }
    assert.match(await page.$eval('#status', (element) => element.textContent), /The fast answer[\s\S]*tokens a second/);
    const sent = canned.requests[canned.requests.length - 1];
    assert.deepEqual(sent.messages, [{ role: 'user', content: 'Hello <b>you</b>' }]);
    assert.equal(sent.stream, true);
  },

  async 'chats survive a reload, and can be asked again, edited and deleted'() {
    await page.reload();
    await modelsListed();
    await page.click('#chats .open');
    assert.deepEqual((await lastText()).length, 1);
    await page.click('.answer [aria-label="Ask again"]');
    await settled();
    assert.equal((await page.$$('.turn')).length, 1);
    await page.focus('#prompt');
    await page.keyboard.press('ArrowUp');
    await page.waitForSelector('.question.editing textarea');
    await page.keyboard.type(' again');
    await page.keyboard.press('Enter');
    await settled();
    assert.equal(await page.$eval('.question p', (element) => element.textContent), 'Hello <b>you</b> again');
    await page.hover('#chats li');
    await page.click('#chats [aria-label^="Delete"]');
    await page.click('#chats [aria-label^="Really"]');
    await page.waitForFunction(() => document.querySelectorAll('#chats li').length === 0);
    assert.equal(await page.evaluate(() => Object.keys(localStorage).filter((key) => key.startsWith('reticle.chat.')).length), 0);
  },

  async 'an answer is stopped, and the rest is not shown'() {
    await ask('endless', 'Go on');
    await page.waitForFunction(() => (document.querySelector('.turn:last-child .text')?.textContent.length ?? 0) > 20);
    await page.keyboard.press('Escape');
    await settled();
    const [text] = await lastText();
    assert.ok(text.length > 20 && text.length < 90000);
    assert.match(await page.$eval('.turn:last-child .notice', (element) => element.textContent), /Stopped/);
  },

  async 'two models side by side'() {
    await page.click('#new-chat');
    await page.click('#compare');
    await page.select('#model-1', 'slow');
    await ask('fast', 'Race');
    await settled();
    assert.deepEqual(await lastText(), ['The fast answer.pyprint(1)\n', 'The slow answer.']);
    assert.match(await page.$eval('.verdict', (element) => element.textContent), /× faster: fast/);
    assert.equal((await page.$$('#gauge .needle')).length, 2);
    await page.click('#compare');
  },

  async 'hostile answers stay text'() {
    await page.click('#new-chat');
    await ask('hostile', 'Attack');
    await settled();
    const seen = await page.evaluate(() => {
      const root = document.querySelector('.turn:last-child .text');
      for (const link of root.querySelectorAll('a')) {
        link.addEventListener('click', (event) => event.preventDefault());
        link.click();
      }
      return {
        pwned: window.pwned ?? null,
        tags: [...new Set([...root.querySelectorAll('*')].map((element) => element.localName))],
        handlers: [...root.querySelectorAll('*')].flatMap((element) => [...element.attributes].map((a) => a.name)).filter((name) => name.startsWith('on') || name === 'style' || name === 'src'),
        links: [...root.querySelectorAll('a')].map((link) => [link.href, link.rel, link.target]),
        text: root.textContent,
        visible: getComputedStyle(document.body).display,
      };
    });
    assert.equal(seen.pwned, null);
    assert.deepEqual(seen.handlers, []);
    assert.notEqual(seen.visible, 'none');
    for (const tag of ['script', 'img', 'iframe', 'form', 'style', 'meta']) assert.ok(!seen.tags.includes(tag), tag);
    for (const [href, rel, target] of seen.links) {
      assert.match(href, /^https:\/\/(?:(?:e|example)\.org|evil\.example)\//);
      assert.equal(rel, 'noopener noreferrer nofollow');
      assert.equal(target, '_blank');
    }
    assert.ok(seen.text.includes('<script>window.pwned = 1</script>'));
    assert.ok(seen.text.includes('[a](javascript:window.pwned=1)'));
    // The policy holds even for a script that did get into the page.
    const ran = await page.evaluate(() => {
      const script = document.createElement('script');
      script.textContent = 'window.inline = 1';
      document.body.append(script);
      return window.inline ?? null;
    });
    assert.equal(ran, null);
    complaints.splice(0, complaints.length, ...complaints.filter((text) => !/Content.Security.Policy/i.test(text)));
    // And after the chat has come back from the browser's store.
    await page.reload();
    await page.waitForSelector('#chats .open');
    await page.click('#chats .open');
    assert.equal(await page.evaluate(() => window.pwned ?? null), null);
    await modelsListed();
  },

  async 'a key is asked for, and kept in the tab alone'() {
    await page.click('#new-chat');
    await ask('closed', 'Let me in');
    await settled();
    await page.click('.turn:last-child .notice .primary');
    await page.waitForSelector('#setting-key');
    await page.type('#setting-key', 'k-123');
    await page.keyboard.press('Tab');
    await page.keyboard.press('Escape');
    await page.waitForFunction(() => !document.getElementById('settings').open);
    await page.click('.turn:last-child [aria-label="Ask again"]');
    await settled();
    assert.match((await lastText())[0], /The fast answer/);
    assert.equal(await page.evaluate(() => localStorage.getItem('reticle.key')), null);
    assert.equal(await page.evaluate(() => sessionStorage.getItem('reticle.key')), 'k-123');
    assert.equal(await page.evaluate(() => Object.values(localStorage).some((value) => value.includes('k-123'))), false);
  },

  async 'a 429 is waited out'() {
    await page.click('#new-chat');
    await ask('busy', 'Now');
    await page.waitForFunction(() => document.querySelector('.turn:last-child .text')?.textContent.includes('The fast answer'));
    assert.equal(retried.count, 2);
    await settled();
  },

  async 'the pace of reading holds text back, not the numbers'() {
    await page.click('#new-chat');
    await page.$eval('#pace', (element) => {
      element.value = 1;
      element.dispatchEvent(new Event('input'));
    });
    await ask('slow', 'Slowly');
    await page.waitForFunction(() => {
      const text = document.querySelector('.turn:last-child .text')?.textContent ?? '';
      return text.length > 0 && text.length < 16;
    });
    await settled();
    assert.deepEqual(await lastText(), ['The slow answer.']);
    await page.$eval('#pace', (element) => {
      element.value = element.max;
      element.dispatchEvent(new Event('input'));
    });
  },

  async 'a hundred thousand tokens do not freeze the tab'() {
    await page.click('#new-chat');
    await page.evaluate(() => {
      window.frames_ = 0;
      window.longest = 0;
      window.began = performance.now();
      const count = () => {
        window.frames_ += 1;
        requestAnimationFrame(count);
      };
      requestAnimationFrame(count);
      new PerformanceObserver((list) => {
        for (const entry of list.getEntries()) window.longest = Math.max(window.longest, entry.duration);
      }).observe({ entryTypes: ['longtask'] });
    });
    await ask('flood', 'All of it');
    await settled();
    const seen = await page.evaluate(() => ({
      text: document.querySelector('.turn:last-child .text').textContent.length,
      kept: JSON.parse(localStorage.getItem(Object.keys(localStorage).filter((key) => key.startsWith('reticle.chat.')).sort((a, b) => localStorage[b].length - localStorage[a].length)[0])).turns[0].answers[0].text.length,
      frames: window.frames_, longest: window.longest, ms: performance.now() - window.began,
    }));
    assert.equal(seen.kept, 400000);
    assert.ok(seen.text > 300000);
    console.log(`100,000 tokens: ${Math.round(seen.ms)} ms, ${(seen.frames / (seen.ms / 1000)).toFixed(1)} frames a second, longest task ${Math.round(seen.longest)} ms`);
  },

  async 'the theme switch, and a small screen'() {
    await open(canned.url, 390, 800);
    const theme = () => page.evaluate(() => document.documentElement.dataset.theme);
    const before = await theme();
    await page.click('[data-theme-switch]');
    assert.notEqual(await theme(), before);
    await page.reload();
    assert.notEqual(await theme(), before);
    assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth));
    await page.click('#show-sidebar');
    await page.waitForFunction(() => document.getElementById('sidebar').getBoundingClientRect().left >= 0);
    await page.keyboard.press('Escape');
    await page.waitForFunction(() => getComputedStyle(document.getElementById('sidebar')).visibility === 'hidden');
  },

  async 'an audit of accessibility finds nothing, in both themes, on a desk and a phone'() {
    for (const [width, height, scheme] of [[1280, 860, 'light'], [1280, 860, 'dark'], [390, 844, 'light'], [390, 844, 'dark']]) {
      await open(canned.url, width, height, scheme);
      // Without a theme that an earlier test chose.
      await page.evaluate(() => localStorage.clear());
      await page.reload();
      await modelsListed();
      await page.evaluate(axe);
      const audit = async (what) => {
        assert.equal(await page.evaluate(() => document.documentElement.dataset.theme), scheme);
        await page.evaluate(() => Promise.all(document.getAnimations().map((animation) => animation.finished.catch(() => {}))));
        const found = await page.evaluate(async () => (await globalThis.axe.run(document, { resultTypes: ['violations'] })).violations
          .flatMap(({ id, nodes }) => nodes.map((node) => `${id}: ${node.html.slice(0, 160)} ${node.failureSummary}`)));
        assert.deepEqual(found, [], `${what}, ${scheme}, ${width} wide`);
      };
      await audit('empty');
      await ask('markdown', 'Hello');
      await settled();
      await audit('answered');
      if (width < 600) await page.click('#show-sidebar');
      await audit('with the chats');
      if (width < 600) await page.keyboard.press('Escape');
      await page.click('#open-settings');
      await audit('settings');
    }
    await open(reticle.url);
    await page.goto(`${reticle.url}/docs`);
    await page.waitForSelector('.endpoint');
    await page.evaluate(axe);
    assert.deepEqual(await page.evaluate(async () => (await globalThis.axe.run(document)).violations.map(({ id }) => id)), []);
  },

  async 'everything can be reached and done by the keyboard alone'() {
    await open(canned.url);
    await modelsListed();
    const names = () => page.evaluate(() => {
      const at = document.activeElement;
      const style = getComputedStyle(at);
      globalThis.passed ??= new Set();
      const again = globalThis.passed.has(at);
      globalThis.passed.add(at);
      return { again: again || at === document.body, name: at.id || at.getAttribute('aria-label') || at.textContent.trim(), seen: style.outlineStyle !== 'none' || style.boxShadow !== 'none' };
    });
    // Where the focus goes from the top, until it leaves the page.
    const walk = async () => {
      await page.evaluate(() => document.activeElement.blur());
      const passed = [];
      for (let i = 0; i < 60; ++i) {
        await page.keyboard.press('Tab');
        const { name, seen, again } = await names();
        if (again) break;
        passed.push({ name, seen });
      }
      return passed;
    };
    const to = async (name) => {
      for (let i = 0; i < 60; ++i) {
        if ((await names()).name === name) return;
        await page.keyboard.press('Tab');
      }
      assert.fail(`${name} is not reached by Tab`);
    };
    const passed = await walk();
    const reached = passed.map(({ name }) => name);
    for (const name of ['Skip to the question', 'new-chat', 'model-0', 'compare', 'open-settings', 'prompt', 'pace']) {
      assert.ok(reached.includes(name), `${name} in ${reached}`);
    }
    for (const { name, seen } of passed) assert.ok(seen || name === 'prompt', `the focus on ${name} is not seen`);
    await page.focus('.skip');
    await page.keyboard.press('Enter');
    await to('prompt');
    await page.keyboard.type('By keys');
    await page.keyboard.press('Enter');
    await settled();
    await to('Ask again');
    await page.keyboard.press('Enter');
    await settled();
    assert.equal((await page.$$('.turn')).length, 1);
    await page.focus('.skip');
    await to('compare');
    await page.keyboard.press('Space');
    assert.equal(await page.$eval('#second', (element) => element.hidden), false);
    await to('model-1');
    await page.keyboard.press('Space');
    await page.keyboard.press('Escape');
    await to('compare');
    await page.keyboard.press('Space');
    await to('open-settings');
    await page.keyboard.press('Enter');
    await page.waitForFunction(() => document.querySelector('#settings').contains(document.activeElement));
    await page.keyboard.press('Escape');
    await page.waitForFunction(() => document.activeElement.id === 'open-settings');
    await page.keyboard.press('/');
    assert.equal((await names()).name, 'prompt');
  },

  async 'every control has a name'() {
    await open(canned.url);
    await modelsListed();
    await page.click('#open-settings');
    const nameless = await page.evaluate(() => [...document.querySelectorAll('button, input, select, textarea, a')]
      .filter((element) => !element.getAttribute('aria-label') && !(element.labels?.length > 0) && element.textContent.trim() === '')
      .map((element) => element.outerHTML.slice(0, 120)));
    assert.deepEqual(nameless, []);
  },

  async 'the house model answers on the real server'() {
    await open(reticle.url);
    await page.waitForFunction(() => document.getElementById('model-0').value === 'house');
    await page.click('#samples button');
    await settled();
    assert.match((await lastText())[0], /\breticle\b.*\.$/is);
  },

  async 'the API page lists every endpoint, and tries one'() {
    await open(reticle.url);
    await page.goto(`${reticle.url}/docs`);
    await page.waitForSelector('.endpoint');
    const shown = await page.$$eval('.endpoint h2', (list) => list.map((element) => element.textContent));
    const document_ = await (await fetch(`${reticle.url}/openapi.json`)).json();
    const wanted = Object.entries(document_.paths).flatMap(([path, methods]) => Object.keys(methods).map((method) => method + path));
    assert.deepEqual(shown, wanted);
    await page.click('#listModels .primary');
    await page.waitForFunction(() => document.querySelector('#listModels .try pre').textContent.includes('"house"'));
    assert.match(await page.$eval('#listModels .try output', (element) => element.textContent), /^200 after/);
  },
};

let failed = 0;
for (const [name, run] of Object.entries(tests)) {
  try {
    await run();
    assert.deepEqual(complaints, []);
    console.log(`ok ${name}`);
  } catch (error) {
    failed += 1;
    complaints.length = 0;
    console.log(`not ok ${name}\n${error.stack}`);
  }
}
await browser.close();
canned.close();
canned.server.close();
assert.equal(await reticle.stop(), 0);
process.exit(failed === 0 ? 0 : 1);
