// What the browser keeps: settings, chats and the key. Nothing of it leaves the browser except in requests.
//
// A chat: { id, title, created, updated, turns: [{ question, answers: [{ model, text, stats, error, stopped }] }] }.
// A comparison has two answers a turn.

const kPrefix = 'reticle.';
const kChat = `${kPrefix}chat.`;

export const kDefaults = {
  system: '',
  temperature: 0.3,
  top_p: 1,
  top_k: 0,
  max_tokens: 0,   // 0: what the context holds
  seed: '',        // empty: another one each time
  pace: 0,         // tokens a second shown; 0: as they come
  models: ['', ''],
  compare: false,
};

function read(storage, key) {
  try {
    return JSON.parse(storage.getItem(key));
  } catch {
    return null;
  }
}

export class Store {
  // `local` and `session` are Storage objects. `onFull` is called when the browser keeps no more.
  constructor(local, session, onFull = () => {}) {
    this.local = local;
    this.session = session;
    this.onFull = onFull;
  }

  write(key, value) {
    try {
      this.local.setItem(key, JSON.stringify(value));
      return true;
    } catch {
      this.onFull();
      return false;
    }
  }

  settings() {
    const kept = read(this.local, `${kPrefix}settings`) ?? {};
    const settings = { ...kDefaults };
    for (const name of Object.keys(kDefaults)) {
      if (typeof kept[name] === typeof kDefaults[name]) settings[name] = kept[name];
    }
    if (!Array.isArray(settings.models) || settings.models.length !== 2) settings.models = ['', ''];
    settings.models = settings.models.map(String);
    return settings;
  }

  saveSettings(settings) {
    this.write(`${kPrefix}settings`, settings);
  }

  // Newest first: { id, title, updated }.
  list() {
    const chats = [];
    for (let i = 0; i < this.local.length; i += 1) {
      const key = this.local.key(i);
      if (!key.startsWith(kChat)) continue;
      const chat = this.load(key.slice(kChat.length));
      if (chat !== null) chats.push({ id: chat.id, title: chat.title, updated: chat.updated });
    }
    return chats.sort((a, b) => b.updated - a.updated);
  }

  // Null when there is none, or none that can be read.
  load(id) {
    const chat = read(this.local, kChat + id);
    if (chat === null || chat.id !== id || !Array.isArray(chat.turns)) return null;
    const text = (value) => (typeof value === 'string' ? value : '');
    return {
      id,
      title: text(chat.title),
      created: Number(chat.created) || 0,
      updated: Number(chat.updated) || 0,
      turns: chat.turns.filter((turn) => Array.isArray(turn?.answers) && turn.answers.length > 0).map((turn) => ({
        question: text(turn.question),
        answers: turn.answers.slice(0, 2).map((answer) => ({
          ...answer, model: text(answer?.model), label: text(answer?.label ?? answer?.model), text: text(answer?.text) })),
      })),
    };
  }

  save(chat) {
    chat.updated = Date.now();
    return this.write(kChat + chat.id, chat);
  }

  remove(id) {
    this.local.removeItem(kChat + id);
  }

  removeAll() {
    for (const { id } of this.list()) this.remove(id);
  }

  key() {
    return this.session.getItem(`${kPrefix}key`) ?? this.local.getItem(`${kPrefix}key`) ?? '';
  }

  keyIsKept() {
    return this.local.getItem(`${kPrefix}key`) !== null;
  }

  // For this tab alone, or with `keep` for later visits as well.
  saveKey(key, keep) {
    this.session.removeItem(`${kPrefix}key`);
    this.local.removeItem(`${kPrefix}key`);
    if (key !== '') (keep ? this.local : this.session).setItem(`${kPrefix}key`, key);
  }
}

export function newChat() {
  const bytes = crypto.getRandomValues(new Uint8Array(8));
  const id = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
  return { id, title: '', created: Date.now(), updated: Date.now(), turns: [] };
}

export function titleOf(question) {
  const line = question.trim().split('\n')[0];
  return line.length > 60 ? `${line.slice(0, 57).trimEnd()}…` : line;
}

// The messages of a request: what column `column` of the chat has seen, and the turn at `end`, its question.
export function messagesFor(chat, end, column, system) {
  const messages = [];
  if (system.trim() !== '') messages.push({ role: 'system', content: system });
  for (let i = 0; i <= end; i += 1) {
    const turn = chat.turns[i];
    const answer = turn.answers[Math.min(column, turn.answers.length - 1)];
    if (i < end && !answer.text) continue;
    messages.push({ role: 'user', content: turn.question });
    if (i < end) messages.push({ role: 'assistant', content: answer.text });
  }
  return messages;
}

// The sampling fields that differ from the server's own defaults.
export function samplingOf(settings) {
  const fields = { temperature: settings.temperature };
  if (settings.top_p < 1) fields.top_p = settings.top_p;
  if (settings.top_k > 0) fields.top_k = settings.top_k;
  if (settings.max_tokens > 0) fields.max_tokens = settings.max_tokens;
  if (/^-?\d{1,15}$/.test(settings.seed)) fields.seed = Number(settings.seed);
  return fields;
}

export function toMarkdown(chat) {
  const parts = [`# ${chat.title}\n`];
  for (const turn of chat.turns) {
    parts.push(`**You**\n\n${turn.question}\n`);
    for (const answer of turn.answers) {
      const speed = answer.stats?.speed ? ` (${Math.round(answer.stats.speed)} tok/s)` : '';
      parts.push(`**${answer.label ?? answer.model}**${speed}\n\n${answer.text}\n`);
    }
  }
  return parts.join('\n');
}
