// Connections, slow subscribers and the configuration as tables. Knows the routes that tell of
// them; each table asks only while it is looked at.

import { byId, make, paced, showRows, whole, write } from './page.js';

const ROWS_MAX = 50;
// Somewhat less than the ticks of the page's clock that lie between.
const TABLE_MS = 2_900;
const CONFIG_MS = 29_900;
const ASKED_MS = 4_000;

const cell = (text, className = '') => make('td', { textContent: text, className });

/** Whatever part of a row may change is a cell of its own. */
function row(cells, classes, button) {
  const line = make('tr', {}, ...cells.map((text, index) => cell(text, classes[index])));
  if (button) line.append(make('td', { className: 'act' }, button));
  return line;
}

export function connections(rest, complain) {
  const search = byId('search');
  const poll = paced(TABLE_MS, async () => {
    const query = new URLSearchParams({ limit: ROWS_MAX, contains: search.value.trim() });
    draw(await rest.request('GET', `/v1/connections?${query}`));
  });

  function draw({ count, connections: shown }) {
    const filtered = search.value.trim() !== '';
    write(byId('connections-count'), `${whole(count)} ${filtered ? 'found' : 'open'}`);
    write(byId('connections-more'), shown.length < count
      ? `The first ${whole(shown.length)} are shown: search to narrow them down.` : '');
    byId('connections-empty').hidden = 0 < shown.length;
    showRows(byId('rows'), shown, (one) => one.id, (one) => row(
      [one.sub ?? '–', one.path, one.peer ?? '–', one.conn_id ?? '–', one.id],
      ['strong', '', 'wide', 'number wide', 'wide'], disconnect(one)));
  }

  function disconnect({ id, sub }) {
    const button = make('button', {
      type: 'button', className: 'danger', textContent: 'Disconnect', ariaLabel: `Disconnect ${sub ?? ''} ${id}`,
    });
    let asked;
    button.addEventListener('click', async () => {
      if (!asked) {
        // Whoever goes on to something else has not meant it.
        asked = setTimeout(() => { asked = undefined; write(button, 'Disconnect'); }, ASKED_MS);
        write(button, 'Really?');
        return;
      }
      clearTimeout(asked);
      button.disabled = true;
      try {
        await rest.disconnect(id);
      } catch (error) {
        complain(`not disconnected: ${error.message}`);
      }
      await poll({ now: true }).catch(() => {});
    });
    return button;
  }

  search.addEventListener('input', () => poll({ now: true }).catch(() => {}));
  return { poll };
}

export function slow(rest) {
  const poll = paced(TABLE_MS, async () => {
    const { connections: all } = await rest.request('GET', `/v1/admin/slow?limit=${ROWS_MAX}`);
    byId('slow-empty').hidden = 0 < all.length;
    byId('slow-table').hidden = all.length === 0;
    showRows(byId('slow-rows'), all, (one) => one.id, (one) => {
      const line = row([one.sub ?? '–', one.path, one.peer ?? '–', '', '', '', ''],
        ['strong', 'wide', 'wide', 'number', 'number wide', 'number', '']);
      line.show = (now) => {
        const texts = [whole(now.missed), whole(now.queued_frames), `${whole(now.queued_bytes / 1024)} KiB`,
          state(now)];
        texts.forEach((text, index) => write(line.children[3 + index], text));
      };
      return line;
    });
  });
  return { poll };
}

function state({ stalled_ms: ms, paused }) {
  if (ms < 250) return paused ? 'paused' : 'reads again';
  return `takes nothing for ${ms < 10_000 ? `${(ms / 1_000).toFixed(1)} s` : `${whole(ms / 1_000)} s`}`;
}

export function config(rest) {
  let settings = [];
  const filter = byId('config-filter');
  const chosen = byId('config-chosen');

  function draw() {
    const wanted = filter.value.trim().toLowerCase();
    const found = settings.filter((one) => (!chosen.checked || one.chosen || one.source !== 'default')
      && `${one.key} ${one.meaning}`.toLowerCase().includes(wanted));
    write(byId('config-count'), `${whole(found.length)} of ${whole(settings.length)}`);
    byId('config-empty').hidden = 0 < found.length;
    showRows(byId('config-rows'), found, (one) => `${one.key}=${one.value}`, (one) => {
      const [section, name] = one.key.split(/\.(.*)/s);
      const key = make('td', { className: 'key' },
        make('span', { className: 'section', textContent: `${section}.` }), name,
        make('small', { textContent: one.meaning }));
      const line = make('tr', { className: one.source === 'default' ? '' : 'chosen' },
        key, cell(one.value, 'value'), cell(one.source, 'source'));
      return line;
    });
  }

  filter.addEventListener('input', draw);
  chosen.addEventListener('change', draw);
  // It changes with a reload only.
  const poll = paced(CONFIG_MS, async () => {
    ({ settings } = await rest.request('GET', '/v1/admin/config'));
    draw();
  });
  return { poll };
}
