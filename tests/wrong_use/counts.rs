//! Handlers with a payload too many, and guards that guard nothing. A comment `//~` holds what the
//! compiler says to its line.

use tidegate::prelude::*;

struct Nothing;

#[gateway(path = "/guarded", guards(Nothing))] //~ a guard implements `UpgradeGuard`, `MessageGuard` or both
struct Guarded;

#[messages]
impl Guarded {}

#[gateway(path = "/chat")]
struct Chat;

#[messages]
impl Chat {
    #[subscribe_message("both")]
    async fn both(&self, text: String, number: u8) {} //~ a handler has one payload: all other arguments
}

#[gateway(path = "/hooks")]
struct Hooks;

#[messages]
impl Hooks {
    #[on_connect]
    async fn hello(&self, text: String) {} //~ a hook has no payload: its arguments are taken
}

fn main() {}
