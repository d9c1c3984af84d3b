//! Three clients subscribe to one topic and drop out one by one: each publish goes to those that
//! are left, and who is deleted gets nothing more. Speaks to a running server:
//!
//! ```text
//! tidegate serve --dev
//! cargo run --example drop_out -- 127.0.0.1:4000 TOKEN
//! ```

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::{Value, json};
use tungstenite::{Message, WebSocket, client};

type Socket = WebSocket<TcpStream>;

/// One request; the body of its answer.
fn rest(address: &str, token: &str, request: &str, body: &str) -> tidegate::Result<Value> {
    let mut stream = TcpStream::connect(address)?;
    write!(
        stream,
        "{request} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n\
         Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok(serde_json::from_str(body).unwrap_or_default())
}

fn connect(address: &str, token: &str) -> tidegate::Result<Socket> {
    let url = format!("ws://{address}/v1/ws?token={token}");
    Ok(client(url, TcpStream::connect(address)?)?.0)
}

fn ask(socket: &mut Socket, frame: &Value) -> tidegate::Result<Value> {
    socket.send(Message::text(frame.to_string()))?;
    receive(socket)
}

fn receive(socket: &mut Socket) -> tidegate::Result<Value> {
    Ok(serde_json::from_str(socket.read()?.to_text()?)?)
}

/// The whole scenario; which clients each message reached.
pub(crate) fn drop_out(address: &str, token: &str) -> tidegate::Result<Vec<Vec<&'static str>>> {
    let topic = rest(address, token, "POST /v1/topics", r#"{"name":"drop-out"}"#)?;
    let topic = topic["id"].clone();
    let mut publisher = connect(address, token)?;
    let mut clients = Vec::new();
    for name in ["A", "B", "C"] {
        let mut socket = connect(address, token)?;
        let subscribe = json!({"type": "subscribe", "topic": topic, "sub_name": name});
        let subscribed = ask(&mut socket, &subscribe)?;
        let id = subscribed["subscription_id"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        clients.push((name, socket, id));
    }
    let mut reached = Vec::new();
    while !clients.is_empty() {
        let publish = json!({"type": "publish", "topic": topic, "payload": clients.len()});
        ask(&mut publisher, &publish)?;
        for (name, socket, _) in &mut clients {
            let seq = receive(socket)?["seq"].clone();
            let ack =
                json!({"type": "ack", "topic": topic, "sub_name": name, "seq": seq, "ref": 1});
            ask(socket, &ack)?;
        }
        reached.push(clients.iter().map(|(name, ..)| *name).collect());
        let (_, mut socket, id) = clients.remove(0);
        rest(
            address,
            token,
            &format!("DELETE /v1/subscriptions/{id}"),
            "",
        )?;
        // `unsubscribed` with the reason `deleted` is the last that it hears.
        receive(&mut socket)?;
    }
    Ok(reached)
}

fn main() -> tidegate::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments
        .next()
        .unwrap_or_else(|| "127.0.0.1:4000".to_owned());
    let token = arguments
        .next()
        .or_else(|| std::env::var("TIDEGATE_TOKEN").ok());
    let reached = drop_out(&address, &token.unwrap_or_default())?;
    for (round, names) in reached.iter().enumerate() {
        writeln!(
            std::io::stdout(),
            "publish {} reached {}",
            round + 1,
            names.join(", ")
        )?;
    }
    Ok(())
}
