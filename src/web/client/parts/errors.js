// What can go wrong, and what a close code says about coming back. Knows no socket.

/** What went wrong: `code` is for programs, `message` for people. */
export class TidegateError extends Error {
  constructor(code, message, details = {}) {
    super(message);
    this.name = 'TidegateError';
    this.code = code;
    Object.assign(this, details);
  }
}

/** How many times in a row the server may refuse by policy before we believe it. */
export const POLICY_CLOSES_MAX = 3;

/**
 * What to do after a close, by its code: `stop`, or `retry` after a wait that is counted from at
 * least `attempt`.
 */
export function afterClose(code) {
  switch (code) {
    case 1000: // the server is done with us
    case 1002: // we broke the protocol, and would again
    case 1003:
    case 1007:
    case 4403: // revoked
    case 4409: // taken over: coming back would begin a fight
      return { action: 'stop' };
    case 4401: // expired: another token helps, waiting does not
      return { action: 'renew' };
    case 1008: // policy
      return { action: 'retry', attempt: 3, policy: true };
    case 1001: // lived long enough: those who came together are told together
    case 1012: // restart: everybody is told at once, so spread
      return { action: 'retry', attempt: 2 };
    case 1013: // overloaded
      return { action: 'retry', attempt: 4 };
    default:
      return { action: 'retry', attempt: 0 };
  }
}

const CODES = {
  1008: 'policy', 1009: 'too_large', 1012: 'restart', 1013: 'overloaded',
  4401: 'token_expired', 4403: 'token_revoked', 4409: 'taken_over',
};

/** Why a connection does not come back after this close. */
export function ended(code, reason) {
  const text = `the connection ended with ${code}${reason ? `: ${reason}` : ''}`;
  return new TidegateError(CODES[code] ?? 'disconnected', text, { closeCode: code });
}

/** An error frame as an error. */
export function refusal(frame) {
  const { message, code = 'refused', topic, sub_name: subName } = frame;
  return new TidegateError(code, message, { topic, subName });
}

export function closed() {
  return new TidegateError('closed', 'closed by this side');
}

export function disconnected(text = 'there is no connection') {
  return new TidegateError('disconnected', text);
}

/** A value that stands in an object, where JSON would leave out what it cannot say. */
export function checked(value) {
  if (typeof value === 'function' || typeof value === 'symbol') toJson(value);
  return value ?? null;
}

/** JSON of what somebody gave us, or an error that is theirs alone. */
export function toJson(value, what = 'the payload') {
  let text;
  try {
    text = JSON.stringify(value === undefined ? null : value);
  } catch (error) {
    throw new TidegateError('invalid_payload', `${what} is not JSON: ${error.message}`, { cause: error });
  }
  if (text === undefined) throw new TidegateError('invalid_payload', `${what} is not JSON: a ${typeof value}`);
  return text;
}
