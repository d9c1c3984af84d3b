//! The client in Rust and the command line through TLS (N4): relay, durable topics, REST, both clients;
//! and certificates that nobody trusts.

use std::process::{Command, Stdio};
use std::time::Duration;

use tidegate::client::{
    Client, ClientError, DurableFrame, Publish, RelayFrame, Subscribe, asynchronous,
};

use crate::harness::{Site, both_shards, token};
use crate::tls::{Certificates, secure_address};

fn site(shards: u16) -> (tempfile::TempDir, Certificates, Site) {
    let certificates = Certificates::new(&["localhost"]);
    let data = tempfile::tempdir().unwrap();
    let folder = data.path().to_owned();
    let plan = certificates.plan(shards).config(move |config| {
        config.durable.enabled = true;
        config.server.data_dir = folder;
    });
    let site = plan.start();
    (data, certificates, site)
}

fn url(site: &Site) -> String {
    format!("https://localhost:{}", secure_address(site).port())
}

fn client(site: &Site, certificates: &Certificates) -> Client {
    let pem = std::fs::read(certificates.chain()).unwrap();
    let client = Client::new(&url(site), &token("demo", "ada")).unwrap();
    client
        .trusting(&pem)
        .unwrap()
        .time_max(Duration::from_secs(10))
}

both_shards! {
    /// N4: everything that the client does goes through TLS
    fn the_client_speaks_tls(shards) {
        let (_data, certificates, site) = site(shards);
        let client = client(&site, &certificates);
        let id = client.topic("orders").unwrap();
        let mut durable = client.durable().unwrap();
        durable.subscribe(&Subscribe::new(&id, "billing").from_seq(0)).unwrap();
        durable.publish(&id, &"x".repeat(40_000), Publish::default()).unwrap();
        let text = loop {
            if let DurableFrame::Message(message) = durable.receive().unwrap().frame {
                durable.ack(&id, "billing", message.seq).unwrap();
                break message.payload.to_string();
            }
        };
        assert_eq!(text.len(), 40_002);
        durable.close();
        let mut relay = client.relay().unwrap();
        relay.subscribe("news").unwrap();
        assert!(relay.receive_within(Duration::from_millis(50)).is_ok_and(|it| it.is_some()));
        // A read that waits in vain loses nothing.
        assert!(relay.receive_within(Duration::from_millis(50)).unwrap().is_none());
        client.push("news", "hello", &1).unwrap();
        let push = relay.receive().unwrap();
        assert!(matches!(&push.frame, RelayFrame::Push(push) if push.event == "hello"), "{push:?}");
    }

    /// N4: so does the one on tokio
    fn the_client_on_tokio_speaks_tls(shards) {
        let (_data, certificates, site) = site(shards);
        let client = client(&site, &certificates);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut relay = asynchronous::Relay::connect(&client, "/ws").await.unwrap();
            relay.subscribe("news").await.unwrap();
            relay.receive().await.unwrap();
            let asked = client.clone();
            tokio::task::spawn_blocking(move || asked.push("news", "hello", &1)).await.unwrap().unwrap();
            let push = relay.receive().await.unwrap();
            assert!(matches!(push.frame, RelayFrame::Push(_)), "{push:?}");
        });
    }

    /// N4: an error says who is not trusted, and that the port does not speak TLS
    fn what_is_not_trusted_is_told(shards) {
        let (_data, certificates, site) = site(shards);
        let pem = std::fs::read(certificates.chain()).unwrap();
        let other = std::fs::read(Certificates::new(&["localhost"]).chain()).unwrap();
        let of = |url: &str, pem: &[u8]| {
            Client::new(url, &token("demo", "ada")).unwrap().trusting(pem).unwrap().time_max(Duration::from_secs(5))
        };
        let address = secure_address(&site);
        for (client, text) in [
            (of(&url(&site), &other), "invalid peer certificate"),
            (Client::new(&url(&site), &token("demo", "ada")).unwrap(), "invalid peer certificate"),
            (of(&format!("https://{address}"), &pem), "not valid for name"),
        ] {
            for error in [client.relay().unwrap_err(), client.topic("t").unwrap_err()] {
                assert!(matches!(error, ClientError::Tls { .. }), "{error:?}");
                assert!(error.to_string().contains(text), "{error}");
            }
        }
        let plain = of(&format!("https://{}", site.address), &pem);
        assert!(plain.relay().is_err_and(|error| error.to_string().starts_with("no TLS with")));
        assert!(plain.topic("t").is_err());
        let refused = of(&url(&site), &pem).trusting(b"nothing").unwrap_err();
        assert!(matches!(refused, ClientError::Certificates(_)), "{refused}");
    }
}

/// N4: `--ca`
#[test]
fn the_command_line_speaks_tls() {
    let (_data, certificates, site) = site(2);
    let run = |arguments: &[&str], ca: bool| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.args(arguments).args(["--url", &url(&site)]);
        if ca {
            command.arg("--ca").arg(certificates.chain());
        }
        command
            .env("TIDEGATE_TOKEN", token("demo", "ada"))
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    let output = run(&["pub", "notes", "42"], true);
    assert!(output.status.success(), "{output:?}");
    let output = run(&["topics"], true);
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("notes"),
        "{output:?}"
    );
    let output = run(&["pub", "notes", "42"], false);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(
        told.contains("--ca names a file with the certificates to trust"),
        "{told}"
    );
}
