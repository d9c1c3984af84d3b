//! What an event carries beside one JSON value: further arguments, and bytes. Knows how they stand in
//! a payload while it is read or written; no wire.
//!
//! While a payload is read or written its arguments and bytes lie in a list of the thread, so that
//! they may stand anywhere inside of types that derive serde's traits.

use std::cell::RefCell;
use std::ops::Deref;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::de::{DeserializeOwned, Error as _, IgnoredAny};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::proto::json;

/// All arguments of an event of Socket.IO: `Args<(String, u32)>`, `Args<Vec<Value>>`. Any other
/// payload reads the first one. On the event dialect it is an array.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Args<T>(pub T);

impl<T> Deref for Args<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Serialize> Serialize for Args<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        WRITING.with_borrow_mut(|writing| writing.is_args = true);
        self.0.serialize(serializer)
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Args<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Some(args) = READING.with_borrow_mut(|reading| reading.args.take()) else {
            return T::deserialize(deserializer).map(Self);
        };
        IgnoredAny::deserialize(deserializer)?;
        serde_json::from_slice(&args)
            .map(Self)
            .map_err(D::Error::custom)
    }
}

/// Bytes in a payload or an answer. On Socket.IO they travel as they are, on the event dialect as
/// base64.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attachment(pub Bytes);

impl Deref for Attachment {
    type Target = Bytes;

    fn deref(&self) -> &Bytes {
        &self.0
    }
}

impl Serialize for Attachment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let number = WRITING.with_borrow_mut(|writing| {
            writing.attachments.push(self.0.clone());
            writing.attachments.len() - 1
        });
        if ATTACHMENTS_MAX < number {
            return Err(S::Error::custom("too many attachments"));
        }
        Placeholder {
            is_placeholder: true,
            num: number as u64,
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Attachment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Placeholder(Placeholder),
            Text(String),
        }
        match Either::deserialize(deserializer)? {
            Either::Placeholder(Placeholder {
                is_placeholder: true,
                num,
            }) => {
                let bytes = READING.with_borrow(|reading| {
                    let place = usize::try_from(num).ok()?;
                    reading.attachments.get(place).cloned()
                });
                bytes
                    .map(Self)
                    .ok_or_else(|| D::Error::custom("no such attachment"))
            }
            Either::Text(text) if READING.with_borrow(|reading| !reading.has_attachments) => {
                let bytes = STANDARD.decode(text).map_err(D::Error::custom)?;
                Ok(Self(bytes.into()))
            }
            _ => Err(D::Error::custom("expected bytes")),
        }
    }
}

/// What stands in the JSON where bytes follow it. Its text is known to `proto`.
#[derive(Serialize, Deserialize)]
struct Placeholder {
    #[serde(rename = "_placeholder")]
    is_placeholder: bool,
    num: u64,
}

/// More cannot be told apart from a mistake.
const ATTACHMENTS_MAX: usize = 1_024;

#[derive(Default)]
struct Reading {
    /// All arguments as an array.
    args: Option<Vec<u8>>,
    attachments: Vec<Bytes>,
    /// Bytes travel as they are, so no text stands for any.
    has_attachments: bool,
}

#[derive(Debug, Default)]
struct Writing {
    attachments: Vec<Bytes>,
    is_args: bool,
}

thread_local! {
    static READING: RefCell<Reading> = RefCell::default();
    static WRITING: RefCell<Writing> = RefCell::default();
}

/// Reads with these arguments and attachments at hand. `args` are JSON values with commas between.
pub(crate) fn reading<T>(args: &[u8], attachments: &[Bytes], read: impl FnOnce() -> T) -> T {
    let mut whole = Vec::with_capacity(args.len() + 2);
    whole.push(b'[');
    whole.extend_from_slice(args);
    whole.push(b']');
    let mine = Reading {
        args: Some(whole),
        attachments: attachments.to_vec(),
        has_attachments: true,
    };
    READING.replace(mine);
    let result = read();
    READING.take();
    result
}

/// What a value was written with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) attachments: Vec<Bytes>,
    /// The value is an array of arguments.
    pub(crate) is_args: bool,
}

/// Writes a value as JSON, and gives what stands beside it.
pub(crate) fn write(
    out: &mut Vec<u8>,
    value: &(impl Serialize + ?Sized),
) -> serde_json::Result<Written> {
    let start = out.len();
    let outcome = serde_json::to_writer(&mut *out, value);
    let Writing {
        attachments,
        is_args,
    } = WRITING.with_borrow_mut(|writing| Writing {
        attachments: std::mem::take(&mut writing.attachments),
        is_args: std::mem::take(&mut writing.is_args),
    });
    outcome?;
    Ok(Written {
        attachments,
        is_args: is_args && out.get(start) == Some(&b'['),
    })
}

/// The text of an argument list: what stands between the brackets where it is one.
pub(crate) fn args_of(data: &[u8], is_args: bool) -> &[u8] {
    match is_args {
        true => &data[1..data.len() - 1],
        false => data,
    }
}

/// The first of several arguments, or `null`.
pub(crate) fn first_of(args: &[u8]) -> &[u8] {
    match json::first_value(args) {
        [] => b"null",
        first => first,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct File {
        name: String,
        bytes: Attachment,
    }

    fn file() -> File {
        File {
            name: "a".to_owned(),
            bytes: Attachment(Bytes::from_static(&[1, 2, 3, 4])),
        }
    }

    /// S-35
    #[test]
    fn bytes_stand_beside_the_json_or_as_base64() {
        let mut out = Vec::new();
        let written = write(&mut out, &file()).unwrap();
        let json = br#"{"name":"a","bytes":{"_placeholder":true,"num":0}}"#;
        assert_eq!(out, json);
        assert_eq!(written.attachments, [file().bytes.0]);
        let read: serde_json::Result<File> =
            reading(b"", &written.attachments, || serde_json::from_slice(json));
        assert_eq!(read.unwrap(), file());
        let read: File = serde_json::from_str(r#"{"name":"a","bytes":"AQIDBA=="}"#).unwrap();
        assert_eq!(read, file());
        let read = serde_json::from_slice::<File>(json);
        assert!(read.unwrap_err().to_string().contains("no such attachment"));
        let text = br#"{"name":"a","bytes":"AQIDBA=="}"#;
        assert!(reading(b"", &[], || serde_json::from_slice::<File>(text)).is_err());
    }

    /// S-34
    #[test]
    fn all_arguments_or_the_first() {
        type Pair = Args<(u32, String)>;
        let read: serde_json::Result<Pair> =
            reading(br#"7,"a""#, &[], || serde_json::from_slice(b"7"));
        assert_eq!(read.unwrap(), Args((7, "a".to_owned())));
        let read: Pair = serde_json::from_str(r#"[7,"a"]"#).unwrap();
        assert_eq!(*read, (7, "a".to_owned()));
        let mut out = Vec::new();
        assert!(write(&mut out, &Args((1, "x"))).unwrap().is_args);
        assert_eq!(args_of(&out, true), br#"1,"x""#);
        assert!(!write(&mut Vec::new(), &7).unwrap().is_args);
        assert!(!write(&mut Vec::new(), &Args(7)).unwrap().is_args);
        assert_eq!(first_of(b"{\"a\":[1,2]},3"), b"{\"a\":[1,2]}");
    }
}
