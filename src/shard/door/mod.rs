//! The way in: where a request comes from, what it may, and the way to HTTP and back. Knows
//! heads, tokens and limits; not what messages mean.

pub(crate) mod bodies;
pub(crate) mod engine;
pub(crate) mod forwarded;
pub(crate) mod greetings;
pub(crate) mod handover;
pub(crate) mod line;
pub(crate) mod open;
pub(crate) mod polling;
pub(crate) mod proxies;
pub(crate) mod renew;
pub(crate) mod rewound;
pub(crate) mod sealed;
pub(crate) mod upgrade;
