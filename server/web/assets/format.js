// Numbers as people read them.

const kGrouped = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });

export function formatCount(n) {
  return kGrouped.format(n);
}

// Tokens a second: "16,960", "87", "9.4".
export function formatSpeed(n) {
  return n >= 20 ? kGrouped.format(n) : n.toFixed(n >= 10 ? 0 : 1);
}

export function formatMs(ms) {
  if (ms >= 60000) return `${(ms / 60000).toFixed(1)} min`;
  if (ms >= 1000) return `${(ms / 1000).toFixed(ms >= 10000 ? 1 : 2)} s`;
  if (ms >= 100) return `${ms.toFixed(0)} ms`;
  if (ms >= 1) return `${ms.toFixed(1)} ms`;
  return `${Math.max(1, Math.round(ms * 1000))} µs`;
}

export function formatJoules(j) {
  if (j >= 1) return `${j.toFixed(j >= 100 ? 0 : 2)} J`;
  if (j >= 1e-3) return `${(j * 1e3).toFixed(j >= 0.1 ? 0 : 1)} mJ`;
  return `${(j * 1e6).toFixed(0)} µJ`;
}

export function formatFactor(f) {
  return f >= 10 ? kGrouped.format(f) : f.toFixed(1);
}
