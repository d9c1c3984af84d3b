//! The events of `/chat`.

use serde_json::json;
use tidegate::prelude::*;

#[gateway(path = "/chat")]
#[derive(Default)]
pub(crate) struct ChatGateway;

#[messages]
impl ChatGateway {
    #[on_connect]
    async fn welcome(&self, client: &WsClient) {
        let _ = client.emit("welcome", &json!({ "conn_id": client.id() }));
    }

    #[subscribe_message("ping")]
    async fn ping(&self) -> Reply {
        Reply::event("pong", json!({}))
    }

    #[subscribe_message("message")]
    async fn message(&self, text: String, client: &WsClient) -> Result<(), SendError> {
        client.broadcast("message", &text)?;
        Ok(())
    }
}
