//! `tidegate generate`: a gateway in its own folder, registered, or a whole project around one.
//! Writes new files only; of what is there already it changes `src/main.rs`, by two lines.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::types::{self, TypesOptions};
use super::{Failure, answer};

/// What can be generated.
#[derive(Debug, Subcommand)]
pub(super) enum GenerateVerb {
    /// A gateway: a folder with it and its module, registered in src/main.rs
    Gateway(GatewayOptions),
    /// A project that runs: a program with one gateway
    Project(ProjectOptions),
    /// Types in TypeScript of what gateways speak, for EventClient<Map>
    Types(TypesOptions),
}

/// What a gateway is called.
#[derive(Debug, Args)]
pub(super) struct GatewayOptions {
    /// Its name, such as chat or order-book: the folder, the path and the types take theirs from it
    name: Name,
    /// The project's folder
    #[arg(long, value_name = "DIR", default_value = ".")]
    project: PathBuf,
}

/// What a project is called.
#[derive(Debug, Args)]
pub(super) struct ProjectOptions {
    /// Its name, which is its folder too
    name: Name,
    /// What its Cargo.toml says of tidegate, such as { path = "../tidegate" }
    #[arg(long, value_name = "TOML")]
    tidegate: Option<String>,
}

/// Why nothing, or not all, was generated.
#[derive(Debug, thiserror::Error)]
pub(super) enum GenerateError {
    /// What is there is never written over.
    #[error("{} is there already: nothing was written", .0.display())]
    Exists(PathBuf),
    /// There is nothing to add a gateway to.
    #[error(
        "{} is not the manifest of a program: nothing was written; go to a project, name one with \
         --project DIR, or make one with `tidegate generate project NAME`",
        .0.display()
    )]
    NoProject(PathBuf),
    /// Cargo keeps the name for itself.
    #[error("`{0}` is a folder of Cargo's own: no package can be called that; nothing was written")]
    Package(String),
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// A file or folder cannot be written.
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

/// Generates what is asked for and says what was written.
pub(super) fn run(verb: &GenerateVerb) -> Result<ExitCode, Failure> {
    let mut told = Vec::new();
    match verb {
        GenerateVerb::Gateway(options) => {
            inside_project(&options.project)?;
            gateway(&options.project, &options.name, &mut told)?;
        }
        GenerateVerb::Project(options) => project(options, &mut told)?,
        GenerateVerb::Types(options) => return types::run(options),
    }
    // All is there before anything is said, whether or not somebody reads it.
    answer(told.join("\n"))?;
    Ok(ExitCode::SUCCESS)
}

/// Where there is a program that a gateway can be added to.
fn inside_project(folder: &Path) -> Result<(), GenerateError> {
    let manifest = folder.join("Cargo.toml");
    let text = match fs::read_to_string(&manifest) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(GenerateError::NoProject(manifest));
        }
        Err(source) => {
            return Err(GenerateError::Read {
                path: manifest,
                source,
            });
        }
    };
    let has_package = text.lines().any(|line| line.trim() == "[package]");
    match has_package && folder.join("src").is_dir() {
        true => Ok(()),
        false => Err(GenerateError::NoProject(manifest)),
    }
}

fn project(options: &ProjectOptions, told: &mut Vec<String>) -> Result<(), GenerateError> {
    if OF_CARGO.contains(&&*options.name.kebab) {
        return Err(GenerateError::Package(options.name.kebab.clone()));
    }
    let folder = PathBuf::from(&options.name.kebab);
    if folder.exists() {
        return Err(GenerateError::Exists(folder));
    }
    let tidegate = options.tidegate.clone().unwrap_or_else(dependency);
    let cargo = CARGO.replace("{{package}}", &options.name.kebab);
    write(
        &folder.join("Cargo.toml"),
        &cargo.replace("{{tidegate}}", &tidegate),
        told,
    )?;
    write(&folder.join(".gitignore"), "/target\n/data\n", told)?;
    write(&folder.join("src/main.rs"), &options.name.fill(MAIN), told)?;
    write(
        &folder.join("src/index.html"),
        &options.name.fill(PAGE),
        told,
    )?;
    let chat = Name::parse("chat").map_err(|text| GenerateError::Write {
        path: folder.clone(),
        source: io::Error::other(text),
    })?;
    gateway(&folder, &chat, told)?;
    let folder = folder.display();
    told.push(format!(
        "\nrun it, and open its address in a browser:\n  cd {folder} && cargo run -- --dev\ntest \
         it:\n  cargo test"
    ));
    Ok(())
}

/// The sources that this program was built from, if they are still there, else their version.
fn dependency() -> String {
    let checkout = env!("CARGO_MANIFEST_DIR");
    match Path::new(checkout).join("Cargo.toml").exists() {
        true => format!("{{ path = \"{checkout}\" }}"),
        false => format!("\"{}\"", env!("CARGO_PKG_VERSION")),
    }
}

fn gateway(project: &Path, name: &Name, told: &mut Vec<String>) -> Result<(), GenerateError> {
    let folder = project.join("src").join(&name.snake);
    if folder.exists() {
        return Err(GenerateError::Exists(folder));
    }
    write(&folder.join("mod.rs"), &name.fill(MOD), told)?;
    write(&folder.join("gateway.rs"), &name.fill(GATEWAY), told)?;
    write(&folder.join("module.rs"), &name.fill(MODULE), told)?;
    register(&project.join("src/main.rs"), name, told)
}

/// Adds the module to the program. Where its text is not as expected, says what to add.
fn register(main: &Path, name: &Name, told: &mut Vec<String>) -> Result<(), GenerateError> {
    let (mod_line, call) = (
        format!("mod {};\n", name.snake),
        format!(".module::<{}::{}Module>()", name.snake, name.pascal),
    );
    let text = match fs::read_to_string(main) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(source) => {
            return Err(GenerateError::Read {
                path: main.to_owned(),
                source,
            });
        }
    };
    match text.and_then(|text| registered(&text, &mod_line, &call)) {
        Some(text) => write(main, &text, told),
        None => {
            let main = main.display();
            told.push(format!("\nadd to {main}:\n  {mod_line}  {START}{call}"));
            Ok(())
        }
    }
}

/// The text of a program with one more module.
fn registered(text: &str, mod_line: &str, call: &str) -> Option<String> {
    let start = text.find(START)? + START.len();
    let mut registered = text.to_owned();
    registered.insert_str(start, &format!("\n        {call}"));
    let imports = text.find("\nuse ")? + 1;
    let mods = text.find("\nmod ").map(|line| line + 1);
    let (place, line) = match mods {
        Some(place) if place < start => (place, mod_line.to_owned()),
        _ => (imports, format!("{mod_line}\n")),
    };
    registered.insert_str(place, &line);
    Some(registered)
}

fn write(path: &Path, text: &str, told: &mut Vec<String>) -> Result<(), GenerateError> {
    let failed = |source| GenerateError::Write {
        path: path.to_owned(),
        source,
    };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    fs::write(path, text).map_err(failed)?;
    told.push(format!("wrote {}", path.display()));
    Ok(())
}

/// A name in its three spellings.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Name {
    kebab: String,
    snake: String,
    pascal: String,
}

impl Name {
    fn parse(name: &str) -> Result<Self, String> {
        let kebab = name.replace('_', "-").to_lowercase();
        let words: Vec<&str> = kebab.split('-').collect();
        let is_word =
            |word: &&str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let starts_well = kebab.starts_with(|first: char| first.is_ascii_alphabetic());
        if !starts_well || !words.iter().all(is_word) {
            return Err("a name has letters, digits and single dashes, such as order-book".into());
        }
        let snake = words.join("_");
        if KEYWORDS.contains(&&*snake) {
            return Err(format!(
                "`{snake}` is a word of Rust: no module can be called that; try {kebab}-room"
            ));
        }
        if TAKEN.contains(&&*snake) {
            return Err(format!(
                "`{snake}` would hide what a program already calls that; try {kebab}-room"
            ));
        }
        let pascal = words
            .iter()
            .map(|word| word[..1].to_uppercase() + &word[1..]);
        Ok(Self {
            pascal: pascal.collect(),
            snake,
            kebab,
        })
    }

    fn fill(&self, template: &str) -> String {
        template
            .replace("{{path}}", &format!("/{}", self.kebab))
            .replace("{{name}}", &self.kebab)
            .replace("{{Name}}", &self.pascal)
    }
}

impl std::str::FromStr for Name {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::parse(name)
    }
}

/// The words of edition 2024, those that are only kept free too.
const KEYWORDS: &[&str] = &[
    "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "crate",
    "do", "dyn", "else", "enum", "extern", "false", "final", "fn", "for", "gen", "if", "impl",
    "in", "let", "loop", "macro", "match", "mod", "move", "mut", "override", "priv", "pub", "ref",
    "return", "self", "static", "struct", "super", "trait", "true", "try", "type", "typeof",
    "unsafe", "unsized", "use", "virtual", "where", "while", "yield",
];

/// The crates of a generated program, and its own file.
const TAKEN: &[&str] = &[
    "alloc",
    "axum",
    "core",
    "main",
    "serde",
    "serde_json",
    "std",
    "tidegate",
    "tokio",
];

/// Where Cargo puts what it builds, beside the program itself.
const OF_CARGO: &[&str] = &["build", "deps", "examples", "incremental"];

const GATEWAY: &str = include_str!("templates/gateway.txt");
const MODULE: &str = include_str!("templates/module.txt");
const MOD: &str = include_str!("templates/mod.txt");
const MAIN: &str = include_str!("templates/main.txt");
const CARGO: &str = include_str!("templates/cargo.txt");
const PAGE: &str = include_str!("templates/index.html.txt");
const START: &str = "Server::from_args()?";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_three_spellings() {
        let name = Name::parse("order_book").unwrap();
        assert_eq!(
            (&*name.kebab, &*name.snake, &*name.pascal),
            ("order-book", "order_book", "OrderBook")
        );
        for bad in ["", "-a", "a--b", "9a", "a/b", "é"] {
            assert!(Name::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn words_of_the_language_are_no_names() {
        let refused = |name: &str| Name::parse(name).unwrap_err();
        for word in ["mod", "self", "Self", "try", "gen", "typeof"] {
            let text = format!("`{}` is a word of Rust", word.to_lowercase());
            assert!(refused(word).starts_with(&text), "{word}");
        }
        assert!(refused("serde-json").contains("`serde_json` would hide"));
        for fine in ["union", "raw", "mod-room", "async2", "lib", "test"] {
            assert!(Name::parse(fine).is_ok(), "{fine}");
        }
    }

    #[test]
    fn a_module_is_added_once_for_each_gateway() {
        let chat = Name::parse("chat").unwrap();
        let main = chat.fill(MAIN);
        let once = registered(&main, "mod chat;\n", ".module::<chat::ChatModule>()").unwrap();
        let twice = registered(&once, "mod book;\n", ".module::<book::BookModule>()").unwrap();
        assert!(
            twice.contains("\nmod book;\nmod chat;\n\nuse axum"),
            "{twice}"
        );
        let calls = "Server::from_args()?\n        .module::<book::BookModule>()\n        \
                     .module::<chat::ChatModule>()\n        .router(";
        assert!(twice.contains(calls), "{twice}");
        assert_eq!(registered("fn main() {}", "", ""), None);
    }
}
