//! The arguments of handlers: taken by their types, in any order, and passed on as written.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Error, FnArg, Ident, LitStr, Signature, Type};

use crate::list::taken_once;

/// One argument behind the receiver.
pub(crate) struct Argument {
    name: Ident,
    owned: Type,
    is_borrowed: bool,
    /// The one key of the payload that it is, with `#[message_body("key")]`.
    key: Option<LitStr>,
}

impl Argument {
    /// Takes it from the call, or reads it from the payload.
    pub(crate) fn take(&self) -> TokenStream {
        let Self {
            name, owned, key, ..
        } = self;
        match key {
            Some(key) => quote! {
                let #name: #owned = ::tidegate::gateway::extract::take_key(&call, data, #key)?;
                ::tidegate::check!(#owned, &call, &#name)?;
            },
            None => quote_spanned! { here(owned) =>
                let #name = ::tidegate::take!(#owned, &call, data)?;
            },
        }
    }

    /// What it is of the payload, if it is one.
    pub(crate) fn describe(&self) -> TokenStream {
        let owned = &self.owned;
        match &self.key {
            Some(key) => quote! {
                let shape = ::tidegate::shape!(#owned, shapes);
                shapes.key(#key, shape);
            },
            None => quote! {
                {
                    #[allow(unused_imports, reason = "the type decides whether it is needed")]
                    use ::tidegate::gateway::extract::CountPayloads as _;
                    if ::tidegate::gateway::extract::Take::<#owned>::PAYLOADS == 1 {
                        let shape = ::tidegate::shape!(#owned, shapes);
                        shapes.payload(shape);
                    }
                }
            },
        }
    }

    /// Takes it from the services.
    pub(crate) fn inject(&self) -> TokenStream {
        let (name, wanted) = (&self.name, self.service());
        quote! { let #name = resolver.inject::<#wanted>()?; }
    }

    /// How it is passed on.
    pub(crate) fn pass(&self) -> TokenStream {
        let name = &self.name;
        match self.is_borrowed {
            true => quote! { &#name },
            false => quote! { #name },
        }
    }

    /// What it asks for, in a handler.
    pub(crate) fn dependencies(&self) -> TokenStream {
        let owned = &self.owned;
        match self.key {
            Some(_) => quote! { ::std::vec::Vec::new() },
            None => quote_spanned! { here(owned) => ::tidegate::argument_dependencies!(#owned) },
        }
    }

    /// What it asks for, outside of a call.
    pub(crate) fn service_dependencies(&self) -> TokenStream {
        let wanted = self.service();
        quote! { <#wanted as ::tidegate::gateway::container::Inject>::dependencies() }
    }

    fn names_self(&self) -> bool {
        let owned = self.owned.to_token_stream().to_string();
        owned
            .split(|char: char| !char.is_alphanumeric())
            .any(|word| word == "Self")
    }

    /// A service passed by reference is held by its `Arc` meanwhile.
    fn service(&self) -> TokenStream {
        let owned = &self.owned;
        match self.is_borrowed {
            true => quote! { ::std::sync::Arc<#owned> },
            false => quote! { #owned },
        }
    }
}

/// What goes wrong with what a macro writes is shown at what it was written for.
pub(crate) fn here(what: &impl Spanned) -> Span {
    Span::call_site().located_at(what.span())
}

/// A compile-time check of how many payloads there are, at the name of the method.
pub(crate) fn payload_check(
    method: &Ident,
    arguments: &[Argument],
    most: usize,
    message: &str,
) -> TokenStream {
    let whole = arguments.iter().filter(|argument| argument.key.is_none());
    let types = whole.map(|argument| &argument.owned);
    let check = quote_spanned! { here(method) =>
        #[allow(unused_imports, reason = "the types decide whether it is needed")]
        use ::tidegate::gateway::extract::CountPayloads as _;
        assert!(
            0 #(+ ::tidegate::gateway::extract::Take::<#types>::PAYLOADS)* <= #most,
            #message
        );
    };
    // An item is checked even where nothing is generated yet, but may not name `Self`.
    match arguments.iter().any(Argument::names_self) {
        true => quote! { const { #check } },
        false => quote_spanned! { here(method) => const _: () = { #check }; },
    }
}

/// The arguments behind `&self`.
pub(crate) fn of_method(signature: &mut Signature) -> syn::Result<Vec<Argument>> {
    check_signature(signature)?;
    let name = signature.ident.clone();
    let mut inputs = signature.inputs.iter_mut();
    match inputs.next() {
        Some(FnArg::Receiver(receiver))
            if receiver.reference.is_some() && receiver.mutability.is_none() => {}
        _ => {
            let message = "a handler takes `&self`: one gateway serves all connections";
            return Err(Error::new_spanned(name, message));
        }
    }
    inputs
        .enumerate()
        .map(|(index, input)| argument(index, input))
        .collect()
}

fn argument(index: usize, input: &mut FnArg) -> syn::Result<Argument> {
    let FnArg::Typed(typed) = input else {
        return Err(Error::new_spanned(input, "`self` stands first"));
    };
    let name = format_ident!("argument_{index}");
    if let Some(condition) = typed.attrs.iter().find(|one| one.path().is_ident("cfg")) {
        let message = "an argument has no `#[cfg(..)]`: write the method twice, each under its own";
        return Err(Error::new_spanned(condition, message));
    }
    let key = taken_once(&mut typed.attrs, "message_body")?;
    let key = key.map(|key| key.parse_args::<LitStr>()).transpose()?;
    match &*typed.ty {
        Type::Reference(reference) if reference.mutability.is_some() => Err(Error::new_spanned(
            reference,
            "a handler's arguments are taken by value or by `&`, never by `&mut`",
        )),
        Type::Reference(reference) => Ok(Argument {
            name,
            owned: sized((*reference.elem).clone())?,
            is_borrowed: true,
            key,
        }),
        Type::ImplTrait(of) => Err(Error::new_spanned(
            of,
            "what an argument is goes by its type, so it must have one",
        )),
        owned => Ok(Argument {
            name,
            owned: owned.clone(),
            is_borrowed: false,
            key,
        }),
    }
}

/// A payload is read into something that owns it.
fn sized(referred: Type) -> syn::Result<Type> {
    let is_str = matches!(&referred, Type::Path(path) if path.path.is_ident("str"));
    if is_str || matches!(referred, Type::Slice(_)) {
        return Err(Error::new_spanned(
            referred,
            "a payload is read into something that owns it: take `String` or `Vec<..>`",
        ));
    }
    Ok(referred)
}

fn check_signature(signature: &Signature) -> syn::Result<()> {
    if let Some(parameter) = signature.generics.params.first() {
        let message = "a handler has no parameters of its own: it is called by the server";
        return Err(Error::new_spanned(parameter, message));
    }
    Ok(())
}
