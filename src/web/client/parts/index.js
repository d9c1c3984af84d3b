// What users of the client see.

export { DurableClient } from './durable.js';
export { EventClient } from './events.js';
export { RelayClient } from './relay.js';
export { Rest } from './rest.js';
export { TidegateError, afterClose } from './errors.js';
export { backoffMs } from './options.js';
