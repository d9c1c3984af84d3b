// The console page in Chromium: what it shows of connections, topics and configuration, by keyboard,
// without a request to anywhere else. Usage: node console.mjs BASE TOKEN DEV|ADMIN SECRET SCREENSHOT-PREFIX

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';
import { crowd, sleeper } from './crowd.mjs';

const [base, token, mode, secret, pictures] = process.argv.slice(2);
const NARROW = { width: 400, height: 860 };
const WIDE = { width: 1400, height: 1080 };
const profile = await mkdtemp(join(tmpdir(), 'tidegate-chromium-'));
const context = await chromium.launchPersistentContext(profile, {
  executablePath: '/usr/bin/chromium',
  headless: true,
  viewport: WIDE,
  permissions: ['clipboard-read', 'clipboard-write'],
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
    '--disable-background-networking', '--disable-component-update', '--disable-sync'],
});
const page = await context.newPage();
page.setDefaultTimeout(20_000);
const foreign = [];
const errors = [];
page.on('request', (request) => { if (!request.url().startsWith(base) && !request.url().startsWith('data:')) foreign.push(request.url()); });
page.on('pageerror', (error) => errors.push(error.message));
page.on('console', (message) => { if (message.type() === 'error') errors.push(message.text()); });

const authorization = { Authorization: `Bearer ${token}` };
const post = (path, body) => fetch(`${base}${path}`, { method: 'POST', headers: authorization, body: JSON.stringify(body) });
const push = (topic, event, payload) => post('/v1/relay/push', { topic, event, payload });
const seen = (selector, text) => page.locator(selector, { hasText: text }).first().waitFor();
const gone = (selector, text) => page.locator(selector, { hasText: text }).first().waitFor({ state: 'detached' });
const texts = (selector) => page.locator(selector).allTextContents();
const keys = async (...all) => { for (const key of all) await page.keyboard.press(key); };
/** What a script in the page says, asked until it is so. */
async function until(what, isSo) {
  const began = Date.now();
  while (!(await page.evaluate(isSo))) {
    assert.ok(Date.now() - began < 20_000, `it never came to be: ${what}`);
    await page.waitForTimeout(50);
  }
}

const focused = () => page.evaluate(() => document.activeElement.id || document.activeElement.textContent.slice(0, 40));

/** Every tab in light and dark, wide and narrow; no page is wider than its window. */
async function photograph(name) {
  for (const scheme of ['light', 'dark']) {
    await page.emulateMedia({ colorScheme: scheme });
    for (const [width, size] of [['wide', WIDE], ['narrow', NARROW]]) {
      await page.setViewportSize(size);
      for (const tab of await page.locator('[role=tab]:visible').all()) {
        await tab.click();
        await page.evaluate(() => scrollTo(0, 0));
        await page.waitForTimeout(300);
        const which = (await tab.getAttribute('id')).replace('tab-', '');
        await page.screenshot({ path: `${pictures}-${name}-${which}-${scheme}-${width}.png` });
        const wide = await page.evaluate(() => document.documentElement.scrollWidth);
        assert.ok(wide <= size.width, `${which} is ${wide} wide in ${size.width}`);
      }
    }
  }
  await page.emulateMedia({ colorScheme: 'light' });
  await page.setViewportSize(WIDE);
}

const checks = {
  async 'it goes live'() {
    await page.goto(`${base}/`);
    if (mode === 'ADMIN') {
      await seen('#status', 'a token is needed');
      assert.equal(await page.locator('#more').isVisible(), false);
      assert.equal(await page.locator('#mint').isVisible(), false);
      // The form has the focus.
      assert.equal(await focused(), 'token');
      await page.keyboard.type(token);
      await keys('Enter');
    }
    await seen('#status', 'live');
    await seen('#relay-name', 'news');
    await seen('.shard', 'Shard 0');
    await seen('#relay-rows tr', 'news');
  },
  async 'numbers come in'() {
    await until('one connection', () => document.querySelector('[data-card=Connections] .value').textContent === '1');
    assert.equal((await texts('.card .name')).length, 8);
    await until('a line', () => document.querySelector('[data-card=Connections] polyline').getAttribute('points').split(' ').length > 1);
    assert.deepEqual((await texts('.shard dt')).slice(0, 6), ['Connections', 'Load', 'Mailbox', 'Ring', 'Buffers', 'Outboxes']);
    await until('free buffers', () => /^[0-4] \/ [0-9.,]+( k)?$/.test(document.querySelectorAll('.shard dd')[4].textContent));
  },
  async 'all of it empty, light and dark, wide and narrow'() {
    await photograph('empty');
    await page.locator('#tab-slow').click();
    await seen('#slow-empty', 'Everybody keeps up');
    await page.locator('#tab-durable').click();
    await seen('#durable-empty', 'No durable topic yet');
  },
  async 'tabs are moved through by arrows, and only one is in the order'() {
    await page.locator('#tab-relay').click();
    await keys('ArrowRight', 'ArrowRight');
    assert.equal(await focused(), 'tab-connections');
    assert.ok(await page.locator('#connections').isVisible());
    await keys('End');
    assert.ok(await page.locator('#config').isVisible());
    await keys('ArrowRight');
    assert.equal(await focused(), 'tab-relay');
    assert.equal(await page.locator('[role=tab][tabindex="0"]').count(), 1);
    await keys('Tab');
    assert.equal(await focused(), 'topic');
  },
  async 'everything is reached by keyboard, and what has the focus is seen'() {
    await page.locator('#tab-relay').focus();
    const reached = new Set();
    for (let step = 0; step < 20; step += 1) {
      await keys('Tab');
      if (await page.evaluate(() => document.activeElement === document.body)) break;
      reached.add(await focused());
      const style = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
      assert.equal(style, 'solid', `${await focused()} shows no focus`);
    }
    for (const id of ['topic', 'Follow', 'news', 'relay-pause', 'relay-tail', 'event', 'payload', 'Publish', 'present']) {
      assert.ok(reached.has(id), `${id} is not reached by Tab: ${[...reached]}`);
    }
  },
  async 'a push from elsewhere shows at once, as text'() {
    assert.equal((await push('news', 'from-curl', { text: '<b id="oops">hi</b>' })).status, 200);
    await seen('#relay-tail li', 'from-curl');
    await seen('#relay-tail li', '<b id=');
    assert.equal(await page.locator('#oops').count(), 0);
  },
  async 'the box publishes to the topic'() {
    await page.locator('#event').fill('typed');
    await page.locator('#payload').fill('{"n":42}');
    await keys('Enter');
    await seen('#relay-tail li', '{"n":42}');
  },
  async 'the tail stops and goes on, and is cleared'() {
    await page.locator('#relay-pause').focus();
    await keys('Enter');
    await push('news', 'while-paused', 1);
    await page.waitForTimeout(500);
    assert.equal(await page.locator('#relay-tail li', { hasText: 'while-paused' }).count(), 0);
    await keys('Enter');
    await seen('#relay-tail li', 'while-paused');
    await page.locator('#relay-clear').click();
    assert.equal(await page.locator('#relay-tail li').count(), 0);
  },
  async 'another topic is followed by its name'() {
    await page.locator('#topic').fill('no-such-room');
    await seen('#relay-empty', 'No topic of this name');
    await keys('Enter');
    await seen('#relay-name', 'no-such-room');
    await seen('#relay-rows tr', 'no-such-room');
    await push('no-such-room', 'there', 1);
    await seen('#relay-tail li', 'there');
    await page.locator('#topic').fill('');
    await page.locator('#topic').fill('news');
    await keys('Enter');
    await seen('#relay-name', 'news');
    await seen('#present-count', '1');
  },
  async 'a durable topic is made, filled and read, and lag is seen'() {
    await page.locator('#tab-durable').click();
    await page.locator('#durable-topic').fill('orders');
    await keys('Enter');
    await seen('#durable-rows tr', 'orders');
    await page.locator('#durable-payload').fill('{"first":1}');
    await keys('Enter');
    await seen('#durable-publish-state', 'stored as 1');
    await seen('#durable-tail li', '{"first":1}');
    const { topics } = await (await fetch(`${base}/v1/topics`, { headers: authorization })).json();
    const { id } = topics.find(({ name }) => name === 'orders');
    await post(`/v1/topics/${id}/messages`, { payload: { from: 'curl' } });
    await seen('#durable-tail li', '#2');
    await seen('#durable-rows tr', '1 – 2');
    await seen('#subscriptions-empty', 'Nobody has subscribed');
  },
  async 'a connection is found, closed, and the page comes back with its topic'() {
    await page.locator('#tab-connections').click();
    await seen('#connections-count', '1 open');
    await page.locator('#search').fill('no such connection');
    await seen('#connections-empty', 'No such connection');
    await page.locator('#search').fill('/WS');
    await seen('#rows tr', '/ws');
    const id = await page.locator('#rows tr').first().getAttribute('data-key');
    await page.locator('#rows button').first().focus();
    await keys('Enter');
    await page.locator(`#rows tr[data-key="${id}"]`).waitFor({ state: 'detached' });
    // Refused by policy, it waits for up to a few seconds.
    await seen('#rows tr', '/ws');
    await page.locator('#search').fill('');
    await page.locator('#tab-relay').click();
    const began = Date.now();
    while (!(await page.locator('#relay-tail li', { hasText: 'after' }).count())) {
      assert.ok(Date.now() - began < 15_000, 'no push after the reconnect');
      await push('news', 'after', 1);
      await page.waitForTimeout(100);
    }
  },
  async 'a page that is hidden asks nothing, and follows nothing after a minute'() {
    const other = await context.newPage();
    await other.clock.install();
    await other.goto(`${base}/`);
    if (mode === 'ADMIN') {
      await other.locator('#token').fill(token);
      await other.locator('#token').press('Enter');
    }
    const open = async () => (await (await fetch(`${base}/v1/connections`, { headers: authorization })).json()).count;
    const opened = async (count) => {
      for (let n = 0; await open() !== count; n += 1) {
        assert.ok(n < 100, `${await open()} are open and not ${count}`);
        await page.waitForTimeout(50);
      }
    };
    await opened(2);
    const hide = (hidden) => other.evaluate((is) => {
      Object.defineProperty(document, 'hidden', { configurable: true, get: () => is });
      document.dispatchEvent(new Event('visibilitychange'));
    }, hidden);
    await hide(true);
    await other.waitForTimeout(1_500);
    const asked = [];
    other.on('request', (request) => asked.push(request.url()));
    await other.waitForTimeout(2_500);
    assert.deepEqual(asked, []);
    await other.clock.fastForward(60_000);
    await opened(1);
    await hide(false);
    await opened(2);
    await other.locator('#relay-tail li', { hasText: 'while this page was hidden' }).waitFor();
    await push('news', 'seen-again', 1);
    await other.locator('#relay-tail li', { hasText: 'seen-again' }).waitFor();
    assert.notDeepEqual(asked, []);
    await other.close();
    await opened(1);
    await page.bringToFront();
  },
  async 'what is written can be read: its contrast is that of WCAG AA'() {
    for (const scheme of ['light', 'dark']) {
      await page.emulateMedia({ colorScheme: scheme });
      const colors = await page.evaluate(() => {
        const style = getComputedStyle(document.documentElement);
        const names = ['text', 'soft', 'blue', 'warm', 'good', 'bad', 'on-blue', 'back', 'card', 'sunk'];
        return Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
      });
      const light = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16) / 255)
        .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
        .reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
      const contrast = (a, b) => {
        const [low, high] = [light(colors[a]), light(colors[b])].sort((x, y) => x - y);
        return (high + 0.05) / (low + 0.05);
      };
      const pairs = ['text', 'soft', 'blue', 'warm', 'good', 'bad'].flatMap((one) => ['back', 'card', 'sunk'].map((on) => [one, on]));
      for (const [one, on] of [...pairs, ['on-blue', 'blue']]) {
        assert.ok(4.5 <= contrast(one, on), `${one} on ${on} in ${scheme}: ${contrast(one, on).toFixed(2)}`);
      }
      // Nothing that is written is made paler than its color.
      const pale = await page.evaluate(() => [...document.querySelectorAll('main *')]
        .filter((one) => getComputedStyle(one).opacity !== '1').map((one) => one.className));
      assert.deepEqual(pale, []);
    }
    await page.emulateMedia({ colorScheme: 'light' });
  },
  async 'the configuration says who set what'() {
    await page.locator('#tab-config').click();
    await seen('#config-rows tr.chosen', 'server.listen');
    await seen('#config-rows tr.chosen', '--listen');
    await page.locator('#config-chosen').check();
    await gone('#config-rows tr', 'limits.frame_bytes_max');
    await page.locator('#config-chosen').uncheck();
    await page.locator('#config-filter').fill('frame_bytes_max');
    await seen('#config-rows tr', '65536');
    await page.locator('#config-filter').fill('');
    const all = (await texts('#config-rows td')).join(' ');
    assert.ok(!secret || !all.includes(secret));
  },
  async 'in development a token is copied and never shown'() {
    if (mode !== 'DEV') {
      assert.equal((await fetch(`${base}/v1/dev/token`, { method: 'POST', headers: authorization })).status, 404);
      return;
    }
    await page.bringToFront();
    await page.locator('#mint-curl').click();
    await seen('#mint-curl', 'Copied');
    const line = await page.evaluate(() => navigator.clipboard.readText());
    assert.match(line, /^curl -H "authorization: Bearer eyJ\S+" http:\/\/127\.0\.0\.1:\d+\/v1\/relay\/push/);
    assert.ok(!(await page.content()).includes('eyJ'));
  },
  async 'a crowd, light and dark, wide and narrow'() {
    if (mode === 'DEV') return;
    const other = await context.newPage();
    await crowd(other, base, secret, 'demo');
    await page.bringToFront();
    await page.locator('#tab-relay').click();
    await page.locator('#topic').fill('');
    await page.locator('#relay-rows button', { hasText: 'room:harbour' }).click();
    await page.waitForTimeout(12_000);
    await page.locator('#tab-durable').click();
    await page.locator('#durable-rows button', { hasText: 'orders' }).click();
    await page.locator('#durable-payload').fill('{"order":7}');
    await seen('#subscription-rows tr', 'reports');
    await seen('#subscription-rows tr', 'gone');
    const slow = sleeper(base, secret, 'demo', 'bulk');
    await page.locator('#tab-slow').click();
    for (let n = 0; n < 3_000 && !(await page.locator('#slow-rows tr', { hasText: 'sleeper' }).count()); n += 1) {
      await push('bulk', 'bulk', 'x'.repeat(60_000));
    }
    await seen('#slow-rows tr', 'sleeper');
    for (const card of ['Fan-out', 'Publish to ack']) await until(card, `/p99[0-9.]+ [µm]?s/.test(document.querySelector('[data-card="${card}"] .value').textContent)`);
    await photograph('crowd');
    slow.destroy();
    await other.close();
  },
  async 'nothing came from elsewhere, nothing failed, nothing is kept'() {
    assert.deepEqual(foreign, []);
    assert.deepEqual(errors.filter((text) => !/401|WebSocket/.test(text)), []);
    assert.equal(await page.evaluate(() => localStorage.length + sessionStorage.length + document.cookie.length), 0);
    assert.ok(!(await page.content()).includes(token));
  },
};

let failed = 0;
for (const [name, check] of Object.entries(checks)) {
  try {
    await check();
    console.log(`ok      ${mode}: ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`FAILED  ${mode}: ${name}: ${error.stack}`);
  }
}
if (failed) console.log(`status: ${await page.locator('#status').textContent()}; errors: ${errors.join(' | ')}`);
await context.close();
await rm(profile, { recursive: true, force: true });
console.log(`${Object.keys(checks).length - failed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
