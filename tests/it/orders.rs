//! The shipped example `orders`, request by request and frame by frame: routes of one's own beside
//! relay handlers. Knows the example as a module.

use tidegate::auth::Claims;

use crate::harness::http::{Answer, ask, request};
use crate::harness::{Client, Plan, Site, both_shards, tenant, token, token_of};

#[expect(dead_code, reason = "its `main` serves, which a test does not")]
#[path = "../../examples/orders.rs"]
mod example;

fn start(shards: u16) -> Site {
    Plan::new(shards).with(example::register).start()
}

fn rest(site: &Site, method: &str, path: &str, body: &str) -> Answer {
    ask(
        site.address,
        &request(method, path, Some(&token("demo", "svc")), body),
    )
}

fn present(site: &Site, room: &str) -> String {
    rest(site, "GET", &format!("/rooms/{room}/members"), "").body
}

both_shards! {
    /// R-19, R-23, C-26: a route answers and pushes, also when nobody listens
    fn an_order_is_pushed_to_who_listens(shards) {
        let site = start(shards);
        let made = rest(&site, "POST", "/orders", r#"{"item":"tea","total":42.5}"#);
        let id = made.body.split([':', ',']).nth(1).unwrap().parse::<u64>().unwrap();
        assert_eq!((made.status, made.body), (200, format!(r#"{{"id":{id},"item":"tea","total":42.5}}"#)));
        let mut ada = site.join("demo", "ada");
        ada.subscribe("orders:new");
        let made = rest(&site, "POST", "/orders", r#"{"item":"cup","total":7.0}"#).body;
        ada.expect_push("orders:new", "created", &made);
        assert_eq!(rest(&site, "POST", "/orders", r#"{"item":"tea"}"#).status, 422);
        assert_eq!(rest(&site, "POST", "/orders", "{").status, 400);
        let nobody = request("POST", "/orders", None, r#"{"item":"tea","total":1.0}"#);
        assert_eq!(ask(site.address, &nobody).status, 401);
        ada.expect_nothing();
    }

    /// R-15, R-18, D-17, D-18: who comes and goes, with counts that are right
    fn a_room_tells_who_comes_and_goes(shards) {
        let site = start(shards);
        let (mut ada, mut bob) = site.join_two("demo");
        ada.subscribe("room:a");
        ada.expect_push("room:a", "user_joined", r#"{"user_id":"ada","online":1}"#);
        bob.subscribe("room:a");
        for client in [&mut ada, &mut bob] {
            client.expect_push("room:a", "user_joined", r#"{"user_id":"bob","online":2}"#);
        }
        bob.say("room:a", "typing", r#"{"n": 1.50}"#);
        for client in [&mut ada, &mut bob] {
            client.expect_push("room:a", "typing", r#"{"n": 1.50}"#);
        }
        let told = rest(&site, "POST", "/rooms/a/announce", r#"{"message":"hi"}"#);
        assert_eq!((told.status, told.body.as_str()), (200, ""));
        for client in [&mut ada, &mut bob] {
            client.expect_push("room:a", "announcement", r#"{"message":"hi"}"#);
        }
        let members = present(&site, "a");
        assert!(members.starts_with(r#"{"count":2,"members":[{"conn_id":1,"meta":{"user_id":"ada"}}"#), "{members}");
        bob.vanish();
        ada.expect_push("room:a", "user_left", r#"{"user_id":"bob","online":1}"#);
    }

    /// R-12, R-13: the exact pattern beats the prefix
    fn a_quiet_room_counts_and_says_nothing(shards) {
        let site = start(shards);
        let mut ada = site.join("demo", "ada");
        ada.subscribe("room:quiet");
        ada.say("room:quiet", "x", "1");
        ada.expect_nothing();
        assert_eq!(present(&site, "quiet"), r#"{"count":1,"members":[{"conn_id":1,"meta":{"user_id":"ada"}}]}"#);
    }

    /// R-14: whoever is refused leaves nothing behind
    fn a_room_of_admins_refuses_others(shards) {
        let site = start(shards);
        let mut ada = site.join("demo", "ada");
        ada.send(r#"{"type":"subscribe","topic":"room:vip:x"}"#);
        ada.expect(r#"{"type":"error","message":"join rejected: members only"}"#);
        assert_eq!(present(&site, "vip:x"), r#"{"count":0,"members":[]}"#);
        let claims = Claims::new(tenant("demo"), "root").role("admin");
        let mut root = Client::connect(site.address, "/ws", &token_of(&claims, 60));
        root.subscribe("room:vip:x");
        root.say("room:vip:x", "say", "\"hi\"");
        root.expect_push("room:vip:x", "vip:say", "\"hi\"");
        ada.expect_nothing();
    }
}
