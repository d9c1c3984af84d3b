//! Mounts: what is spoken on a path is decided there, before the first frame. Knows the frames of
//! all dialects, and that none of them is understood elsewhere.

use tidegate::auth::Claims;
use tidegate::gateway::socket::echo;
use tidegate::prelude::*;
use tidegate::testing::TestServer;

use crate::harness::{Client, Plan, both_shards, tenant, token};

/// Two gateways of one shape, each on a path of its own.
macro_rules! gateway_on {
    ($gateway:ident, $path:literal) => {
        #[gateway(path = $path)]
        #[derive(Default)]
        struct $gateway;

        #[messages]
        impl $gateway {
            #[subscribe_message("where")]
            async fn place(&self) -> &'static str {
                $path
            }

            #[subscribe_message("leave")]
            async fn leave(&self, client: &WsClient) -> Result<(), SendError> {
                client.disconnect(CloseCode::own(4000), "as you wish")
            }
        }
    };
}

gateway_on!(Events, "/events");
gateway_on!(Private, "/private/inside");

fn gateways(app: &mut App) {
    app.gateway::<Events>().gateway::<Private>();
}

both_shards! {
    /// D-01, P-01: one frame on four mounts is four things, and never what another mount speaks
    fn the_mount_decides_the_dialect(shards) {
        let site = Plan::new(shards)
            .raw("/raw", echo)
            .with(|server| server.app(gateways))
            .start();
        let connect = |path: &str| Client::connect(site.address, path, &token("demo", "ada"));
        let event = r#"{"event":"where"}"#;
        let relay = r#"{"type":"subscribe","topic":"t"}"#;
        for path in ["/events", "/private/inside"] {
            let mut client = connect(path);
            client.ask(event, &format!(r#"{{"event":"where","data":"{path}"}}"#));
            client.ask(relay, r#"{"event":"error","data":{"error":"invalid envelope"}}"#);
        }
        let mut client = connect("/ws");
        client.ask(relay, r#"{"type":"subscribed","topic":"t"}"#);
        client.send(event);
        let answer = client.receive();
        assert!(answer.starts_with(r#"{"type":"error","message":""#), "{answer}");
        let mut client = Client::connect_public(site.address, "/raw");
        client.ask(event, event);
        client.ask(relay, relay);
    }
}

/// X-13: the driver that users have upgrades for real, is refused for real, and expects a close.
#[test]
fn the_driver_of_users_sees_what_a_client_sees() {
    let server = TestServer::start(|server| server.app(gateways));
    let mut ada = server.connect("/events", "ada");
    ada.ask(
        r#"{"event":"where"}"#,
        r#"{"event":"where","data":"/events"}"#,
    );
    ada.send(r#"{"event":"leave"}"#);
    ada.expect_close(4_000, "as you wish");
    let claims = Claims::new(tenant("demo"), "ada");
    assert_eq!(server.try_connect("/nowhere", &claims).err(), Some(404));
}
