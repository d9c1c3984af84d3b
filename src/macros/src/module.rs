//! `#[module]`: the lists of a part of a program. Reads names only; what they are, rustc checks.

use proc_macro2::TokenStream;
use quote::quote;
use syn::parse::{Parse, ParseStream};
use syn::{Error, Ident, ItemStruct, Token, Type, bracketed};

use crate::list::{conditions, separated};

#[derive(Default)]
pub(crate) struct Options {
    imports: Vec<Type>,
    providers: Vec<Type>,
    factories: Vec<Type>,
    gateways: Vec<Type>,
    relays: Vec<Type>,
}

impl Parse for Options {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let mut options = Self::default();
        while !input.is_empty() {
            let name: Ident = input.parse()?;
            let types = options.list(&name)?;
            input.parse::<Token![=]>()?;
            let inside;
            bracketed!(inside in input);
            types.extend(separated(&inside)?);
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(options)
    }
}

impl Options {
    fn list(&mut self, name: &Ident) -> syn::Result<&mut Vec<Type>> {
        match name.to_string().as_str() {
            "imports" => Ok(&mut self.imports),
            "providers" => Ok(&mut self.providers),
            "factories" => Ok(&mut self.factories),
            "gateways" => Ok(&mut self.gateways),
            "relays" => Ok(&mut self.relays),
            _ => {
                let message = "a module has: imports = [..], providers = [..], factories = [..], \
                               gateways = [..], relays = [..]";
                Err(Error::new(name.span(), message))
            }
        }
    }
}

pub(crate) fn expand(options: &Options, item: &ItemStruct) -> syn::Result<TokenStream> {
    if !item.fields.is_empty() {
        let message = "a module is a list: its struct has no fields";
        return Err(Error::new_spanned(&item.fields, message));
    }
    let Options {
        imports,
        providers,
        factories,
        gateways,
        relays,
    } = options;
    let name = &item.ident;
    let conditions = conditions(&item.attrs);
    Ok(quote! {
        #item

        #(#conditions)*
        impl ::tidegate::gateway::module::Module for #name {
            fn register(app: &mut ::tidegate::gateway::module::App) {
                let _ = &app;
                #(app.module::<#imports>();)*
                #(app.provider::<#providers>();)*
                #(app.factory(#factories);)*
                #(app.gateway::<#gateways>();)*
                #(app.relay(#relays);)*
            }
        }
    })
}
