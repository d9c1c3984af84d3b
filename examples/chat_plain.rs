//! The chat without a macro: what they write, written by hand. It serves the same frames.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tidegate::gateway::container::{Dependency, Injectable, Resolver, StartError};
use tidegate::gateway::table::{Messages, Table};
use tidegate::prelude::*;
use tidegate::{answer, take};

#[derive(Clone, Serialize, Deserialize)]
struct ChatMessage {
    author: String,
    text: String,
}

#[derive(Deserialize)]
struct Send {
    #[serde(flatten)]
    message: ChatMessage,
    room: Option<String>,
}

#[derive(Deserialize)]
struct Room {
    name: String,
}

#[derive(Debug, thiserror::Error)]
enum ChatError {
    #[error("author `{0}` is not allowed to post")]
    Banned(String),
    #[error("text must not be empty")]
    Empty,
    #[error(transparent)]
    NotSent(#[from] SendError),
}

struct ChatGateway {
    server: Arc<WsServer>,
    history: Mutex<AHashMap<Tenant, VecDeque<ChatMessage>>>,
}

impl Injectable for ChatGateway {
    fn dependencies() -> Vec<Dependency> {
        vec![Dependency::of::<WsServer>()]
    }

    fn build(resolver: &Resolver<'_>) -> Result<Self, StartError> {
        let server = resolver.service()?;
        Ok(Self {
            server,
            history: Mutex::default(),
        })
    }
}

impl Gateway for ChatGateway {
    const PATH: &'static str = "/chat";
    type Namespace = Global;
}

impl Messages for ChatGateway {
    fn bind(table: &mut Table<Self>) {
        table.on("message", |call, data| {
            let new = take!(ChatMessage, &call, data)?;
            Ok(async move { answer!(call.event(), call.gateway().message(new, call.client())) })
        });
        table.on("history", |call, _| {
            Ok(async move { answer!(call.event(), call.gateway().history(call.client())) })
        });
        table.on("presence", |call, _| {
            Ok(async move { answer!(call.event(), call.gateway().server.connection_count()) })
        });
        table.on("send", |call, data| {
            let send = take!(Send, &call, data)?;
            Ok(async move { answer!(call.event(), call.gateway().send(send, call.client())) })
        });
        table.on("typing", |call, data| {
            let message = take!(ChatMessage, &call, data)?;
            let _ = call.client().broadcast("typing", &message);
            Ok(async { Reply::none() })
        });
        table.on("join", |call, data| {
            let Room { name } = take!(Room, &call, data)?;
            let joined = call.client().join(&name);
            Ok(async move { answer!(call.event(), joined.map(|()| moved("joined", &name))) })
        });
        table.on("leave", |call, data| {
            let Room { name } = take!(Room, &call, data)?;
            let left = call.client().leave(&name);
            Ok(async move { answer!(call.event(), left.map(|()| moved("left", &name))) })
        });
        table.on("ping", |_, _| Ok(async { Reply::event("pong", json!({})) }));
        table.on_disconnect(|call| {
            let (client, sub) = (call.client(), call.client().user().id);
            for room in client.rooms() {
                let _ = client.to(&room, "gone", &json!({ "room": room, "sub": sub }));
            }
            Ok(async { Reply::none() })
        });
    }
}

fn moved(event: &str, room: &str) -> Reply {
    Reply::raw(json!({ "event": event, "room": room }))
}

impl ChatGateway {
    fn message(&self, new: ChatMessage, client: &WsClient) -> Result<ChatMessage, ChatError> {
        match new.author.as_str() {
            "banned" => Err(ChatError::Banned(new.author)),
            _ => Ok(self.record(client, new)),
        }
    }

    fn send(&self, send: Send, client: &WsClient) -> Result<ChatMessage, ChatError> {
        let Send { message, room } = send;
        if message.text.is_empty() {
            return Err(ChatError::Empty);
        }
        if let Some(room) = room {
            client.to(&room, "message", &message)?;
        }
        Ok(self.record(client, message))
    }

    fn record(&self, client: &WsClient, message: ChatMessage) -> ChatMessage {
        let mut tenants = self.history.lock();
        let history = tenants.entry(client.tenant().clone()).or_default();
        if history.len() == 100 {
            history.pop_front();
        }
        history.push_back(message.clone());
        message
    }

    fn history(&self, client: &WsClient) -> VecDeque<ChatMessage> {
        let tenants = self.history.lock();
        tenants.get(client.tenant()).cloned().unwrap_or_default()
    }
}

pub(crate) fn register(app: &mut App) {
    app.gateway::<ChatGateway>();
}

fn main() -> tidegate::Result<()> {
    Ok(Server::from_args()?.app(register).run()?)
}
