//! The attribute macros of Tidegate: each emits only calls that a user could have written. They
//! read spelling only to find names and places; what an argument or a return value means is left
//! to its type.

mod arguments;

mod gateway;

mod injectable;

mod list;

mod messages;

mod module;

mod relay;

#[cfg(test)]
mod tests;

use proc_macro::TokenStream;
use proc_macro2::Span;
use syn::{Error, parse_macro_input};

/// Makes a struct a gateway: `#[gateway(path = "/chat")]`.
///
/// `namespace = Marker` gives it a registry of its own. `guards(..)`, `interceptors(..)` and
/// `filters(..)` hold for all of its events; so do `#[use_guards(..)]` and its like below it.
/// `emits("typing" = ChatMessage)` tells documents what the server says by itself.
/// `on_deny = "close"` and `on_panic = "close"` end the connection in those cases. Fields with
/// `#[inject]` are injected, all others are `Default`.
#[proc_macro_attribute]
pub fn gateway(options: TokenStream, item: TokenStream) -> TokenStream {
    let options = parse_macro_input!(options as gateway::Options);
    finish(structure(item, "gateway(..)").and_then(|item| gateway::expand(options, item)))
}

/// Binds the methods of an `impl` block to events and hooks.
#[proc_macro_attribute]
pub fn messages(options: TokenStream, item: TokenStream) -> TokenStream {
    let options = parse_macro_input!(options as list::Nothing);
    let message = "`#[messages]` stands on an `impl` block of the gateway";
    finish(stands_on(item, message).and_then(|item| messages::expand(&options, item)))
}

/// Makes a struct a service: fields with `#[inject]` are injected, all others are `Default`.
#[proc_macro_attribute]
pub fn injectable(options: TokenStream, item: TokenStream) -> TokenStream {
    let options = parse_macro_input!(options as list::Nothing);
    finish(structure(item, "injectable").and_then(|item| injectable::expand(&options, item)))
}

/// Makes a struct a module:
/// `#[module(imports = [..], providers = [..], factories = [..], gateways = [..], relays = [..])]`.
/// A factory is the name of an `async fn` that makes a service.
#[proc_macro_attribute]
pub fn module(options: TokenStream, item: TokenStream) -> TokenStream {
    let options = parse_macro_input!(options as module::Options);
    finish(structure(item, "module(..)").and_then(|item| module::expand(&options, &item)))
}

/// Makes a function the handler of the topics that match a pattern: `#[relay("room:*")]`. It is
/// listed in a module by its name.
#[proc_macro_attribute]
pub fn relay(pattern: TokenStream, item: TokenStream) -> TokenStream {
    let pattern = parse_macro_input!(pattern as relay::Pattern);
    let message = "`#[relay(..)]` stands on an `async fn`";
    finish(stands_on(item, message).and_then(|item| relay::expand(&pattern.0, item)))
}

macro_rules! only_inside_messages {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[proc_macro_attribute]
        pub fn $name(_options: TokenStream, _item: TokenStream) -> TokenStream {
            stray(concat!(
                "`#[", stringify!($name), "]` belongs on a method of an `impl` block with ",
                "`#[messages]`"
            ))
        }
    )*};
}

only_inside_messages! {
    /// Binds a method to an event: `#[subscribe_message("message")]`.
    subscribe_message
    /// Runs when a connection has been made.
    on_connect
    /// Runs when a connection has ended, while its rooms can still be read.
    on_disconnect
    /// Runs once before the server listens.
    after_init
    /// The events behind this one on its connection need not wait until it ends.
    concurrent
}

macro_rules! only_with_company {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[proc_macro_attribute]
        pub fn $name(_options: TokenStream, _item: TokenStream) -> TokenStream {
            stray(concat!(
                "`#[", stringify!($name), "(..)]` belongs below `#[gateway(..)]`, or on a method ",
                "with `#[subscribe_message(..)]`"
            ))
        }
    )*};
}

only_with_company! {
    /// Guards one event, or a gateway: `#[use_guards(AdminGuard)]`.
    use_guards
    /// Stands around one handler, or all of a gateway.
    use_interceptors
    /// Decides what becomes of the errors of one handler, or of all of a gateway.
    use_filters
}

/// An attribute that is still there when the compiler comes to it stands in the wrong place.
fn stray(message: &str) -> TokenStream {
    Error::new(Span::call_site(), message)
        .to_compile_error()
        .into()
}

fn structure(item: TokenStream, attribute: &str) -> syn::Result<syn::ItemStruct> {
    stands_on(item, &format!("`#[{attribute}]` stands on a struct"))
}

/// What an attribute stands on must be of one kind. An item of that kind with a fault inside is
/// told that fault.
fn stands_on<T: syn::parse::Parse>(item: TokenStream, message: &str) -> syn::Result<T> {
    let parsed = syn::parse::<T>(item.clone());
    parsed.map_err(|error| match syn::parse::<syn::Item>(item) {
        Ok(other) => Error::new_spanned(other, message),
        Err(_) => error,
    })
}

fn finish(expanded: syn::Result<proc_macro2::TokenStream>) -> TokenStream {
    expanded
        .unwrap_or_else(|error| error.to_compile_error())
        .into()
}
