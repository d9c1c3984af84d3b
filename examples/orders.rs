//! Routes of one's own beside relay topics: an order is pushed to who listens, and rooms tell
//! who comes and goes.

use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::Path;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tidegate::server::ServerBuilder;
use tidegate::{CurrentUser, Relay, RelayConfig, RelayEvent, SendError, Server};

#[derive(Deserialize, Serialize)]
struct Order {
    #[serde(skip_deserializing)]
    id: u64,
    item: String,
    total: f64,
}

#[derive(Deserialize, Serialize)]
struct Announcement {
    message: String,
}

async fn create_order(relay: Relay, order: Json<Order>) -> Result<Json<Order>, SendError> {
    static LAST_ID: AtomicU64 = AtomicU64::new(0);
    let Json(mut order) = order;
    order.id = LAST_ID.fetch_add(1, Ordering::Relaxed) + 1;
    relay.push("orders:new", "created", &order).await?;
    Ok(Json(order))
}

async fn announce(
    relay: Relay,
    Path(room): Path<String>,
    Json(body): Json<Announcement>,
) -> Result<StatusCode, SendError> {
    let topic = format!("room:{room}");
    relay.push(&topic, "announcement", &body).await?;
    Ok(StatusCode::OK)
}

async fn members(relay: Relay, Path(room): Path<String>) -> Result<Json<Value>, SendError> {
    let members = relay.presence(&format!("room:{room}")).await?;
    Ok(Json(json!({ "count": members.len(), "members": members })))
}

/// Tells who comes and goes, and passes on what they say.
async fn room(event: RelayEvent, relay: Relay, user: CurrentUser) -> tidegate::Result<()> {
    let topic = event.topic();
    match &event {
        RelayEvent::Join { conn_id, .. } => {
            relay.track(topic, *conn_id, meta(&user)).await?;
            tell(&relay, topic, "user_joined", &user).await
        }
        RelayEvent::Message { event, payload, .. } => Ok(relay.push(topic, event, payload).await?),
        RelayEvent::Leave { .. } => tell(&relay, topic, "user_left", &user).await,
    }
}

/// Shows who is there, and says nothing.
async fn quiet(event: RelayEvent, relay: Relay, user: CurrentUser) -> tidegate::Result<()> {
    if let RelayEvent::Join { topic, conn_id } = &event {
        relay.track(topic, *conn_id, meta(&user)).await?;
    }
    Ok(())
}

/// For admins: whoever is refused leaves no presence behind, though it was tracked.
async fn vip(event: RelayEvent, relay: Relay, user: CurrentUser) -> tidegate::Result<()> {
    let topic = event.topic();
    match &event {
        RelayEvent::Join { conn_id, .. } => {
            relay.track(topic, *conn_id, meta(&user)).await?;
            match user.roles.iter().any(|role| role == "admin") {
                true => Ok(()),
                false => Err(tidegate::Error::msg("members only")),
            }
        }
        RelayEvent::Message { event, payload, .. } => {
            let event = format!("vip:{event}");
            Ok(relay.push(topic, &event, payload).await?)
        }
        RelayEvent::Leave { .. } => Ok(()),
    }
}

fn meta(user: &CurrentUser) -> Value {
    json!({ "user_id": user.id })
}

#[derive(Serialize)]
struct Moved<'a> {
    user_id: &'a str,
    online: usize,
}

async fn tell(relay: &Relay, topic: &str, event: &str, user: &CurrentUser) -> tidegate::Result<()> {
    let online = relay.presence_count(topic).await?;
    let user_id = &user.id;
    Ok(relay.push(topic, event, &Moved { user_id, online }).await?)
}

/// All of it, on a server that is not started yet.
pub(crate) fn register(server: ServerBuilder) -> ServerBuilder {
    let routes = Router::new()
        .route("/orders", post(create_order))
        .route("/rooms/{room}/announce", post(announce))
        .route("/rooms/{room}/members", get(members));
    server
        .relay_config(RelayConfig::default())
        .relay("room:*", room)
        .relay("room:quiet", quiet)
        .relay("room:vip:*", vip)
        .router(routes)
}

fn main() -> tidegate::Result<()> {
    Ok(register(Server::from_args()?).run()?)
}
