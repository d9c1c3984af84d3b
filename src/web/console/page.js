// What every part of the console needs of the page: elements, numbers as people read them, tabs.
// Knows no server.

export const byId = (id) => document.getElementById(id);

/** An element with properties and children; a text is never read as HTML. */
export function make(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children.filter((child) => child !== undefined && child !== null));
  return element;
}

const SVG = 'http://www.w3.org/2000/svg';

export function drawn(name, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

export const whole = (number) => Math.round(number).toLocaleString('en');

/** `12,345` as `12.3 k`: as many digits as matter. */
export function scaled(number, unit = '') {
  for (const [size, prefix, from] of [[1e9, 'G', 1e9], [1e6, 'M', 1e6], [1e3, 'k', 1e4]]) {
    if (from <= number) {
      const digits = number / size < 100 ? 1 : 0;
      return `${(number / size).toFixed(digits)} ${prefix}${unit}`;
    }
  }
  const text = number !== 0 && number < 10 && !Number.isInteger(number) ? number.toFixed(1) : whole(number);
  return unit ? `${text} ${unit}` : text;
}

export function time(seconds) {
  if (seconds === undefined) return '–';
  if (seconds < 1e-3) return `${whole(seconds * 1e6)} µs`;
  if (seconds < 1) return `${Number((seconds * 1e3).toPrecision(3))} ms`;
  return `${Number(seconds.toPrecision(3))} s`;
}

export function ago(unixMs) {
  const seconds = Math.max(0, (Date.now() - unixMs) / 1_000);
  if (seconds < 90) return `${Math.round(seconds)} s ago`;
  if (seconds < 5_400) return `${Math.round(seconds / 60)} min ago`;
  if (seconds < 130_000) return `${Math.round(seconds / 3_600)} h ago`;
  return `${Math.round(seconds / 86_400)} d ago`;
}

export const clock = (date) => date.toLocaleTimeString('en-GB');

/** A bar that says how much of something is used; past `high` it warns. */
export function meter(label) {
  const fill = make('i');
  const bar = make('div', { className: 'bar', role: 'meter', ariaLabel: label }, fill);
  bar.ariaValueMin = '0';
  bar.ariaValueMax = '100';
  bar.show = (share, high = 0.8) => {
    const percent = Math.round(100 * Math.min(1, Math.max(0, share)));
    fill.style.width = `${percent}%`;
    bar.ariaValueNow = String(percent);
    bar.classList.toggle('high', high <= share);
  };
  return bar;
}

/** Rows by key: those that stay are kept, so that the focus stays on their buttons. */
export function showRows(body, items, keyOf, rowOf) {
  const old = new Map([...body.children].map((row) => [row.dataset.key, row]));
  const rows = items.map((item) => {
    const key = String(keyOf(item));
    const row = old.get(key) ?? rowOf(item);
    row.dataset.key = key;
    row.show?.(item);
    return row;
  });
  const kept = new Set(rows);
  for (const row of old.values()) if (!kept.has(row)) row.remove();
  rows.forEach((row, index) => {
    if (body.children[index] !== row) body.insertBefore(row, body.children[index] ?? null);
  });
}

/** The text of a cell, written only when it is another. */
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/**
 * Asks no more often than each `msMin`, and more seldom where an answer takes long, so that looking
 * costs little; `now` is for what somebody has just done.
 */
export function paced(msMin, ask) {
  let due = 0;
  return async ({ now = false } = {}) => {
    const began = performance.now();
    if (!now && began < due) return;
    due = began + msMin;
    await ask();
    due = began + Math.max(msMin, 100 * (performance.now() - began));
  };
}

/** Tabs as keyboards expect them: arrows, Home and End move, one of them is in the tab order. */
export function tabs(list, chosen) {
  const all = [...list.querySelectorAll('[role=tab]')];
  const visible = () => all.filter((tab) => !tab.hidden);
  const choose = (tab) => {
    for (const one of all) {
      const is = one === tab;
      one.ariaSelected = String(is);
      one.tabIndex = is ? 0 : -1;
      byId(one.getAttribute('aria-controls')).hidden = !is;
    }
    history.replaceState(null, '', `#${tab.id.replace('tab-', '')}`);
    chosen(tab.id.replace('tab-', ''));
  };
  for (const tab of all) tab.addEventListener('click', () => choose(tab));
  list.addEventListener('keydown', (event) => {
    const there = visible();
    const at = there.indexOf(document.activeElement);
    const next = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: there.length - 1 }[event.key];
    if (next === undefined || at < 0) return;
    event.preventDefault();
    const tab = there[(next + there.length) % there.length];
    tab.focus();
    choose(tab);
  });
  return {
    /** Chooses the tab that the address names, else the first. */
    start() {
      const named = visible().find((tab) => tab.id === `tab-${location.hash.slice(1)}`);
      choose(named ?? visible()[0]);
    },
    show(name, is) {
      byId(`tab-${name}`).hidden = !is;
    },
  };
}
