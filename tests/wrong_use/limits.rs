//! Numbers in types that cannot be meant. A comment `//~` holds what the compiler says to
//! its type.

use tidegate::prelude::*;

#[gateway(path = "/chat")]
#[derive(Default)]
struct Chat;

#[messages]
impl Chat {
    #[subscribe_message("none")]
    #[use_interceptors(RateLimit<0, 1_000>)] //~ RateLimit::<0, 1000>::PER
    async fn none(&self) {}

    #[subscribe_message("all")]
    #[use_interceptors(RateLimit<10, 0>)] //~ RateLimit::<10, 0>::PER
    async fn all(&self) {}
}

#[module(gateways = [Chat])]
struct ChatModule;

fn main() -> tidegate::Result<()> {
    Ok(Server::from_args()?.module::<ChatModule>().run()?)
}
