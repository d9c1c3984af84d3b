//! `#[injectable]`, and how any struct is built from what it injects.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Error, Field, Fields, ItemStruct, Member, Type};

use crate::list::{Nothing, taken_once};

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
    let injected: Vec<&Type> = fields
        .iter()
        .filter_map(|field| field.injected.as_ref())
        .collect();
    let value = value(&item.fields, &fields);
    Ok(quote! {
        impl ::tidegate::gateway::container::Injectable for #name {
            fn dependencies() -> ::std::vec::Vec<::tidegate::gateway::container::Dependency> {
                let needs: ::std::vec::Vec<
                    ::std::vec::Vec<::tidegate::gateway::container::Dependency>
                > = ::std::vec![
                    #(<#injected as ::tidegate::gateway::container::Inject>::dependencies()),*
                ];
                needs.concat()
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
    injected: Option<Type>,
}

fn fields(fields: &mut Fields) -> syn::Result<Vec<Part>> {
    let part = |(index, field): (usize, &mut Field)| {
        let inject = taken_once(&mut field.attrs, "inject")?;
        Ok(Part {
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
    let values = fields
        .iter()
        .map(|Part { member, injected }| match injected {
            Some(wanted) => quote! { #member: resolver.inject::<#wanted>()? },
            None => quote! { #member: ::std::default::Default::default() },
        });
    quote! { Self { #(#values),* } }
}
