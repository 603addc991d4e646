// The view of one turn: the question and one or two answers, each with its text, its numbers and its buttons.
import { copyText, h, iconButton } from './dom.js';
import { formatCount, formatFactor, formatJoules, formatMs, formatSpeed } from './format.js';
import { MarkdownWriter } from './markdown.js';

// Rendering stops for this frame after so long; the rest waits for the next.
const kFrameMs = 6;
const kSliceChars = 2048;

function decorateCode(figure, code, language) {
  figure.className = 'code';
  const copy = iconButton('copy', 'Copy the code', () => copyText(code.textContent, copy));
  figure.prepend(h('figcaption', {}, h('span', {}, language || 'code'), copy));
  figure.querySelector('pre').tabIndex = 0;
}

export class AnswerView {
  // `actions`: { retry, pace() } with pace in tokens a second, 0 for all at once; `onFrame` after each change.
  constructor(answer, column, actions) {
    this.answer = answer;
    this.actions = actions;
    this.waiting = [];      // texts that are not yet shown
    this.waitingChars = 0;
    this.shownChars = 0;
    this.tokens = 0;
    this.chars = 0;
    this.allowance = 0;
    this.lastFrame = 0;
    this.frame = 0;
    this.ended = null;      // called when all is shown
    this.body = h('div', { class: 'text' });
    this.notice = h('div', { class: 'notice', role: 'alert', hidden: true });
    this.stats = h('dl', { class: 'stats' });
    this.copy = iconButton('copy', 'Copy this answer', () => copyText(this.answer.text, this.copy));
    this.retry = iconButton('retry', 'Ask again', () => actions.retry());
    this.buttons = h('div', { class: 'buttons' }, this.copy, this.retry);
    this.foot = h('div', { class: 'foot', hidden: true }, this.stats, this.buttons);
    const label = answer.label ?? answer.model;
    this.element = h('article', { class: `answer stream-${column}`, 'aria-label': `Answer of ${label}` },
      h('header', {}, h('span', { class: 'die', 'aria-hidden': 'true' }), h('span', { class: 'model' }, label)),
      this.body, this.notice, this.foot);
    this.clear();
    if (answer.text) {
      this.writer.write(answer.text);
      this.writer.end();
    }
    if (answer.stats || answer.error || answer.stopped || answer.text) this.finish();
  }

  clear() {
    this.body.replaceChildren();
    this.writer = new MarkdownWriter(this.body, { decorate: decorateCode });
  }

  begin() {
    this.element.classList.add('live');
    this.element.setAttribute('aria-busy', 'true');
    this.notice.hidden = true;
    this.foot.hidden = true;
  }

  append(text, tokens) {
    this.waiting.push(text);
    this.waitingChars += text.length;
    this.tokens += tokens;
    this.chars += text.length;
    this.schedule();
  }

  schedule() {
    if (this.frame === 0) this.frame = requestAnimationFrame((now) => this.render(now));
  }

  // Resolves when what came is shown.
  drained() {
    if (this.waitingChars === 0) return Promise.resolve();
    return new Promise((resolve) => { this.ended = resolve; });
  }

  render(now) {
    this.frame = 0;
    const pace = this.actions.pace();
    let room = Infinity;
    if (pace > 0) {
      const charsPerToken = this.tokens > 0 ? this.chars / this.tokens : 4;
      const elapsed = this.lastFrame === 0 ? 16 : Math.min(now - this.lastFrame, 250);
      this.allowance = Math.min(this.allowance + (pace * charsPerToken * elapsed) / 1000, pace * charsPerToken);
      room = Math.floor(this.allowance);
    }
    this.lastFrame = now;
    const begin = performance.now();
    while (this.waiting.length > 0 && room > 0) {
      const piece = this.take(Math.min(kSliceChars, room));
      room -= piece.length;
      if (pace > 0) this.allowance -= piece.length;
      this.answer.text += piece;
      this.writer.write(piece);
      if (performance.now() - begin > kFrameMs) break;
    }
    this.actions.onFrame();
    if (this.waitingChars > 0) {
      this.schedule();
    } else if (this.ended !== null) {
      this.ended();
      this.ended = null;
    }
  }

  // Up to `limit` characters off the front of what waits; never half of a pair.
  take(limit) {
    const parts = [];
    let taken = 0;
    while (this.waiting.length > 0 && taken < limit) {
      const first = this.waiting[0];
      if (first.length <= limit - taken) {
        parts.push(first);
        taken += first.length;
        this.waiting.shift();
        continue;
      }
      let cut = limit - taken;
      const code = first.charCodeAt(cut - 1);
      if (code >= 0xd800 && code < 0xdc00) cut += 1;
      parts.push(first.slice(0, cut));
      taken += cut;
      this.waiting[0] = first.slice(cut);
      break;
    }
    this.waitingChars -= taken;
    return parts.join('');
  }

  // Drops what is not shown yet.
  discard() {
    this.waiting = [];
    this.waitingChars = 0;
    if (this.frame !== 0) cancelAnimationFrame(this.frame);
    this.frame = 0;
    if (this.ended !== null) this.ended();
    this.ended = null;
  }

  finish() {
    this.writer.end();
    this.element.classList.remove('live');
    this.element.removeAttribute('aria-busy');
    const { answer } = this;
    if (answer.error) this.tell(answer.error);
    else if (answer.stopped) this.tell('Stopped.', 'quiet');
    else if (answer.stats?.finish === 'length') this.tell('The answer ended at its length limit.', 'quiet');
    this.stats.replaceChildren(...statItems(answer.stats ?? {}));
    this.foot.hidden = false;
  }

  tell(text, kind = '', ...extra) {
    this.notice.className = `notice ${kind}`;
    this.notice.replaceChildren(h('p', {}, text), ...extra);
    this.notice.hidden = false;
  }
}

function item(name, value, title, kind = '') {
  return h('div', { class: `stat ${kind}`, title }, h('dt', {}, name), h('dd', {}, value));
}

function statItems(stats) {
  const items = [];
  if (stats.speed) {
    items.push(item('speed', `${formatSpeed(stats.speed)} tok/s`, stats.speedBy === 'server'
      ? 'Tokens a second while the answer was written, by the server\'s clock'
      : 'Tokens a second as this page saw them', 'main'));
  }
  if (stats.firstMs) items.push(item('first token', formatMs(stats.firstMs), 'From sending the question to the first token, as this page saw it'));
  if (stats.prefillMs && stats.decodeMs) {
    const share = Math.min(Math.max(stats.prefillMs / (stats.prefillMs + stats.decodeMs), 0.03), 0.97);
    const bar = h('span', { class: 'split', 'aria-hidden': 'true' }, h('span', { class: 'prefill' }), h('span', { class: 'decode' }));
    bar.firstChild.style.flexGrow = share;
    bar.lastChild.style.flexGrow = 1 - share;
    items.push(item('prefill · decode', h('span', {}, `${formatMs(stats.prefillMs)} · ${formatMs(stats.decodeMs)}`, bar),
      'Reading the prompt, and writing the answer'));
  }
  if (stats.queueMs) items.push(item('queue', formatMs(stats.queueMs), 'Waiting to be admitted'));
  if (stats.deviceMs) items.push(item('device time', formatMs(stats.deviceMs), 'Time of the device that counts for this answer'));
  if (stats.joules) items.push(item('energy', formatJoules(stats.joules), 'Energy of the device for this answer'));
  if (stats.device) items.push(item('device', stats.device));
  if (stats.tokens) {
    const cached = stats.cachedTokens ? `, ${formatCount(stats.cachedTokens)} cached` : '';
    const prompt = stats.promptTokens ? `${formatCount(stats.promptTokens)} → ` : '';
    items.push(item('tokens', `${prompt}${formatCount(stats.tokens)}`, `Tokens of the prompt${cached} and of the answer`));
  }
  return items;
}

export class TurnView {
  // `actions`: { edit, retry, pace, onFrame }.
  constructor(turn, actions) {
    this.turn = turn;
    this.actions = actions;
    const edit = iconButton('edit', 'Edit this question', () => actions.edit());
    const copy = iconButton('copy', 'Copy this question', () => copyText(turn.question, copy));
    this.question = h('div', { class: 'question' }, h('h2', { class: 'offscreen' }, 'Question'),
      h('p', {}, turn.question), h('div', { class: 'buttons' }, copy, edit));
    this.answers = turn.answers.map((answer, column) => new AnswerView(answer, column, actions));
    this.verdict = h('p', { class: 'verdict', hidden: true });
    this.grid = h('div', { class: `answers of-${turn.answers.length}` }, ...this.answers.map((view) => view.element));
    this.element = h('section', { class: `turn of-${turn.answers.length}`, 'aria-label': 'Question and answer' },
      this.question, this.verdict, this.grid);
    this.compare();
  }

  // Which of the two was faster, and by how much.
  compare() {
    const [a, b] = this.turn.answers.map((answer) => answer.stats?.speed);
    if (!a || !b) return;
    const [fast, slow, { label, model }] = a >= b ? [a, b, this.turn.answers[0]] : [b, a, this.turn.answers[1]];
    this.verdict.className = `verdict stream-${a >= b ? 0 : 1}`;
    this.verdict.replaceChildren(h('strong', {}, `${formatFactor(fast / slow)}×`), ` faster: ${label ?? model}`);
    this.verdict.hidden = false;
  }

  // A form in place of the question; `onDone` gets the new text, or null.
  editQuestion(onDone) {
    const area = h('textarea', { 'aria-label': 'Edit the question', rows: 3 });
    area.value = this.turn.question;
    const close = (text) => {
      form.replaceWith(this.question);
      onDone(text);
    };
    const form = h('form', { class: 'question editing' }, area, h('div', { class: 'row' },
      h('button', { type: 'button', class: 'plain', onclick: () => close(null) }, 'Cancel'),
      h('button', { type: 'submit', class: 'primary' }, 'Ask')));
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      if (area.value.trim() !== '') close(area.value);
    });
    area.addEventListener('keydown', (event) => {
      if (event.key === 'Escape') {
        event.stopPropagation();
        close(null);
      } else if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        form.requestSubmit();
      }
    });
    this.question.replaceWith(form);
    area.focus();
  }
}

