// Server-sent events, from text in any pieces to the data of each event.

const kMaxEvent = 16 << 20;

export class SseParser {
  // `onData` is called with the data of each event, in order.
  constructor(onData) {
    this.onData = onData;
    this.rest = '';
    this.data = null;
    this.begun = false;
  }

  // Throws for an event of more than 16 MiB.
  push(piece) {
    let text = this.rest + piece;
    if (!this.begun && text.length > 0) {
      this.begun = true;
      if (text.charCodeAt(0) === 0xfeff) text = text.slice(1);
    }
    // A CR at the end may be the first half of a CRLF.
    let held = '';
    if (text.includes('\r')) {
      if (text.endsWith('\r')) {
        held = '\r';
        text = text.slice(0, -1);
      }
      text = text.replace(/\r\n?/g, '\n');
    }
    let begin = 0;
    for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n', begin)) {
      this.line(text, begin, end);
      begin = end + 1;
    }
    this.rest = text.slice(begin) + held;
    if (this.rest.length > kMaxEvent || (this.data !== null && this.data.length > kMaxEvent)) {
      throw new Error('the server sent an event of more than 16 MiB');
    }
  }

  line(text, begin, end) {
    if (begin === end) {
      const data = this.data;
      this.data = null;
      if (data !== null) this.onData(data);
      return;
    }
    if (!text.startsWith('data', begin)) return;
    let value = '';
    const colon = begin + 4;
    if (colon < end) {
      if (text.charCodeAt(colon) !== 0x3a) return;
      value = text.slice(text.charCodeAt(colon + 1) === 0x20 ? colon + 2 : colon + 1, end);
    }
    this.data = this.data === null ? value : `${this.data}\n${value}`;
  }
}
