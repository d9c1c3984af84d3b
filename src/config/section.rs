//! How a section of the configuration is declared: once, with the words that explain each key.
//! Knows no key and reads nothing.

/// One key of a section: its name, what it does, and the bounds of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// The name as it stands in the file.
    pub name: &'static str,
    /// What it does, a sentence a line.
    pub doc: &'static [&'static str],
    /// The least and the largest number, where the key is a number with bounds.
    pub bounds: Option<(u64, u64)>,
}

/// A section whose keys are known to the program that reads them: the same declaration yields
/// the fields, the defaults, the explanations in `config init`, and the bounds.
pub trait Section {
    /// The keys in the order of their declaration.
    const KEYS: &'static [Key];
}

/// Declares a section: each key has its documentation, its default, and its bounds if it is a
/// number for which not every value makes sense.
macro_rules! section {
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $( $(#[doc = $doc:literal])+ $(#[serde($serde:meta)])?
               $key:ident : $kind:ty = $default:expr $(, in $least:literal ..= $most:literal)? ; )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name {
            $( $(#[doc = $doc])+ $(#[serde($serde)])? pub $key: $kind, )*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $( $key: $default, )* }
            }
        }

        impl $crate::config::section::Section for $name {
            const KEYS: &'static [$crate::config::section::Key] = &[
                $( $crate::config::section::Key {
                    name: stringify!($key),
                    doc: &[$( $doc ),+],
                    bounds: section!(@bounds $($least, $most)?),
                }, )*
            ];
        }
    };
    (@bounds) => { None };
    (@bounds $least:literal, $most:literal) => { Some(($least, $most)) };
}

pub(super) use section;
