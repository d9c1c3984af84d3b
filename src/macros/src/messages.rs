//! `#[messages]`: which method is bound to what.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::{Attribute, Error, Ident, ImplItem, ImplItemFn, ItemImpl, LitStr, ReturnType};

use crate::arguments::{self, Argument};
use crate::list::{LayerTypes, Nothing, conditions, refuse_hidden, taken_once};

const EVENT_BYTES_MAX: usize = 128;

/// What may stand on a method.
const OURS: &[&str] = &[
    "subscribe_message",
    "on_connect",
    "on_disconnect",
    "after_init",
    "concurrent",
    "use_guards",
    "use_interceptors",
    "use_filters",
];

pub(crate) fn expand(_options: &Nothing, mut item: ItemImpl) -> syn::Result<TokenStream> {
    if let Some((_, path, _)) = &item.trait_ {
        let message = "`#[messages]` stands on an `impl` block of the gateway itself";
        return Err(Error::new_spanned(path, message));
    }
    let mut events: Vec<String> = Vec::new();
    let mut calls = Vec::new();
    for member in &mut item.items {
        if let ImplItem::Fn(method) = member
            && let Some(bound) = Bound::take(method)?
        {
            let conditions = conditions(&method.attrs);
            // Two methods that exclude each other may be bound to one event.
            if conditions.is_empty() {
                bound.note_event(&mut events)?;
            }
            let call = bound.call(method)?;
            calls.push(quote! { #(#conditions)* { #call } });
        }
    }
    let gateway = &item.self_ty;
    let conditions = conditions(&item.attrs);
    Ok(quote! {
        #item

        // A second block is told by the name of what it has twice.
        #(#conditions)*
        impl #gateway {
            #[doc(hidden)]
            #[allow(dead_code, reason = "it is there to be there once")]
            const ALL_MESSAGES_OF_A_GATEWAY_STAND_IN_ONE_IMPL_BLOCK: () = ();
        }

        #(#conditions)*
        impl ::tidegate::gateway::table::Messages for #gateway {
            fn bind(table: &mut ::tidegate::gateway::table::Table<Self>) {
                let _ = &table;
                #(#calls)*
            }
        }
    })
}

/// What a method is bound to.
enum Bound {
    Event {
        event: LitStr,
        layers: LayerTypes,
        is_concurrent: bool,
    },
    Hook(Ident),
    AfterInit,
}

impl Bound {
    /// Takes the attributes off a method.
    fn take(method: &mut ImplItemFn) -> syn::Result<Option<Self>> {
        let attributes = &mut method.attrs;
        refuse_hidden(attributes, OURS)?;
        let mut layers = LayerTypes::default();
        layers.take(attributes)?;
        let concurrent = taken_once(attributes, "concurrent")?;
        let event = taken_once(attributes, "subscribe_message")?;
        let mut hooks = Vec::new();
        for name in ["on_connect", "on_disconnect", "after_init"] {
            hooks.extend(taken_once(attributes, name)?);
        }
        if let Some(second) = hooks.get(usize::from(event.is_none())) {
            let message = "a method is bound to one event or one hook";
            return Err(Error::new_spanned(second, message));
        }
        match (event, hooks.pop()) {
            (Some(event), _) => Ok(Some(Self::Event {
                event: event_name(&event)?,
                layers,
                is_concurrent: concurrent.is_some(),
            })),
            (None, hook) if concurrent.is_some() || !layers.is_empty() => Err(Error::new_spanned(
                &method.sig.ident,
                match hook {
                    Some(_) => "hooks have no guards, interceptors, filters and no `concurrent`",
                    None => "this method is bound to nothing: add `#[subscribe_message(\"..\")]`",
                },
            )),
            (None, Some(hook)) => Ok(Some(Self::hook(&hook))),
            (None, None) => Ok(None),
        }
    }

    fn hook(attribute: &Attribute) -> Self {
        let segments = attribute.path().segments.last();
        match segments.map(|segment| segment.ident.clone()) {
            Some(name) if name != "after_init" => Self::Hook(name),
            _ => Self::AfterInit,
        }
    }

    fn note_event(&self, events: &mut Vec<String>) -> syn::Result<()> {
        let Self::Event { event, .. } = self else {
            return Ok(());
        };
        let name = event.value();
        if events.contains(&name) {
            let message = format!("`{name}` is bound already: one event has one handler");
            return Err(Error::new(event.span(), message));
        }
        events.push(name);
        Ok(())
    }

    /// The call that binds the method.
    fn call(&self, method: &mut ImplItemFn) -> syn::Result<TokenStream> {
        let arguments = arguments::of_method(&mut method.sig)?;
        Ok(match self {
            Self::Event {
                event,
                layers,
                is_concurrent,
            } => {
                let concurrent = is_concurrent.then(|| quote! { .concurrent() });
                let (handler, layers) = (handler(event, method, &arguments), layers.on_binding());
                let describe = describe(method, &arguments);
                quote! { #handler table.on(#event, handler) #concurrent #layers #describe; }
            }
            Self::Hook(hook) => connection_hook(hook, method, &arguments),
            Self::AfterInit => after_init(method, &arguments),
        })
    }
}

/// The body of a handler: arguments are taken at once, the method runs in the future.
fn handler(event: &LitStr, method: &ImplItemFn, arguments: &[Argument]) -> TokenStream {
    let message = "a handler has one payload: all other arguments are taken from the call, as \
                   `&WsClient`, `CurrentUser`, `Arc<..>` or `State<..>` are";
    let check = arguments::payload_check(&method.sig.ident, arguments, 1, message);
    let takes = arguments.iter().map(Argument::take);
    let dependencies = arguments.iter().map(Argument::dependencies);
    let value = invocation(method, arguments, quote! { call.gateway() });
    let answer = answer(method, &quote! { call.event() }, &value);
    quote! {
        #check
        #(table.requires(#event, #dependencies);)*
        let handler = |call: ::tidegate::gateway::table::Invocation<Self>, data: ::tidegate::gateway::extract::EventData<'_>| {
            let _ = data;
            #(#takes)*
            ::std::result::Result::Ok(async move { #answer })
        };
    }
}

/// What the event carries and what is answered, by their types.
fn describe(method: &ImplItemFn, arguments: &[Argument]) -> TokenStream {
    let arguments = arguments.iter().map(Argument::describe);
    let reply = match &method.sig.output {
        ReturnType::Default => quote! {},
        // A type without a name tells no shape.
        ReturnType::Type(_, returned) => match &**returned {
            syn::Type::ImplTrait(_) => quote! { shapes.reply(::std::option::Option::None); },
            returned => quote! { ::tidegate::reply_shape!(#returned, shapes); },
        },
    };
    quote! {
        .describe(|shapes| {
            let _ = &shapes;
            #(#arguments)*
            #reply
        })
    }
}

fn connection_hook(hook: &Ident, method: &ImplItemFn, arguments: &[Argument]) -> TokenStream {
    let message = "a hook has no payload: its arguments are taken from the call, as `&WsClient`, \
                   `CurrentUser`, `Arc<..>` or `State<..>` are";
    let check = arguments::payload_check(&method.sig.ident, arguments, 0, message);
    let takes = arguments.iter().map(Argument::take);
    let dependencies = arguments.iter().map(Argument::dependencies);
    let value = invocation(method, arguments, quote! { call.gateway() });
    let answer = answer(method, &quote! { call.event() }, &value);
    let name = hook.to_string();
    quote! {
        #check
        #(table.requires(#name, #dependencies);)*
        table.#hook(|call: ::tidegate::gateway::table::Invocation<Self>| {
            let data = ::tidegate::gateway::extract::EventData::null();
            let _ = data;
            #(#takes)*
            ::std::result::Result::Ok(async move { #answer })
        });
    }
}

fn after_init(method: &ImplItemFn, arguments: &[Argument]) -> TokenStream {
    let injections = arguments.iter().map(Argument::inject);
    let dependencies = arguments.iter().map(Argument::service_dependencies);
    let value = invocation(method, arguments, quote! { gateway });
    let answer = answer(method, &quote! { "after_init" }, &value);
    quote! {
        #(table.requires("after_init", #dependencies);)*
        table.after_init(|gateway: ::std::sync::Arc<Self>, container| async move {
            let resolver =
                ::tidegate::gateway::container::Resolver::over(&container, "after_init");
            let _ = &resolver;
            #(#injections)*
            ::tidegate::gateway::table::initialised(#answer)
        });
    }
}

/// What it returned, shown at its type if that cannot be answered.
fn answer(method: &ImplItemFn, event: &TokenStream, value: &TokenStream) -> TokenStream {
    let here = match &method.sig.output {
        ReturnType::Type(_, returned) => arguments::here(returned),
        ReturnType::Default => Span::call_site(),
    };
    quote_spanned! { here => ::tidegate::answer!(#event, #value) }
}

/// Plain functions are handlers too.
fn invocation(method: &ImplItemFn, arguments: &[Argument], gateway: TokenStream) -> TokenStream {
    let name = &method.sig.ident;
    let passed = arguments.iter().map(Argument::pass);
    let awaited = method.sig.asyncness.map(|_| quote! { .await });
    quote! { #gateway.#name(#(#passed),*) #awaited }
}

fn event_name(attribute: &Attribute) -> syn::Result<LitStr> {
    let message = "an event has a name: `#[subscribe_message(\"message\")]`";
    let name: LitStr = attribute
        .parse_args()
        .map_err(|_| Error::new_spanned(attribute, message))?;
    match name.value().len() {
        1..=EVENT_BYTES_MAX => Ok(name),
        _ => Err(Error::new(
            name.span(),
            "an event's name has 1 to 128 bytes",
        )),
    }
}
