//! What a gateway has once. A comment `//~` holds what the compiler says to its line.

use tidegate::prelude::*;

#[gateway(path = "/chat")]
struct Chat;

#[messages] //~ duplicate definitions with name `ALL_MESSAGES_OF_A_GATEWAY_STAND_IN_ONE_IMPL_BLOCK`
impl Chat {
    #[subscribe_message("one")]
    async fn one(&self) {}
}

#[messages] //~ conflicting implementations of trait `tidegate::gateway::table::Messages`
impl Chat {
    #[subscribe_message("two")]
    async fn two(&self) {}
}

fn main() {}
