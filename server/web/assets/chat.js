// The chat page: ties the browser's store, the streams and the views together.
import { download, h, iconButton } from './dom.js';
import { formatMs, formatSpeed } from './format.js';
import { Gauge, SpeedMeter } from './gauge.js';
import { SettingsPanel } from './settings.js';
import { complete, listModels, measure } from './stream.js';
import { Store, messagesFor, newChat, samplingOf, titleOf, toMarkdown } from './store.js';
import { TurnView } from './turn.js';
import { wafer } from './wafer.js';

const kPaces = [0, 5, 10, 20, 50, 100, 200, 500, 2000];
const kSamples = [
  'What is Reticle?',
  'How fast is the Taalas HC1?',
  'What is the difference between prefill and decode?',
  'How does continuous batching work?',
  'Can I put other weights on the HC1?',
  'Tell me a joke',
];
const kLongestWaitS = 120;
const kReadable = 30;   // tokens a second that a reader can follow

const $ = (id) => document.getElementById(id);
const scroller = $('scroller');
const prompt = $('prompt');

let onFull = () => {};
const store = new Store(localStorage, sessionStorage, () => onFull());
const settings = store.settings();
const gauge = new Gauge($('gauge'));
let models = [];
let devices = new Map();   // of a model, where there are several
let chat = newChat();
let views = [];
let running = null;     // { abort, turn, element, speed, finished } while answers are written
let follows = true;     // the view stays at the end of the text

function say(text) {
  $('status').textContent = text;
}

// ---------------------------------------------------------------------------------------------------------- models

// A model's name, with the device that serves it when that is not part of it.
function labelOf(id) {
  const device = devices.get(id);
  return device && !id.includes('@') ? `${id} · ${device}` : id;
}

function showModels() {
  for (const column of [0, 1]) {
    const select = $(`model-${column}`);
    select.replaceChildren(...models.map((id) => h('option', { value: id }, labelOf(id))));
    if (models.length === 0) select.replaceChildren(h('option', { value: '' }, 'no model'));
    if (!models.includes(settings.models[column])) {
      settings.models[column] = models[Math.min(column, models.length - 1)] ?? '';
    }
    select.value = settings.models[column];
  }
  const compare = settings.compare;
  $('second').hidden = !compare;
  $('models').classList.toggle('two', compare);
  $('compare').setAttribute('aria-pressed', String(compare));
  if (running === null) gauge.setStreams(compare ? 2 : 1);
}

async function loadModels() {
  try {
    const listed = await listModels(store.key());
    models = listed.map((model) => String(model.id));
    const several = new Set(listed.map((model) => model.device)).size > 1;
    devices = new Map(several ? listed.map((model) => [String(model.id), model.device]) : []);
    $('lead').textContent = 'Pick a question, and watch the ruler below.';
  } catch (error) {
    models = [];
    const lead = $('lead');
    lead.replaceChildren(`${error.message} `);
    if (error.status === 401) {
      lead.append(h('button', { type: 'button', class: 'text-button', onclick: () => panel.open('key') }, 'Enter a key'),
        ', or ', h('a', { href: '/apply' }, 'apply for one'), '.');
    } else {
      lead.append(h('button', { type: 'button', class: 'text-button', onclick: loadModels }, 'Try again'));
    }
  }
  showModels();
}

// ---------------------------------------------------------------------------------------------------------- scrolling

function atEnd() {
  return scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 60;
}

// Keeps up with the text while it comes slowly enough to be read along. A faster answer stays at its beginning.
function follow() {
  if (!follows) return;
  const outruns = running !== null && (settings.pace === 0 || settings.pace > kReadable) && running.speed > kReadable;
  const end = scroller.scrollHeight - scroller.clientHeight;
  const begin = outruns ? running.element.offsetTop - $('turns').offsetTop : end;
  const top = Math.max(Math.min(begin, end), outruns ? 0 : end);
  if (Math.abs(scroller.scrollTop - top) > 1) scroller.scrollTop = top;
}

let lastTop = 0;
scroller.addEventListener('scroll', () => {
  const top = scroller.scrollTop;
  if (top < lastTop - 2 && !atEnd()) follows = false;
  else if (atEnd()) follows = true;
  lastTop = top;
  $('to-end').hidden = atEnd();
}, { passive: true });
$('to-end').addEventListener('click', () => {
  follows = true;
  scroller.scrollTop = scroller.scrollHeight;
});

// ---------------------------------------------------------------------------------------------------------- the chat

function showChats() {
  const items = store.list().map(({ id, title }) => {
    const open = h('button', { type: 'button', class: 'open', 'aria-current': id === chat.id ? 'true' : null, onclick: () => openChat(id) }, title || 'Untitled');
    const remove = iconButton('trash', `Delete the chat “${title}”`, () => {
      if (remove.dataset.sure === undefined) {
        remove.dataset.sure = '';
        remove.setAttribute('aria-label', 'Really delete this chat?');
        remove.title = 'Once more deletes it';
        setTimeout(() => { if (remove.isConnected) showChats(); }, 3000);
        return;
      }
      store.remove(id);
      if (id === chat.id) startChat();
      else showChats();
      say('The chat is deleted.');
    });
    return h('li', {}, open, remove);
  });
  $('chats').replaceChildren(...items);
  $('export-chat').hidden = chat.turns.length === 0;
}

function actionsFor(turn) {
  return {
    edit: () => edit(turn),
    retry: () => ask(turn.question, chat.turns.indexOf(turn)),
    pace: () => settings.pace,
    onFrame: follow,
  };
}

function showChat() {
  views = chat.turns.map((turn) => new TurnView(turn, actionsFor(turn)));
  $('turns').replaceChildren(...views.map((view) => view.element));
  $('empty').hidden = chat.turns.length > 0;
  document.title = chat.title ? `${chat.title} · Reticle` : 'Reticle';
  follows = true;
  follow();
  showChats();
}

function startChat() {
  stop();
  chat = newChat();
  showChat();
  hideSidebar();
  gauge.setStreams(settings.compare ? 2 : 1);
  prompt.focus();
}

function openChat(id) {
  const kept = store.load(id);
  if (kept === null) return showChats();
  stop();
  chat = kept;
  showChat();
  hideSidebar();
}

function edit(turn) {
  if (running !== null) stop();
  const index = chat.turns.indexOf(turn);
  views[index].editQuestion((text) => {
    if (text !== null) ask(text, index);
    else prompt.focus();
  });
}

function stop() {
  running?.abort.abort();
}

// Asks `question` as the turn at `index`; what followed is dropped.
async function ask(question, index = chat.turns.length) {
  if (running !== null) {
    const before = running;
    stop();
    await before.finished;
  }
  const asked = settings.compare ? settings.models.slice() : settings.models.slice(0, 1);
  const turn = { question, answers: asked.map((model) => ({ model, label: labelOf(model), text: '' })) };
  chat.turns.length = index;
  chat.turns.push(turn);
  if (chat.title === '' || index === 0) chat.title = titleOf(question);
  const view = new TurnView(turn, actionsFor(turn));
  for (const old of views.slice(index)) old.element.remove();
  views.length = index;
  views.push(view);
  $('turns').append(view.element);
  $('empty').hidden = true;
  document.title = `${chat.title} · Reticle`;
  follows = true;
  follow();

  const abort = new AbortController();
  let finished;
  running = { abort, turn, element: view.element, speed: 0, finished: new Promise((resolve) => { finished = resolve; }) };
  const mine = running;
  const ours = chat;
  gauge.setStreams(asked.length);
  setRunning(true);
  say('The answer is being written.');
  store.save(ours);
  showChats();
  await Promise.all(view.answers.map((answer, column) => stream(ours, turn, answer, column, abort.signal)));
  view.compare();
  follow();
  store.save(ours);
  finished();
  if (running === mine) {
    running = null;
    setRunning(false);
  }
  announce(turn, view);
  showChats();
  $('to-end').hidden = atEnd();
}

async function stream(ours, turn, view, column, signal) {
  const { answer } = view;
  const meter = new SpeedMeter();
  let frame = 0;
  const run = running;
  const tick = () => {
    const speed = meter.speed(performance.now());
    gauge.set(column, speed);
    if (speed !== null) run.speed = Math.max(run.speed, speed);
    frame = requestAnimationFrame(tick);
  };
  view.begin();
  try {
    const result = await complete({
      body: { model: answer.model, messages: messagesFor(ours, ours.turns.indexOf(turn), column, settings.system), ...samplingOf(settings) },
      key: store.key(),
      signal,
      onText: (text, tokens) => {
        if (frame === 0) tick();
        meter.add(tokens, performance.now());
        view.append(text, tokens);
      },
    });
    cancelAnimationFrame(frame);
    answer.stats = measure(result);
    run.speed = Math.max(run.speed, answer.stats.speed ?? 0);
    gauge.set(column, answer.stats.speed ?? null);
    signal.addEventListener('abort', () => view.discard(), { once: true });
    await view.drained();
    if (signal.aborted) answer.stopped = true;
  } catch (error) {
    cancelAnimationFrame(frame);
    if (error.name === 'AbortError') {
      view.discard();
      answer.stopped = true;
    } else {
      await view.drained();
      answer.error = error.message;
      gauge.set(column, null);
    }
    view.finish();
    if (answer.error) explain(view, turn, error);
    return;
  }
  view.finish();
}

// What can be done about an error.
function explain(view, turn, error) {
  if (error.status === 401) {
    view.tell(error.message, '', h('div', { class: 'row' },
      h('button', { type: 'button', class: 'primary', onclick: () => panel.open('key') }, 'Enter a key'), applyLink()));
    return;
  }
  const again = h('button', { type: 'button', class: 'plain', onclick: () => ask(turn.question, chat.turns.indexOf(turn)) }, 'Ask again');
  const wait = error.retryAfterS;
  if (wait === null || wait > kLongestWaitS) {
    const when = wait === null ? '' : ` It said to come back in ${formatMs(wait * 1000)}.`;
    view.tell(error.message + when, '', again);
    return;
  }
  // A short wait: asks again by itself, unless something else happened meanwhile.
  const until = performance.now() + wait * 1000;
  const left = h('span', { 'aria-hidden': 'true' });
  const cancel = h('button', { type: 'button', class: 'plain' }, 'Do not');
  view.tell(error.message, '', h('p', {}, 'Asks again in ', left, '.'), h('div', { class: 'row' }, again, cancel));
  const timer = setInterval(() => {
    const seconds = Math.ceil((until - performance.now()) / 1000);
    left.textContent = `${Math.max(seconds, 0)} s`;
    if (!view.element.isConnected || (running !== null && running.turn !== turn)) return clearInterval(timer);
    if (seconds <= 0 && running === null) {
      clearInterval(timer);
      ask(turn.question, chat.turns.indexOf(turn));
    }
  }, 200);
  cancel.addEventListener('click', () => {
    clearInterval(timer);
    view.tell(error.message, '', again);
  });
}

// A link to the form for keys, where the server has one.
function applyLink() {
  const link = h('a', { href: '/apply', hidden: true }, 'Apply for a key');
  fetch('/apply', { method: 'HEAD' }).then((response) => { link.hidden = !response.ok; }, () => {});
  return link;
}

function announce(turn, view) {
  const parts = turn.answers.map((answer, column) => {
    if (answer.error) return `No answer: ${answer.error}`;
    const speed = answer.stats?.speed ? ` ${formatSpeed(answer.stats.speed)} tokens a second.` : '';
    const name = turn.answers.length > 1 ? `${answer.label ?? answer.model}: ` : '';
    return `${name}${view.answers[column].body.textContent.slice(0, 1500)} ${answer.stopped ? 'Stopped.' : ''}${speed}`;
  });
  say(parts.join('\n'));
}

// ---------------------------------------------------------------------------------------------------------- controls

function setRunning(on) {
  $('send').hidden = on;
  $('stop').hidden = !on;
  for (const id of ['model-0', 'model-1', 'compare']) $(id).disabled = on;
}

function fitPrompt() {
  prompt.style.height = 'auto';
  prompt.style.height = `${Math.min(prompt.scrollHeight, 220)}px`;
}

function send() {
  const question = prompt.value.trim();
  if (question === '' || running !== null) return;
  prompt.value = '';
  fitPrompt();
  ask(question);
}

function showSidebar() {
  document.body.classList.add('with-sidebar');
  $('shade').hidden = false;
  $('show-sidebar').setAttribute('aria-expanded', 'true');
  $('new-chat').focus();
}

function hideSidebar() {
  if (!document.body.classList.contains('with-sidebar')) return;
  document.body.classList.remove('with-sidebar');
  $('shade').hidden = true;
  $('show-sidebar').setAttribute('aria-expanded', 'false');
}

function showPace() {
  const text = settings.pace === 0 ? 'as it comes' : `${settings.pace} tok/s`;
  $('pace').value = settings.pace === 0 ? kPaces.length - 1 : kPaces.indexOf(settings.pace) - 1;
  $('pace-value').textContent = text;
  $('pace').setAttribute('aria-valuetext', text);
}

const panel = new SettingsPanel(store, settings, {
  onChange: () => store.saveSettings(settings),
  onKey: loadModels,
  onCleared: startChat,
  exportAll: () => JSON.stringify({ chats: store.list().map(({ id }) => store.load(id)) }, null, 1),
});

$('composer').addEventListener('submit', (event) => {
  event.preventDefault();
  send();
});
prompt.addEventListener('input', fitPrompt);
prompt.addEventListener('keydown', (event) => {
  if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    send();
  } else if (event.key === 'ArrowUp' && prompt.value === '' && chat.turns.length > 0) {
    event.preventDefault();
    edit(chat.turns[chat.turns.length - 1]);
  }
});
$('stop').addEventListener('click', () => {
  stop();
  prompt.focus();
});
document.addEventListener('keydown', (event) => {
  if (event.key === 'Escape' && !$('settings').open) {
    if (document.body.classList.contains('with-sidebar')) hideSidebar();
    else stop();
  } else if (event.key === '/' && !/^(?:INPUT|TEXTAREA|SELECT)$/.test(document.activeElement?.tagName ?? '')) {
    event.preventDefault();
    prompt.focus();
  }
});
for (const column of [0, 1]) {
  $(`model-${column}`).addEventListener('change', (event) => {
    settings.models[column] = event.target.value;
    store.saveSettings(settings);
  });
}
$('compare').addEventListener('click', () => {
  settings.compare = !settings.compare;
  store.saveSettings(settings);
  showModels();
});
$('pace').max = kPaces.length - 1;
$('pace').addEventListener('input', () => {
  // Fastest at the right end.
  settings.pace = [...kPaces.slice(1), 0][Number($('pace').value)];
  store.saveSettings(settings);
  showPace();
});
$('open-settings').addEventListener('click', () => panel.open());
$('new-chat').addEventListener('click', startChat);
$('show-sidebar').addEventListener('click', showSidebar);
$('hide-sidebar').addEventListener('click', hideSidebar);
$('shade').addEventListener('click', hideSidebar);
$('export-chat').addEventListener('click', () => {
  const name = chat.title.toLowerCase().replace(/[^a-z0-9]+/g, '-').replace(/^-|-$/g, '') || 'chat';
  download(`${name}.md`, 'text/markdown', toMarkdown(chat));
});
addEventListener('storage', (event) => {
  if (event.key?.startsWith('reticle.chat.')) showChats();
});
let told = false;
onFull = () => {
  if (!told) alertFull();
  told = true;
};
function alertFull() {
  say('The browser keeps no more chats. Delete old ones.');
  $('chats').before(h('p', { class: 'full' }, 'The browser keeps no more chats. Delete old ones to keep this one.'));
}

$('art').append(wafer());
$('samples').append(...kSamples.map((text) =>
  h('li', {}, h('button', { type: 'button', onclick: () => ask(text) }, text))));
showPace();
showModels();
showChat();
loadModels();
if (matchMedia('(hover: hover)').matches) prompt.focus();
