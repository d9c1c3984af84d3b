// The console page: asks the server for a few numbers once a second, for what the chosen tab shows
// more seldom, and for nothing while nobody looks. Keeps its token in memory and nowhere else.

import { Rest } from '/client.js';
import * as numbers from './numbers.js';
import { byId, tabs, write } from './page.js';
import * as tables from './tables.js';
import { Durable, Relay } from './topics.js';

const POLL_MS = 1_000;
// For so long a page that is hidden still hears the topic that it follows.
const HIDDEN_MS_MAX = 60_000;
const NUMBERS = `/metrics?families=${numbers.FAMILIES.map((name) => `tidegate_${name}`)}`;

const settings = await (await fetch('/console/config.json')).json();
write(byId('version'), settings.version);
let token;

// --- who we are

async function mint(wish) {
  const answer = await fetch('/v1/dev/token', { method: 'POST', body: wish && JSON.stringify(wish) });
  const told = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(told.detail ?? `no token: HTTP ${answer.status}`);
  return told.token;
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
  write(byId('status'), text);
  byId('status').dataset.kind = kind;
}

// --- tokens for others, in development only: they go to the clipboard and are never shown

async function copy(button, textOf) {
  const name = button.dataset.name ??= button.textContent;
  try {
    await navigator.clipboard.writeText(textOf(await mint(wished())));
    write(button, 'Copied');
  } catch (error) {
    write(button, `Not copied: ${error.message}`);
  }
  setTimeout(() => write(button, name), 2_000);
}

/** Who the copied token is of: the page's own admin, unless a name is given. */
function wished() {
  const sub = byId('mint-sub').value.trim();
  const ns = byId('mint-ns').value.trim();
  if (!sub && !ns) return undefined;
  return { sub: sub || undefined, ns: ns || undefined };
}

byId('mint').hidden = !settings.mints;
byId('mint-token').addEventListener('click', (event) => copy(event.currentTarget, (fresh) => fresh));
byId('mint-curl').addEventListener('click', (event) => copy(event.currentTarget, (fresh) => `curl -H "authorization: Bearer ${fresh}" ${location.origin}/v1/relay/push -d '{"topic":"news","event":"hello","payload":"from curl"}'`));

// --- the parts

const parts = {
  relay: settings.relay ? new Relay(rest, settings.relay, currentToken) : undefined,
  durable: new Durable(rest),
  connections: tables.connections(rest, (text) => status('bad', text)),
  slow: tables.slow(rest),
  config: tables.config(rest),
};
let looked;
const choice = tabs(byId('tabs'), (name) => {
  looked = name;
  // Before the first look there is nobody to ask as.
  if (began) look({ now: true }).catch(() => {});
});

const look = (how) => parts[looked]?.poll(how) ?? Promise.resolve();

// --- the clock

let running = 0;
let began = false;

function begin() {
  const known = Boolean(token || settings.mints);
  choice.show('relay', known && parts.relay !== undefined);
  choice.show('durable', known && settings.durable);
  for (const name of ['connections', 'slow']) choice.show(name, known);
  byId('more').hidden = false;
  if (known) parts.relay?.open();
  began = true;
  choice.start();
}

async function start() {
  running += 1;
  const mine = running;
  began = false;
  numbers.forget();
  byId('token-form').hidden = true;
  while (mine === running) {
    try {
      numbers.show(await rest.request('GET', NUMBERS));
      document.body.classList.remove('stale');
      if (!began) begin();
      await look();
      status('good', 'live');
    } catch (error) {
      if (error.status === 401 && settings.mints) token = undefined;
      else if (error.status === 401 || error.status === 403) return refused(error);
      // What still stands here is of before.
      document.body.classList.add('stale');
      status('bad', error.status ? error.message : 'the server does not answer: these numbers are old');
    }
    await new Promise((resolve) => { setTimeout(resolve, POLL_MS); });
    // Nobody looks: nothing is asked.
    while (document.hidden) await new Promise((resolve) => { document.addEventListener('visibilitychange', resolve, { once: true }); });
  }
  return undefined;
}

let resting;
document.addEventListener('visibilitychange', () => {
  clearTimeout(resting);
  if (document.hidden) resting = setTimeout(() => parts.relay?.rest(), HIDDEN_MS_MAX);
  else parts.relay?.wake();
});

function reason({ status: code }) {
  if (code === 403) return 'this token has not the role admin';
  return token ? 'this token is not accepted: it is wrong or has expired' : 'a token is needed';
}

function refused(error) {
  status('bad', reason(error));
  token = undefined;
  parts.relay?.close();
  byId('token-form').hidden = false;
  byId('token').focus();
}

if (settings.mints || settings.open) start();
else refused({ status: 401 });
