//! Lists of types in attributes. Knows nothing of what they are for.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Attribute, Error, Token, Type};

/// The options of an attribute that has none.
pub(crate) struct Nothing;

impl Parse for Nothing {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        match input.is_empty() {
            true => Ok(Self),
            false => Err(input.error("this attribute takes no options")),
        }
    }
}

/// `A, B, C`.
pub(crate) type Types = Vec<Type>;

/// What stands around handlers.
#[derive(Default)]
pub(crate) struct LayerTypes {
    pub(crate) guards: Types,
    pub(crate) interceptors: Types,
    pub(crate) filters: Types,
}

impl LayerTypes {
    /// Takes `#[use_guards(..)]` and its like out of the attributes.
    pub(crate) fn take(&mut self, attributes: &mut Vec<Attribute>) -> syn::Result<()> {
        for (name, types) in [
            ("use_guards", &mut self.guards),
            ("use_interceptors", &mut self.interceptors),
            ("use_filters", &mut self.filters),
        ] {
            for attribute in taken(attributes, name) {
                types.extend(attribute.parse_args_with(separated)?);
            }
        }
        Ok(())
    }

    /// Is there nothing?
    pub(crate) fn is_empty(&self) -> bool {
        self.guards.is_empty() && self.interceptors.is_empty() && self.filters.is_empty()
    }

    /// The calls that put them around one handler.
    pub(crate) fn on_binding(&self) -> TokenStream {
        let Self {
            guards,
            interceptors,
            filters,
        } = self;
        quote! {
            #(.guard::<#guards>())*
            #(.interceptor::<#interceptors>())*
            #(.filter::<#filters>())*
        }
    }

    /// The calls that put them around all handlers of a gateway.
    pub(crate) fn on_layers(&self) -> TokenStream {
        let Self {
            guards,
            interceptors,
            filters,
        } = self;
        quote! {
            #(::tidegate::guard!(layers, #guards);)*
            #(layers.interceptor::<#interceptors>();)*
            #(layers.filter::<#filters>();)*
        }
    }
}

/// Types between commas.
pub(crate) fn separated(input: ParseStream<'_>) -> syn::Result<Types> {
    let types = Punctuated::<Type, Token![,]>::parse_terminated(input)?;
    Ok(types.into_iter().collect())
}

/// Takes all attributes of a name out.
pub(crate) fn taken(attributes: &mut Vec<Attribute>, name: &str) -> Vec<Attribute> {
    attributes
        .extract_if(.., |attribute| is(attribute, name))
        .collect()
}

/// Takes the only attribute of a name out.
pub(crate) fn taken_once(
    attributes: &mut Vec<Attribute>,
    name: &str,
) -> syn::Result<Option<Attribute>> {
    let mut found = taken(attributes, name);
    match found.len() {
        0 | 1 => Ok(found.pop()),
        _ => Err(Error::new_spanned(
            &found[1],
            format!("`#[{name}]` stands here twice"),
        )),
    }
}

/// Whether an attribute has this name, by whatever path.
fn is(attribute: &Attribute, name: &str) -> bool {
    let last = attribute.path().segments.last();
    last.is_some_and(|segment| segment.ident == name)
}

/// The conditions that an item stands under, for all that is written beside it.
pub(crate) fn conditions(attributes: &[Attribute]) -> Vec<Attribute> {
    let is_condition = |attribute: &&Attribute| is(attribute, "cfg");
    attributes.iter().filter(is_condition).cloned().collect()
}

/// An attribute of ours behind a `cfg_attr` is not seen here, and what is not seen is not bound.
pub(crate) fn refuse_hidden(attributes: &[Attribute], names: &[&str]) -> syn::Result<()> {
    for attribute in attributes
        .iter()
        .filter(|attribute| is(attribute, "cfg_attr"))
    {
        let hidden = attribute.meta.to_token_stream().to_string();
        let words = hidden.split(|c: char| !c.is_alphanumeric() && c != '_');
        if let Some(name) = words.into_iter().find(|word| names.contains(word)) {
            let message = format!(
                "`#[cfg_attr(..)]` hides `#[{name}]`: put `#[cfg(..)]` beside a plain `#[{name}]`"
            );
            return Err(Error::new_spanned(attribute, message));
        }
    }
    Ok(())
}
