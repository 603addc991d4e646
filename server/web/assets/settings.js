// The settings panel: sampling, system prompt, key, and what the browser keeps.
import { download, h, iconButton } from './dom.js';

function field(name, label, input, hint) {
  const id = `setting-${name}`;
  input.id = id;
  const parts = [h('label', { for: id }, label), input];
  if (hint) {
    input.setAttribute('aria-describedby', `${id}-hint`);
    parts.push(h('p', { class: 'hint', id: `${id}-hint` }, hint));
  }
  return h('div', { class: 'field' }, ...parts);
}

function slider(name, label, { min, max, step, value, show, hint, onchange }) {
  const id = `setting-${name}`;
  const output = h('output', { for: id }, show(value));
  const input = h('input', { type: 'range', id, min, max, step });
  input.value = value;
  input.addEventListener('input', () => {
    output.textContent = show(Number(input.value));
    onchange(Number(input.value));
  });
  const parts = [h('div', { class: 'row' }, h('label', { for: id }, label), output), input];
  if (hint) parts.push(h('p', { class: 'hint' }, hint));
  return h('div', { class: 'field' }, ...parts);
}

export class SettingsPanel {
  // `onChange` after a change of `settings`; `onKey` when the key changed; `onCleared` when the chats are gone.
  constructor(store, settings, { onChange, onKey, onCleared, exportAll }) {
    this.store = store;
    this.settings = settings;
    this.changed = onChange;
    this.onKey = onKey;
    this.onCleared = onCleared;
    this.exportAll = exportAll;
    this.dialog = document.getElementById('settings');
    this.dialog.addEventListener('click', (event) => {
      if (event.target === this.dialog) this.dialog.close();
    });
  }

  open(focus) {
    this.build();
    if (!this.dialog.open) this.dialog.showModal();
    if (focus === 'key') this.key.focus();
  }

  build() {
    const { settings } = this;
    const set = (name) => (value) => {
      settings[name] = value;
      this.changed();
    };
    const number = (name, label, hint, max) => {
      const input = h('input', { type: 'number', inputmode: 'numeric', min: 0, max, placeholder: 'automatic' });
      input.value = settings[name] > 0 ? settings[name] : '';
      input.addEventListener('change', () => {
        const value = Math.min(Math.max(Math.floor(Number(input.value) || 0), 0), max);
        input.value = value > 0 ? value : '';
        set(name)(value);
      });
      return field(name, label, input, hint);
    };
    const system = h('textarea', { rows: 4, placeholder: 'None' });
    system.value = settings.system;
    system.addEventListener('input', () => set('system')(system.value));
    const seed = h('input', { type: 'text', inputmode: 'numeric', pattern: '-?[0-9]{1,15}', placeholder: 'another each time' });
    seed.value = settings.seed;
    seed.addEventListener('change', () => set('seed')(/^-?\d{1,15}$/.test(seed.value.trim()) ? seed.value.trim() : ''));

    this.key = h('input', { type: 'password', autocomplete: 'off', spellcheck: 'false', placeholder: 'None' });
    this.key.value = this.store.key();
    const keep = h('input', { type: 'checkbox', id: 'setting-keep' });
    keep.checked = this.store.keyIsKept();
    const saveKey = () => {
      this.store.saveKey(this.key.value.trim(), keep.checked);
      this.onKey();
    };
    this.key.addEventListener('change', saveKey);
    keep.addEventListener('change', saveKey);

    const clear = h('button', { type: 'button', class: 'plain danger' }, 'Delete all chats');
    clear.addEventListener('click', () => {
      if (clear.dataset.sure === undefined) {
        clear.dataset.sure = '';
        clear.textContent = 'Really delete all of them?';
        return;
      }
      this.store.removeAll();
      this.onCleared();
      this.dialog.close();
    });
    const exportButton = h('button', { type: 'button', class: 'plain', onclick: () => download('reticle-chats.json', 'application/json', this.exportAll()) },
      'Export all chats');

    this.dialog.replaceChildren(h('form', { method: 'dialog' },
      h('header', {}, h('h2', {}, 'Settings'), iconButton('close', 'Close the settings', () => this.dialog.close())),
      h('section', {}, h('h3', {}, 'System prompt'), field('system', 'Instructions for the model', system)),
      h('section', {}, h('h3', {}, 'Sampling'),
        slider('temperature', 'Temperature', { min: 0, max: 2, step: 0.05, value: settings.temperature, onchange: set('temperature'),
          show: (value) => (value === 0 ? '0, greedy' : value.toFixed(2)), hint: 'Higher is more surprising.' }),
        slider('top_p', 'Top p', { min: 0.05, max: 1, step: 0.05, value: settings.top_p, onchange: set('top_p'),
          show: (value) => (value >= 1 ? 'all' : value.toFixed(2)) }),
        h('div', { class: 'pair' },
          number('top_k', 'Top k', null, 2147483647),
          number('max_tokens', 'Longest answer, tokens', null, 1000000)),
        field('seed', 'Seed', seed, 'The same seed and question give the same answer.')),
      h('section', {}, h('h3', {}, 'API key'), field('key', 'Key for this server, if it asks for one', this.key),
        h('div', { class: 'check' }, keep, h('label', { for: 'setting-keep' }, 'Keep it after this tab is closed'))),
      h('section', {}, h('h3', {}, 'Chats'), h('p', { class: 'hint' }, 'Chats and settings stay in this browser.'),
        h('div', { class: 'row' }, exportButton, clear)),
      h('button', { class: 'primary', value: 'done' }, 'Done')));
  }
}
