//! A program as the guide shows it: two gateways, everything told by its command line.

use tidegate::prelude::*;

#[gateway(path = "/chat")]
struct Chat;

#[messages]
impl Chat {
    #[on_connect]
    async fn connected(&self) {}

    #[subscribe_message("one")]
    async fn one(&self) {}

    #[subscribe_message("two")]
    async fn two(&self) {}
}

struct NotifyNs;

#[gateway(path = "/notify", namespace = NotifyNs)]
struct Notify;

#[messages]
impl Notify {
    #[subscribe_message("one")]
    async fn one(&self) {}
}

async fn room(_event: RelayEvent) -> tidegate::Result<()> {
    Ok(())
}

fn main() -> tidegate::Result<()> {
    // A program may have a subscriber of its own, and then that one is asked.
    if std::env::var_os("OWN_SUBSCRIBER").is_some() {
        let own = tracing_subscriber::fmt().with_writer(std::io::stderr);
        own.with_ansi(false).without_time().init();
    }
    let server = Server::from_args()?.app(|app| {
        app.gateway::<Chat>().gateway::<Notify>();
    });
    let server = match std::env::var_os("WITH_RELAY_HANDLER") {
        Some(_) => server.relay("room:*", room),
        None => server,
    };
    Ok(server.run()?)
}
