//! A raw socket in the hands of an async function: text and binary come back unchanged, and the
//! text `close` ends the connection.

use tidegate::{Message, Server, WebSocket};

async fn echo(mut socket: WebSocket) {
    while let Some(Ok(message)) = socket.recv().await {
        if message == Message::from("close") {
            return socket.close_with(tidegate::CloseCode::Normal, "bye").await;
        }
        if !message.is_pong() && socket.send(message).await.is_err() {
            return;
        }
    }
}

fn main() -> tidegate::Result<()> {
    Server::from_args()?
        .raw("/raw", echo)
        .public_route("GET", "/raw")
        .run()?;
    Ok(())
}
