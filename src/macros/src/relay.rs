//! `#[relay]`: a function becomes a type of its name, which a module can list.

use proc_macro2::TokenStream;
use quote::quote;
use syn::parse::{Parse, ParseStream};
use syn::{Error, ItemFn, LitStr};

/// The one option.
pub(crate) struct Pattern(pub(crate) LitStr);

impl Parse for Pattern {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let message = "a relay handler has a pattern: `#[relay(\"room:*\")]`";
        let pattern = input.parse().map(Self);
        pattern.map_err(|error| Error::new(error.span(), message))
    }
}

pub(crate) fn expand(pattern: &LitStr, mut item: ItemFn) -> syn::Result<TokenStream> {
    check_pattern(pattern)?;
    if item.sig.asyncness.is_none() {
        let message = "a relay handler is an `async fn`";
        return Err(Error::new_spanned(item.sig.fn_token, message));
    }
    let (name, visibility) = (item.sig.ident.clone(), item.vis.clone());
    let documentation: Vec<_> = item
        .attrs
        .extract_if(.., |attribute| attribute.path().is_ident("doc"))
        .collect();
    item.vis = syn::Visibility::Inherited;
    let conditions = crate::list::conditions(&item.attrs);
    Ok(quote! {
        #(#documentation)*
        #(#conditions)*
        #[allow(non_camel_case_types, reason = "it has the name of its function")]
        #[derive(Debug, Clone, Copy)]
        #visibility struct #name;

        #(#conditions)*
        impl ::tidegate::gateway::module::RelayRoute for #name {
            fn register(app: &mut ::tidegate::gateway::module::App) {
                #item
                app.relay_handler(#pattern, #name);
            }
        }
    })
}

/// Exact, or a prefix with one star at its end.
fn check_pattern(pattern: &LitStr) -> syn::Result<()> {
    let text = pattern.value();
    let prefix = text.strip_suffix('*').unwrap_or(&text);
    match !text.is_empty() && !prefix.contains('*') {
        true => Ok(()),
        false => Err(Error::new(
            pattern.span(),
            "a pattern is a topic such as \"chat:lobby\", or a prefix such as \"room:*\"",
        )),
    }
}
