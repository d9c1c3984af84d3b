//! What is checked before the server listens, and what it says when it does.

use std::sync::Arc;

use parking_lot::Mutex;
use tidegate_macros::{gateway, injectable, messages, module};

use super::block_on;
use crate::gateway::client::WsClient;
use crate::gateway::module::App;
use crate::gateway::server::WsServer;

struct LonelyNs;

#[injectable]
struct Shouter {
    #[inject]
    _server: Arc<WsServer<LonelyNs>>,
}

#[derive(Default)]
struct Seen(Mutex<Vec<String>>);

#[gateway(path = "/ws")]
#[derive(Default)]
struct ChatGateway;

#[messages]
impl ChatGateway {
    #[subscribe_message("ping")]
    async fn ping(&self) {}

    #[after_init]
    async fn ready(&self, server: &WsServer, seen: Arc<Seen>) {
        let count = server.all_tenants().connection_count();
        seen.0.lock().push(format!("ready {count}"));
    }

    #[on_connect]
    fn hello(&self, _client: &WsClient) {}
}

#[gateway(path = "/notify", namespace = LonelyNs)]
struct NotifyGateway;

#[messages]
impl NotifyGateway {}

#[gateway(path = "notify/")]
struct Rival;

#[messages]
impl Rival {}

#[gateway(path = "/fails")]
struct Failing;

#[messages]
impl Failing {
    #[after_init]
    async fn ready(&self) -> Result<(), &'static str> {
        Err("no database")
    }

    #[subscribe_message("x")]
    async fn wants(&self, _seen: Arc<Seen>) {}
}

#[module(gateways = [ChatGateway])]
struct ChatModule;

#[module(imports = [ChatModule], providers = [Shouter], gateways = [NotifyGateway])]
struct Root;

/// N-12, byte for byte, singular and plural.
#[test]
fn the_log_names_what_is_bound() {
    let mut app = App::new();
    app.provide(Seen::default())
        .module::<Root>()
        .module::<ChatModule>();
    let program = app.build().unwrap();
    assert_eq!(
        program.boot_lines("0.0.0.0:3004".parse().unwrap()),
        [
            "bound 2 gateways on 0.0.0.0:3004",
            "GET /ws -> ChatGateway (1 message, 2 lifecycle hooks)",
            "GET /notify -> NotifyGateway (0 messages, 0 lifecycle hooks)",
        ]
    );
    let mut app = App::new();
    app.provide(Seen::default()).gateway::<Failing>();
    assert_eq!(
        app.build()
            .unwrap()
            .boot_lines("127.0.0.1:1".parse().unwrap()),
        [
            "bound 1 gateway on 127.0.0.1:1",
            "GET /fails -> Failing (1 message, 1 lifecycle hook)",
        ]
    );
}

/// N-13: a registry that no gateway uses.
#[test]
fn a_registry_that_no_gateway_uses_is_an_error() {
    let mut app = App::new();
    app.provider::<Shouter>();
    let error = app.build().unwrap_err().to_string();
    assert_eq!(
        error,
        "`WsServer<LonelyNs>` is not provided (wanted by Shouter): no gateway uses this \
         registry; mount one with `namespace = LonelyNs`"
    );
}

/// D-02, X-11, X-30.
#[test]
fn two_gateways_on_one_path_are_an_error() {
    let mut app = App::new();
    app.gateway::<NotifyGateway>().gateway::<Rival>();
    let error = app.build().unwrap_err().to_string();
    let start = "`NotifyGateway` and `Rival` are both mounted on `/notify`";
    assert!(error.starts_with(start), "{error}");
}

#[test]
fn what_an_argument_asks_for_is_checked_at_start() {
    let mut app = App::new();
    app.gateway::<Failing>();
    let error = app.build().unwrap_err().to_string();
    assert!(
        error.starts_with("`Seen` is not provided (wanted by Failing `x`)"),
        "{error}"
    );
}

/// P-03, P-09.
#[test]
fn after_init_runs_once_and_may_stop_the_start() {
    let mut app = App::new();
    app.provide(Seen::default()).module::<Root>();
    let program = app.build().unwrap();
    block_on(program.after_init()).unwrap();
    assert_eq!(
        *program.container().get::<Seen>().unwrap().0.lock(),
        ["ready 0"]
    );

    let mut app = App::new();
    app.provide(Seen::default()).gateway::<Failing>();
    let failed = block_on(app.build().unwrap().after_init()).unwrap_err();
    assert_eq!(failed.to_string(), "an after_init hook failed: no database");
}
