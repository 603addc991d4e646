// Light or dark: the system's choice until the reader makes one. A classic script in the head, so that the first frame has it.
(() => {
  const root = document.documentElement;
  const dark = matchMedia('(prefers-color-scheme: dark)');
  let chosen = null;
  try {
    chosen = localStorage.getItem('reticle.theme');
  } catch {
    // No storage: the choice lasts as long as the page.
  }
  const current = () => (chosen === 'light' || chosen === 'dark' ? chosen : dark.matches ? 'dark' : 'light');
  const apply = () => {
    root.dataset.theme = current();
    for (const button of document.querySelectorAll('[data-theme-switch]')) {
      button.setAttribute('aria-pressed', String(current() === 'dark'));
    }
  };
  dark.addEventListener('change', apply);
  apply();
  document.addEventListener('DOMContentLoaded', () => {
    apply();
    for (const button of document.querySelectorAll('[data-theme-switch]')) {
      button.addEventListener('click', () => {
        chosen = current() === 'dark' ? 'light' : 'dark';
        try {
          localStorage.setItem('reticle.theme', chosen);
        } catch {
          // As above.
        }
        apply();
      });
    }
  });
})();
