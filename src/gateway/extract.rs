//! Arguments of handlers: what is taken from the call, and the payload that is read. Which of
//! the two an argument is goes by its type.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::auth::CurrentUser;
use crate::broker::relay::LeaveReason;
use crate::gateway::arguments;
use crate::gateway::call::{CallKind, fits};
use crate::gateway::client::WsClient;
use crate::gateway::engine::container::{Dependency, Inject, Injectable, Resolver, State};
use crate::gateway::exception::Exception;
use crate::gateway::relay::Relay;
use crate::gateway::relay_handler::RelayEvent;
use crate::gateway::server::WsServer;
use crate::gateway::topics::Topics;
use crate::id::Tenant;
use crate::proto::event::ReadOnce;
use crate::proto::json::{self, InvalidValue};

pub use crate::gateway::call::{Call, FromCall};

/// The data of an event. A type reads it from what the parser has left of its frame; if it had to
/// wait for its turn, from a copy.
#[derive(Debug, Clone, Copy)]
pub struct EventData<'a> {
    json: &'a [u8],
    unread: Option<&'a dyn ReadOnce>,
    beside: Option<Beside<'a>>,
}

/// What an event of Socket.IO has beside its first argument.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Beside<'a> {
    /// All arguments, with the commas between them.
    pub(crate) args: &'a [u8],
    pub(crate) attachments: &'a [Bytes],
}

/// Further arguments, and the attachments.
type KeptBeside = (Box<[u8]>, Box<[Bytes]>);

/// The data of an event that had to wait.
#[derive(Debug, Clone)]
pub(crate) struct KeptData {
    json: Box<[u8]>,
    beside: Option<KeptBeside>,
}

impl KeptData {
    pub(crate) fn data(&self) -> EventData<'_> {
        let beside = self.beside.as_ref();
        EventData {
            json: &self.json,
            unread: None,
            beside: beside.map(|(args, attachments)| Beside { args, attachments }),
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        let beside = self.beside.as_ref().map_or(0, |(args, attachments)| {
            args.len() + attachments.iter().map(Bytes::len).sum::<usize>()
        });
        self.json.len() + beside
    }
}

impl<'a> EventData<'a> {
    /// Of JSON that is known to be valid.
    pub fn of(json: &'a [u8]) -> Self {
        Self {
            json,
            unread: None,
            beside: None,
        }
    }

    /// Of an envelope, whose data is `json`.
    pub(crate) fn unread(json: &'a [u8], envelope: &'a dyn ReadOnce) -> Self {
        Self {
            json,
            unread: Some(envelope),
            beside: None,
        }
    }

    /// The same of an event that has more arguments, or bytes.
    pub(crate) fn beside(self, beside: Beside<'a>) -> Self {
        Self {
            beside: Some(beside),
            ..self
        }
    }

    /// All arguments as JSON, with the commas between them; the data itself on the event dialect.
    pub fn args(&self) -> &'a [u8] {
        self.beside.map_or(self.json, |beside| beside.args)
    }

    pub(crate) fn to_kept(self) -> KeptData {
        KeptData {
            json: self.json.into(),
            beside: self
                .beside
                .map(|beside| (beside.args.into(), beside.attachments.into())),
        }
    }

    /// `null`.
    pub fn null() -> Self {
        Self::of(b"null")
    }

    /// The JSON as it was written.
    pub fn json(&self) -> &'a [u8] {
        self.json
    }

    /// Reads it as a value.
    fn read<T: DeserializeOwned>(&self) -> Result<T, InvalidValue> {
        match self.beside {
            Some(Beside { args, attachments }) => {
                arguments::reading(args, attachments, || self.read_json())
            }
            None => self.read_json(),
        }
    }

    fn read_json<T: DeserializeOwned>(&self) -> Result<T, InvalidValue> {
        let mut read = None;
        if let Some(unread) = self.unread {
            unread.take(&mut |envelope| read = Some(envelope.read()));
        }
        read.unwrap_or_else(|| json::from_span(self.json))
    }
}

impl FromCall for Call {
    fn from_call(call: &Call) -> Result<Self, Exception> {
        Ok(call.clone())
    }
}

impl FromCall for WsClient {
    const ONLY_FOR: Option<CallKind> = Some(CallKind::Event);

    fn from_call(call: &Call) -> Result<Self, Exception> {
        call.client().cloned().ok_or_else(|| elsewhere("WsClient"))
    }
}

impl FromCall for RelayEvent {
    const ONLY_FOR: Option<CallKind> = Some(CallKind::Relay);

    fn from_call(call: &Call) -> Result<Self, Exception> {
        call.relay_event()
            .cloned()
            .ok_or_else(|| elsewhere("RelayEvent"))
    }
}

impl FromCall for Option<LeaveReason> {
    const ONLY_FOR: Option<CallKind> = Some(CallKind::Relay);

    fn from_call(call: &Call) -> Result<Self, Exception> {
        Ok(call.leave_reason())
    }
}

impl FromCall for CurrentUser {
    fn from_call(call: &Call) -> Result<Self, Exception> {
        Ok(call.user())
    }
}

impl FromCall for Tenant {
    fn from_call(call: &Call) -> Result<Self, Exception> {
        Ok(call.tenant().clone())
    }
}

impl FromCall for Relay {
    fn from_call(call: &Call) -> Result<Self, Exception> {
        call.relay()
    }
}

impl FromCall for Topics {
    fn from_call(call: &Call) -> Result<Self, Exception> {
        call.service::<Self>().map(|topics| Self::clone(&topics))
    }
}

impl<N: 'static> FromCall for WsServer<N> {
    fn dependencies() -> Vec<Dependency> {
        <Arc<Self> as Inject>::dependencies()
    }

    fn from_call(call: &Call) -> Result<Self, Exception> {
        call.service::<Self>().map(|server| Self::clone(&server))
    }
}

impl<T: ?Sized + Send + Sync + 'static> FromCall for Arc<T> {
    fn dependencies() -> Vec<Dependency> {
        <Self as Inject>::dependencies()
    }

    fn from_call(call: &Call) -> Result<Self, Exception> {
        call.service()
    }
}

impl<T: ?Sized + Send + Sync + 'static> FromCall for State<T> {
    fn dependencies() -> Vec<Dependency> {
        <Self as Inject>::dependencies()
    }

    fn from_call(call: &Call) -> Result<Self, Exception> {
        call.service().map(Self)
    }
}

/// What is taken where it never is: the compiler has refused it before, wherever it could.
fn elsewhere(argument: &str) -> Exception {
    Exception::new(format!("this kind of handler has no `{argument}`"))
}

/// A service that is built anew for each event.
#[derive(Debug)]
pub struct Scoped<T>(pub T);

impl<T> Deref for Scoped<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Injectable> FromCall for Scoped<T> {
    fn dependencies() -> Vec<Dependency> {
        T::dependencies()
    }

    fn from_call(call: &Call) -> Result<Self, Exception> {
        T::build(&Resolver::over(call.container(), call.event()))
            .map(Self)
            .map_err(Exception::start)
    }
}

/// Takes an argument of the type `T`: [`take!`](crate::take) chooses how.
#[derive(Debug)]
pub struct Take<T>(PhantomData<fn() -> T>);

impl<T> Take<T> {
    /// To be told apart by its type.
    pub fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T> Default for Take<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: FromCall> Take<T> {
    /// No argument of this type is a payload.
    pub const PAYLOADS: usize = 0;
}

/// Any other argument is one.
pub trait CountPayloads {
    /// One.
    const PAYLOADS: usize = 1;
}

impl<T> CountPayloads for Take<T> {}

/// Arguments that are taken from the call.
pub trait TakeFromCall<T> {
    /// Takes it.
    fn take(&self, call: &Call, data: EventData<'_>) -> Result<T, Exception>;

    /// The services that it will ask for.
    fn dependencies(&self) -> Vec<Dependency>;
}

impl<T: FromCall> TakeFromCall<T> for &Take<T> {
    fn take(&self, call: &Call, _data: EventData<'_>) -> Result<T, Exception> {
        T::from_call(call)
    }

    fn dependencies(&self) -> Vec<Dependency> {
        const {
            assert!(
                fits(T::ONLY_FOR, CallKind::Event),
                "a handler of a gateway has no such argument: it belongs to another kind of handler"
            );
        }
        T::dependencies()
    }
}

/// All other arguments are payloads.
pub trait TakePayload<T> {
    /// Reads the payload.
    fn take(&self, call: &Call, data: EventData<'_>) -> Result<T, Exception>
    where
        T: for<'de> Deserialize<'de>;

    /// None.
    fn dependencies(&self) -> Vec<Dependency> {
        Vec::new()
    }
}

impl<T> TakePayload<T> for Take<T> {
    fn take(&self, call: &Call, data: EventData<'_>) -> Result<T, Exception>
    where
        T: for<'de> Deserialize<'de>,
    {
        read(call.event(), data)
    }
}

fn read<T: DeserializeOwned>(event: &str, data: EventData<'_>) -> Result<T, Exception> {
    data.read()
        .map_err(|error| Exception::payload(event, &error))
}

/// Reads one key of the payload, which is `null` where it is missing: what
/// `#[message_body("key")]` stands for.
///
/// # Errors
/// When it is of another shape.
pub fn take_key<T: DeserializeOwned>(
    call: &Call,
    data: EventData<'_>,
    key: &str,
) -> Result<T, Exception> {
    let body: BTreeMap<String, &RawValue> = serde_json::from_slice(data.json)
        .map_err(|_| Exception::payload(call.event(), &"expected an object"))?;
    let value = body.get(key).map_or("null", |value| value.get());
    read(call.event(), EventData::of(value.as_bytes()))
}

/// Takes one argument of a handler, by its type: `take!(SendMessage, call, data)`. A payload that
/// breaks the rules of its type is an `Err`.
#[macro_export]
macro_rules! take {
    ($type:ty, $call:expr, $data:expr) => {{
        #[allow(unused_imports, reason = "the type decides which of them is needed")]
        use $crate::gateway::extract::{
            CountPayloads as _, Take, TakeFromCall as _, TakePayload as _,
        };
        match (&&Take::<$type>::new()).take($call, $data) {
            Ok(value) if <Take<$type>>::PAYLOADS == 1 => {
                match $crate::check!($type, $call, &value) {
                    Ok(()) => Ok(value),
                    Err(broken) => Err(broken),
                }
            }
            taken => taken,
        }
    }};
}

/// The services that an argument of this type will ask for.
#[macro_export]
macro_rules! argument_dependencies {
    ($type:ty) => {{
        #[allow(unused_imports, reason = "the type decides which of them is needed")]
        use $crate::gateway::extract::{TakeFromCall as _, TakePayload as _};
        (&&$crate::gateway::extract::Take::<$type>::new()).dependencies()
    }};
}
