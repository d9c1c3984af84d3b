//! The same server through TLS: WebSockets, HTTP, what is sent to many; and what peers do that do
//! not speak it, or not to an end (T-02 to T-15).

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tidegate::config::CertificateFiles;
use tidegate::gateway::socket::echo;
use tidegate::metrics::Counter;
use tungstenite::client::IntoClientRequest;
use tungstenite::{Error, Message, WebSocket};

use crate::harness::{PATIENCE, Plan, Site, both_shards, eventually, token};

type Stream = StreamOwned<ClientConnection, TcpStream>;

/// Certificates in a folder of their own.
pub(crate) struct Certificates {
    folder: tempfile::TempDir,
}

impl Certificates {
    pub(crate) fn new(hosts: &[&str]) -> Self {
        let new = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        new.write(hosts);
        new
    }

    /// Writes others in their place.
    fn write(&self, hosts: &[&str]) {
        let names: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        std::fs::write(self.chain(), made.cert.pem()).unwrap();
        std::fs::write(self.key(), made.signing_key.serialize_pem()).unwrap();
    }

    pub(crate) fn chain(&self) -> PathBuf {
        self.folder.path().join("cert.pem")
    }

    fn key(&self) -> PathBuf {
        self.folder.path().join("key.pem")
    }

    pub(crate) fn plan(&self, shards: u16) -> Plan {
        let files = CertificateFiles {
            cert_file: self.chain(),
            key_file: self.key(),
        };
        Plan::new(shards).raw("/raw", echo).config(move |config| {
            config.tls.listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
            config.tls.certificate = vec![files];
        })
    }

    fn trusting(&self) -> Arc<ClientConfig> {
        trusting(&self.chain())
    }
}

fn trusting(chain: &Path) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(chain).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

pub(crate) fn secure_address(site: &Site) -> SocketAddr {
    site.server().tls_address().unwrap()
}

fn tcp(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

fn stream(site: &Site, config: &Arc<ClientConfig>) -> Stream {
    let name = ServerName::try_from("localhost").unwrap();
    let client = ClientConnection::new(Arc::clone(config), name).unwrap();
    StreamOwned::new(client, tcp(secure_address(site)))
}

fn web_socket(stream: Stream, path: &str, bearer: Option<&str>) -> WebSocket<Stream> {
    let mut request = format!("wss://localhost{path}")
        .into_client_request()
        .unwrap();
    if let Some(token) = bearer {
        let value = format!("Bearer {token}").parse().unwrap();
        request.headers_mut().insert("authorization", value);
    }
    tungstenite::client(request, stream).unwrap().0
}

/// The status and the body of the next answer.
fn answer(stream: &mut Stream) -> (u16, Vec<u8>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let text = String::from_utf8(head).unwrap().to_lowercase();
    let status = text[9..12].parse().unwrap();
    let length = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).unwrap();
    (status, body)
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n")
}

both_shards! {
    /// T-08, T-09, T-11
    fn frames_of_any_size_come_back_and_the_end_is_said(shards) {
        let certificates = Certificates::new(&["localhost"]);
        let site = certificates.plan(shards).start();
        let config = certificates.trusting();
        for _ in 0..3 {
            let mut socket = web_socket(stream(&site, &config), "/raw", None);
            for bytes in [0, 1, 125, 126, 16_000, 16_384, 16_385, 60_000, 65_536] {
                let payload = vec![b'x'; bytes];
                socket.send(Message::binary(payload.clone())).unwrap();
                assert_eq!(socket.read().unwrap(), Message::binary(payload));
            }
            // Many at once: they come back in order.
            for number in 0..500 {
                socket.write(Message::text(number.to_string())).unwrap();
            }
            socket.flush().unwrap();
            for number in 0..500 {
                assert_eq!(socket.read().unwrap(), Message::text(number.to_string()));
            }
            socket.close(None).unwrap();
            loop {
                match socket.read() {
                    Ok(_) => {}
                    Err(Error::ConnectionClosed) => break,
                    Err(error) => panic!("{error}"),
                }
            }
            let mut rest = Vec::new();
            // An end without the word for it is an error of the library.
            assert_eq!(socket.get_mut().read_to_end(&mut rest).unwrap(), 0);
        }
        assert_eq!(site.count(Counter::TlsFaults), 0);
        let full = site.count(Counter::TlsHandshakesFull);
        let resumed = site.count(Counter::TlsHandshakesResumed);
        assert_eq!((full, resumed), (1, 2));
    }

    /// T-10, T-12
    fn http_and_what_goes_to_many_are_the_same(shards) {
        let certificates = Certificates::new(&["localhost"]);
        let site = certificates.plan(shards).start();
        let config = certificates.trusting();
        let token = token("acme", "ada");
        let mut plain = site.join("acme", "bob");
        plain.subscribe("news");
        let mut secure: Vec<_> = (0..4)
            .map(|_| {
                let mut socket = web_socket(stream(&site, &config), "/ws", Some(&token));
                socket
                    .send(Message::text(r#"{"type":"subscribe","topic":"news"}"#))
                    .unwrap();
                let confirmed = r#"{"type":"subscribed","topic":"news"}"#;
                assert_eq!(socket.read().unwrap(), Message::text(confirmed));
                socket
            })
            .collect();
        // HTTP on a connection that is kept: several requests, then an upgrade.
        let mut http = stream(&site, &config);
        for _ in 0..3 {
            http.write_all(get("/healthz").as_bytes()).unwrap();
            assert_eq!(answer(&mut http).0, 200);
        }
        let payload = "y".repeat(40_000);
        let body = format!(r#"{{"topic":"news","event":"long","payload":"{payload}"}}"#);
        let push = format!(
            "POST /v1/relay/push HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        http.write_all(push.as_bytes()).unwrap();
        assert_eq!(answer(&mut http).0, 200);
        for socket in &mut secure {
            let text = socket.read().unwrap().into_text().unwrap();
            assert!(text.contains(&payload));
        }
        assert!(plain.receive().contains(&payload));
        let mut late = web_socket(http, "/ws", Some(&token));
        late.send(Message::text(r#"{"type":"ping"}"#)).unwrap();
        assert!(late.read().unwrap().into_text().unwrap().contains("pong"));
    }

    /// T-05
    fn a_reload_shows_new_certificates_to_new_connections(shards) {
        let certificates = Certificates::new(&["localhost"]);
        let site = certificates.plan(shards).start();
        let old = certificates.trusting();
        let mut lives = web_socket(stream(&site, &old), "/raw", None);
        // Half a pair: the old ones stay.
        let key = std::fs::read(certificates.key()).unwrap();
        certificates.write(&["localhost"]);
        let new_key = std::fs::read(certificates.key()).unwrap();
        std::fs::write(certificates.key(), key).unwrap();
        site.reload(|_| {});
        let mut still = web_socket(stream(&site, &trusting_fresh(&old)), "/raw", None);
        still.send(Message::text("still")).unwrap();
        assert_eq!(still.read().unwrap(), Message::text("still"));
        std::fs::write(certificates.key(), new_key).unwrap();
        site.reload(|_| {});
        let new = certificates.trusting();
        eventually("the new certificate is shown", || {
            let mut http = stream(&site, &new);
            http.write_all(get("/healthz").as_bytes()).is_ok()
        });
        lives.send(Message::text("old")).unwrap();
        assert_eq!(lives.read().unwrap(), Message::text("old"));
    }

    /// T-15
    fn who_speaks_the_other_way_is_told_or_closed(shards) {
        let certificates = Certificates::new(&["localhost"]);
        let site = certificates.plan(shards).start();
        let mut plain = tcp(secure_address(&site));
        plain.write_all(get("/healthz").as_bytes()).unwrap();
        let mut text = String::new();
        // The rest of what was sent may make the end a reset.
        let _ = plain.read_to_string(&mut text);
        assert!(text.starts_with("HTTP/1.1 400") && text.contains("this port speaks TLS"), "{text}");
        let name = ServerName::try_from("localhost").unwrap();
        let client = ClientConnection::new(certificates.trusting(), name).unwrap();
        let mut wrong = StreamOwned::new(client, tcp(site.address));
        assert!(wrong.write_all(get("/healthz").as_bytes()).is_err());
    }

    /// T-13: whoever says half a handshake and waits is gone like any other half-open one.
    fn half_a_handshake_ends_in_time(shards) {
        let certificates = Certificates::new(&["localhost"]);
        let site = certificates
            .plan(shards)
            .limits(|limits| limits.handshake_ms_max = 200)
            .start();
        for half in [&b"\x16\x03\x01"[..], &b""[..]] {
            let mut slow = tcp(secure_address(&site));
            slow.write_all(half).unwrap();
            let mut rest = Vec::new();
            match slow.read_to_end(&mut rest) {
                Ok(_) => {}
                Err(error) => assert_ne!(error.kind(), ErrorKind::WouldBlock),
            }
        }
        // A handshake that is done and a request that never comes.
        let mut silent = stream(&site, &certificates.trusting());
        silent.conn.complete_io(&mut silent.sock).unwrap();
        let mut rest = Vec::new();
        match silent.sock.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) => assert_ne!(error.kind(), ErrorKind::WouldBlock),
        }
    }

    /// T-14: more handshakes at once than a turn works on all end well.
    fn many_handshakes_at_once_wait_in_line(shards) {
        let certificates = Certificates::new(&["localhost"]);
        let site = certificates
            .plan(shards)
            .limits(|limits| limits.tls_handshakes_per_turn_max = 1)
            .start();
        let config = certificates.trusting();
        let mut clients: Vec<_> = (0..40).map(|_| stream(&site, &config)).collect();
        for client in &mut clients {
            // All hellos are on their way before anybody waits for an answer.
            while client.conn.wants_write() {
                client.conn.write_tls(&mut client.sock).unwrap();
            }
        }
        for client in &mut clients {
            client.write_all(get("/healthz").as_bytes()).unwrap();
            assert_eq!(answer(client).0, 200);
        }
    }

    /// A peer that ends without the word for it is gone, as one that resets.
    fn an_end_without_a_word_is_an_end(shards) {
        let certificates = Certificates::new(&["localhost"]);
        let site = certificates.plan(shards).start();
        let config = certificates.trusting();
        let token = token("acme", "ada");
        let mut socket = web_socket(stream(&site, &config), "/ws", Some(&token));
        let subscribe = r#"{"type":"subscribe","topic":"room"}"#;
        socket.send(Message::text(subscribe)).unwrap();
        socket.read().unwrap();
        socket.get_mut().sock.shutdown(Shutdown::Both).unwrap();
        let listed = || site.server().relay().tenant(crate::harness::tenant("acme"));
        eventually("it left", || crate::harness::wait(listed().presence_count("room")).unwrap() == 0);
    }

    /// Garbage behind a good handshake ends that connection with an alert and nobody else's.
    fn garbage_ends_its_sender(shards) {
        let certificates = Certificates::new(&["localhost"]);
        let site = certificates.plan(shards).start();
        let config = certificates.trusting();
        let mut good = web_socket(stream(&site, &config), "/raw", None);
        let mut bad = web_socket(stream(&site, &config), "/raw", None);
        let garbage = [0x17, 3, 3, 0, 30].iter().chain(&[7; 30]).copied().collect::<Vec<u8>>();
        bad.get_mut().sock.write_all(&garbage).unwrap();
        assert!(bad.read().is_err());
        eventually("the fault is counted", || site.count(Counter::TlsFaults) == 1);
        good.send(Message::text("good")).unwrap();
        assert_eq!(good.read().unwrap(), Message::text("good"));
    }
}

/// The same trust without the sessions that were kept.
fn trusting_fresh(config: &Arc<ClientConfig>) -> Arc<ClientConfig> {
    let mut fresh = (**config).clone();
    fresh.resumption = rustls::client::Resumption::disabled();
    Arc::new(fresh)
}
