//! Routes of one's own beside relay topics: an order is pushed to who listens, and rooms tell
//! who comes and goes.

use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tidegate::{CurrentUser, Relay, RelayConfig, RelayEvent, SendError, Server};

#[derive(Deserialize)]
struct NewOrder {
    item: String,
    total: f64,
}

#[derive(Serialize)]
struct Order {
    id: u64,
    item: String,
    total: f64,
}

#[derive(Deserialize, Serialize)]
struct Announcement {
    message: String,
}

/// What a request fails with when a push does.
struct NotSent(SendError);

impl From<SendError> for NotSent {
    fn from(error: SendError) -> Self {
        Self(error)
    }
}

impl IntoResponse for NotSent {
    fn into_response(self) -> Response {
        (StatusCode::SERVICE_UNAVAILABLE, self.0.to_string()).into_response()
    }
}

async fn create_order(relay: Relay, Json(new): Json<NewOrder>) -> Result<Json<Order>, NotSent> {
    static LAST_ID: AtomicU64 = AtomicU64::new(0);
    let id = LAST_ID.fetch_add(1, Ordering::Relaxed) + 1;
    let order = Order {
        id,
        item: new.item,
        total: new.total,
    };
    relay.push("orders:new", "created", &order).await?;
    Ok(Json(order))
}

async fn announce(
    relay: Relay,
    Path(room): Path<String>,
    Json(body): Json<Announcement>,
) -> Result<StatusCode, NotSent> {
    relay
        .push(&format!("room:{room}"), "announcement", &body)
        .await?;
    Ok(StatusCode::OK)
}

async fn members(relay: Relay, Path(room): Path<String>) -> Result<Json<Value>, NotSent> {
    let members = relay.presence(&format!("room:{room}")).await?;
    Ok(Json(json!({ "count": members.len(), "members": members })))
}

async fn room(event: RelayEvent, relay: Relay, user: CurrentUser) -> tidegate::Result<()> {
    let topic = event.topic();
    match &event {
        RelayEvent::Join { conn_id, .. } => {
            relay
                .track(topic, *conn_id, json!({ "user_id": user.id }))
                .await?;
            tell(&relay, topic, "user_joined", &user).await
        }
        RelayEvent::Message { event, payload, .. } => Ok(relay.push(topic, event, payload).await?),
        RelayEvent::Leave { .. } => tell(&relay, topic, "user_left", &user).await,
    }
}

#[derive(Serialize)]
struct Moved<'a> {
    user_id: &'a str,
    online: usize,
}

async fn tell(relay: &Relay, topic: &str, event: &str, user: &CurrentUser) -> tidegate::Result<()> {
    let online = relay.presence_count(topic).await?;
    Ok(relay
        .push(
            topic,
            event,
            &Moved {
                user_id: &user.id,
                online,
            },
        )
        .await?)
}

async fn quiet(event: RelayEvent, relay: Relay, user: CurrentUser) -> tidegate::Result<()> {
    if let RelayEvent::Join { topic, conn_id } = &event {
        relay
            .track(topic, *conn_id, json!({ "user_id": user.id }))
            .await?;
    }
    Ok(())
}

async fn vip(event: RelayEvent, relay: Relay, user: CurrentUser) -> tidegate::Result<()> {
    match &event {
        RelayEvent::Join { topic, conn_id } => {
            relay
                .track(topic, *conn_id, json!({ "user_id": user.id }))
                .await?;
            if !user.roles.iter().any(|role| role == "admin") {
                return Err(tidegate::Error::msg("members only"));
            }
            Ok(())
        }
        RelayEvent::Message {
            topic,
            event,
            payload,
            ..
        } => Ok(relay.push(topic, &format!("vip:{event}"), payload).await?),
        RelayEvent::Leave { .. } => Ok(()),
    }
}

fn main() -> tidegate::Result<()> {
    let router = Router::new()
        .route("/orders", post(create_order))
        .route("/rooms/{room}/announce", post(announce))
        .route("/rooms/{room}/members", get(members));
    Server::from_args()?
        .relay_config(RelayConfig::default())
        .relay("room:*", room)
        .relay("room:quiet", quiet)
        .relay("room:vip:*", vip)
        .router(router)
        .run()?;
    Ok(())
}
