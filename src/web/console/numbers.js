// The numbers of the server as cards with their last two minutes, and a strip for each shard.
// Knows the names of metrics and how quantiles are read from their buckets; asks nothing itself.

import { byId, drawn, make, meter, scaled, time, whole, write } from './page.js';

const SAMPLES_MAX = 120;

/** What is asked for: the families that are shown here, and no others. */
export const FAMILIES = ['connections_open', 'connections_max', 'messages_received', 'messages_sent', 'sent_bytes', 'frames_lagged',
  'publishes', 'fan_out_duration_seconds', 'publish_ack_duration_seconds', 'turns', 'turn_duration_seconds',
  'mailbox_depth', 'mailbox_behind', 'outbox_bytes', 'submissions_waiting', 'submissions_max',
  'completions_waiting', 'completions_max', 'receive_buffers_free', 'receive_buffers_max'];

/** name -> shard (or '') -> number, from the OpenMetrics text; a bucket's name ends with its bound. */
export function parse(text) {
  const all = new Map();
  for (const line of text.split('\n')) {
    const found = /^(\w+)(?:\{([^}]*)\})? (\S+)/.exec(line);
    if (!found) continue;
    const [, name, labels = '', value] = found;
    const shard = /shard="(\d+)"/.exec(labels)?.[1] ?? '';
    const bound = /le="([^"]+)"/.exec(labels)?.[1];
    const key = bound === undefined ? name : `${name} ${bound}`;
    if (!all.has(key)) all.set(key, new Map());
    const shards = all.get(key);
    shards.set(shard, (shards.get(shard) ?? 0) + Number(value));
  }
  return all;
}

export const sum = (numbers, name) => [...(numbers.get(`tidegate_${name}`)?.values() ?? [])].reduce((a, b) => a + b, 0);

/**
 * Quantiles of what a histogram gathered between two looks, in seconds: by the share of the bucket
 * that they lie in, as Prometheus does. Undefined where nothing was gathered.
 */
export function quantiles(now, before, name, shares) {
  const prefix = `tidegate_${name}_seconds_bucket `;
  const total = (numbers, key) => [...(numbers.get(key)?.values() ?? [])].reduce((a, b) => a + b, 0);
  const buckets = [...now.keys()].filter((key) => key.startsWith(prefix)).map((key) => [
    Number(key.slice(prefix.length).replace('+Inf', 'Infinity')), total(now, key) - total(before, key),
  ]);
  buckets.sort(([a], [b]) => a - b);
  const all = buckets.at(-1)?.[1] ?? 0;
  if (!(0 < all)) return undefined;
  return shares.map((share) => {
    const at = buckets.findIndex(([, count]) => share * all <= count);
    const [low, below] = at === 0 ? [0, 0] : buckets[at - 1];
    const [high, within] = buckets[at];
    if (high === Infinity) return low;
    return low + (high - low) * ((share * all - below) / Math.max(1, within - below));
  });
}

const rate = (name) => (now, before, seconds) => [Math.max(0, sum(now, name) - sum(before, name)) / seconds];
const timing = (name) => (now, before) => quantiles(now, before, name, [0.5, 0.99]);

/** Name, hint, how it is read as one line or more, how a value is shown, the names of the lines. */
const CARDS = [
  ['Connections', 'Open WebSocket connections, over all shards and tenants',
    (now) => [sum(now, 'connections_open')], whole],
  ['Messages in', 'Received from clients, in each second', rate('messages_received_total'), scaled],
  ['Messages out', 'Queued for clients, in each second', rate('messages_sent_total'), scaled],
  ['Fan-out', 'From the start of a turn that gave out relay pushes to the sends of all their receivers',
    timing('fan_out_duration'), time, ['p50', 'p99']],
  ['Publish to ack', 'From a durable publish to its acknowledgement, its sync included',
    timing('publish_ack_duration'), time, ['p50', 'p99']],
  ['Traffic out', 'Bytes sent to clients, in each second', rate('sent_bytes_total'), (n) => scaled(n, 'B')],
  ['Durable publishes', 'Accepted into the log, in each second', rate('publishes_total'), scaled],
  ['Lagged', 'Relay pushes dropped in each second because their subscriber did not read',
    rate('frames_lagged_total'), scaled],
];

class Card {
  constructor([name, hint, read, show, lines]) {
    Object.assign(this, { name, read, show, lines });
    this.samples = [];
    this.value = make('div', { className: 'value', textContent: '–' });
    this.peak = make('span', { className: 'peak' });
    this.chart = drawn('svg', { viewBox: `0 0 ${SAMPLES_MAX - 1} 40`, preserveAspectRatio: 'none', 'aria-hidden': 'true' });
    this.area = this.chart.appendChild(drawn('polygon'));
    this.paths = (lines ?? ['']).map((line) => this.chart.appendChild(drawn('polyline', { class: `line ${line}` })));
    const unit = lines || name === 'Connections' ? undefined : make('span', { className: 'unit', textContent: '/s' });
    this.box = make('div', { className: 'card', title: hint },
      make('div', { className: 'name' }, name, unit, this.peak), this.value, this.chart);
    this.box.dataset.card = name;
  }

  add(values) {
    if (values) this.last = values;
    this.samples.push(values);
    if (SAMPLES_MAX < this.samples.length) this.samples.shift();
    if (!this.lines) write(this.value, this.show((values ?? [0])[0]));
    else this.writeLines(values);
    const top = Math.max(...this.samples.map((sample) => Math.max(...(sample ?? [0]))), 1e-9);
    write(this.peak, top <= 1e-9 ? '' : `peak ${this.show(top)}`);
    this.box.classList.toggle('alarm', this.name === 'Lagged' && 0 < (values ?? [0])[0]);
    this.draw(top);
  }

  writeLines(values) {
    const shown = this.lines.map((line, index) => make('span', { className: `quantile ${line}` },
      make('small', { textContent: line }), this.show(values?.[index] ?? this.last?.[index])));
    this.value.replaceChildren(...shown);
    // Nothing came in this second: what is shown is of before.
    this.value.classList.toggle('old', !values);
  }

  draw(top) {
    const left = SAMPLES_MAX - this.samples.length;
    const points = (line) => this.samples.map((sample, index) => {
      const value = sample?.[line] ?? 0;
      return `${left + index},${(39 - (value / top) * 36).toFixed(2)}`;
    }).join(' ');
    this.paths.forEach((path, line) => path.setAttribute('points', points(line)));
    const highest = points(this.paths.length - 1);
    this.area.setAttribute('points', `${left},40 ${highest} ${SAMPLES_MAX - 1},40`);
  }
}

const cards = CARDS.map((card) => new Card(card));
byId('cards').append(...cards.map((card) => card.box));

// --- shards

/** What a strip shows, with a hint. */
const ROWS = [
  ['Connections', 'Open ones; the bar is of this shard\'s part of limits.connections_max'],
  ['Load', 'The part of the last second in which the loop had something to do'],
  ['Mailbox', 'What other shards and threads ask of this one and it has not taken up, or others not of it'],
  ['Ring', 'Operations in the fuller one of the two queues shared with the kernel, and its room'],
  ['Buffers', 'Receive buffers in use, of how many'],
  ['Outboxes', 'Bytes that wait for sockets, behind what the kernel has'],
];

class Strip {
  constructor(index) {
    const list = make('dl');
    this.rows = ROWS.map(([name, hint]) => {
      const bar = meter(`${name} of shard ${index}`);
      const number = make('dd');
      list.append(make('dt', { textContent: name, title: hint }), bar, number);
      return { bar, number };
    });
    this.rate = make('span', { className: 'count' });
    this.box = make('div', { className: 'shard' }, make('h3', {}, `Shard ${index}`, this.rate), list);
  }

  show(values) {
    values.forEach(([text, share, high], row) => {
      write(this.rows[row].number, text);
      this.rows[row].bar.show(share, high);
    });
  }
}

const strips = new Map();

function showShards(now, before, seconds) {
  const of = (numbers, name, shard) => numbers.get(`tidegate_${name}`)?.get(shard) ?? 0;
  const grown = (name, shard) => Math.max(0, of(now, name, shard) - of(before, name, shard)) / seconds;
  const shards = [...(now.get('tidegate_connections_open')?.keys() ?? [])];
  const most = Math.max(1, sum(now, 'connections_max') / Math.max(1, shards.length));
  for (const shard of shards) {
    if (!strips.has(shard)) {
      strips.set(shard, new Strip(shard));
      byId('shards').append(strips.get(shard).box);
    }
    const open = of(now, 'connections_open', shard);
    const busy = Math.min(1, grown('turn_duration_seconds_sum', shard));
    const depth = of(now, 'mailbox_depth', shard) + of(now, 'mailbox_behind', shard);
    const [waiting, room] = ['submissions', 'completions']
      .map((queue) => [of(now, `${queue}_waiting`, shard), of(now, `${queue}_max`, shard) || 1])
      .reduce((a, b) => (a[0] / a[1] <= b[0] / b[1] ? b : a));
    const buffers = of(now, 'receive_buffers_max', shard) || 1;
    const used = buffers - of(now, 'receive_buffers_free', shard);
    const bytes = of(now, 'outbox_bytes', shard);
    strips.get(shard).show([
      [whole(open), open / most],
      [`${Math.round(100 * busy)} %`, busy],
      [whole(depth), depth / (depth + 256)],
      [`${whole(waiting)} / ${scaled(room)}`, waiting / room],
      [`${whole(used)} / ${scaled(buffers)}`, used / buffers],
      [scaled(bytes, 'B'), bytes / (bytes + 1_048_576)],
    ]);
    write(strips.get(shard).rate, `${scaled(grown('turns_total', shard))} turns/s`);
  }
}

let last;

/** Takes in one look at the metrics. */
export function show(text) {
  const at = performance.now();
  const now = parse(text);
  if (last) {
    const seconds = (at - last.at) / 1_000;
    for (const card of cards) card.add(card.read(now, last.now, seconds));
    showShards(now, last.now, seconds);
  }
  last = { now, at };
  return now;
}

/** The next look has nothing before it. */
export function forget() {
  last = undefined;
}
