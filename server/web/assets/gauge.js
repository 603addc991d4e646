// The speed gauge: a logarithmic ruler from 1 to 100,000 tokens a second with a cross-hair for each stream.
import { h, svg } from './dom.js';
import { formatSpeed } from './format.js';

const kDecades = 5;
const kWidth = 1000;
const kWindowMs = 300;
const kMarks = [
  [5, 'reading'],
  [150, 'a GPU'],
  [16960, 'HC1'],
];

export function position(speed) {
  return (Math.min(Math.max(Math.log10(Math.max(speed, 1)), 0), kDecades) / kDecades) * kWidth;
}

// Tokens a second over the last moments. Times are given by the caller, in ms.
export class SpeedMeter {
  constructor() {
    this.reset();
  }

  reset() {
    this.samples = [];
    this.begin = null;
  }

  add(tokens, now) {
    this.begin ??= now;
    this.samples.push([now, tokens]);
  }

  // Null before there is anything to tell.
  speed(now) {
    if (this.begin === null) return null;
    while (this.samples.length > 0 && now - this.samples[0][0] > kWindowMs) this.samples.shift();
    let tokens = 0;
    for (const sample of this.samples) tokens += sample[1];
    const window = Math.min(kWindowMs, now - this.begin);
    return window < 20 ? null : tokens / (window / 1000);
  }
}

export class Gauge {
  constructor(host) {
    this.needles = [];
    this.target = [];
    this.shown = [];
    this.frame = 0;
    const ticks = [];
    for (let decade = 0; decade <= kDecades; decade += 1) {
      for (let step = 1; step < 10; step += 1) {
        const x = position(step * 10 ** decade);
        if (decade === kDecades && step > 1) break;
        ticks.push(`M${x.toFixed(1)} 22v${step === 1 ? -12 : step === 5 ? -8 : -5}`);
      }
    }
    this.scale = svg('svg', { viewBox: `-10 0 ${kWidth + 20} 24`, preserveAspectRatio: 'none', class: 'ruler', 'aria-hidden': 'true' },
      svg('path', { d: ticks.join(''), class: 'ticks' }),
      svg('path', { d: `M0 22H${kWidth}`, class: 'base' }));
    this.track = h('div', { class: 'track' });
    const labels = h('div', { class: 'labels', 'aria-hidden': 'true' });
    for (let decade = 0; decade <= kDecades; decade += 1) {
      const label = h('span', {}, ['1', '10', '100', '1k', '10k', '100k'][decade]);
      label.style.left = `${(decade / kDecades) * 100}%`;
      labels.append(label);
    }
    for (const [speed, name] of kMarks) {
      const label = h('span', { class: 'mark' }, name);
      label.style.left = `${position(speed) / 10}%`;
      labels.append(label);
    }
    this.readout = h('output', { class: 'readout', 'aria-hidden': 'true' });
    host.replaceChildren(this.readout, h('div', { class: 'scale' }, this.scale, this.track, labels));
    this.setStreams(1);
  }

  setStreams(count) {
    this.needles = [];
    this.track.replaceChildren();
    this.readout.replaceChildren();
    for (let i = 0; i < count; i += 1) {
      const fill = h('div', { class: `fill stream-${i}` });
      const needle = h('div', { class: `needle stream-${i}` });
      const number = h('span', { class: 'number' }, '–');
      const box = h('span', { class: `speed stream-${i}` }, number, h('span', { class: 'unit' }, 'tok/s'));
      this.track.append(fill, needle);
      this.readout.append(box);
      this.needles.push({ fill, needle, number, box });
    }
    this.target = new Array(count).fill(null);
    this.shown = new Array(count).fill(0);
    for (let i = 0; i < count; i += 1) this.draw(i);
  }

  // Moves the cross-hair of `stream` to `speed`; null: nothing is known.
  set(stream, speed) {
    if (stream >= this.target.length) return;
    this.target[stream] = speed;
    if (this.frame === 0) this.frame = requestAnimationFrame(() => this.step());
  }

  step() {
    this.frame = 0;
    const still = matchMedia('(prefers-reduced-motion: reduce)').matches;
    let moving = false;
    for (let i = 0; i < this.target.length; i += 1) {
      const goal = this.target[i] === null ? 0 : Math.log10(Math.max(this.target[i], 1));
      const distance = goal - this.shown[i];
      if (still || Math.abs(distance) < 0.004) {
        this.shown[i] = goal;
      } else {
        this.shown[i] += distance * 0.22;
        moving = true;
      }
      this.draw(i);
    }
    if (moving) this.frame = requestAnimationFrame(() => this.step());
  }

  draw(i) {
    const { fill, needle, number, box } = this.needles[i];
    const at = Math.min(this.shown[i] / kDecades, 1);
    fill.style.transform = `scaleX(${at})`;
    needle.style.left = `${at * 100}%`;
    const known = this.target[i] !== null;
    box.classList.toggle('idle', !known);
    const arrived = known && Math.abs(Math.log10(Math.max(this.target[i], 1)) - this.shown[i]) < 0.004;
    number.textContent = known ? formatSpeed(arrived ? this.target[i] : 10 ** this.shown[i]) : '–';
  }
}
