//! A chat room: typed events, replies by return type, rooms, and a history for each tenant.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tidegate::prelude::*;

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(crate = "tidegate::schemars")]
struct ChatMessage {
    author: String,
    text: String,
}

#[derive(Deserialize, JsonSchema)]
#[schemars(crate = "tidegate::schemars")]
struct Send {
    #[serde(flatten)]
    message: ChatMessage,
    room: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[schemars(crate = "tidegate::schemars")]
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

/// The last 100 messages of each tenant.
#[injectable]
#[derive(Default)]
struct History {
    tenants: Mutex<AHashMap<Tenant, VecDeque<ChatMessage>>>,
}

impl History {
    fn record(&self, client: &WsClient, message: ChatMessage) -> ChatMessage {
        let mut tenants = self.tenants.lock();
        let history = tenants.entry(client.tenant().clone()).or_default();
        if history.len() == 100 {
            history.pop_front();
        }
        history.push_back(message.clone());
        message
    }
}

#[gateway(path = "/chat", emits("message" = ChatMessage, "typing" = ChatMessage))]
struct ChatGateway {
    #[inject]
    history: Arc<History>,
    #[inject]
    server: Arc<WsServer>,
}

#[messages]
impl ChatGateway {
    #[subscribe_message("message")]
    async fn message(&self, new: ChatMessage, client: &WsClient) -> Result<ChatMessage, ChatError> {
        match new.author.as_str() {
            "banned" => Err(ChatError::Banned(new.author)),
            _ => Ok(self.history.record(client, new)),
        }
    }

    #[subscribe_message("history")]
    async fn history(&self, client: &WsClient) -> VecDeque<ChatMessage> {
        let tenants = self.history.tenants.lock();
        tenants.get(client.tenant()).cloned().unwrap_or_default()
    }

    #[subscribe_message("presence")]
    async fn presence(&self) -> Result<usize, SendError> {
        self.server.connection_count()
    }

    #[subscribe_message("send")]
    async fn send(&self, send: Send, client: &WsClient) -> Result<ChatMessage, ChatError> {
        let Send { message, room } = send;
        if message.text.is_empty() {
            return Err(ChatError::Empty);
        }
        if let Some(room) = room {
            client.to(&room, "message", &message)?;
        }
        Ok(self.history.record(client, message))
    }

    #[subscribe_message("typing")]
    async fn typing(&self, message: ChatMessage, client: &WsClient) {
        let _ = client.broadcast("typing", &message);
    }

    #[subscribe_message("join")]
    async fn join(&self, room: Room, client: &WsClient) -> Result<Reply, SendError> {
        client.join(&room.name)?;
        Ok(Reply::raw(json!({ "event": "joined", "room": room.name })))
    }

    #[subscribe_message("leave")]
    async fn leave(&self, room: Room, client: &WsClient) -> Result<Reply, SendError> {
        client.leave(&room.name)?;
        Ok(Reply::raw(json!({ "event": "left", "room": room.name })))
    }

    #[subscribe_message("ping")]
    async fn ping(&self) -> Reply {
        Reply::event("pong", json!({}))
    }

    #[on_disconnect]
    async fn gone(&self, client: &WsClient, user: CurrentUser) {
        for room in client.rooms() {
            let _ = client.to(&room, "gone", &json!({ "room": room, "sub": user.id }));
        }
    }
}

#[module(providers = [History], gateways = [ChatGateway])]
pub(crate) struct ChatModule;

/// The page at `/chat.html`, open to all: it asks for a token.
pub(crate) fn page() -> axum::Router {
    let page = || async { axum::response::Html(include_str!("chat.html")) };
    axum::Router::new().route("/chat.html", axum::routing::get(page))
}

fn main() -> tidegate::Result<()> {
    let server = Server::from_args()?.module::<ChatModule>();
    Ok(server
        .router(page())
        .public_route("GET", "/chat.html")
        .run()?)
}
