//! Socket.IO: namespaces, acks both ways, rooms, bytes; and Engine.IO alone under a raw handler.

use std::sync::Arc;

use serde_json::{Value, json};
use tidegate::prelude::*;

/// Any argument, bytes wherever they stand in it.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
#[serde(untagged)]
enum Any {
    Bytes(Attachment),
    List(Vec<Self>),
    Fields(std::collections::BTreeMap<String, Self>),
    Plain(Value),
}

/// What all namespaces that are open to everybody do.
macro_rules! open_namespace {
    ($name:ident, $nsp:literal, $marker:ty) => {
        #[gateway(path = "/socket.io", adapter = SocketIo, nsp = $nsp, namespace = $marker)]
        struct $name {
            #[inject]
            server: Arc<WsServer<$marker>>,
            #[inject]
            recovery: Arc<Recovery>,
        }

        #[messages]
        impl $name {
            #[on_connect]
            async fn hello(&self, client: &WsClient) {
                if !self.recovery.is_on {
                    let _ = client.emit("auth", client.auth());
                }
            }

            #[subscribe_message("message")]
            async fn message(&self, args: Args<Vec<Any>>) -> Reply {
                Reply::event("message-back", args)
            }

            #[subscribe_message("message-with-ack")]
            async fn message_with_ack(&self, args: Args<Vec<Any>>) -> Args<Vec<Any>> {
                args
            }

            #[subscribe_message("nothing")]
            async fn nothing(&self) {}

            #[subscribe_message("join")]
            async fn join(&self, room: String, client: &WsClient) -> Result<(), SendError> {
                client.join(&room)
            }

            #[subscribe_message("leave")]
            async fn leave(&self, room: String, client: &WsClient) -> Result<(), SendError> {
                client.leave(&room)
            }

            #[subscribe_message("say")]
            async fn say(&self, said: Args<(String, Value)>, client: &WsClient) {
                let _ = client.to_others(&said.0.0, "said", &said);
            }

            #[subscribe_message("shout")]
            async fn shout(&self, args: Args<(Vec<String>, Value)>) {
                let Args((rooms, text)) = args;
                let mut rooms = rooms.into_iter();
                if let Some(first) = rooms.next() {
                    let to = rooms.fold(self.server.room(first), |to, room| to.room(room));
                    let _ = to.emit("shouted", &text);
                }
            }

            #[subscribe_message("whisper")]
            async fn whisper(&self, args: Args<(String, Value)>) {
                let _ = self.server.to(&args.0.0).emit("whispered", &args.0.1);
            }

            #[subscribe_message("but")]
            async fn but(&self, args: Args<(String, Value)>, client: &WsClient) {
                let to = client.scope().everyone().except_room(&args.0.0);
                let _ = to.emit("not-for-room", &args.0.1);
            }

            #[subscribe_message("ask")]
            #[concurrent]
            async fn ask(&self, how: Value, client: &WsClient) -> Value {
                let answer = client
                    .ask::<Args<Vec<Value>>>("question", &how)
                    .timeout(150);
                match answer.await {
                    Ok(Args(args)) => args.into(),
                    Err(_) => json!("timeout"),
                }
            }

            #[subscribe_message("poll-room")]
            #[concurrent]
            async fn poll_room(&self, room: String) -> Args<(bool, Vec<Value>)> {
                let votes = self
                    .server
                    .room(room)
                    .ask::<Value>("vote", &Args([(); 0]))
                    .timeout(150);
                match votes.await {
                    Ok(votes) => {
                        let replies = votes.replies.into_iter().map(|(_, vote)| vote);
                        Args((!votes.missing.is_empty(), replies.collect()))
                    }
                    Err(_) => Args((true, Vec::new())),
                }
            }

            #[subscribe_message("kick")]
            async fn kick(&self, client: &WsClient) {
                let _ = client.disconnect_nsp();
            }

            #[subscribe_message("cut")]
            async fn cut(&self, client: &WsClient) {
                let _ = client.disconnect(CloseCode::Normal, "cut");
            }

            #[subscribe_message("drop")]
            async fn drop(&self, client: &WsClient) {
                let _ = client.abort();
            }
        }
    };
}

/// Whether what clients missed is kept for them: then they are greeted by nothing.
#[injectable]
#[derive(Default)]
struct Recovery {
    is_on: bool,
}

struct Custom;
struct Guarded;

open_namespace!(Main, "/", Global);
open_namespace!(CustomGateway, "/custom", Custom);

#[injectable]
struct Good;

impl UpgradeGuard for Good {
    async fn can_upgrade(&self, context: &UpgradeContext<'_>) -> bool {
        context.auth()["token"] == "good" || context.deny_with(json!({ "code": 403 }))
    }
}

#[gateway(path = "/socket.io", adapter = SocketIo, nsp = "/guarded", namespace = Guarded, guards(Good))]
struct GuardedGateway;

#[messages]
impl GuardedGateway {
    #[subscribe_message("who")]
    async fn who(&self) -> &'static str {
        "guarded"
    }
}

#[module(providers = [Recovery], gateways = [Main, CustomGateway, GuardedGateway])]
pub(crate) struct SocketIoModule;

fn main() -> tidegate::Result<()> {
    Ok(Server::from_args()?
        .module::<SocketIoModule>()
        .public_route("GET", "/socket.io")
        .public_route("GET", "/engine.io")
        .engine_io("/engine.io", tidegate::gateway::socket::echo)
        .run()?)
}
