//! The modules of a crate as its sources have them, and which name means what in which of them.
//! Knows syntax and no types: enough, since what is public is said by names.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use syn::{Attribute, ImplItem, Item, Type, UseTree, Visibility};

const CRATE: &str = "tidegate";

/// One module: its items, and what its `use` lines bring into it.
#[derive(Default)]
struct Module {
    items: Vec<Item>,
    /// By name: the path that it was written with, and whether it is shown on.
    uses: BTreeMap<String, (Vec<String>, bool)>,
}

/// All modules by their paths.
pub(crate) struct Tree {
    modules: BTreeMap<String, Module>,
    members: BTreeMap<String, Vec<ImplItem>>,
}

/// A public name.
pub(crate) struct Found<'a> {
    pub(crate) kind: &'static str,
    /// Where programs find it.
    pub(crate) path: String,
    /// Where it is written.
    pub(crate) canonical: String,
    pub(crate) item: Option<&'a Item>,
}

impl Tree {
    pub(crate) fn of_crate(root: &str) -> Self {
        let text = fs::read_to_string(root).unwrap();
        let folder = Path::new(root).parent().unwrap().to_owned();
        Self::made(&text, Some(folder))
    }

    pub(crate) fn of_text(text: &str) -> Self {
        Self::made(text, None)
    }

    fn made(text: &str, folder: Option<PathBuf>) -> Self {
        let mut tree = Self {
            modules: BTreeMap::new(),
            members: BTreeMap::new(),
        };
        tree.add(
            CRATE,
            syn::parse_file(text).unwrap().items,
            folder.as_deref(),
        );
        tree.gather_members();
        tree
    }

    fn add(&mut self, path: &str, items: Vec<Item>, folder: Option<&Path>) {
        let mut module = Module::default();
        for item in items {
            if is_for_tests(attributes(&item)) {
                continue;
            }
            match &item {
                Item::Use(item) => {
                    let shown =
                        matches!(item.vis, Visibility::Public(_)) && !is_hidden(&item.attrs);
                    used(&item.tree, &mut Vec::new(), shown, &mut module.uses);
                }
                Item::Mod(inner) => {
                    let name = inner.ident.to_string();
                    let (items, inside) = match &inner.content {
                        Some((_, items)) => {
                            (items.clone(), folder.map(|folder| folder.join(&name)))
                        }
                        None => read_module(folder.unwrap(), &name),
                    };
                    self.add(&format!("{path}::{name}"), items, inside.as_deref());
                }
                _ => {}
            }
            module.items.push(item);
        }
        self.modules.insert(path.to_owned(), module);
    }

    /// Methods by the type that they belong to.
    fn gather_members(&mut self) {
        let mut members: BTreeMap<String, Vec<ImplItem>> = BTreeMap::new();
        for (path, module) in &self.modules {
            for item in &module.items {
                let Item::Impl(item) = item else { continue };
                let Type::Path(of) = &*item.self_ty else {
                    continue;
                };
                if item.trait_.is_some() {
                    continue;
                }
                let segments = of.path.segments.iter();
                let segments: Vec<_> = segments.map(|part| part.ident.to_string()).collect();
                if let Some(of) = self.resolve(path, &segments) {
                    members
                        .entry(of)
                        .or_default()
                        .extend(item.items.iter().cloned());
                }
            }
        }
        self.members = members;
    }

    /// The methods and constants of a type, by where it is written.
    pub(crate) fn members(&self, canonical: &str) -> &[ImplItem] {
        self.members.get(canonical).map_or(&[], Vec::as_slice)
    }

    /// Every public name, by the ways that lead to it from the root.
    pub(crate) fn walk<'a>(&'a self, found: &mut Vec<Found<'a>>) {
        self.walk_module(CRATE, CRATE, found);
        for module in self.modules.values() {
            for item in &module.items {
                let Item::Macro(item) = item else { continue };
                let exported = item
                    .attrs
                    .iter()
                    .any(|one| one.path().is_ident("macro_export"));
                if let Some(name) = item.ident.as_ref().filter(|_| exported) {
                    let path = format!("{CRATE}::{name}!");
                    let kind = if is_hidden(&item.attrs) {
                        "hidden"
                    } else {
                        "macro"
                    };
                    found.push(named(kind, path.clone(), path, None));
                }
            }
        }
    }

    fn walk_module<'a>(&'a self, at: &str, shown_as: &str, found: &mut Vec<Found<'a>>) {
        let Some(module) = self.modules.get(at) else {
            return;
        };
        for item in &module.items {
            let Some((kind, name, visibility)) = declared(item) else {
                continue;
            };
            if matches!(visibility, Visibility::Public(_)) {
                let (path, canonical) = (format!("{shown_as}::{name}"), format!("{at}::{name}"));
                self.show(kind, path, canonical, item, found);
            }
        }
        for (name, (written, shown)) in &module.uses {
            if !shown {
                continue;
            }
            let path = format!("{shown_as}::{name}");
            match self
                .resolve(at, written)
                .and_then(|canonical| self.item(&canonical))
            {
                Some((canonical, item)) => {
                    let Some((kind, _, _)) = declared(item) else {
                        continue;
                    };
                    self.show(kind, path, canonical, item, found);
                }
                None => {
                    let origin = written.join("::");
                    found.push(named("use", format!("{path} = {origin}"), path, None));
                }
            }
        }
    }

    fn show<'a>(
        &'a self,
        kind: &'static str,
        path: String,
        canonical: String,
        item: &'a Item,
        found: &mut Vec<Found<'a>>,
    ) {
        if is_hidden(attributes(item)) {
            return found.push(named("hidden", path, canonical, None));
        }
        if kind == "mod" {
            self.walk_module(&canonical, &path, found);
        }
        found.push(named(kind, path, canonical, Some(item)));
    }

    /// What is written at a path, followed through what is only passed on there.
    fn item(&self, canonical: &str) -> Option<(String, &Item)> {
        let (module, name) = canonical.rsplit_once("::")?;
        let module = self.modules.get(module)?;
        let is_it = |item: &&Item| declared(item).is_some_and(|(_, found, _)| found == name);
        Some((canonical.to_owned(), module.items.iter().find(is_it)?))
    }

    /// Where a path leads that is written in the module `at`; nowhere if that is another crate.
    fn resolve(&self, at: &str, written: &[String]) -> Option<String> {
        let (first, rest) = written.split_first()?;
        let start = match first.as_str() {
            "crate" | CRATE => CRATE.to_owned(),
            "self" => at.to_owned(),
            "super" => at.rsplit_once("::")?.0.to_owned(),
            name => self.member(at, name)?,
        };
        rest.iter()
            .try_fold(start, |place, name| match name.as_str() {
                "super" => Some(place.rsplit_once("::")?.0.to_owned()),
                name => self.member(&place, name),
            })
    }

    /// What a name means inside a module.
    fn member(&self, at: &str, name: &str) -> Option<String> {
        let module = self.modules.get(at)?;
        let is_it = |item: &Item| declared(item).is_some_and(|(_, found, _)| found == name);
        if module.items.iter().any(is_it) {
            return Some(format!("{at}::{name}"));
        }
        let (written, _) = module.uses.get(name)?;
        // A name may be brought in from a crate that has the same.
        (written.first().map(String::as_str) != Some(name)).then(|| self.resolve(at, written))?
    }
}

fn named<'a>(
    kind: &'static str,
    path: String,
    canonical: String,
    item: Option<&'a Item>,
) -> Found<'a> {
    Found {
        kind,
        path,
        canonical,
        item,
    }
}

fn read_module(folder: &Path, name: &str) -> (Vec<Item>, Option<PathBuf>) {
    let (file, nested) = (
        folder.join(format!("{name}.rs")),
        folder.join(name).join("mod.rs"),
    );
    let path = if file.exists() { file } else { nested };
    let text =
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    (
        syn::parse_file(&text).unwrap().items,
        Some(folder.join(name)),
    )
}

fn used(
    tree: &UseTree,
    before: &mut Vec<String>,
    shown: bool,
    uses: &mut BTreeMap<String, (Vec<String>, bool)>,
) {
    let whole = |last: String| before.iter().cloned().chain([last]).collect::<Vec<_>>();
    match tree {
        UseTree::Path(path) => {
            before.push(path.ident.to_string());
            used(&path.tree, before, shown, uses);
            before.pop();
        }
        UseTree::Name(name) if name.ident == "self" => {
            let last = before.last().cloned().unwrap_or_default();
            uses.insert(last, (before.clone(), shown));
        }
        UseTree::Name(name) => {
            uses.insert(
                name.ident.to_string(),
                (whole(name.ident.to_string()), shown),
            );
        }
        UseTree::Rename(name) => {
            uses.insert(
                name.rename.to_string(),
                (whole(name.ident.to_string()), shown),
            );
        }
        UseTree::Group(group) => {
            for tree in &group.items {
                used(tree, before, shown, uses);
            }
        }
        UseTree::Glob(_) => {
            uses.insert("*".to_owned(), (whole("*".to_owned()), shown));
        }
    }
}

fn declared(item: &Item) -> Option<(&'static str, String, &Visibility)> {
    Some(match item {
        Item::Struct(item) => ("struct", item.ident.to_string(), &item.vis),
        Item::Enum(item) => ("enum", item.ident.to_string(), &item.vis),
        Item::Trait(item) => ("trait", item.ident.to_string(), &item.vis),
        Item::Fn(item) => ("fn", item.sig.ident.to_string(), &item.vis),
        Item::Const(item) => ("const", item.ident.to_string(), &item.vis),
        Item::Static(item) => ("static", item.ident.to_string(), &item.vis),
        Item::Type(item) => ("type", item.ident.to_string(), &item.vis),
        Item::Mod(item) => ("mod", item.ident.to_string(), &item.vis),
        _ => return None,
    })
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Struct(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Const(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        _ => &[],
    }
}

/// Whether it stands under `#[doc(hidden)]`.
pub(crate) fn is_hidden(attributes: &[Attribute]) -> bool {
    has_word(attributes, "doc", "hidden")
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    has_word(attributes, "cfg", "test") || has_word(attributes, "cfg", "doctest")
}

fn has_word(attributes: &[Attribute], name: &str, word: &str) -> bool {
    let is_it = |one: &&Attribute| one.path().is_ident(name);
    let has = |one: &Attribute| {
        one.parse_args::<syn::Ident>()
            .is_ok_and(|found| found == word)
    };
    attributes.iter().filter(is_it).any(has)
}
