// Markdown to DOM while it streams in: append-only, in time linear in the text.
//
// Whatever the text holds, the result is inert: elements come from a fixed list, text goes in as text nodes, and the only
// attribute that text reaches is the address of a link, which is http or https. Blocks that are complete are never
// touched again; what is still open at the end of the text, a bold run say, is at most kHold characters and is made anew.

const kHold = 600;
const kHoldLink = 1200;
const kDepth = 6;
// A paragraph or code block goes on in a new box beyond this, so that laying out a long one stays cheap.
const kBoxChars = 4000;
const kBoxLines = 80;

// ---------------------------------------------------------------------------------------------------------- inline

const kEscapable = /[!-/:-@[-`{-~]/;
const kOpenAddress = /(?:^|[^A-Za-z0-9])(h|ht|htt|http|https|https?:|https?:\/|https?:\/\/[^\s<>]*)$/;

function isSpace(c) {
  return c === undefined || c === ' ' || c === '\n' || c === '\t' || c === '\u00a0';
}

function isWord(c) {
  return c !== undefined && /[\p{L}\p{N}]/u.test(c);
}

// The address if it is one of the web, else null.
export function safeAddress(text) {
  if (!/^https?:\/\//i.test(text) || /[\s<>"\u0000-\u001f]/.test(text)) return null;
  try {
    const url = new URL(text);
    return url.protocol === 'http:' || url.protocol === 'https:' ? url.href : null;
  } catch {
    return null;
  }
}

function runLength(text, at) {
  let end = at + 1;
  while (end < text.length && text[end] === text[at]) end += 1;
  return end - at;
}

// Where a run of exactly `n` times `mark` closes what was opened at `from`, or -1. Code spans are skipped.
function findCloser(text, from, mark, n) {
  const limit = Math.min(text.length, from + kHold);
  for (let i = from; i < limit; i += 1) {
    const c = text[i];
    if (c === '\\') {
      i += 1;
    } else if (c === '`') {
      const length = runLength(text, i);
      const close = text.indexOf('`'.repeat(length), i + length);
      if (close < 0 || close > limit) return -1;
      i = close + length - 1;
    } else if (c === mark) {
      const length = runLength(text, i);
      if (length === n && !isSpace(text[i - 1]) && (mark !== '_' || !isWord(text[i + length]))) return i;
      i += length - 1;
    }
  }
  return -1;
}

// A link at `at`, "[label](address)": { end, label, address }; null when there is none; 'open' when the text ends first.
function findLink(text, at) {
  const limit = Math.min(text.length, at + kHoldLink);
  let depth = 0;
  let i = at;
  for (; i < limit; i += 1) {
    if (text[i] === '\\') i += 1;
    else if (text[i] === '[') depth += 1;
    else if (text[i] === ']' && (depth -= 1) === 0) break;
    else if (text[i] === '\n' && text[i + 1] === '\n') return null;
  }
  if (i >= limit) return text.length < at + kHoldLink ? 'open' : null;
  if (i + 1 >= text.length) return 'open';
  if (text[i + 1] !== '(') return null;
  const begin = i + 2;
  let parens = 1;
  let j = begin;
  for (; j < limit; j += 1) {
    if (text[j] === '(') parens += 1;
    else if (text[j] === ')' && (parens -= 1) === 0) break;
    else if (text[j] === '\n') return null;
  }
  if (j >= limit) return text.length < at + kHoldLink ? 'open' : null;
  const address = text.slice(begin, j).trim().replace(/\s+("[^"]*"|'[^']*')$/, '').replace(/^<(.*)>$/, '$1');
  return { end: j + 1, label: text.slice(at + 1, i), address };
}

// Splits `text` into parts: strings and { tag, parts | text, href }. With `final` all of it; else up to the first thing that
// later text may change: `used` says how far.
// `before` is the character in front of the text.
export function parseInline(text, final, depth = 0, before = undefined) {
  const parts = [];
  let plain = '';
  let i = 0;
  const flush = () => {
    if (plain !== '') parts.push(plain);
    plain = '';
  };
  const add = (part, end) => {
    flush();
    parts.push(part);
    i = end;
  };
  // Whether an opener at `i` may still find its end in text to come.
  const mayClose = (hold) => !final && text.length - i < hold;

  while (i < text.length) {
    const c = text[i];
    if (c === '\\') {
      if (i + 1 >= text.length && !final) break;
      const next = text[i + 1];
      if (next !== undefined && kEscapable.test(next)) {
        plain += next;
        i += 2;
      } else {
        plain += c;
        i += 1;
      }
    } else if (c === '`') {
      const n = runLength(text, i);
      if (!final && i + n === text.length && n < kHold) break;
      const fence = '`'.repeat(n);
      let close = text.indexOf(fence, i + n);
      while (close >= 0 && runLength(text, close) !== n) close = text.indexOf(fence, close + runLength(text, close));
      if (close >= 0 && close - i <= kHold && (final || close + n < text.length || text.length - i >= kHold)) {
        let code = text.slice(i + n, close).replaceAll('\n', ' ');
        if (/^ .*[^ ].* $/.test(code)) code = code.slice(1, -1);
        add({ tag: 'code', text: code }, close + n);
      } else if (mayClose(kHold)) {
        break;
      } else {
        plain += fence;
        i += n;
      }
    } else if (c === '*' || c === '_' || c === '~') {
      const n = runLength(text, i);
      if (!final && i + n === text.length && n <= 3) break;
      const opens = !isSpace(text[i + n]) && (c === '*' || !isWord(text[i - 1] ?? before)) && depth < kDepth &&
        (c === '~' ? n === 2 : n <= 3);
      const close = opens ? findCloser(text, i + n, c, n) : -1;
      if (close >= 0 && (final || close + n < text.length || text.length - i >= kHold)) {
        const inner = parseInline(text.slice(i + n, close), true, depth + 1).parts;
        if (c === '~') add({ tag: 'del', parts: inner }, close + n);
        else if (n === 1) add({ tag: 'em', parts: inner }, close + n);
        else if (n === 2) add({ tag: 'strong', parts: inner }, close + n);
        else add({ tag: 'strong', parts: [{ tag: 'em', parts: inner }] }, close + n);
      } else if (opens && mayClose(kHold)) {
        break;
      } else {
        plain += c.repeat(n);
        i += n;
      }
    } else if (c === '[' || (c === '!' && (text[i + 1] === '[' || (!final && i + 1 === text.length)))) {
      if (c === '!' && i + 1 === text.length) break;
      const at = c === '!' ? i + 1 : i;
      const link = findLink(text, at);
      if (link === 'open' && mayClose(kHoldLink)) break;
      const href = link !== null && link !== 'open' && depth < kDepth ? safeAddress(link.address) : null;
      if (href !== null) {
        const label = parseInline(link.label, true, kDepth).parts;
        add({ tag: 'a', href, parts: label.length > 0 ? label : [href] }, link.end);
      } else {
        plain += text.slice(i, at + 1);
        i = at + 1;
      }
    } else if (c === 'h' && !isWord(text[i - 1] ?? before) && depth < kDepth &&
               (text.startsWith('http://', i) || text.startsWith('https://', i))) {
      let end = i;
      while (end < text.length && !isSpace(text[end]) && text[end] !== '<' && text[end] !== '>') end += 1;
      if (end === text.length && mayClose(kHoldLink)) break;
      const word = text.slice(i, end).replace(/(?:[.,:;!?'"*_~`]|\)(?![^(]*\()|\](?![^[]*\[))+$/, (tail) =>
        (tail === ')' && text.slice(i, end).includes('(') ? tail : ''));
      const href = word.length < kHoldLink ? safeAddress(word) : null;
      if (href !== null) {
        add({ tag: 'a', href, parts: [word] }, i + word.length);
      } else {
        plain += 'http';
        i += 4;
      }
    } else {
      let end = i + 1;
      while (end < text.length && !'\\`*_~[!h'.includes(text[end])) end += 1;
      plain += text.slice(i, end);
      i = end;
    }
  }
  if (!final && i === text.length && plain !== '') {
    const open = kOpenAddress.exec(plain);
    if (open !== null && open[1].length < kHoldLink) {
      i -= open[1].length;
      plain = plain.slice(0, -open[1].length);
    }
  }
  flush();
  return { parts, used: i };
}

function build(doc, parent, parts) {
  for (const part of parts) {
    if (typeof part === 'string') {
      const last = parent.lastChild;
      if (last !== null && last.nodeType === 3) last.appendData(part);
      else parent.appendChild(doc.createTextNode(part));
      continue;
    }
    const element = doc.createElement(part.tag);
    if (part.tag === 'a') {
      element.setAttribute('href', part.href);
      element.setAttribute('title', part.href);
      element.setAttribute('rel', 'noopener noreferrer nofollow');
      element.setAttribute('target', '_blank');
    }
    if (part.text !== undefined) element.textContent = part.text;
    else build(doc, element, part.parts);
    parent.appendChild(element);
  }
}

// What the open end of a text will most likely become: "**bol" is shown bold before its end is there.
function guess(tail) {
  const mark = /^(\*{1,3}|_{1,3}|~~|`+)(?=[^\s*_~`])/.exec(tail);
  if (mark !== null) {
    const inner = tail.slice(mark[0].length);
    if (mark[0][0] === '`') return [{ tag: 'code', text: inner.replace(/`+$/, '') }];
    const tag = mark[0] === '~~' ? 'del' : mark[0].length === 1 ? 'em' : 'strong';
    return [{ tag, parts: parseInline(inner.replace(/[*_~]+$/, ''), true, 1).parts }];
  }
  if (/^[*_~`!\\]+$/.test(tail)) return [];
  const label = /^!?\[([^\]]*)/.exec(tail);
  if (label !== null) return [label[1]];
  return [tail];
}

// The text of one block. `next`, if given, makes the element in which an overlong text goes on.
class InlineWriter {
  constructor(doc, host, next) {
    this.doc = doc;
    this.host = host;
    this.next = next;
    this.text = '';
    this.before = undefined;
    this.chars = 0;
    this.tail = null;
    this.dirty = false;
  }

  write(text) {
    this.text += text;
    this.dirty = true;
  }

  flush() {
    if (!this.dirty) return;
    this.dirty = false;
    this.commit(false);
    if (this.text === '') return this.dropTail();
    if (this.tail === null) {
      this.tail = this.doc.createElement('span');
      this.host.appendChild(this.tail);
    }
    this.tail.textContent = '';
    build(this.doc, this.tail, guess(this.text));
  }

  end() {
    this.commit(true);
    this.dropTail();
  }

  commit(final) {
    for (;;) {
      // Long texts go in by boxes.
      const room = this.next === undefined ? Infinity : kBoxChars - this.chars;
      let piece = this.text;
      let cut = false;
      if (piece.length > room + kHoldLink) {
        const space = piece.indexOf(' ', Math.max(room, 0));
        cut = space >= 0 && space < room + kHold;
        if (cut) piece = piece.slice(0, space + 1);
      }
      const { parts, used } = parseInline(piece, final || cut, 0, this.before);
      if (used > 0) this.before = this.text[used - 1];
      this.text = this.text.slice(used);
      this.chars += used;
      if (parts.length > 0) {
        this.dropTail();
        build(this.doc, this.host, parts);
      }
      if (!cut) break;
      this.host = this.next();
      this.chars = 0;
    }
    if (this.next !== undefined && this.chars > kBoxChars + kHoldLink) {
      this.dropTail();
      this.host = this.next();
      this.chars = 0;
    }
  }

  dropTail() {
    if (this.tail !== null) this.tail.remove();
    this.tail = null;
  }
}

// ---------------------------------------------------------------------------------------------------------- blocks

const kRule = /^([-*_])[ \t]*(?:\1[ \t]*){2,}$/;
const kRuleBegin = /^([-*_])[ \t]*(?:\1[ \t]*)*$/;
const kItem = /^(?:([-*+])|(\d{1,9})[.)])(?:[ \t]+|$)/;
const kFence = /^(`{3,}|~{3,})[ \t]*([^`]*)$/;
const kTableRule = /^\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/;

// Whether the kind of a line that begins with `head` is certain.
function isCertain(head) {
  const text = head.trimStart();
  if (text === '') return head.length > 200;
  if (head.length > 2000) return true;
  switch (text[0]) {
    case '#':
      return !/^#{1,6}[ \t]*$/.test(text) || text.length > 200;
    case '`':
    case '~':
      return !/^(`{1,2}|~{1,2}|`{3,}[^`]*|~{3,}.*)$/.test(text) || text.length > 200;
    case '-':
    case '*':
    case '_':
      return !kRuleBegin.test(text) || text.length > 200;
    case '+':
      return !/^\+[ \t]*$/.test(text);
    case '>':
      return isCertain(text.slice(1)) && text.length > 1;
    case '|':
      return false;
    default:
      return !/^\d{1,9}(?:[.)][ \t]*)?$/.test(text);
  }
}

function splitRow(line) {
  const cells = [];
  let cell = '';
  const text = line.trim().replace(/^\|/, '').replace(/\|$/, '');
  for (let i = 0; i < text.length; i += 1) {
    if (text[i] === '\\' && text[i + 1] === '|') {
      cell += '|';
      i += 1;
    } else if (text[i] === '|') {
      cells.push(cell.trim());
      cell = '';
    } else {
      cell += text[i];
    }
  }
  cells.push(cell.trim());
  return cells.slice(0, 64);
}

export class MarkdownWriter {
  // Appends to `root`. `decorate(figure, code, language)`, if given, is called for each code block as it begins.
  constructor(root, { doc = globalThis.document, decorate } = {}) {
    this.doc = doc;
    this.root = root;
    this.decorate = decorate;
    this.head = '';         // of a line whose kind is not known
    this.inLine = false;    // the line's kind is known, its rest streams to the leaf
    this.leaf = null;       // InlineWriter of the open paragraph, heading or item
    this.isParagraph = false;
    this.lists = [];        // { element, ordered, indent, content, item }
    this.quote = null;
    this.code = null;       // { fence, indent, box, lines, host }
    this.table = null;      // { body, columns }
    this.row = null;        // a line that may be a table's head
  }

  write(text) {
    let begin = 0;
    while (begin < text.length) {
      const end = text.indexOf('\n', begin);
      const piece = text.slice(begin, end < 0 ? text.length : end);
      this.piece(piece.endsWith('\r') && end >= 0 ? piece.slice(0, -1) : piece);
      if (end < 0) break;
      this.endLine();
      begin = end + 1;
    }
    if (this.leaf !== null) this.leaf.flush();
  }

  end() {
    if (this.head !== '' && !this.inLine) {
      const { head } = this;
      this.head = '';
      if (this.code === null) this.line(head);
      else if (!this.closesFence(head)) this.codeText(this.dedent(head));
    }
    this.settleRow();
    this.closeLeaf();
    this.code = null;
  }

  piece(piece) {
    if (this.inLine) return this.feed(piece);
    this.head += piece;
    if (this.code !== null) {
      // A fence's end is known at the end of its line only.
      if (!/^\s*(?:`*|~*)\s*$/.test(this.head) || this.head.length > 200) this.startCode();
    } else if (isCertain(this.head)) {
      const head = this.head;
      this.head = '';
      this.line(head);
      this.inLine = true;
    }
  }

  endLine() {
    if (this.inLine) {
      this.inLine = false;
      if (this.code !== null) this.codeText('\n');
      else if (!this.isParagraph) this.closeLeaf();
      return;
    }
    const head = this.head;
    this.head = '';
    if (this.code !== null) {
      if (this.closesFence(head)) this.code = null;
      else this.codeText(`${this.dedent(head)}\n`);
      return;
    }
    this.line(head);
    if (!this.isParagraph) this.closeLeaf();
  }

  feed(text) {
    if (this.code !== null) this.codeText(text);
    else if (this.leaf !== null) this.leaf.write(text);
  }

  // A line's beginning, or the whole of it, outside code.
  line(head) {
    let text = head.trimStart();
    let indent = head.slice(0, head.length - text.length).replaceAll('\t', '    ').length;
    if (this.row !== null && this.startTable(text)) return;
    if (this.table !== null) {
      if (text.startsWith('|')) return this.tableRow(text);
      this.table = null;
    }
    if (text.startsWith('>')) {
      if (this.quote === null) {
        this.closeAll();
        this.quote = this.block('blockquote');
      }
      const inner = text.replace(/^>[ \t]?/, '');
      text = inner.trimStart();
      indent = inner.length - text.length;
    } else if (this.quote !== null) {
      if (text === '' || !this.isParagraph || kItem.test(text) || text.startsWith('#')) {
        this.closeAll();
        this.quote = null;
      }
    }
    if (text === '') return this.closeLeaf();

    const fence = kFence.exec(text);
    if (fence !== null) return this.startFence(fence, indent);
    if (kRule.test(text)) {
      this.closeAll();
      this.block('hr');
      return;
    }
    const heading = /^(#{1,6})[ \t]+/.exec(text);
    if (heading !== null) {
      this.closeAll();
      const element = this.block(`h${Math.min(heading[1].length + 2, 6)}`);
      this.open(element, false, undefined, text.slice(heading[0].length));
      return;
    }
    const item = kItem.exec(text);
    if (item !== null && !(this.isParagraph && this.lists.length === 0 && item[0].length === text.length)) {
      return this.startItem(item, indent, text);
    }
    if (text.startsWith('|') && !this.isParagraph && text.length < 2000) {
      this.leaveLists(indent);
      this.row = text;
      return;
    }
    if (this.leaf !== null && this.isParagraph) return this.leaf.write(`\n${text}`);
    this.leaveLists(indent);
    this.paragraph(text);
  }

  paragraph(text) {
    const host = this.container();
    const next = () => {
      const element = this.doc.createElement('p');
      element.className = 'goes-on';
      host.appendChild(element);
      return element;
    };
    const element = this.doc.createElement('p');
    host.appendChild(element);
    this.open(element, true, next, text);
  }

  open(element, isParagraph, next, text) {
    this.closeLeaf();
    this.leaf = new InlineWriter(this.doc, element, next);
    this.isParagraph = isParagraph;
    this.leaf.write(text);
  }

  closeLeaf() {
    if (this.leaf !== null) this.leaf.end();
    this.leaf = null;
    this.isParagraph = false;
  }

  closeAll() {
    this.settleRow();
    this.closeLeaf();
    this.lists = [];
    this.table = null;
  }

  // Where the next block goes.
  container() {
    if (this.lists.length > 0) return this.lists[this.lists.length - 1].item;
    return this.quote ?? this.root;
  }

  block(tag) {
    const element = this.doc.createElement(tag);
    this.container().appendChild(element);
    return element;
  }

  leaveLists(indent) {
    this.closeLeaf();
    while (this.lists.length > 0 && indent < this.lists[this.lists.length - 1].content) this.lists.pop();
  }

  startItem(item, indent, text) {
    this.closeLeaf();
    const ordered = item[2] !== undefined;
    while (this.lists.length > 0 && indent < this.lists[this.lists.length - 1].indent) this.lists.pop();
    let list = this.lists[this.lists.length - 1];
    if (list === undefined || (indent >= list.content && this.lists.length < kDepth)) {
      list = undefined;
    } else if (list.ordered !== ordered) {
      this.lists.pop();
      list = undefined;
    }
    if (list === undefined) {
      const element = this.block(ordered ? 'ol' : 'ul');
      if (ordered && item[2] !== '1') element.setAttribute('start', String(Number(item[2])));
      list = { element, ordered, indent, content: 0, item: null };
      this.lists.push(list);
    }
    list.indent = Math.min(list.indent, indent);
    list.content = indent + 2;
    list.item = this.doc.createElement('li');
    list.element.appendChild(list.item);
    const host = list.item;
    const next = () => {
      const element = this.doc.createElement('p');
      element.className = 'goes-on';
      host.appendChild(element);
      return element;
    };
    this.open(host, true, next, text.slice(item[0].length));
  }

  // ---- code

  startFence(fence, indent) {
    this.settleRow();
    this.leaveLists(indent);
    const language = fence[2].trim().split(/\s/)[0].slice(0, 40);
    const figure = this.block('figure');
    const pre = this.doc.createElement('pre');
    const code = this.doc.createElement('code');
    pre.appendChild(code);
    figure.appendChild(pre);
    if (this.decorate !== undefined) this.decorate(figure, code, language);
    this.code = { fence: fence[1], indent, element: code, box: null, lines: 0, chars: 0 };
  }

  startCode() {
    const head = this.head;
    this.head = '';
    this.inLine = true;
    this.codeText(this.dedent(head));
  }

  closesFence(line) {
    const text = line.trim();
    return text.length >= this.code.fence.length && text === this.code.fence[0].repeat(text.length);
  }

  dedent(line) {
    let n = 0;
    while (n < this.code.indent && line[n] === ' ') n += 1;
    return line.slice(n);
  }

  codeText(text) {
    const code = this.code;
    if (code.box === null || ((code.lines >= kBoxLines || code.chars >= kBoxChars) && code.fresh)) {
      const box = this.doc.createElement('span');
      code.element.appendChild(box);
      code.box = this.doc.createTextNode('');
      box.appendChild(code.box);
      code.lines = 0;
      code.chars = 0;
    }
    code.box.appendData(text);
    code.chars += text.length;
    code.fresh = text.endsWith('\n');
    if (code.fresh) code.lines += 1;
  }

  // ---- tables

  // The line behind a possible head decides.
  startTable(text) {
    const head = this.row;
    const names = splitRow(head);
    if (!kTableRule.test(text) || splitRow(text).length !== names.length) {
      this.settleRow();
      return false;
    }
    this.row = null;
    const scroller = this.block('div');
    scroller.className = 'table';
    const table = this.doc.createElement('table');
    const tableHead = this.doc.createElement('thead');
    const body = this.doc.createElement('tbody');
    table.appendChild(tableHead);
    table.appendChild(body);
    scroller.appendChild(table);
    this.table = { body, columns: names.length };
    this.cells(tableHead, names, 'th');
    return true;
  }

  tableRow(text) {
    this.cells(this.table.body, splitRow(text), 'td');
  }

  cells(parent, texts, tag) {
    const row = this.doc.createElement('tr');
    for (let i = 0; i < this.table.columns; i += 1) {
      const cell = this.doc.createElement(tag);
      build(this.doc, cell, parseInline(texts[i] ?? '', true).parts);
      row.appendChild(cell);
    }
    parent.appendChild(row);
  }

  // A line that looked like a table's head, and is none.
  settleRow() {
    if (this.row === null) return;
    const text = this.row;
    this.row = null;
    this.paragraph(text);
  }
}
