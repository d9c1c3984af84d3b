// The console page in Chromium: what it shows of connections and of a topic, by keyboard, without a
// request to anywhere else. Usage: node console.mjs BASE TOKEN DEV|ADMIN SCREENSHOT-PREFIX

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

const [base, token, mode, pictures] = process.argv.slice(2);
const profile = await mkdtemp(join(tmpdir(), 'tidegate-chromium-'));
const context = await chromium.launchPersistentContext(profile, {
  executablePath: '/usr/bin/chromium',
  headless: true,
  viewport: { width: 1280, height: 1100 },
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

const push = (topic, event, payload) => fetch(`${base}/v1/relay/push`, {
  method: 'POST', headers: { Authorization: `Bearer ${token}` }, body: JSON.stringify({ topic, event, payload }),
});
const seen = (selector, text) => page.locator(selector, { hasText: text }).first().waitFor();

const checks = {
  async 'it goes live'() {
    await page.goto(`${base}/`);
    if (mode === 'ADMIN') {
      await seen('#status', 'a token is needed');
      // The form has the focus.
      await page.keyboard.type(token);
      await page.keyboard.press('Enter');
    }
    await seen('#status', 'live');
    await seen('#topic-state', 'following news');
    await seen('.shard', 'Shard 0');
  },
  async 'a push from elsewhere shows at once, as text'() {
    assert.equal((await push('news', 'from-curl', { text: '<b id="oops">hi</b>' })).status, 200);
    await seen('#tail li', 'from-curl');
    await seen('#tail li', '<b id=');
    assert.equal(await page.locator('#oops').count(), 0);
  },
  async 'the box publishes to the topic'() {
    await page.locator('#event').fill('typed');
    await page.locator('#payload').fill('{"n":42}');
    await page.keyboard.press('Enter');
    await seen('#tail li', '{"n":42}');
  },
  async 'who is present and connected is shown, and found'() {
    await seen('#present-count', '1');
    await seen('#rows tr', '/ws');
    await page.locator('#search').fill('no such connection');
    await page.locator('#rows tr').first().waitFor({ state: 'detached' });
    await page.locator('#search').fill('/ws');
    await seen('#rows tr', '/ws');
  },
  async 'a connection is closed, and the page comes back with its topic'() {
    await page.locator('#search').fill('');
    const id = await page.locator('#rows tr td').first().textContent();
    await page.locator('#rows button').first().focus();
    await page.keyboard.press('Enter');
    await page.locator(`#rows tr[data-id="${id}"]`).waitFor({ state: 'detached' });
    // Refused by policy, it waits for up to a few seconds.
    await seen('#rows tr', '/ws');
    const began = Date.now();
    while (!(await page.locator('#tail li', { hasText: 'after' }).count())) {
      assert.ok(Date.now() - began < 15_000, 'no push after the reconnect');
      await push('news', 'after', 1);
      await page.waitForTimeout(100);
    }
  },
  async 'light and dark, wide and narrow'() {
    for (const scheme of ['light', 'dark']) {
      await page.emulateMedia({ colorScheme: scheme });
      await page.screenshot({ path: `${pictures}-${scheme}.png`, fullPage: true });
    }
    await page.setViewportSize({ width: 390, height: 800 });
    await page.screenshot({ path: `${pictures}-narrow.png`, fullPage: true });
    const [inner, outer] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
    assert.ok(inner <= outer, `the page is ${inner} wide in ${outer}`);
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
