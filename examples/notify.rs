//! Two audiences on one port: chat in the global registry, notifications in one of their own;
//! with guards, an interceptor and an exception filter around them.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::json;
use tidegate::prelude::*;
use tokio::time::Instant;

struct NotifyNs;

/// Pushes to whoever listens on `/notify`, with no client at hand.
#[injectable]
struct AdminNotifier {
    #[inject]
    server: Arc<WsServer<NotifyNs>>,
}

impl AdminNotifier {
    fn shout(&self, text: &str) {
        let _ = self.server.broadcast("alert", &text);
    }
}

#[injectable]
struct NotBanned;

impl UpgradeGuard for NotBanned {
    async fn can_upgrade(&self, context: &UpgradeContext<'_>) -> bool {
        !context.caller().has_role("banned")
    }
}

#[injectable]
struct Timing;

impl Interceptor for Timing {
    async fn intercept(&self, context: &ExecutionContext<'_>, next: Next<'_>) -> WsReply {
        let started = Instant::now();
        let reply = next.run().await;
        let us = started.elapsed().as_micros();
        let timing = json!({ "event": context.event(), "us": u64::try_from(us).ok() });
        let _ = context.client().emit("timing", &timing);
        reply
    }
}

/// What `fail` is asked for, and fails with.
#[derive(Deserialize, thiserror::Error, Debug)]
#[serde(rename_all = "lowercase")]
enum Failure {
    #[error("short and stout")]
    Teapot,
    #[error("nothing to see")]
    Silent,
    #[error("short and stout")]
    Close,
    #[error("plain failure")]
    Plain,
    #[error("a handler that panics has no error")]
    Panic,
}

#[injectable]
struct TeapotFilter;

impl ExceptionFilter for TeapotFilter {
    fn catch(&self, exception: &Exception, _: &WsArgumentsHost<'_>) -> Caught {
        let error = exception.message();
        match exception.downcast_ref::<Failure>() {
            Some(Failure::Teapot) => Caught::replace(json!({ "error": error, "code": 418 })),
            Some(Failure::Silent) => Caught::Swallow,
            Some(Failure::Close) => Caught::close(CloseCode::own(4418), error),
            Some(Failure::Plain | Failure::Panic) | None => Caught::Pass,
        }
    }
}

#[gateway(path = "/chat", interceptors(Timing))]
struct ChatGateway {
    #[inject]
    notifier: Arc<AdminNotifier>,
    #[inject]
    server: Arc<WsServer>,
}

#[messages]
impl ChatGateway {
    #[on_connect]
    async fn welcome(&self, client: &WsClient) {
        let _ = client.emit("welcome", &json!({ "conn_id": client.id() }));
    }

    #[on_disconnect]
    async fn bye(&self, client: &WsClient) {
        let _ = client.broadcast("bye", &client.id());
    }

    #[subscribe_message("say")]
    async fn say(&self, #[message_body("text")] text: String, client: &WsClient) {
        let _ = client.broadcast("said", &json!({ "text": text }));
    }

    #[subscribe_message("presence")]
    async fn presence(&self) -> Result<usize, SendError> {
        self.server.connection_count()
    }

    #[subscribe_message("shout")]
    #[use_guards(RoleGuard<Admin>)]
    async fn shout(&self, #[message_body("text")] text: String) {
        self.notifier.shout(&text);
    }

    #[subscribe_message("fail")]
    #[use_filters(TeapotFilter)]
    async fn fail(&self, #[message_body("how")] how: Failure) -> Result<(), Failure> {
        match how {
            Failure::Panic => panic!("as the client wished"),
            other => Err(other),
        }
    }
}

#[gateway(path = "/notify", namespace = NotifyNs, guards(NotBanned))]
struct NotifyGateway;

#[messages]
impl NotifyGateway {
    #[on_connect]
    async fn welcome(&self, client: &WsClient) {
        let _ = client.emit("welcome", &json!({ "conn_id": client.id() }));
    }

    #[subscribe_message("ping")]
    async fn ping(&self, client: &WsClient) {
        let _ = client.broadcast("pong", &"hi");
    }
}

#[module(providers = [AdminNotifier], gateways = [ChatGateway, NotifyGateway])]
pub(crate) struct NotifyModule;

fn main() -> tidegate::Result<()> {
    Ok(Server::from_args()?.module::<NotifyModule>().run()?)
}
