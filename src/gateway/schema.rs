//! What gateways speak, as documents: which events there are, what they carry and answer, and what
//! the server says by itself. Shapes come from types (`JsonSchema`); a type that tells none is
//! `unknown`. Knows types and JSON; no gateway and no server.

use std::marker::PhantomData;

use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::{JsonSchema, Schema as Json};
use serde_json::{Map, Value, json};

/// What one gateway speaks.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct GatewayShape {
    pub(crate) name: String,
    pub(crate) path: String,
    pub(crate) events: Vec<EventShape>,
    pub(crate) pushes: Vec<(String, Value)>,
}

/// One event that clients send.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct EventShape {
    pub(crate) event: String,
    pub(crate) payload: Option<Value>,
    pub(crate) reply: Option<Value>,
}

/// What all gateways of a program speak.
///
/// ```
/// use tidegate::prelude::*;
///
/// #[derive(serde::Deserialize, JsonSchema)]
/// #[schemars(crate = "tidegate::schemars")]
/// struct Say {
///     text: String,
/// }
///
/// #[gateway(path = "/chat", emits("said" = String))]
/// struct Chat;
///
/// #[messages]
/// impl Chat {
///     #[subscribe_message("say")]
///     async fn say(&self, say: Say) -> usize {
///         say.text.len()
///     }
/// }
///
/// let server = tidegate::testing::TestServer::start(|server| server.app(|app| {
///     app.gateway::<Chat>();
/// }));
/// let types = server.server().schema().typescript();
/// assert!(types.contains("export interface Say {\n  text: string;\n}"));
/// assert!(types.contains("    say: { data: Say; answer: number };"));
/// assert!(types.contains("    said: string;"));
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Schema {
    gateways: Vec<GatewayShape>,
    definitions: Map<String, Value>,
}

impl Schema {
    pub(crate) fn new(gateways: Vec<GatewayShape>, mut generator: SchemaGenerator) -> Self {
        let definitions = generator.take_definitions(true);
        Self {
            gateways,
            definitions,
        }
    }

    /// An AsyncAPI 3.0 document: a channel for each gateway, an operation for each event.
    pub fn asyncapi(&self) -> Value {
        let (mut channels, mut operations) = (Map::new(), Map::new());
        for gateway in &self.gateways {
            let (messages, of_gateway) = messages_of(gateway);
            let channel = json!({
                "address": gateway.path,
                "title": gateway.name,
                "messages": messages,
            });
            channels.insert(key(&gateway.name), channel);
            operations.extend(of_gateway);
        }
        json!({
            "asyncapi": "3.0.0",
            "info": {"title": "Gateways", "version": "1.0.0"},
            "defaultContentType": "application/json",
            "channels": channels,
            "operations": operations,
            "components": {"schemas": self.definitions},
        })
    }

    /// The types for `EventClient<Map>` of the client in TypeScript, a map for each gateway.
    pub fn typescript(&self) -> String {
        super::typescript::of_asyncapi(&self.asyncapi())
    }
}

/// The messages of a gateway's channel and the operations with them.
fn messages_of(gateway: &GatewayShape) -> (Map<String, Value>, Map<String, Value>) {
    let (mut messages, mut operations) = (Map::new(), Map::new());
    let channel = key(&gateway.name);
    let to_channel = json!({"$ref": format!("#/channels/{channel}")});
    let mut add = |event: &str, kind: &str, data: Option<&Value>| {
        let name = format!("{}_{kind}", key(event));
        let reference = json!({"$ref": format!("#/channels/{channel}/messages/{name}")});
        messages.insert(name, message(event, data));
        reference
    };
    for shape in &gateway.events {
        let asked = add(&shape.event, "request", shape.payload.as_ref());
        let mut operation = json!({
            "action": "receive",
            "title": shape.event,
            "channel": to_channel,
            "messages": [asked],
        });
        if let Some(reply) = &shape.reply {
            let answered = add(&shape.event, "reply", Some(reply));
            operation["reply"] = json!({"channel": to_channel, "messages": [answered]});
        }
        operations.insert(format!("{channel}_{}", key(&shape.event)), operation);
    }
    for (event, data) in &gateway.pushes {
        let said = add(event, "push", Some(data));
        let operation = json!({
            "action": "send",
            "title": event,
            "channel": to_channel,
            "messages": [said],
        });
        operations.insert(format!("{channel}_{}_push", key(event)), operation);
    }
    (messages, operations)
}

/// One frame of the event dialect.
fn message(event: &str, data: Option<&Value>) -> Value {
    let mut payload = json!({
        "type": "object",
        "properties": {"event": {"const": event}},
        "required": ["event"],
    });
    if let Some(data) = data {
        payload["properties"]["data"] = data.clone();
    }
    json!({"name": event, "payload": payload})
}

/// What may stand as a key of AsyncAPI: letters, digits and `_`; all else is spelled out, so that
/// no two names become one.
fn key(name: &str) -> String {
    let mut key = String::with_capacity(name.len());
    for char in name.chars() {
        match char.is_ascii_alphanumeric() {
            true => key.push(char),
            false if char == '_' => key.push('_'),
            false => key.push_str(&format!("-{:x}-", u32::from(char))),
        }
    }
    key
}

/// Gathers the shapes of one event, or what a gateway says by itself. `#[messages]` and
/// `#[gateway(emits(..))]` write the calls.
#[derive(Debug)]
pub struct Shapes<'a> {
    generator: &'a mut SchemaGenerator,
    payload: Option<Value>,
    keys: Map<String, Value>,
    reply: Option<Value>,
    pushes: Vec<(String, Value)>,
}

impl<'a> Shapes<'a> {
    pub(crate) fn new(generator: &'a mut SchemaGenerator) -> Self {
        Self {
            generator,
            payload: None,
            keys: Map::new(),
            reply: None,
            pushes: Vec::new(),
        }
    }

    /// The generator that knows the definitions so far.
    pub fn generator(&mut self) -> &mut SchemaGenerator {
        self.generator
    }

    /// The event carries this.
    pub fn payload(&mut self, shape: Option<Json>) {
        self.payload = Some(told(shape));
    }

    /// The event carries an object with this under a key.
    pub fn key(&mut self, key: &str, shape: Option<Json>) {
        self.keys.insert(key.to_owned(), told(shape));
    }

    /// The handler answers with this.
    pub fn reply(&mut self, shape: Option<Json>) {
        self.reply = Some(told(shape));
    }

    /// The server says this by itself.
    pub fn push(&mut self, event: &str, shape: Option<Json>) {
        self.pushes.push((event.to_owned(), told(shape)));
    }

    pub(crate) fn into_event(self, event: &str) -> EventShape {
        let keys = self.keys;
        let object = (!keys.is_empty()).then(|| json!({"type": "object", "properties": keys}));
        EventShape {
            event: event.to_owned(),
            payload: self.payload.or(object),
            reply: self.reply,
        }
    }

    pub(crate) fn into_pushes(self) -> Vec<(String, Value)> {
        self.pushes
    }
}

/// What tells no shape may be anything.
fn told(shape: Option<Json>) -> Value {
    shape.map_or(Value::Bool(true), Json::to_value)
}

/// What definitions are called is what AsyncAPI refers to.
pub(crate) fn generator() -> SchemaGenerator {
    let settings = SchemaSettings::draft2020_12();
    let settings = settings.with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    settings.into_generator()
}

/// The shape of the type `T`, if it tells one: [`shape!`](crate::shape) asks.
#[derive(Debug)]
pub struct Shape<T: ?Sized>(PhantomData<fn(&T)>);

impl<T: ?Sized> Shape<T> {
    /// To be told apart by its type.
    pub fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T: ?Sized> Default for Shape<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: JsonSchema + ?Sized> Shape<T> {
    /// As its `JsonSchema` says.
    pub fn of(&self, shapes: &mut Shapes<'_>) -> Option<Json> {
        Some(shapes.generator().subschema_for::<T>())
    }
}

/// What a type does that tells no shape.
pub trait NoShape {
    /// It may be anything.
    fn of(&self, _shapes: &mut Shapes<'_>) -> Option<Json> {
        None
    }
}

impl<T: ?Sized> NoShape for Shape<T> {}

/// What a handler returns, to be opened by its type as an answer is.
#[derive(Debug)]
pub struct Returned<T: ?Sized>(PhantomData<fn(&T)>);

impl<T: ?Sized> Returned<T> {
    /// To be told apart by its type.
    pub fn new() -> Self {
        Self(PhantomData)
    }

    /// The shape of what is answered.
    pub fn shape(&self) -> Shape<T> {
        Shape::new()
    }
}

impl<T: ?Sized> Default for Returned<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T, E> Returned<Result<T, E>> {
    /// An `Err` is an error frame, so what is answered is the `Ok`.
    pub fn open(&self) -> Returned<T> {
        Returned::new()
    }
}

impl<T> Returned<Option<T>> {
    /// `None` is silent.
    pub fn open(&self) -> Returned<T> {
        Returned::new()
    }
}

impl Returned<()> {
    /// `()` is silent.
    pub fn answers(&self) -> bool {
        false
    }
}

/// All other values are what is answered.
pub trait Answers: Names + Sized {
    /// It answers.
    fn answers(&self) -> bool {
        true
    }

    /// There is nothing to open.
    fn open(&self) -> Returned<Self::Of> {
        Returned::new()
    }
}

/// The type that a [`Returned`] is of.
pub trait Names {
    /// That type.
    type Of: ?Sized;
}

impl<T: ?Sized> Names for Returned<T> {
    type Of = T;
}

impl<T: ?Sized> Answers for Returned<T> {}

/// The shape of a type, if it tells one: `shape!(Say, shapes)`.
#[macro_export]
macro_rules! shape {
    ($type:ty, $shapes:expr) => {{
        #[allow(unused_imports, reason = "the type decides whether it is needed")]
        use $crate::gateway::schema::NoShape as _;
        $crate::gateway::schema::Shape::<$type>::new().of($shapes)
    }};
}

/// Tells what a handler answers that returns a type: `reply_shape!(Result<u8, E>, shapes)`.
#[macro_export]
macro_rules! reply_shape {
    ($type:ty, $shapes:expr) => {{
        #[allow(unused_imports, reason = "the type decides which of them is needed")]
        use $crate::gateway::schema::{Answers as _, NoShape as _};
        let answer = $crate::gateway::schema::Returned::<$type>::new()
            .open()
            .open();
        if answer.answers() {
            let shape = answer.shape().of($shapes);
            $shapes.reply(shape);
        }
    }};
}
