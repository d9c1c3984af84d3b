//! What wrong use is told. Right use is tested where the library is used; what an argument may
//! be is a matter of types, and tested there too.

use proc_macro2::TokenStream;
use quote::quote;
use syn::parse::Parse;

use crate::gateway;
use crate::injectable;
use crate::list;
use crate::messages;
use crate::module;
use crate::relay;

fn parsed<T: Parse>(tokens: TokenStream) -> T {
    syn::parse2(tokens).unwrap()
}

fn text(expanded: syn::Result<TokenStream>) -> String {
    expanded.unwrap_err().to_string()
}

fn refused_messages(item: TokenStream) -> String {
    text(messages::expand(&list::Nothing, parsed(item)))
}

fn refused_option(options: TokenStream) -> String {
    match syn::parse2::<gateway::Options>(options) {
        Ok(options) => text(gateway::expand(options, parsed(quote! { struct Chat; }))),
        Err(error) => error.to_string(),
    }
}

#[test]
fn options_of_a_gateway_are_checked() {
    let unknown = refused_option(quote! { path = "/chat", port = 80 });
    assert!(
        unknown.starts_with("a gateway has: path, namespace, guards(..)"),
        "{unknown}"
    );
    let pattern = refused_option(quote! { path = "/chat/{room}" });
    assert!(
        pattern.starts_with("a path is plain text such as \"/chat\""),
        "{pattern}"
    );
    let close = refused_option(quote! { path = "/chat", on_deny = "kick" });
    assert_eq!(close, "either \"close\" or \"error\"");
    let text = text(gateway::expand(
        parsed(quote! { path = "/chat" }),
        parsed(quote! { struct Chat<T>(T); }),
    ));
    assert_eq!(
        text,
        "a service has no parameters: there is one of each type"
    );
}

#[test]
fn handlers_take_themselves_by_reference() {
    for receiver in [
        quote! { &mut self },
        quote! { self },
        quote! { message: String },
    ] {
        let text = refused_messages(quote! {
            impl Chat {
                #[subscribe_message("message")]
                async fn message(#receiver) {}
            }
        });
        assert_eq!(
            text,
            "a handler takes `&self`: one gateway serves all connections"
        );
    }
}

#[test]
fn arguments_that_can_never_be_taken_are_named() {
    let refused = |argument: TokenStream| {
        refused_messages(quote! {
            impl Chat {
                #[subscribe_message("message")]
                async fn message(&self, argument: #argument) {}
            }
        })
    };
    let text = "a payload is read into something that owns it: take `String` or `Vec<..>`";
    assert_eq!(refused(quote! { &str }), text);
    assert_eq!(refused(quote! { &[u8] }), text);
    let text = "a handler's arguments are taken by value or by `&`, never by `&mut`";
    assert_eq!(refused(quote! { &mut WsClient }), text);
    let text = "what an argument is goes by its type, so it must have one";
    assert_eq!(refused(quote! { impl Display }), text);
}

#[test]
fn a_method_is_bound_to_one_thing() {
    let twice = refused_messages(quote! {
        impl Chat {
            #[subscribe_message("message")]
            async fn one(&self) {}
            #[subscribe_message("message")]
            async fn two(&self) {}
        }
    });
    assert_eq!(
        twice,
        "`message` is bound already: one event has one handler"
    );
    let both = refused_messages(quote! {
        impl Chat {
            #[subscribe_message("message")]
            #[on_connect]
            async fn one(&self) {}
        }
    });
    assert_eq!(both, "a method is bound to one event or one hook");
    let nothing = refused_messages(quote! {
        impl Chat {
            #[use_guards(Admin)]
            async fn one(&self) {}
        }
    });
    assert!(
        nothing.starts_with("this method is bound to nothing"),
        "{nothing}"
    );
    let hook = refused_messages(quote! {
        impl Chat {
            #[on_connect]
            #[concurrent]
            async fn one(&self) {}
        }
    });
    assert!(hook.starts_with("hooks have no guards"), "{hook}");
}

#[test]
fn an_event_has_a_name() {
    for name in [quote! {}, quote! { ("") }, quote! { (message) }] {
        let text = refused_messages(quote! {
            impl Chat {
                #[subscribe_message #name]
                async fn one(&self) {}
            }
        });
        assert!(text.starts_with("an event"), "{text}");
    }
}

#[test]
fn messages_stand_on_the_gateway_itself() {
    let text = refused_messages(quote! { impl Clone for Chat {} });
    assert_eq!(
        text,
        "`#[messages]` stands on an `impl` block of the gateway itself"
    );
    assert!(syn::parse2::<list::Nothing>(quote! { now }).is_err());
}

#[test]
fn modules_list_what_they_have() {
    let unknown = syn::parse2::<module::Options>(quote! { controllers = [A] });
    assert!(
        unknown
            .err()
            .unwrap()
            .to_string()
            .starts_with("a module has: imports = [..]")
    );
    let options = parsed(quote! { gateways = [Chat], providers = [Room,] });
    let text = text(module::expand(
        &options,
        &parsed(quote! { struct App { field: u8 } }),
    ));
    assert_eq!(text, "a module is a list: its struct has no fields");
}

#[test]
fn a_pattern_is_exact_or_a_prefix() {
    for pattern in [quote! { "" }, quote! { "*:lobby" }, quote! { "a*b*" }] {
        let item = parsed(quote! { async fn room() {} });
        let text = text(relay::expand(&parsed(pattern), item));
        assert!(text.starts_with("a pattern is a topic such as"), "{text}");
    }
    let item = parsed(quote! { fn room() {} });
    let text = text(relay::expand(&parsed(quote! { "room:*" }), item));
    assert_eq!(text, "a relay handler is an `async fn`");
}

#[test]
fn a_field_is_injected_once() {
    let item = parsed(quote! { struct Chat { #[inject] #[inject] room: Arc<Room> } });
    let text = text(injectable::expand(&list::Nothing, item));
    assert_eq!(text, "`#[inject]` stands here twice");
}
