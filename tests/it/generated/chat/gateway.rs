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

#[cfg(test)]
mod tests {
    use tidegate::testing::TestServer;

    use super::super::ChatModule;

    #[test]
    fn a_ping_is_answered_and_a_message_reaches_all() {
        let server = TestServer::start(|server| server.module::<ChatModule>());
        let mut ada = server.connect("/chat", "ada");
        ada.expect(r#"{"event":"welcome","data":{"conn_id":1}}"#);
        ada.ask(r#"{"event":"ping"}"#, r#"{"event":"pong","data":{}}"#);
        let message = r#"{"event":"message","data":"hi"}"#;
        ada.ask(message, message);
    }
}
