//! A server whose gateway answers a typed event with the same bytes, beside the same over Socket.IO and
//! a raw echo that the configuration mounts. For the comparison of the three.

use std::sync::Arc;

use tidegate::prelude::*;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What somebody says.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Said {
    author: String,
    text: String,
}

#[gateway(path = "/typed")]
struct TypedGateway;

#[messages]
impl TypedGateway {
    #[subscribe_message("message")]
    async fn message(&self, said: Said) -> Said {
        said
    }
}

/// The same event over Socket.IO, and a room.
#[gateway(path = "/socket.io", adapter = SocketIo, namespace = Rooms)]
struct SocketIoGateway {
    #[inject]
    server: Arc<WsServer<Rooms>>,
}

/// Who is there over Socket.IO.
struct Rooms;

#[messages]
impl SocketIoGateway {
    #[subscribe_message("message")]
    async fn message(&self, said: serde_json::Value) -> serde_json::Value {
        said
    }

    #[subscribe_message("typed")]
    async fn typed(&self, said: Said) -> Reply {
        Reply::event("typed", said)
    }

    #[subscribe_message("join")]
    async fn join(&self, room: String, client: &WsClient) -> Result<(), SendError> {
        client.join(&room)
    }

    #[subscribe_message("say")]
    async fn say(&self, said: Args<(String, String)>) {
        let _ = self.server.room(&said.0.0).emit("said", &said.0.1);
    }
}

#[module(gateways = [TypedGateway, SocketIoGateway])]
struct TypedModule;

fn main() -> tidegate::Result<()> {
    let server = Server::from_args()?.module::<TypedModule>();
    Ok(server
        .public_route("GET", "/typed")
        .public_route("GET", "/socket.io")
        .run()?)
}
