//! Sessions against a client of the same library, over bytes cut and joined at will; certificates
//! against what must be refused at the start.

#![expect(
    clippy::unwrap_used,
    reason = "a failed step is a failed test, in helpers too"
)]

use std::io::{Read, Write};
use std::sync::Arc;

use proptest::prelude::*;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::*;

const NOW_S: u64 = 1_790_000_000;

fn unix_s() -> u64 {
    let now = std::time::UNIX_EPOCH.elapsed();
    now.map_or(NOW_S, |now| now.as_secs())
}

/// A certificate for some hosts, which ends at a year.
fn pair(name: &str, hosts: &[&str], until_year: i32) -> PemPair {
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let mut params = rcgen::CertificateParams::new(hosts).unwrap();
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(until_year, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    PemPair {
        name: name.to_owned(),
        chain: params.self_signed(&key).unwrap().pem().into_bytes(),
        key: key.serialize_pem().into_bytes(),
    }
}

fn acceptor(pairs: &[PemPair], rules: Rules) -> Acceptor {
    Acceptor::new(pairs, rules, unix_s(), None).unwrap()
}

fn client_config(trusted: &[PemPair], protocols: &[&[u8]]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for pair in trusted {
        let own = CertificateDer::from_pem_slice(&pair.chain).unwrap();
        roots.add(own).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|it| it.to_vec()).collect();
    Arc::new(config)
}

fn client(config: &Arc<ClientConfig>, host: &'static str) -> ClientConnection {
    let name = ServerName::try_from(host).unwrap();
    ClientConnection::new(Arc::clone(config), name).unwrap()
}

/// What the client has to send.
fn sent_by(client: &mut ClientConnection) -> Vec<u8> {
    let mut out = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut out).unwrap();
    }
    out
}

/// Hands `bytes` to the client; what it reads of them.
fn read_by(client: &mut ClientConnection, bytes: &[u8]) -> Result<Vec<u8>, rustls::Error> {
    let mut rest = bytes;
    let mut plain = Vec::new();
    while !rest.is_empty() {
        client.read_tls(&mut rest).unwrap();
        client.process_new_packets()?;
        let mut buf = [0; 4096];
        while let Ok(count @ 1..) = client.reader().read(&mut buf) {
            plain.extend_from_slice(&buf[..count]);
        }
    }
    Ok(plain)
}

/// A server and a client whose bytes are handed over in pieces of `step`.
struct Link {
    server: Tls,
    client: ClientConnection,
    step: usize,
    plain: Vec<u8>,
    seen: Vec<Opened>,
}

impl Link {
    fn new(acceptor: &Acceptor, client: ClientConnection, step: usize) -> Self {
        Self {
            server: acceptor.accept().unwrap(),
            client,
            step,
            plain: Vec::new(),
            seen: Vec::new(),
        }
    }

    fn feed_server(&mut self) -> Result<(), Fault> {
        let bytes = sent_by(&mut self.client);
        for piece in bytes.chunks(self.step) {
            let mut piece = piece.to_vec();
            let opened = self.server.handle_received(&mut piece, &mut self.plain)?;
            self.seen.push(opened);
        }
        Ok(())
    }

    fn feed_client(&mut self) -> Result<Vec<u8>, rustls::Error> {
        let mut out = Vec::new();
        self.server.take_output(&mut out);
        read_by(&mut self.client, &out)
    }

    fn shake_hands(&mut self) -> Greeting {
        for _ in 0..4 {
            self.feed_server().unwrap();
            self.feed_client().unwrap();
        }
        assert!(self.server.is_open() && !self.client.is_handshaking());
        self.seen.iter().find_map(|it| it.greeted).unwrap()
    }

    fn say(&mut self, text: &[u8]) {
        self.client.writer().write_all(text).unwrap();
        self.feed_server().unwrap();
    }
}

#[test]
fn a_session_carries_bytes_both_ways_and_ends() {
    let pairs = [pair("a.pem", &["a.test"], 2100)];
    let acceptor = acceptor(&pairs, Rules::default());
    for step in [1, 5, 100, 100_000] {
        let config = client_config(&pairs, &[b"http/1.1"]);
        let mut link = Link::new(&acceptor, client(&config, "a.test"), step);
        assert_eq!(link.shake_hands(), Greeting::Full);
        assert_eq!(link.client.alpn_protocol(), Some(&b"http/1.1"[..]));
        link.say(b"hello");
        assert_eq!(link.plain, b"hello");
        assert_eq!(link.server.held_bytes(), 0, "idle sessions hold nothing");
        let mut out = Vec::new();
        link.server.seal(b"world", &mut out);
        assert_eq!(read_by(&mut link.client, &out).unwrap(), b"world");
        let long = vec![7; 40_000];
        out.clear();
        link.server.seal(&long, &mut out);
        // Three records of at most 16 KiB, 22 bytes more each.
        assert_eq!(out.len(), long.len() + 3 * 22);
        assert_eq!(read_by(&mut link.client, &out).unwrap(), long);
        link.client.send_close_notify();
        link.feed_server().unwrap();
        assert!(link.seen.last().unwrap().is_ended);
        out.clear();
        link.server.seal(b"last", &mut out);
        link.server.seal_end(&mut out);
        assert_eq!(read_by(&mut link.client, &out).unwrap(), b"last");
    }
}

/// T-07
#[test]
fn a_client_that_comes_again_takes_its_session_up() {
    let pairs = [pair("a.pem", &["a.test"], 2100)];
    let first = acceptor(&pairs, Rules::default());
    let config = client_config(&pairs, &[]);
    let mut link = Link::new(&first, client(&config, "a.test"), 1000);
    assert_eq!(link.shake_hands(), Greeting::Full);
    // New certificates, old tickets.
    let second = Acceptor::new(&pairs, Rules::default(), unix_s(), Some(&first)).unwrap();
    let mut again = Link::new(&second, client(&config, "a.test"), 1000);
    assert_eq!(again.shake_hands(), Greeting::Resumed);
}

/// T-03: exact before wildcard before first; an unknown name by the rule.
#[test]
fn the_name_chooses_the_certificate() {
    let pairs = [
        pair("first.pem", &["first.test"], 2100),
        pair("wild.pem", &["*.b.test"], 2100),
        pair("exact.pem", &["x.b.test"], 2100),
    ];
    let config = client_config(&pairs, &[]);
    let shown = |rules: Rules, host: &'static str| {
        let mut link = Link::new(&acceptor(&pairs, rules), client(&config, host), 1000);
        let server = link.feed_server();
        let client = link.feed_client();
        let certificate = link
            .client
            .peer_certificates()
            .map(|chain| chain[0].to_vec());
        (server, client.is_ok(), certificate)
    };
    let der = |pair: &PemPair| {
        CertificateDer::from_pem_slice(&pair.chain)
            .unwrap()
            .to_vec()
    };
    let (_, _, found) = shown(Rules::default(), "x.b.test");
    assert_eq!(found, Some(der(&pairs[2])));
    let (_, _, found) = shown(Rules::default(), "y.b.test");
    assert_eq!(found, Some(der(&pairs[1])));
    let (server, accepted, _) = shown(Rules::default(), "z.y.b.test");
    assert!(
        server.is_ok() && !accepted,
        "the first one, which is not its own"
    );
    let refusing = Rules {
        refuse_unknown: true,
        ..Rules::default()
    };
    let mut link = Link::new(
        &acceptor(&pairs, refusing),
        client(&config, "other.test"),
        1000,
    );
    assert!(matches!(link.feed_server(), Err(Fault::Protocol(_))));
    let alert = link.feed_client().unwrap_err();
    let unrecognized = rustls::AlertDescription::UnrecognisedName;
    assert_eq!(alert, rustls::Error::AlertReceived(unrecognized));
    let (server, accepted, _) = shown(refusing, "first.test");
    assert!(server.is_ok() && accepted);
}

/// T-06
#[test]
fn only_http_1_is_spoken_and_old_versions_by_the_rule() {
    let pairs = [pair("a.pem", &["a.test"], 2100)];
    let plain = acceptor(&pairs, Rules::default());
    let h2 = client_config(&pairs, &[b"h2"]);
    let mut link = Link::new(&plain, client(&h2, "a.test"), 1000);
    assert!(matches!(link.feed_server(), Err(Fault::Protocol(_))));
    let alert = link.feed_client().unwrap_err();
    let none = rustls::AlertDescription::NoApplicationProtocol;
    assert_eq!(alert, rustls::Error::AlertReceived(none));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(&pairs[0].chain).unwrap())
        .unwrap();
    let old = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let old = Arc::new(old);
    let mut link = Link::new(&plain, client(&old, "a.test"), 1000);
    link.shake_hands();
    link.say(b"old");
    assert_eq!(link.plain, b"old");
    let only_13 = Rules {
        only_13: true,
        ..Rules::default()
    };
    let mut link = Link::new(&acceptor(&pairs, only_13), client(&old, "a.test"), 1000);
    assert!(link.feed_server().is_err());
    assert!(link.server.has_output(), "an alert says why");
}

/// T-13, T-15
#[test]
fn what_is_no_handshake_ends_it() {
    let pairs = [pair("a.pem", &["a.test"], 2100)];
    let acceptor = acceptor(&pairs, Rules::default());
    let mut plain = Vec::new();
    let mut http = b"GET / HTTP/1.1\r\n".to_vec();
    let mut tls = acceptor.accept().unwrap();
    let outcome = tls.handle_received(&mut http, &mut plain);
    assert_eq!(outcome, Err(Fault::PlainHttp));
    // A handshake message that never ends.
    let mut tls = acceptor.accept().unwrap();
    let mut endless = vec![0x16, 0x03, 0x01, 0x40, 0x00, 0x01, 0x00, 0xff, 0xff];
    endless.resize(5 + 0x4000, 0);
    let mut outcome = Ok(Opened::default());
    for _ in 0..4 {
        outcome = tls.handle_received(&mut endless.clone(), &mut plain);
        if outcome.is_err() {
            break;
        }
        assert!(tls.held_bytes() <= 18 * 1024);
    }
    assert!(outcome.is_err());
    assert_eq!(
        tls.handle_received(&mut endless, &mut plain),
        Ok(Opened::default())
    );
    assert!(plain.is_empty());
}

/// T-04
#[test]
fn what_no_client_would_accept_is_refused_at_the_start() {
    let good = pair("good.pem", &["a.test"], 2100);
    let other = pair("other.pem", &["a.test"], 2100);
    let text = |pair: &PemPair| {
        let pairs = std::slice::from_ref(pair);
        Acceptor::new(pairs, Rules::default(), NOW_S, None)
            .unwrap_err()
            .to_string()
    };
    let with = |chain: &[u8], key: &[u8]| PemPair {
        name: "bad.pem".to_owned(),
        chain: chain.to_vec(),
        key: key.to_vec(),
    };
    for (bad, expected) in [
        (with(b"", &good.key), "holds no certificate"),
        (with(b"hello", &good.key), "holds no certificate"),
        (with(&good.key, &good.key), "holds no certificate"),
        (with(&good.chain, b""), "is no private key"),
        (with(&good.chain, &good.chain), "is no private key"),
        (with(&good.chain, &other.key), "does not belong"),
        (pair("bad.pem", &["a.test"], 2024), "has expired"),
        (pair("bad.pem", &[], 2100), "names no host"),
    ] {
        let text = text(&bad);
        assert!(
            text.contains(expected) && text.contains("bad.pem"),
            "{text}"
        );
    }
    let none = Acceptor::new(&[], Rules::default(), NOW_S, None);
    assert!(matches!(none, Err(CertificateError::None)));
    let shown = acceptor(&[good], Rules::default());
    assert_eq!(shown.shown()[0].hosts, ["a.test"]);
    assert_eq!(shown.shown()[0].expires_s, 4_102_444_800);
}

#[test]
fn a_certificate_for_development_serves_loopback() {
    let made = dev_certificate(unix_s()).unwrap();
    let pairs = [PemPair {
        name: "dev".to_owned(),
        chain: made.chain.into_bytes(),
        key: made.key.into_bytes(),
    }];
    let acceptor = acceptor(&pairs, Rules::default());
    assert_eq!(acceptor.shown()[0].hosts, ["localhost", "127.0.0.1", "::1"]);
    let config = client_config(&pairs, &[]);
    for host in ["localhost", "127.0.0.1", "::1"] {
        Link::new(&acceptor, client(&config, host), 1000).shake_hands();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever is said, in whatever pieces, arrives whole and in order.
    #[test]
    fn bytes_arrive_whole(texts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..3000), 1..6), step in 1_usize..2000) {
        let pairs = [pair("a.pem", &["a.test"], 2100)];
        let config = client_config(&pairs, &[]);
        let mut link = Link::new(&acceptor(&pairs, Rules::default()), client(&config, "a.test"), step);
        link.shake_hands();
        for text in &texts {
            link.say(text);
        }
        prop_assert_eq!(&link.plain, &texts.concat());
        let mut out = Vec::new();
        for text in &texts {
            link.server.seal(text, &mut out);
        }
        prop_assert_eq!(read_by(&mut link.client, &out).unwrap(), texts.concat());
    }

    /// Any bytes end a session or wait; they never panic and hold no more than a record.
    #[test]
    fn any_bytes_end_or_wait(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..20), hello: bool) {
        let pairs = [pair("a.pem", &["a.test"], 2100)];
        let config = client_config(&pairs, &[]);
        let mut link = Link::new(&acceptor(&pairs, Rules::default()), client(&config, "a.test"), 50);
        if hello {
            link.feed_server().unwrap();
        }
        for mut piece in pieces {
            let _ = link.server.handle_received(&mut piece, &mut link.plain);
            prop_assert!(link.server.held_bytes() <= 18 * 1024);
        }
        prop_assert!(link.plain.is_empty());
    }
}
