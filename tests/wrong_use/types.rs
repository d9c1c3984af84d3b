//! Attributes around types that do not fit. A comment `//~` holds what the compiler says to its
//! line.

use std::sync::Arc;

use tidegate::prelude::*;

/// Fits nowhere.
struct Nothing;

#[injectable]
struct Doors;

impl UpgradeGuard for Doors {
    async fn can_upgrade(&self, _: &UpgradeContext<'_>) -> bool {
        true
    }
}

#[gateway(path = "/empty")]
struct Empty; //~ put `#[messages]` on an `impl Empty` block

#[module(gateways = [Empty])]
struct EmptyModule;

#[module(gateways = [Nothing])] //~ put `#[gateway(path = "/..")]` on the struct `Nothing`
struct NoGateway;

#[module(providers = [Nothing])] //~ put `#[injectable]` on the struct `Nothing`
struct NoService;

#[module(imports = [Nothing])] //~ put `#[module(providers = [..], gateways = [..])]` on the struct `Nothing`
struct NoModule;

async fn plain() {}

#[module(relays = [plain])] //~ put `#[relay("pattern")]` on the function
struct NoRelay;

#[injectable]
struct Bare {
    #[inject]
    doors: Doors, //~ a service is shared: inject `Arc<Doors>`
}

#[gateway(path = "/inner", interceptors(Nothing))] //~ implement `Interceptor` for `Nothing`
struct Intercepted;

#[messages]
impl Intercepted {}

#[gateway(path = "/errors", filters(Nothing))] //~ implement `ExceptionFilter` for `Nothing`
struct Filtered;

#[messages]
impl Filtered {}

#[gateway(path = "/chat")]
struct Chat;

#[messages]
impl Chat {
    #[subscribe_message("guarded")]
    #[use_guards(Doors)] //~ `#[use_guards(..)]` on a method takes what implements `MessageGuard`
    async fn guarded(&self) {}

    #[subscribe_message("payload")]
    async fn payload(&self, payload: Nothing) {} //~ consider adding `#[derive(serde::Deserialize)]`

    #[subscribe_message("answer")]
    async fn answer(&self) -> Nothing { //~ consider adding `#[derive(serde::Serialize)]`
        Nothing
    }

    #[subscribe_message("error")]
    async fn error(&self) -> Result<(), Nothing> { //~ `Nothing` doesn't implement `std::fmt::Display`
        Err(Nothing)
    }
}

fn main() {}
