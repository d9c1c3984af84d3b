// Tokens for the scripts that speak JavaScript, as harness.py makes them for the others.

import { createHmac } from 'node:crypto';

const base64url = (value) => Buffer.from(value).toString('base64url');

/** A token that the server under test believes. */
export function sign(secret, claims) {
  const parts = [{ alg: 'HS256', typ: 'JWT' }, { exp: Math.floor(Date.now() / 1_000) + 600, ...claims }];
  const signed = parts.map((part) => base64url(JSON.stringify(part))).join('.');
  return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`;
}
