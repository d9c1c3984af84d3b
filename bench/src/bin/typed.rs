//! A server whose gateway answers a typed event with the same bytes, beside a raw echo that the
//! configuration mounts. For the comparison of the two.

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

#[module(gateways = [TypedGateway])]
struct TypedModule;

fn main() -> tidegate::Result<()> {
    let server = Server::from_args()?.module::<TypedModule>();
    Ok(server.public_route("GET", "/typed").run()?)
}
