//! `#[gateway]`: the path, the registry and the layers of a struct that serves connections.

use proc_macro2::TokenStream;
use quote::quote;
use syn::parse::{Parse, ParseStream};
use syn::{Error, Ident, ItemStruct, LitStr, Token, Type, parenthesized};

use crate::injectable;
use crate::list::{LayerTypes, conditions, separated};

#[derive(Default)]
pub(crate) struct Options {
    path: Option<LitStr>,
    namespace: Option<Type>,
    adapter: Option<Ident>,
    nsp: Option<LitStr>,
    layers: LayerTypes,
    closes: Vec<TokenStream>,
    emits: Vec<(LitStr, Type)>,
}

impl Parse for Options {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let mut options = Self::default();
        while !input.is_empty() {
            options.option(input)?;
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(options)
    }
}

impl Options {
    fn option(&mut self, input: ParseStream<'_>) -> syn::Result<()> {
        let name: Ident = input.parse()?;
        match name.to_string().as_str() {
            "path" => self.path = Some(value(input)?),
            "namespace" => self.namespace = Some(value(input)?),
            "adapter" => self.adapter = Some(value(input)?),
            "nsp" => self.nsp = Some(value(input)?),
            "guards" => self.layers.guards.extend(list(input)?),
            "interceptors" => self.layers.interceptors.extend(list(input)?),
            "filters" => self.layers.filters.extend(list(input)?),
            "emits" => self.emits.extend(emits(input)?),
            "on_deny" => self.closes.push(closes(input, quote! { close_on_deny })?),
            "on_panic" => self.closes.push(closes(input, quote! { close_on_panic })?),
            _ => {
                let message = "a gateway has: path, namespace, guards(..), interceptors(..), \
                               filters(..), emits(..), on_deny, on_panic, adapter, nsp";
                return Err(Error::new(name.span(), message));
            }
        }
        Ok(())
    }
}

fn value<T: Parse>(input: ParseStream<'_>) -> syn::Result<T> {
    input.parse::<Token![=]>()?;
    input.parse()
}

fn list(input: ParseStream<'_>) -> syn::Result<Vec<Type>> {
    let inside;
    parenthesized!(inside in input);
    separated(&inside)
}

/// `"typing" = ChatMessage, ..`: what the server says by itself.
fn emits(input: ParseStream<'_>) -> syn::Result<Vec<(LitStr, Type)>> {
    let inside;
    parenthesized!(inside in input);
    let one = |input: ParseStream<'_>| {
        let event: LitStr = input.parse()?;
        input.parse::<Token![=]>()?;
        Ok((event, input.parse()?))
    };
    let all = inside.parse_terminated(one, Token![,])?;
    Ok(all.into_iter().collect())
}

/// `"error"` is what happens anyway: an error frame, and the socket stays.
fn closes(input: ParseStream<'_>, call: TokenStream) -> syn::Result<TokenStream> {
    let what: LitStr = value(input)?;
    match what.value().as_str() {
        "close" => Ok(quote! { layers.#call(); }),
        "error" => Ok(quote! {}),
        _ => Err(Error::new(what.span(), "either \"close\" or \"error\"")),
    }
}

pub(crate) fn expand(mut options: Options, mut item: ItemStruct) -> syn::Result<TokenStream> {
    options.layers.take(&mut item.attrs)?;
    let built = injectable::implemented(&mut item)?;
    let adapter = adapter(&options)?;
    let path = options
        .path
        .unwrap_or_else(|| LitStr::new("/ws", item.ident.span()));
    check_path(&path)?;
    let namespace = match options.namespace {
        Some(marker) => quote! { #marker },
        None => quote! { ::tidegate::gateway::server::Global },
    };
    let (layers, closes) = (options.layers.on_layers(), options.closes);
    let (names, emitted): (Vec<_>, Vec<_>) = options.emits.into_iter().unzip();
    let name = &item.ident;
    let conditions = conditions(&item.attrs);
    Ok(quote! {
        #item

        #built

        #(#conditions)*
        impl ::tidegate::gateway::module::Gateway for #name {
            const PATH: &'static str = #path;

            type Namespace = #namespace;

            #adapter

            fn layers(layers: &mut ::tidegate::gateway::table::Layers) {
                let _ = &layers;
                #layers
                #(#closes)*
            }

            fn pushes(shapes: &mut ::tidegate::gateway::schema::Shapes<'_>) {
                let _ = &shapes;
                #(
                    let shape = ::tidegate::shape!(#emitted, shapes);
                    shapes.push(#names, shape);
                )*
            }
        }
    })
}

/// What the clients speak, if it is not the event dialect.
fn adapter(options: &Options) -> syn::Result<TokenStream> {
    let Some(adapter) = &options.adapter else {
        return match &options.nsp {
            Some(nsp) => Err(Error::new(
                nsp.span(),
                "`nsp` is a namespace of Socket.IO: add `adapter = SocketIo`",
            )),
            None => Ok(quote! {}),
        };
    };
    if adapter != "SocketIo" {
        return Err(Error::new(adapter.span(), "the adapter there is: SocketIo"));
    }
    let root = LitStr::new("/", adapter.span());
    let nsp = options.nsp.as_ref().unwrap_or(&root);
    let text = nsp.value();
    if !text.starts_with('/') || text.contains([',', '?']) {
        let message = "a namespace of Socket.IO is `/`, or a name behind a `/` such as \"/admin\"";
        return Err(Error::new(nsp.span(), message));
    }
    Ok(quote! {
        const ADAPTER: ::tidegate::gateway::module::Adapter = ::tidegate::socketio_adapter!(#nsp);
    })
}

fn check_path(path: &LitStr) -> syn::Result<()> {
    let text = path.value();
    let allowed = |char: char| char.is_ascii_graphic() && !"?#{}*\\".contains(char);
    match text.chars().all(allowed) {
        true => Ok(()),
        false => Err(Error::new(
            path.span(),
            "a path is plain text such as \"/chat\": no white space, patterns, query or fragment",
        )),
    }
}
