// The console page: asks the server's own routes once a second and follows one relay topic. Keeps
// its token in memory and nowhere else, and puts nothing that it hears into the page but as text.

import { RelayClient, Rest } from '/client.js';

const byId = (id) => document.getElementById(id);
const make = (name, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
};

const SAMPLES_MAX = 120;
const ROWS_MAX = 200;
const TAIL_MAX = 200;
const POLL_MS = 1_000;
const PAYLOAD_CHARS_MAX = 2_000;

const settings = await (await fetch('/console/config.json')).json();
byId('version').textContent = settings.version;
let token;

// --- who we are

async function mint() {
  const answer = await fetch('/v1/dev/token', { method: 'POST' });
  if (!answer.ok) throw new Error(`no token: HTTP ${answer.status}`);
  return (await answer.json()).token;
}

const currentToken = async ({ renew }) => {
  if (settings.mints && (renew || !token)) token = await mint();
  return token;
};

const rest = new Rest(location.href, { token: currentToken });

byId('token-form').addEventListener('submit', (event) => {
  event.preventDefault();
  token = byId('token').value.trim();
  byId('token').value = '';
  start();
});

function status(kind, text) {
  const element = byId('status');
  if (element.textContent !== text) element.textContent = text;
  element.dataset.kind = kind;
}

// --- numbers

/** name -> shard (or '') -> number, from the OpenMetrics text. */
function parse(text) {
  const all = new Map();
  for (const line of text.split('\n')) {
    const found = /^(\w+)(?:\{([^}]*)\})? (\S+)/.exec(line);
    if (!found) continue;
    const [, name, labels = '', value] = found;
    const shard = /shard="(\d+)"/.exec(labels)?.[1] ?? '';
    const le = /le="([^"]+)"/.exec(labels)?.[1];
    const key = le === undefined ? name : `${name} ${le}`;
    if (!all.has(key)) all.set(key, new Map());
    const of = all.get(key);
    of.set(shard, (of.get(shard) ?? 0) + Number(value));
  }
  return all;
}

const sum = (numbers, name) => [...(numbers.get(name)?.values() ?? [])].reduce((a, b) => a + b, 0);

/** The 99th percentile of what a histogram gathered since the last look, in seconds. */
function quantile(now, before, name, share = 0.99) {
  const buckets = [...now.keys()].filter((key) => key.startsWith(`${name}_bucket `));
  const grown = (key) => sum(now, key) - sum(before, key);
  const counts = buckets.map((key) => [Number(key.split(' ')[1].replace('+Inf', 'Infinity')), grown(key)]);
  counts.sort(([a], [b]) => a - b);
  const total = counts.at(-1)?.[1] ?? 0;
  if (!total) return undefined;
  const finite = counts.filter(([bound]) => Number.isFinite(bound));
  return (counts.find(([, count]) => share * total <= count) ?? [0])[0] === Infinity
    ? finite.at(-1)?.[0] : counts.find(([, count]) => share * total <= count)?.[0];
}

const whole = (number) => Math.round(number).toLocaleString('en');
const scaled = (number, unit) => {
  for (const [size, prefix] of [[1e9, 'G'], [1e6, 'M'], [1e4, 'k']]) {
    if (size <= number) return `${(number / (size === 1e4 ? 1e3 : size)).toFixed(1)} ${prefix}${unit}`;
  }
  return `${whole(number)} ${unit}`.trim();
};
const time = (seconds) => {
  if (seconds === undefined) return '–';
  return seconds < 1e-3 ? `≤ ${whole(seconds * 1e6)} µs` : `≤ ${(seconds * 1e3).toPrecision(3)} ms`;
};

const rate = (name) => (now, before, seconds) => Math.max(0, sum(now, name) - sum(before, name)) / seconds;
const timing = (name) => (now, before) => quantile(now, before, `tidegate_${name}_seconds`);
const CARDS = [
  ['Connections', (now) => sum(now, 'tidegate_connections_open'), whole],
  ['Messages in /s', rate('tidegate_messages_received_total'), (n) => scaled(n, '')],
  ['Messages out /s', rate('tidegate_messages_sent_total'), (n) => scaled(n, '')],
  ['Bytes out /s', rate('tidegate_sent_bytes_total'), (n) => scaled(n, 'B')],
  ['Bytes in /s', rate('tidegate_received_bytes_total'), (n) => scaled(n, 'B')],
  ['Lagged pushes /s', rate('tidegate_frames_lagged_total'), (n) => scaled(n, '')],
  ['Handler, p99', timing('handler_duration'), time],
  ['Publish to ack, p99', timing('publish_ack_duration'), time],
].map(([name, read, show]) => ({ name, read, show, samples: [] }));

const SVG = 'http://www.w3.org/2000/svg';

for (const card of CARDS) {
  card.value = make('div', { className: 'value', textContent: '–' });
  card.chart = document.createElementNS(SVG, 'svg');
  card.chart.setAttribute('viewBox', `0 0 ${SAMPLES_MAX - 1} 30`);
  card.chart.setAttribute('preserveAspectRatio', 'none');
  card.chart.setAttribute('aria-hidden', 'true');
  card.area = card.chart.appendChild(document.createElementNS(SVG, 'polygon'));
  card.line = card.chart.appendChild(document.createElementNS(SVG, 'polyline'));
  // What nothing was measured of is not shown.
  card.box = make('div', { className: 'card', hidden: true },
    make('div', { className: 'name', textContent: card.name }), card.value, card.chart);
  byId('cards').append(card.box);
}

function draw(card, value) {
  if (value !== undefined) card.box.hidden = false;
  card.value.textContent = card.show(value);
  card.samples.push(value ?? 0);
  if (SAMPLES_MAX < card.samples.length) card.samples.shift();
  const top = Math.max(...card.samples, 1e-9);
  const left = SAMPLES_MAX - card.samples.length;
  const points = card.samples.map((sample, index) => `${left + index},${(29 - (sample / top) * 27).toFixed(2)}`);
  card.line.setAttribute('points', points.join(' '));
  card.area.setAttribute('points', `${left},30 ${points.join(' ')} ${SAMPLES_MAX - 1},30`);
}

const shardRows = new Map();

function shardOf(index) {
  if (!shardRows.has(index)) {
    const one = {};
    const list = make('dl');
    for (const name of ['Connections', 'Messages in /s', 'Mailbox', 'Turns /s']) {
      const bar = make('progress', { max: 1, value: 0, ariaLabel: `${name} of shard ${index}` });
      const number = make('dd');
      list.append(make('dt', { textContent: name }), bar, number);
      one[name] = (value, share) => { number.textContent = value; bar.value = share; };
    }
    byId('shards').append(make('div', { className: 'shard' },
      make('h3', { textContent: `Shard ${index}` }), list));
    shardRows.set(index, one);
  }
  return shardRows.get(index);
}

function drawShards(now, before, seconds) {
  const of = (numbers, name, shard) => numbers.get(`tidegate_${name}`)?.get(shard) ?? 0;
  const grown = (name, shard) => Math.max(0, of(now, name, shard) - of(before, name, shard)) / seconds;
  const shards = [...(now.get('tidegate_connections_open')?.keys() ?? [])];
  const open = shards.map((shard) => of(now, 'connections_open', shard));
  const received = shards.map((shard) => grown('messages_received_total', shard));
  const turns = shards.map((shard) => grown('turns_total', shard));
  const share = (value, all) => value / Math.max(1, ...all);
  shards.forEach((shard, index) => {
    const row = shardOf(shard);
    row.Connections(whole(open[index]), share(open[index], open));
    row['Messages in /s'](whole(received[index]), share(received[index], received));
    const depth = of(now, 'mailbox_depth', shard);
    row.Mailbox(whole(depth), depth / (depth + 64));
    row['Turns /s'](scaled(turns[index], ''), share(turns[index], turns));
  });
}

let last;

async function pollNumbers() {
  const text = await askText('/metrics');
  const at = performance.now();
  const now = parse(text);
  if (last) {
    const seconds = (at - last.at) / 1_000;
    for (const card of CARDS) draw(card, card.read(now, last.now, seconds));
    drawShards(now, last.now, seconds);
  }
  last = { now, at };
}

async function askText(path) {
  return rest.request('GET', path);
}

// --- connections

let connections = [];
let connectionsAt = 0;

/** A long list is asked for more seldom, so that looking costs little. */
async function pollConnections() {
  const began = performance.now();
  if (began < connectionsAt) return;
  const answer = await rest.connections();
  connections = answer.connections;
  connectionsAt = began + Math.max(0, 50 * (performance.now() - began) - POLL_MS);
  drawConnections();
}

function drawConnections() {
  const wanted = byId('search').value.trim().toLowerCase();
  const cells = (one) => [one.id, one.path, one.conn_id ?? '', one.sub ?? '', one.peer ?? ''].map(String);
  const found = connections.filter((one) => cells(one).some((cell) => cell.toLowerCase().includes(wanted)));
  const shown = found.slice(0, ROWS_MAX);
  byId('connections-count').textContent = whole(connections.length);
  byId('more').textContent = shown.length < found.length
    ? `${whole(found.length - shown.length)} more: search to narrow them down.` : '';
  const old = new Map([...byId('rows').children].map((row) => [row.dataset.id, row]));
  const rows = shown.map((one) => old.get(one.id) ?? rowOf(one.id, cells(one)));
  // Rows that stay are not touched, so that the focus stays on their buttons.
  const kept = new Set(rows);
  for (const row of old.values()) if (!kept.has(row)) row.remove();
  rows.forEach((row, index) => {
    if (byId('rows').children[index] !== row) byId('rows').insertBefore(row, byId('rows').children[index] ?? null);
  });
}

function rowOf(id, cells) {
  const row = make('tr');
  row.dataset.id = id;
  cells.forEach((text, index) => row.append(make('td', { textContent: text, className: index === 2 ? 'number' : '' })));
  const button = make('button', { type: 'button', textContent: 'Disconnect', ariaLabel: `Disconnect ${id}` });
  button.addEventListener('click', async () => {
    button.disabled = true;
    try {
      await rest.disconnect(id);
    } catch (error) {
      status('bad', `not disconnected: ${error.message}`);
    }
    connectionsAt = 0;
    await pollConnections().catch(() => {});
  });
  row.append(make('td', {}, button));
  return row;
}

byId('search').addEventListener('input', drawConnections);

// --- one relay topic

let relay;
let followed;

function openRelay() {
  relay?.close();
  const url = new URL(settings.relay, location.href);
  url.protocol = url.protocol.replace('http', 'ws');
  relay = new RelayClient(url, { token: currentToken });
  relay.on('state', (state) => { byId('topic-state').textContent = state === 'open' ? '' : state; });
  relay.connect().catch((error) => { byId('topic-state').textContent = error.message; });
  follow(byId('topic').value.trim());
}

async function follow(topic) {
  followed?.unsubscribe();
  followed = undefined;
  byId('tail').replaceChildren();
  byId('present').replaceChildren();
  byId('present-count').textContent = '';
  try {
    const subscription = await relay.subscribe(topic, (push) => tell(push.event, JSON.stringify(push.payload)));
    if (topic !== byId('topic').value.trim()) return subscription.unsubscribe();
    followed = subscription;
    followed.on('lagged', (missed) => tell('lagged', `${missed} pushes were lost here`, 'lagged'));
    byId('topic-state').textContent = `following ${topic}`;
  } catch (error) {
    byId('topic-state').textContent = error.message;
  }
  return undefined;
}

const told = [];

/** Drawn once a frame, however many come. */
function tell(event, text, className = '') {
  if (!told.length) requestAnimationFrame(drawTail);
  told.unshift({ event, text, className, at: new Date() });
  if (TAIL_MAX < told.length) told.length = TAIL_MAX;
}

function drawTail() {
  const tail = byId('tail');
  const lines = told.splice(0).map(({ event, text, className, at }) => make('li', { className },
    make('time', { textContent: at.toLocaleTimeString('en-GB') }), make('b', { textContent: event }),
    text.slice(0, PAYLOAD_CHARS_MAX)));
  tail.prepend(...lines);
  while (TAIL_MAX < tail.children.length) tail.lastChild.remove();
}

async function pollPresence() {
  if (!followed) return;
  const { topic } = followed;
  const { count, members } = await rest.presence(topic);
  if (followed?.topic !== topic) return;
  byId('present-count').textContent = whole(count);
  byId('present').replaceChildren(...members.slice(0, ROWS_MAX).map(
    (member) => make('li', { textContent: `${member.conn_id}  ${JSON.stringify(member.meta)}` })));
}

byId('topic-form').addEventListener('submit', (event) => {
  event.preventDefault();
  follow(byId('topic').value.trim());
});

byId('publish-form').addEventListener('submit', async (event) => {
  event.preventDefault();
  const text = byId('payload').value;
  let payload = text;
  try {
    payload = JSON.parse(text);
  } catch {
    // Not JSON: it goes out as a string.
  }
  try {
    await rest.push(byId('topic').value.trim(), byId('event').value, payload);
    byId('publish-state').textContent = '';
  } catch (error) {
    byId('publish-state').textContent = error.message;
  }
});

// --- the clock

let running = 0;

async function start() {
  running += 1;
  const mine = running;
  last = undefined;
  byId('token-form').hidden = true;
  let began = false;
  while (mine === running) {
    try {
      await pollNumbers();
      if (settings.relay && (token || settings.mints)) {
        if (!began) openRelay();
        began = true;
        await pollConnections();
        await pollPresence();
        byId('relay').hidden = byId('connections').hidden = false;
      }
      status('good', 'live');
    } catch (error) {
      if (error.status === 401 && settings.mints) token = undefined;
      else if (error.status === 401 || error.status === 403) return refused(error);
      status('bad', error.status ? error.message : 'the server does not answer');
    }
    await new Promise((resolve) => setTimeout(resolve, document.hidden ? 5 * POLL_MS : POLL_MS));
  }
  return undefined;
}

function refused(error) {
  status('bad', error.status === 403 ? 'this token has not the role admin' : 'a token is needed');
  token = undefined;
  relay?.close();
  byId('token-form').hidden = false;
  byId('token').focus();
}

if (settings.mints || settings.open) start();
else refused({ status: 401 });
