//! `#[injectable]`, and how any struct is built from what it injects.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Attribute, Error, Field, Fields, ItemStruct, Member};

use crate::list::{Nothing, conditions, refuse_hidden, taken_once};

pub(crate) fn expand(_options: &Nothing, mut item: ItemStruct) -> syn::Result<TokenStream> {
    let built = implemented(&mut item)?;
    Ok(quote! { #item #built })
}

/// Takes `#[inject]` off the fields and implements `Injectable`.
pub(crate) fn implemented(item: &mut ItemStruct) -> syn::Result<TokenStream> {
    if !item.generics.params.is_empty() {
        let message = "a service has no parameters: there is one of each type";
        return Err(Error::new_spanned(&item.generics, message));
    }
    let fields = fields(&mut item.fields)?;
    let name = &item.ident;
    let needs = fields.iter().filter_map(|field| {
        let (injected, conditions) = (field.injected.as_ref()?, &field.conditions);
        Some(quote! {
            #(#conditions)*
            needs.extend(<#injected as ::tidegate::gateway::container::Inject>::dependencies());
        })
    });
    let value = value(&item.fields, &fields);
    let conditions = conditions(&item.attrs);
    Ok(quote! {
        #(#conditions)*
        impl ::tidegate::gateway::container::Injectable for #name {
            fn dependencies() -> ::std::vec::Vec<::tidegate::gateway::container::Dependency> {
                #[allow(unused_mut, reason = "there may be none")]
                let mut needs = ::std::vec::Vec::new();
                #(#needs)*
                needs
            }

            fn build(
                resolver: &::tidegate::gateway::container::Resolver<'_>,
            ) -> ::std::result::Result<Self, ::tidegate::gateway::container::StartError> {
                let _ = resolver;
                ::std::result::Result::Ok(#value)
            }
        }
    })
}

struct Part {
    member: Member,
    injected: Option<syn::Type>,
    conditions: Vec<Attribute>,
}

fn fields(fields: &mut Fields) -> syn::Result<Vec<Part>> {
    let part = |(index, field): (usize, &mut Field)| {
        refuse_hidden(&field.attrs, &["inject"])?;
        let inject = taken_once(&mut field.attrs, "inject")?;
        Ok(Part {
            conditions: conditions(&field.attrs),
            member: field
                .ident
                .clone()
                .map_or_else(|| index.into(), Member::from),
            injected: inject.map(|_| field.ty.clone()),
        })
    };
    fields.iter_mut().enumerate().map(part).collect()
}

/// What injects nothing is its own default, so that a `Default` written by hand counts.
fn value(shape: &Fields, fields: &[Part]) -> TokenStream {
    if matches!(shape, Fields::Unit) {
        return quote! { Self };
    }
    if fields.iter().all(|field| field.injected.is_none()) {
        return quote! { <Self as ::std::default::Default>::default() };
    }
    let values = fields.iter().map(|part| {
        let (member, conditions) = (&part.member, &part.conditions);
        match &part.injected {
            Some(wanted) => quote! { #(#conditions)* #member: resolver.inject::<#wanted>()? },
            None => quote! { #(#conditions)* #member: ::std::default::Default::default() },
        }
    });
    quote! { Self { #(#values),* } }
}
