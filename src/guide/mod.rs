//! The guide, a page each. Knows nothing: its code is compiled and run as tests.

#[doc = include_str!("gateways.md")]
pub mod gateways {}

#[doc = include_str!("messages.md")]
pub mod messages {}

#[doc = include_str!("registries.md")]
pub mod registries {}

#[doc = include_str!("layers.md")]
pub mod layers {}

#[doc = include_str!("streaming.md")]
pub mod streaming {}

#[doc = include_str!("services.md")]
pub mod services {}

#[doc = include_str!("databases.md")]
pub mod databases {}

#[doc = include_str!("relay.md")]
pub mod relay {}

#[doc = include_str!("durable.md")]
pub mod durable {}

#[doc = include_str!("rights.md")]
pub mod rights {}

#[doc = include_str!("backup.md")]
pub mod backup {}

#[doc = include_str!("by_hand.md")]
pub mod by_hand {}

#[doc = include_str!("socketio.md")]
pub mod socketio {}

#[doc = include_str!("tls.md")]
pub mod tls {}

#[doc = include_str!("compression.md")]
pub mod compression {}

#[doc = include_str!("testing.md")]
pub mod testing {}

#[doc = include_str!("browser.md")]
pub mod browser {}

#[doc = include_str!("other_languages.md")]
pub mod other_languages {}

#[doc = include_str!("deployment.md")]
pub mod deployment {}

#[doc = include_str!("upgrade.md")]
pub mod upgrade {}

#[doc = include_str!("coming_from.md")]
pub mod coming_from {}
