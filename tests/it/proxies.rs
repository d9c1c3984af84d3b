//! Behind a proxy: whose address is counted, listed and given to handlers, and that nobody else is
//! believed. Here 127.0.0.1 and 127.0.0.9 are proxies, and 127.0.0.2 is none.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::routing::get;
use tidegate::WebSocket;
use tidegate::config::{Config, Limits};
use tidegate::gateway::socket::echo;
use tidegate::prelude::*;
use tokio::sync::Notify;

use crate::harness::client::connected_from;
use crate::harness::http::Answer;
use crate::harness::wire::upgrade_request;
use crate::harness::{Opcode, Plan, Site, Wire, both_shards, eventually, token};

const PROXY: u8 = 1;
const STRANGER: u8 = 2;

/// Answers with the address of its client.
async fn tell(mut socket: WebSocket) {
    let peer = socket.peer().map(|peer| peer.ip().to_string());
    let _ = socket.send(peer.unwrap_or_default().into()).await;
}

#[gateway(path = "/event")]
struct WhoGateway;

#[messages]
impl WhoGateway {
    #[subscribe_message("who")]
    async fn who(&self, client: &WsClient) -> String {
        client.ip().to_string()
    }
}

#[module(gateways = [WhoGateway])]
struct WhoModule;

fn trust(config: &mut Config) {
    config.server.trusted_proxies = ["127.0.0.1", "127.0.0.9/32"]
        .map(|proxy| proxy.parse().unwrap())
        .to_vec();
}

fn plan(shards: u16, limits: impl Fn(&mut Limits)) -> Plan {
    Plan::new(shards)
        .config(trust)
        .limits(limits)
        .raw("/raw", echo)
        .raw("/tell", tell)
}

fn start(shards: u16, limits: impl Fn(&mut Limits)) -> Site {
    plan(shards, limits).start()
}

/// A connection from 127.0.0.`host`.
fn wire(site: &Site, host: u8) -> Wire {
    Wire::over(connected_from(Ipv4Addr::new(127, 0, 0, host), site.address))
}

fn forwarded(list: &str) -> String {
    format!("X-Forwarded-For: {list}")
}

/// An upgrade on a connection that may have been refused already.
fn upgrade(mut wire: Wire, target: &str, lines: &[&str]) -> (Wire, Answer) {
    let _ = wire.try_write(upgrade_request(target, lines).as_bytes());
    let answer = wire.read_answer();
    (wire, answer)
}

/// What is answered to an upgrade on `/raw` with this list, and the connection.
fn raw(site: &Site, host: u8, list: &str) -> (Wire, Answer) {
    upgrade(wire(site, host), "/raw", &[&forwarded(list)])
}

fn status(site: &Site, host: u8, list: &str) -> u16 {
    raw(site, host, list).1.status
}

/// A request with these header lines.
fn plain(target: &str, lines: &[&str]) -> String {
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    format!("GET {target} HTTP/1.1\r\nHost: x\r\n{lines}\r\n")
}

fn get_on(wire: &mut Wire, target: &str, lines: &[&str]) -> Answer {
    wire.write(plain(target, lines));
    wire.read_answer()
}

/// What `/tell` answers to a connection with these lines.
fn told(site: &Site, host: u8, lines: &[&str]) -> String {
    let (mut wire, answer) = upgrade(wire(site, host), "/tell", lines);
    assert_eq!(answer.status, 101, "{answer:?}");
    let (opcode, payload) = wire.read_frame();
    assert_eq!(opcode, Opcode::TEXT);
    String::from_utf8(payload).unwrap()
}

both_shards! {
    /// Handlers see the rightmost address that is no proxy; what is no list of addresses, or comes
    /// from somebody who is no proxy, changes nothing.
    fn handlers_see_the_client(shards) {
        let site = start(shards, |_| {});
        let sees = |host, lines: &[&str], expected: &str| {
            assert_eq!(told(&site, host, lines), expected, "{lines:?}");
        };
        sees(PROXY, &["X-Forwarded-For: 203.0.113.7"], "203.0.113.7");
        sees(PROXY, &["x-forwarded-for: 1.1.1.1, 203.0.113.7, 127.0.0.9"], "203.0.113.7");
        sees(PROXY, &["X-Forwarded-For: 1.1.1.1", "X-Forwarded-For: 203.0.113.7"], "203.0.113.7");
        sees(PROXY, &["X-Forwarded-For: ::ffff:203.0.113.7"], "203.0.113.7");
        sees(PROXY, &["X-Forwarded-For: [2001:db8::1]:443"], "2001:db8::1");
        sees(PROXY, &[], "127.0.0.1");
        for garbage in ["X-Forwarded-For: unknown", "X-Forwarded-For: 203.0.113.7, ~",
            "X-Forwarded-For: \u{fffd}", "Forwarded: for=203.0.113.7", "X-Real-IP: 203.0.113.7"] {
            sees(PROXY, &[garbage], "127.0.0.1");
        }
        sees(STRANGER, &["X-Forwarded-For: 203.0.113.7"], "127.0.0.2");
        sees(STRANGER, &["X-Forwarded-For: 203.0.113.7, 127.0.0.1"], "127.0.0.2");
    }

    /// So do gateways, routes of HTTP, and the list of connections.
    fn everybody_sees_the_same_address(shards) {
        let whose = |ConnectInfo(peer): ConnectInfo<SocketAddr>| async move { peer.ip().to_string() };
        let plan = plan(shards, |_| {}).with(move |builder| {
            let router = Router::new().route("/where", get(whose));
            builder.router(router).public_route("GET", "/where").module::<WhoModule>()
        });
        let site = plan.start();
        let mut http = wire(&site, PROXY);
        assert_eq!(get_on(&mut http, "/where", &[&forwarded("203.0.113.7")]).body, "203.0.113.7");
        // The connection is the proxy's, so the next request may be somebody else's.
        assert_eq!(get_on(&mut http, "/where", &[&forwarded("203.0.113.8")]).body, "203.0.113.8");
        assert_eq!(get_on(&mut http, "/where", &[]).body, "127.0.0.1");
        let mut stranger = wire(&site, STRANGER);
        assert_eq!(get_on(&mut stranger, "/where", &[&forwarded("203.0.113.7")]).body, "127.0.0.2");

        let bearer = format!("Authorization: Bearer {}", token("demo", "ada"));
        let list = forwarded("9.9.9.9, 203.0.113.9");
        let (mut early, answer) = upgrade(wire(&site, PROXY), "/event", &[&bearer, &list]);
        assert_eq!(answer.status, 101, "{answer:?}");
        let (mut late, answer) = upgrade(http, "/event", &[&bearer, &list]);
        assert_eq!(answer.status, 101, "{answer:?}");
        for wire in [&mut early, &mut late] {
            wire.send(Opcode::TEXT, r#"{"event":"who"}"#);
            wire.expect_text(r#"{"event":"who","data":"203.0.113.9"}"#);
        }
        let listed = get_on(&mut wire(&site, PROXY), "/v1/connections", &[&bearer]).body;
        assert_eq!(listed.matches(r#""peer":"203.0.113.9:0""#).count(), 2, "{listed}");
    }

    /// connections_per_address_max: a proxy may have many connections, each of its clients few
    fn connections_of_a_client_are_counted(shards) {
        let site = start(shards, |limits| limits.connections_per_address_max = 2);
        let first = raw(&site, PROXY, "203.0.113.7");
        let second = raw(&site, PROXY, "203.0.113.7");
        assert_eq!([first.1.status, second.1.status], [101, 101]);
        let third = raw(&site, PROXY, "203.0.113.7").1;
        assert_eq!(third.status, 503);
        assert!(third.body.contains("limits.connections_per_address_max"), "{third:?}");
        // Another address in front of the own one buys nothing.
        assert_eq!(status(&site, PROXY, "198.51.100.1, 203.0.113.7"), 503);
        let others = (0..5).map(|last| raw(&site, PROXY, &format!("198.51.100.{last}")));
        let others: Vec<_> = others.collect();
        assert!(others.iter().all(|(_, answer)| answer.status == 101));
        // Of IPv6 a /64 is one client.
        let customer = [1, 2].map(|last| raw(&site, PROXY, &format!("2001:db8::{last}")));
        assert!(customer.iter().all(|(_, answer)| answer.status == 101));
        assert_eq!(status(&site, PROXY, "2001:db8::3"), 503);
        assert_eq!(status(&site, PROXY, "2001:db8:0:1::1"), 101);
        drop(first);
        eventually("a place is free", || status(&site, PROXY, "203.0.113.7") == 101);
    }

    /// connections_per_address_max: what strangers forward does not help them
    fn a_stranger_is_counted_as_itself(shards) {
        let site = start(shards, |limits| limits.connections_per_address_max = 2);
        let open = [1, 2].map(|last| raw(&site, STRANGER, &format!("203.0.113.{last}")));
        assert!(open.iter().all(|(_, answer)| answer.status == 101));
        assert_eq!(status(&site, STRANGER, "203.0.113.3"), 503);
        // Nor does it take anything from those whom it names.
        let named = [1, 2].map(|_| raw(&site, PROXY, "203.0.113.1"));
        assert!(named.iter().all(|(_, answer)| answer.status == 101));
    }

    /// connections_per_address_max: of HTTP a request counts until it is answered, and who upgrades
    /// behind a request counts as long as it is connected, with a proxy and without
    fn requests_and_late_upgrades_are_counted(shards) {
        let gate = Arc::new(Notify::new());
        let held = Arc::clone(&gate);
        let plan = plan(shards, |limits| limits.connections_per_address_max = 1);
        let site = plan.with(move |builder| {
            let wait = move || async move { held.notified().await };
            let router = Router::new().route("/wait", get(wait));
            builder.router(router).public_route("GET", "/wait")
        }).start();
        let list = forwarded("203.0.113.7");
        let mut http = wire(&site, PROXY);
        assert_eq!(get_on(&mut http, "/healthz", &[&list]).status, 200);
        assert_eq!(get_on(&mut http, "/healthz", &[&list]).status, 200);
        http.write(plain("/wait", &[&list]));
        let mut second = wire(&site, PROXY);
        eventually("the request is under way", || {
            let answer = get_on(&mut wire(&site, PROXY), "/healthz", &[&list]);
            answer.status == 503 && answer.body.contains("limits.connections_per_address_max")
        });
        assert_eq!(get_on(&mut second, "/healthz", &[&forwarded("203.0.113.8")]).status, 200);
        gate.notify_one();
        assert_eq!(http.read_answer().status, 200);
        for host in [PROXY, STRANGER] {
            eventually("nothing is counted", || status(&site, host, "203.0.113.7") == 101);
            eventually("a place is free", || {
                let mut late = wire(&site, host);
                let answered = late.try_write(plain("/healthz", &[&list]).as_bytes()).is_ok();
                answered && late.read_answer().status == 200 && {
                    let (_late, answer) = upgrade(late, "/raw", &[&list]);
                    assert_eq!(answer.status, 101);
                    let refused = status(&site, host, "203.0.113.7");
                    assert_eq!(refused, 503, "127.0.0.{host}");
                    true
                }
            });
        }
    }

    /// connects_per_address_per_s_max
    fn connects_of_a_client_are_metered(shards) {
        let site = start(shards, |limits| limits.connects_per_address_per_s_max = 2);
        let of = |list: &str| status(&site, PROXY, list);
        assert_eq!([of("203.0.113.7"), of("1.1.1.1, 203.0.113.7")], [101, 101]);
        let refused = raw(&site, PROXY, "203.0.113.7").1;
        assert_eq!(refused.status, 429);
        assert!(refused.body.contains("limits.connects_per_address_per_s_max"), "{refused:?}");
        assert_eq!([of("203.0.113.8"), of("203.0.113.9"), of("203.0.113.8")], [101, 101, 101]);
        let mut http = wire(&site, PROXY);
        let answers = [(); 3].map(|()| {
            let _ = http.try_write(plain("/healthz", &[&forwarded("203.0.113.10")]).as_bytes());
            http.read_answer().status
        });
        assert_eq!(answers, [200, 200, 429]);
        let spoofed: Vec<_> = (1..=3).map(|last| status(&site, STRANGER, &format!("1.1.1.{last}"))).collect();
        assert_eq!(spoofed, [101, 101, 429]);
        eventually("time has passed", || of("203.0.113.7") == 101);
    }

    /// auth_failures_per_address_per_min_max
    fn wrong_tokens_of_a_client_are_metered(shards) {
        let site = start(shards, |limits| limits.auth_failures_per_address_per_min_max = 2);
        let bad = |host, list: &str| {
            let list = forwarded(list);
            upgrade(wire(&site, host), "/raw", &["Authorization: Bearer bad", &list]).1.status
        };
        let bad_rest = |host, list: &str| {
            let list = forwarded(list);
            let lines = ["Authorization: Bearer bad", list.as_str()];
            get_on(&mut wire(&site, host), "/v1/connections", &lines).status
        };
        assert_eq!(bad(PROXY, "203.0.113.7"), 401);
        assert_eq!(bad_rest(PROXY, "203.0.113.7"), 401);
        assert_eq!(bad(PROXY, "1.1.1.1, 203.0.113.7"), 429);
        assert_eq!(bad_rest(PROXY, "1.1.1.1, 203.0.113.7"), 429);
        assert_eq!([bad(PROXY, "203.0.113.8"), bad_rest(PROXY, "203.0.113.9")], [401, 401]);
        let spoofed = [bad(STRANGER, "1.1.1.1"), bad_rest(STRANGER, "1.1.1.2"), bad(STRANGER, "1.1.1.3")];
        assert_eq!(spoofed, [401, 401, 429]);
        assert_eq!(status(&site, PROXY, "203.0.113.7"), 101);
    }

    /// An address opens nothing, whoever tells it.
    fn no_address_is_a_token(shards) {
        let site = start(shards, |_| {});
        for list in ["127.0.0.1", "::1", "203.0.113.7"] {
            let list = forwarded(list);
            assert_eq!(upgrade(wire(&site, PROXY), "/ws", &[&list]).1.status, 401);
            assert_eq!(get_on(&mut wire(&site, PROXY), "/v1/connections", &[&list]).status, 401);
            assert_eq!(get_on(&mut wire(&site, PROXY), "/metrics", &[&list]).status, 401);
        }
    }

    /// C-23: a reload puts other proxies in force, for who connects and who is connected already.
    fn proxies_are_reloaded(shards) {
        let site = start(shards, |_| {});
        let list = forwarded("203.0.113.7");
        let tell = |host| told(&site, host, &[&list]);
        assert_eq!([tell(PROXY), tell(STRANGER)], ["203.0.113.7", "127.0.0.2"]);
        site.reload(|config| {
            config.server.trusted_proxies = vec!["127.0.0.2".parse().unwrap()];
        });
        eventually("they are other ones", || tell(PROXY) == "127.0.0.1");
        eventually("on all shards", || tell(STRANGER) == "203.0.113.7");
    }
}

/// A list as long as a head may be is read, or refused with the head.
#[test]
fn long_lists_do_no_harm() {
    let site = start(1, |_| {});
    let list = |count| forwarded(&vec!["127.0.0.9"; count].join(","));
    assert_eq!(told(&site, PROXY, &[&list(700)]), "127.0.0.9");
    let refused = upgrade(wire(&site, PROXY), "/tell", &[&list(900)]).1;
    assert_eq!(refused.status, 431);
}
