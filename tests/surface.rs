//! What the crate shows to programs: every public name, in a list that a reviewer sees change.
//! Knows only the text of the sources; what is marked `#[doc(hidden)]` is named and not opened.

#![expect(
    clippy::unwrap_used,
    reason = "a test crate, whose functions are not all marked as tests"
)]

#[path = "surface/tree.rs"]
mod tree;

use std::collections::BTreeSet;
use std::fs;

use syn::{Fields, ImplItem, Item, TraitItem, Visibility};

use tree::{Found, Tree, is_hidden};

const LIST: &str = "tests/surface/public.txt";

/// `RENEW=1 cargo test --test surface` writes the list anew.
#[test]
fn the_list_names_what_is_public() {
    let lines = surface(&Tree::of_crate("src/lib.rs"));
    let now = lines.into_iter().collect::<Vec<_>>().join("\n") + "\n";
    if std::env::var_os("RENEW").is_some() {
        return fs::write(LIST, now).unwrap();
    }
    let before = fs::read_to_string(LIST).unwrap_or_default();
    let (new, gone) = (missing(&now, &before), missing(&before, &now));
    assert!(
        now == before,
        "the public surface has changed; if that is meant, `RENEW=1 cargo test --test surface`\n\
         new:\n{new}\ngone:\n{gone}"
    );
}

/// The lines of `all` that are not among `known`.
fn missing(all: &str, known: &str) -> String {
    let known: BTreeSet<_> = known.lines().collect();
    let new = all.lines().filter(|line| !known.contains(line));
    new.collect::<Vec<_>>().join("\n")
}

/// One line for each public name. What is shown in several places is opened in one of them.
fn surface(tree: &Tree) -> BTreeSet<String> {
    let mut shown = Vec::new();
    tree.walk(&mut shown);
    let mut lines = BTreeSet::new();
    for one in &shown {
        let first = shown
            .iter()
            .filter(|other| other.canonical == one.canonical && other.kind == one.kind)
            .min_by_key(|other| (other.path != other.canonical, other.path.len(), &other.path))
            .unwrap();
        if first.path == one.path {
            lines.extend(opened(tree, one));
        } else {
            lines.insert(format!("use {} = {}", one.path, first.path));
        }
    }
    lines
}

/// A name with its fields, variants and methods.
fn opened(tree: &Tree, found: &Found<'_>) -> Vec<String> {
    let path = &found.path;
    let mut lines = vec![format!("{} {path}", found.kind)];
    match found.item {
        Some(Item::Struct(item)) => lines.extend(fields(path, &item.fields)),
        Some(Item::Enum(item)) => {
            let variants = item.variants.iter();
            lines.extend(variants.map(|variant| format!("variant {path}::{}", variant.ident)));
        }
        Some(Item::Trait(item)) => lines.extend(of_trait(path, &item.items)),
        _ => {}
    }
    for member in tree.members(&found.canonical) {
        lines.extend(of_impl(path, member));
    }
    lines
}

fn fields(path: &str, fields: &Fields) -> Vec<String> {
    let public = fields
        .iter()
        .enumerate()
        .filter(|(_, field)| is_public(&field.vis));
    let name = |(index, field): (usize, &syn::Field)| {
        let name = field
            .ident
            .as_ref()
            .map_or_else(|| index.to_string(), ToString::to_string);
        format!("field {path}::{name}")
    };
    public.map(name).collect()
}

fn of_trait(path: &str, items: &[TraitItem]) -> Vec<String> {
    let line = |item: &TraitItem| match item {
        TraitItem::Fn(item) if !is_hidden(&item.attrs) => {
            Some(format!("fn {path}::{}", item.sig.ident))
        }
        TraitItem::Const(item) => Some(format!("const {path}::{}", item.ident)),
        TraitItem::Type(item) => Some(format!("type {path}::{}", item.ident)),
        _ => None,
    };
    items.iter().filter_map(line).collect()
}

fn of_impl(path: &str, member: &ImplItem) -> Option<String> {
    match member {
        ImplItem::Fn(item) if is_public(&item.vis) && !is_hidden(&item.attrs) => {
            Some(format!("fn {path}::{}", item.sig.ident))
        }
        ImplItem::Const(item) if is_public(&item.vis) => {
            Some(format!("const {path}::{}", item.ident))
        }
        _ => None,
    }
}

fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

#[test]
fn the_list_is_made_by_names_and_not_by_files() {
    let lines = surface(&Tree::of_text(
        "pub use inner::Shown as Alias;
         pub use outside::Other;
         #[doc(hidden)] pub mod private_by_word { pub struct Unseen; }
         mod inner {
             pub struct Shown { pub field: u8, kept: u8 }
             impl Shown { pub fn open(&self) {} fn shut(&self) {} }
             pub struct Unreached;
         }
         pub mod outer {
             pub use super::inner::Shown;
             pub trait Does { fn it(&self); #[doc(hidden)] fn hidden(&self); }
             pub enum Either { One, Two }
         }
         #[macro_export] macro_rules! told { () => {} }",
    ));
    let expected = [
        "enum tidegate::outer::Either",
        "field tidegate::Alias::field",
        "fn tidegate::Alias::open",
        "fn tidegate::outer::Does::it",
        "hidden tidegate::private_by_word",
        "macro tidegate::told!",
        "mod tidegate::outer",
        "struct tidegate::Alias",
        "trait tidegate::outer::Does",
        "use tidegate::Other = outside::Other",
        "use tidegate::outer::Shown = tidegate::Alias",
        "variant tidegate::outer::Either::One",
        "variant tidegate::outer::Either::Two",
    ];
    assert_eq!(
        lines.iter().map(String::as_str).collect::<Vec<_>>(),
        expected
    );
}
