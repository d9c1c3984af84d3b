//! Attributes that are written wrong. A comment `//~` holds what the compiler says to its line.

use std::sync::Arc;

use tidegate::prelude::*;

#[gateway(path = "/chat", port = 80)] //~ a gateway has: path, namespace, guards(..), interceptors(..)
struct Port;

#[gateway(path = "/chat/{room}")] //~ a path is plain text such as "/chat"
struct Pattern;

#[gateway(path = "/chat", on_deny = "kick")] //~ either "close" or "error"
struct Kick;

#[gateway(path = "/chat")]
struct Generic<T>(T); //~ a service has no parameters: there is one of each type

#[gateway(path = "/chat")]
enum Choice {} //~ `#[gateway(..)]` stands on a struct

#[injectable]
fn service() {} //~ `#[injectable]` stands on a struct

#[injectable(now)] //~ this attribute takes no options
struct Now;

#[injectable]
struct Twice {
    #[inject]
    #[inject] //~ `#[inject]` stands here twice
    chat: Arc<Now>,
}

#[module(controllers = [Port])] //~ a module has: imports = [..], providers = [..], factories = [..], gateways = [..]
struct Controllers;

#[module(gateways = [Port])]
struct Fields { //~ a module is a list: its struct has no fields
    field: u8,
}

#[relay] //~ a relay handler has a pattern: `#[relay("room:*")]`
async fn nothing() {}

#[relay("*:lobby")] //~ a pattern is a topic such as "chat:lobby", or a prefix such as "room:*"
async fn star() {}

#[relay("room:*")]
fn waits() {} //~ a relay handler is an `async fn`

#[relay("room:*")]
struct Room; //~ `#[relay(..)]` stands on an `async fn`

#[subscribe_message("message")] //~ `#[subscribe_message]` belongs on a method of an `impl` block with `#[messages]`
async fn stray() {}

#[on_connect] //~ `#[on_connect]` belongs on a method of an `impl` block with `#[messages]`
async fn stray_hook() {}

#[use_guards(Port)] //~ `#[use_guards(..)]` belongs below `#[gateway(..)]`, or on a method
async fn stray_guard() {}

struct Chat;

#[messages]
struct Messages; //~ `#[messages]` stands on an `impl` block of the gateway

#[messages]
impl Clone for Chat {} //~ `#[messages]` stands on an `impl` block of the gateway itself

#[messages]
impl Chat {
    #[subscribe_message("message")]
    async fn mutable(&mut self) {} //~ a handler takes `&self`: one gateway serves all connections
}

#[messages]
impl Chat {
    #[subscribe_message("message")]
    async fn borrowed(&self, text: &str) {} //~ take `String` or `Vec<..>`
}

#[messages]
impl Chat {
    #[subscribe_message("message")]
    async fn changed(&self, client: &mut WsClient) {} //~ by value or by `&`, never by `&mut`
}

#[messages]
impl Chat {
    #[subscribe_message("message")]
    async fn unnamed(&self, text: impl Send) {} //~ what an argument is goes by its type
}

#[messages]
impl Chat {
    #[subscribe_message("message")]
    async fn parameter<T>(&self, text: T) {} //~ a handler has no parameters of its own
}

#[messages]
impl Chat {
    #[subscribe_message] //~ an event has a name: `#[subscribe_message("message")]`
    async fn nameless(&self) {}
}

#[messages]
impl Chat {
    #[subscribe_message("message")]
    async fn one(&self) {}

    #[subscribe_message("message")] //~ `message` is bound already: one event has one handler
    async fn two(&self) {}
}

#[messages]
impl Chat {
    #[subscribe_message("message")]
    #[on_connect] //~ a method is bound to one event or one hook
    async fn both(&self) {}
}

#[messages]
impl Chat {
    #[use_guards(Admin)]
    async fn unbound(&self) {} //~ this method is bound to nothing: add `#[subscribe_message("..")]`
}

#[messages]
impl Chat {
    #[on_connect]
    #[concurrent]
    async fn hook(&self) {} //~ hooks have no guards, interceptors, filters and no `concurrent`
}

#[messages]
impl Chat {
    #[cfg_attr(unix, subscribe_message("hidden"))] //~ put `#[cfg(..)]` beside a plain `#[subscribe_message]`
    async fn hidden(&self) {}
}

#[messages]
impl Chat {
    #[subscribe_message("argument")]
    async fn argument(&self, #[cfg(unix)] text: String) {} //~ an argument has no `#[cfg(..)]`
}

fn main() {}
