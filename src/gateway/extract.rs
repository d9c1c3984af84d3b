//! Arguments of handlers: what is taken from the call, and the payload that is read. Which of
//! the two an argument is goes by its type.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;
use validator::{Validate, ValidationErrors};

use crate::auth::CurrentUser;
use crate::gateway::client::WsClient;
use crate::gateway::engine::container::{
    Container, Dependency, Inject, Injectable, Resolver, State,
};
use crate::gateway::relay::Relay;
use crate::gateway::reply::Exception;
use crate::gateway::server::WsServer;
use crate::gateway::topics::Topics;
use crate::id::Tenant;
use crate::proto::event::ReadOnce;
use crate::proto::json::{self, InvalidValue};

/// The data of an event. A type reads it from what the parser has left of its frame; if it had to
/// wait for its turn, from a copy.
#[derive(Debug, Clone, Copy)]
pub struct EventData<'a> {
    json: &'a [u8],
    unread: Option<&'a dyn ReadOnce>,
}

impl<'a> EventData<'a> {
    /// Of JSON that is known to be valid.
    pub fn of(json: &'a [u8]) -> Self {
        Self { json, unread: None }
    }

    /// Of an envelope, whose data is `json`.
    pub(crate) fn unread(json: &'a [u8], envelope: &'a dyn ReadOnce) -> Self {
        Self {
            json,
            unread: Some(envelope),
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
        let mut read = None;
        if let Some(unread) = self.unread {
            unread.take(&mut |envelope| read = Some(envelope.read()));
        }
        read.unwrap_or_else(|| json::from_span(self.json))
    }
}

/// What a handler or a hook is called with, besides the payload.
#[derive(Debug, Clone)]
pub struct CallContext {
    client: WsClient,
    event: &'static str,
    container: Rc<Container>,
}

impl CallContext {
    pub(crate) fn new(client: WsClient, event: &'static str, container: Rc<Container>) -> Self {
        Self {
            client,
            event,
            container,
        }
    }

    /// The connection.
    pub fn client(&self) -> &WsClient {
        &self.client
    }

    /// The event's name; empty in a hook.
    pub fn event(&self) -> &'static str {
        self.event
    }

    /// The services.
    pub fn container(&self) -> &Container {
        &self.container
    }
}

/// An argument that is taken from the call. Write one to give handlers an argument of your own.
pub trait FromCall: Sized {
    /// The services that it will ask for; checked before the server listens.
    fn dependencies() -> Vec<Dependency> {
        Vec::new()
    }

    /// Takes it; an error is answered like one of the handler's own.
    fn from_call(call: &CallContext) -> Result<Self, Exception>;
}

impl FromCall for WsClient {
    fn from_call(call: &CallContext) -> Result<Self, Exception> {
        Ok(call.client.clone())
    }
}

impl FromCall for CurrentUser {
    fn from_call(call: &CallContext) -> Result<Self, Exception> {
        Ok(call.client.user())
    }
}

impl FromCall for Tenant {
    fn from_call(call: &CallContext) -> Result<Self, Exception> {
        Ok(call.client.tenant().clone())
    }
}

impl FromCall for Relay {
    fn from_call(call: &CallContext) -> Result<Self, Exception> {
        Arc::<Self>::from_call(call).map(|relay| Self::clone(&relay))
    }
}

impl FromCall for Topics {
    fn from_call(call: &CallContext) -> Result<Self, Exception> {
        Arc::<Self>::from_call(call).map(|topics| Self::clone(&topics))
    }
}

impl<N: 'static> FromCall for WsServer<N> {
    fn dependencies() -> Vec<Dependency> {
        <Arc<Self> as Inject>::dependencies()
    }

    fn from_call(call: &CallContext) -> Result<Self, Exception> {
        Arc::<Self>::from_call(call).map(|server| Self::clone(&server))
    }
}

impl<T: Send + Sync + 'static> FromCall for Arc<T> {
    fn dependencies() -> Vec<Dependency> {
        <Self as Inject>::dependencies()
    }

    fn from_call(call: &CallContext) -> Result<Self, Exception> {
        Resolver::over(&call.container, call.event)
            .service()
            .map_err(Exception::new)
    }
}

impl<T: Send + Sync + 'static> FromCall for State<T> {
    fn dependencies() -> Vec<Dependency> {
        <Self as Inject>::dependencies()
    }

    fn from_call(call: &CallContext) -> Result<Self, Exception> {
        Arc::from_call(call).map(Self)
    }
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

    fn from_call(call: &CallContext) -> Result<Self, Exception> {
        T::build(&Resolver::over(&call.container, call.event))
            .map(Self)
            .map_err(Exception::new)
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
    fn take(&self, call: &CallContext, data: EventData<'_>) -> Result<T, Exception>;

    /// The services that it will ask for.
    fn dependencies(&self) -> Vec<Dependency>;
}

impl<T: FromCall> TakeFromCall<T> for &&Take<T> {
    fn take(&self, call: &CallContext, _data: EventData<'_>) -> Result<T, Exception> {
        T::from_call(call)
    }

    fn dependencies(&self) -> Vec<Dependency> {
        T::dependencies()
    }
}

/// Payloads whose type has rules.
pub trait TakeValidated<T> {
    /// Reads the payload and checks it.
    fn take(&self, call: &CallContext, data: EventData<'_>) -> Result<T, Exception>;

    /// None.
    fn dependencies(&self) -> Vec<Dependency> {
        Vec::new()
    }
}

impl<T: DeserializeOwned + Validate> TakeValidated<T> for &Take<T> {
    fn take(&self, call: &CallContext, data: EventData<'_>) -> Result<T, Exception> {
        let payload: T = read(call.event, data)?;
        match payload.validate() {
            Ok(()) => Ok(payload),
            Err(errors) => Err(Exception::validation(call.event, listed(&errors))),
        }
    }
}

/// All other payloads.
pub trait TakePayload<T> {
    /// Reads the payload.
    fn take(&self, call: &CallContext, data: EventData<'_>) -> Result<T, Exception>
    where
        T: for<'de> Deserialize<'de>;

    /// None.
    fn dependencies(&self) -> Vec<Dependency> {
        Vec::new()
    }
}

impl<T> TakePayload<T> for Take<T> {
    fn take(&self, call: &CallContext, data: EventData<'_>) -> Result<T, Exception>
    where
        T: for<'de> Deserialize<'de>,
    {
        read(call.event, data)
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
    call: &CallContext,
    data: EventData<'_>,
    key: &str,
) -> Result<T, Exception> {
    let body: BTreeMap<String, &RawValue> = serde_json::from_slice(data.json)
        .map_err(|_| Exception::payload(call.event, &"expected an object"))?;
    let value = body.get(key).map_or("null", |value| value.get());
    read(call.event, EventData::of(value.as_bytes()))
}

/// Field by field, each rule with its code, message and parameters, but never with the value that
/// was refused: it would go back to whoever reads the log of the client.
fn listed(errors: &ValidationErrors) -> Value {
    let mut listed = serde_json::to_value(errors).unwrap_or_default();
    forget_values(&mut listed);
    listed
}

fn forget_values(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::Object(params)) = fields.get_mut("params") {
                params.remove("value");
            }
            fields.values_mut().for_each(forget_values);
        }
        Value::Array(items) => items.iter_mut().for_each(forget_values),
        _ => {}
    }
}

/// Takes one argument of a handler, by its type: `take!(SendMessage, call, data)`.
#[macro_export]
macro_rules! take {
    ($type:ty, $call:expr, $data:expr) => {{
        #[allow(unused_imports, reason = "the type decides which of them is needed")]
        use $crate::gateway::extract::{TakeFromCall as _, TakePayload as _, TakeValidated as _};
        (&&&$crate::gateway::extract::Take::<$type>::new()).take($call, $data)
    }};
}

/// The services that an argument of this type will ask for.
#[macro_export]
macro_rules! argument_dependencies {
    ($type:ty) => {{
        #[allow(unused_imports, reason = "the type decides which of them is needed")]
        use $crate::gateway::extract::{TakeFromCall as _, TakePayload as _, TakeValidated as _};
        (&&&$crate::gateway::extract::Take::<$type>::new()).dependencies()
    }};
}
