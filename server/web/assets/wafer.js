// The wafer: a disc of dies with one under the cross-hair. Drawn for the empty chat.
import { svg } from './dom.js';

export function wafer() {
  const radius = 96;
  const pitch = 16;
  const dies = [];
  for (let row = -6; row < 6; row += 1) {
    for (let column = -6; column < 6; column += 1) {
      const x = column * pitch;
      const y = row * pitch;
      const far = Math.max(Math.hypot(x, y), Math.hypot(x + pitch, y), Math.hypot(x, y + pitch), Math.hypot(x + pitch, y + pitch));
      if (far > radius - 4) continue;
      // The order in which the stepper's light comes by: line by line, there and back.
      const step = (row + 6) * 12 + (row % 2 === 0 ? column + 6 : 5 - column);
      const die = svg('rect', { x: x + 1, y: y + 1, width: pitch - 2, height: pitch - 2, rx: 1.2, class: 'die' });
      die.style.animationDelay = `${step * 28}ms`;
      dies.push(die);
    }
  }
  const [cx, cy] = [pitch * 1.5, -pitch * 1.5];
  return svg('svg', { viewBox: '-104 -104 208 208', class: 'wafer', 'aria-hidden': 'true' },
    svg('defs', {},
      svg('linearGradient', { id: 'sheen', x1: '0', y1: '0', x2: '1', y2: '1' },
        svg('stop', { offset: '0', class: 'sheen-a' }),
        svg('stop', { offset: '.45', class: 'sheen-b' }),
        svg('stop', { offset: '.75', class: 'sheen-c' }),
        svg('stop', { offset: '1', class: 'sheen-d' }))),
    svg('path', { d: 'M-10 99.5A100 100 0 1 1 10 99.5L0 93Z', class: 'disc', fill: 'url(#sheen)' }),
    svg('g', {}, ...dies),
    svg('rect', { x: cx - 7, y: cy - 7, width: 14, height: 14, rx: 1.2, class: 'chosen' }),
    svg('path', { d: `M${cx} ${cy - 30}v18M${cx} ${cy + 12}v18M${cx - 30} ${cy}h18M${cx + 12} ${cy}h18`, class: 'cross' }),
    svg('circle', { cx, cy, r: 20, class: 'ring' }));
}
