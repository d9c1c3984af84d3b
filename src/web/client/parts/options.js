// What can be set, and what the token of a connection is. Knows no socket.

import { TidegateError } from './errors.js';

export const DEFAULTS = {
  backoffMsMin: 500, // the first wait is between 0 and this
  backoffMsMax: 30_000, // and no wait is longer
  attemptsMax: Infinity, // failed attempts in a row before giving up
  stableMs: 5_000, // open for so long, the next wait is a first one again
  handshakeMsMax: 10_000, // a token and a handshake that take longer are a failed attempt
  connectMsMax: 60_000, // so long `connect()` waits to be open
  requestMsMax: 10_000, // an answer that takes longer is an error
  offlineMsMax: 60_000, // and so is a request that waits longer for a connection
  pingIntervalMs: 25_000, // silence for so long is asked about
  pongMsMax: 10_000, // and ends the connection after so much more
  queueMax: 16_384, // requests that wait for a connection or an answer
  inFlightMax: 256, // publishes on their way at once
  renewMsMin: 5_000, // from one renewal of a token to the next
  random: Math.random,
};

/** Full jitter: anything between nothing and a ceiling that doubles with each attempt. */
export function backoffMs(attempt, options = {}) {
  const { backoffMsMin, backoffMsMax, random } = { ...DEFAULTS, ...options };
  return random() * Math.min(backoffMsMax, backoffMsMin * 2 ** Math.min(attempt, 30));
}

/** A source that keeps a token may hand out one that has expired while there was no connection. */
export async function tokenOf({ token }, renew) {
  const isSource = typeof token === 'function';
  let given = isSource ? await token({ renew }) : token;
  if (isSource && !renew && hasExpired(given)) given = await token({ renew: true });
  if (given === undefined || given === null || given === '') return undefined;
  if (typeof given === 'string' && /^[\w.~+/=-]+$/.test(given)) return given;
  throw new TidegateError('token', 'the token is not a text of letters, digits and .~+/=-_');
}

/** What the token says of itself, by this side's clock; the server decides. */
function hasExpired(token) {
  try {
    const claims = token.split('.')[1].replace(/-/g, '+').replace(/_/g, '/');
    return JSON.parse(atob(claims)).exp * 1_000 <= Date.now();
  } catch {
    return false;
  }
}
