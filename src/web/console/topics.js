// Relay topics and durable topics: who is there, how far readers are, what is published as it
// comes, and a box to publish. Payloads are shown as text, and only of the topic that is followed.

import { RelayClient } from '/client.js';
import { ago, byId, clock, make, meter, paced, scaled, showRows, whole, write } from './page.js';

const TAIL_MAX = 200;
const PRESENT_MAX = 200;
const PAYLOAD_CHARS_MAX = 2_000;
const TOPICS_MAX = 50;
const TOPICS_MS = 1_900;
const PRESENCE_MS = 4_900;

/** The newest lines first, drawn once a frame however many come. */
class Tail {
  constructor(name) {
    this.list = byId(`${name}-tail`);
    this.empty = byId(`${name}-tail-empty`);
    this.waiting = [];
    this.pause = byId(`${name}-pause`);
    this.pause.addEventListener('click', () => {
      const paused = this.pause.ariaPressed !== 'true';
      this.pause.ariaPressed = String(paused);
      this.pause.textContent = paused ? 'Go on' : 'Pause';
      if (!paused) this.draw();
    });
    byId(`${name}-clear`).addEventListener('click', () => this.clear());
  }

  get paused() {
    return this.pause.ariaPressed === 'true';
  }

  clear() {
    this.waiting = [];
    this.list.replaceChildren();
    this.empty.hidden = false;
  }

  add(mark, text, { at = new Date(), className = '' } = {}) {
    if (!this.waiting.length && !this.paused) requestAnimationFrame(() => this.draw());
    this.waiting.unshift({ mark, text, at, className });
    if (TAIL_MAX < this.waiting.length) this.waiting.length = TAIL_MAX;
  }

  draw() {
    if (this.paused) return;
    const lines = this.waiting.splice(0).map(({ mark, text, at, className }) => make('li', { className },
      make('time', { textContent: clock(at) }), make('b', { textContent: mark }),
      make('span', { textContent: text.slice(0, PAYLOAD_CHARS_MAX) })));
    this.list.prepend(...lines);
    while (TAIL_MAX < this.list.children.length) this.list.lastChild.remove();
    this.empty.hidden = 0 < this.list.children.length;
  }
}

/** JSON where it is that, else the text itself. */
function payloadOf(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** A row whose first cell is a button that chooses it. */
function choosable(name, choose, ...cells) {
  const button = make('button', { type: 'button', className: 'link', textContent: name });
  button.addEventListener('click', () => choose(name));
  const line = make('tr', {}, make('td', {}, button), ...cells);
  line.mark = (is) => {
    line.classList.toggle('chosen', is);
    button.ariaCurrent = is ? 'true' : null;
  };
  return line;
}

// --- relay topics

export class Relay {
  #rest;
  #url;
  #token;
  #client;
  #followed;
  #resting = false;
  #tail = new Tail('relay');

  constructor(rest, path, token) {
    this.#rest = rest;
    this.#url = new URL(path, location.href);
    this.#url.protocol = this.#url.protocol.replace('http', 'ws');
    this.#token = token;
    byId('topic-form').addEventListener('submit', (event) => {
      event.preventDefault();
      this.follow(byId('topic').value.trim());
    });
    byId('topic').addEventListener('input', () => this.poll({ now: true }).catch(() => {}));
    byId('publish-form').addEventListener('submit', (event) => {
      event.preventDefault();
      this.#publish();
    });
  }

  open() {
    this.#connect();
    this.follow(this.#followed?.topic ?? 'news');
  }

  #connect() {
    this.#client?.close();
    this.#resting = false;
    this.#client = new RelayClient(this.#url, { token: this.#token });
    this.#client.on('state', (state) => write(byId('relay-state'), state === 'open' ? '' : state));
    this.#client.connect().catch((error) => write(byId('relay-state'), error.message));
  }

  close() {
    this.#client?.close();
    this.#client = undefined;
    this.#resting = false;
  }

  /** Nobody looks, so nothing is sent to this page. */
  rest() {
    if (!this.#client) return;
    this.close();
    this.#resting = true;
  }

  /** Somebody looks again: the topic goes on, and that something is missing is said. */
  wake() {
    if (!this.#resting) return;
    this.#connect();
    this.#tail.add('hidden', 'while this page was hidden nothing was followed', { className: 'lagged' });
    this.#hear(this.#followed.topic);
  }

  async follow(topic) {
    this.#tail.clear();
    byId('present').replaceChildren();
    write(byId('present-count'), '');
    write(byId('relay-name'), topic);
    write(byId('relay-hint'), topic);
    await this.#hear(topic);
  }

  async #hear(topic) {
    this.#followed?.unsubscribe?.();
    this.#followed = { topic };
    const mine = this.#followed;
    try {
      const subscription = await this.#client.subscribe(topic,
        (push) => this.#tail.add(push.event, JSON.stringify(push.payload)));
      if (mine !== this.#followed) {
        subscription.unsubscribe();
        return;
      }
      subscription.on('lagged', (missed) => this.#tail.add('lagged',
        `${whole(missed)} pushes were lost here`, { className: 'lagged' }));
      this.#followed = subscription;
      write(byId('relay-state'), '');
      await this.poll({ now: true });
    } catch (error) {
      if (mine === this.#followed) write(byId('relay-state'), error.message);
    }
  }

  async poll(how) {
    await this.#pollTopics(how);
    await this.#pollPresence(how);
  }

  #pollTopics = paced(TOPICS_MS, async () => {
    const text = byId('topic').value.trim();
    const query = new URLSearchParams({ limit: TOPICS_MAX, contains: text });
    this.#draw(await this.#rest.request('GET', `/v1/admin/relay/topics?${query}`));
  });

  #draw({ count, topics }) {
    write(byId('relay-count'), `${whole(count)} ${byId('topic').value.trim() ? 'found' : 'live'}`);
    write(byId('relay-more'), topics.length < count ? `The first ${whole(topics.length)} by name are shown.` : '');
    byId('relay-empty').hidden = 0 < topics.length;
    showRows(byId('relay-rows'), topics, (one) => one.name, (one) => {
      const members = make('td', { className: 'number' });
      const present = make('td', { className: 'number' });
      const line = choosable(one.name, (name) => this.follow(name), members, present);
      line.show = (now) => {
        write(members, whole(now.members));
        write(present, whole(now.present));
        line.mark(now.name === this.#followed?.topic);
      };
      return line;
    });
  }

  #pollPresence = paced(PRESENCE_MS, async () => {
    const topic = this.#followed?.topic;
    if (!topic) return;
    const query = new URLSearchParams({ topic, limit: PRESENT_MAX });
    const { count, members } = await this.#rest.request('GET', `/v1/relay/presence?${query}`);
    if (this.#followed?.topic !== topic) return;
    write(byId('present-count'), whole(count));
    showRows(byId('present'), members, (one) => one.conn_id, (one) => {
      const meta = make('span');
      const line = make('li', {}, make('b', { textContent: one.conn_id }), meta);
      line.show = (now) => write(meta, JSON.stringify(now.meta));
      return line;
    });
  });

  async #publish() {
    const topic = this.#followed?.topic;
    try {
      await this.#rest.push(topic, byId('event').value, payloadOf(byId('payload').value));
      write(byId('publish-state'), '');
    } catch (error) {
      write(byId('publish-state'), error.message);
    }
  }
}

// --- durable topics

export class Durable {
  #rest;
  #chosen;
  /** The next seq that the tail shows. */
  #next;
  #topics = [];
  #tail = new Tail('durable');

  constructor(rest) {
    this.#rest = rest;
    byId('durable-form').addEventListener('submit', (event) => {
      event.preventDefault();
      this.#make(byId('durable-topic').value.trim());
    });
    byId('durable-publish').addEventListener('submit', (event) => {
      event.preventDefault();
      this.#publish();
    });
  }

  poll = paced(TOPICS_MS, async () => {
    const page = await this.#rest.request('GET', `/v1/admin/topics?limit=${TOPICS_MAX}`);
    this.#topics = page.topics;
    this.#chosen ??= page.topics[0]?.name;
    this.#draw();
    await this.#follow();
  });

  #draw() {
    const topics = this.#topics;
    write(byId('durable-count'), `${whole(topics.length)}${topics.length < TOPICS_MAX ? '' : '+'}`);
    byId('durable-empty').hidden = 0 < topics.length;
    byId('durable-detail').hidden = topics.length === 0;
    showRows(byId('durable-rows'), topics, (one) => one.name, (one) => {
      const numbers = ['', '', ''].map(() => make('td', { className: 'number' }));
      const line = choosable(one.name, (name) => this.#choose(name), ...numbers);
      line.show = (now) => {
        const lag = Math.max(0, ...now.subscriptions.map((each) => each.lag));
        const texts = [now.last_seq < now.first_seq ? '–' : `${whole(now.first_seq)} – ${whole(now.last_seq)}`,
          `${whole(now.subscriptions.length)}${now.more ? '+' : ''}`, scaled(lag)];
        numbers.forEach((element, index) => write(element, texts[index]));
        numbers[2].classList.toggle('late', 0 < lag);
        line.mark(now.name === this.#chosen);
      };
      return line;
    });
    const chosen = topics.find((one) => one.name === this.#chosen);
    if (chosen) this.#drawSubscriptions(chosen);
  }

  #drawSubscriptions({ name, first_seq: first, last_seq: last, subscriptions }) {
    write(byId('durable-name'), name);
    write(byId('durable-range'), last < first ? 'nothing kept' : `head ${whole(last)}, tail ${whole(first)}`);
    byId('subscriptions-empty').hidden = 0 < subscriptions.length;
    showRows(byId('subscription-rows'), subscriptions, (one) => one.id, (one) => {
      const [cursor, lag, flight, seen] = ['', '', '', ''].map(() => make('span'));
      const bar = meter(`Read by ${one.sub_name}`);
      const line = make('tr', {}, make('td', { className: 'strong', textContent: one.sub_name }),
        make('td', { className: 'number' }, cursor), make('td', { className: 'number' }, lag),
        make('td', {}, bar), make('td', { className: 'number wide' }, flight), make('td', {}, seen));
      line.show = (now) => {
        write(cursor, whole(now.cursor));
        write(lag, whole(now.lag));
        lag.parentElement.classList.toggle('late', 0 < now.lag);
        bar.show(now.last_seq ? now.cursor / now.last_seq : 1, 2);
        write(flight, whole(now.in_flight));
        write(seen, now.attached ? 'attached' : `gone, last ${ago(now.active_at)}`);
        seen.className = now.attached ? 'good' : 'soft';
      };
      return line;
    });
  }

  #choose(name) {
    if (name === this.#chosen) return;
    this.#chosen = name;
    this.#next = undefined;
    this.#tail.clear();
    this.#draw();
    this.#follow().catch(() => {});
  }

  /** History is read, in place of a subscription: looking leaves no cursor behind. */
  async #follow() {
    const topic = this.#topics.find((one) => one.name === this.#chosen);
    if (!topic) return;
    this.#next ??= Math.max(topic.first_seq, topic.last_seq - 19);
    if (topic.last_seq < this.#next) return;
    const from = Math.max(this.#next, topic.last_seq - TAIL_MAX + 1);
    this.#next = topic.last_seq + 1;
    const { messages } = await this.#rest.messages(topic.id, { fromSeq: from, limit: TAIL_MAX });
    if (topic.name !== this.#chosen) return;
    for (const { seq, payload, ts } of messages) {
      this.#tail.add(`#${seq}`, JSON.stringify(payload), { at: new Date(ts) });
      this.#next = Math.max(this.#next, seq + 1);
    }
  }

  async #make(name) {
    try {
      await this.#rest.topic(name);
      write(byId('durable-state'), '');
      byId('durable-topic').value = '';
      this.#topics = [];
      this.#choose(name);
      await this.poll({ now: true });
    } catch (error) {
      write(byId('durable-state'), error.message);
    }
  }

  async #publish() {
    const topic = this.#topics.find((one) => one.name === this.#chosen);
    if (!topic) return;
    try {
      const { seq } = await this.#rest.publish(topic.id, payloadOf(byId('durable-payload').value));
      write(byId('durable-publish-state'), `stored as ${seq}`);
      await this.poll({ now: true });
    } catch (error) {
      write(byId('durable-publish-state'), error.message);
    }
  }
}
