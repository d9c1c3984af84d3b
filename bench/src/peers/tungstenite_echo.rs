//! An echo on tokio-tungstenite: of bytes, or of typed events by serde_json.

use anyhow::Result;
use futures_util::{SinkExt, StreamExt, TryStreamExt, future};
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

/// Returns the messages of one connection.
pub(super) async fn serve(stream: TcpStream, config: WebSocketConfig, forward: bool) -> Result<()> {
    let mut socket = tokio_tungstenite::accept_async_with_config(stream, Some(config)).await?;
    if forward {
        let (sink, stream) = socket.split();
        let messages = stream.try_filter(|message| future::ready(is_data(message)));
        return Ok(messages.forward(sink).await?);
    }
    while let Some(message) = socket.next().await {
        let message = message?;
        if is_data(&message) {
            socket.send(message).await?;
        }
    }
    Ok(())
}

#[derive(Serialize, Deserialize)]
struct Envelope<'a> {
    event: &'a str,
    data: Said,
}

#[derive(Serialize, Deserialize)]
struct Said {
    author: String,
    text: String,
}

/// Reads each message of one connection as an event, and answers with what it read.
pub(super) async fn serve_typed(stream: TcpStream, config: WebSocketConfig) -> Result<()> {
    let mut socket = tokio_tungstenite::accept_async_with_config(stream, Some(config)).await?;
    while let Some(message) = socket.next().await {
        if let Message::Text(text) = message? {
            let envelope: Envelope<'_> = serde_json::from_str(&text)?;
            let answer = serde_json::to_string(&envelope)?;
            socket.send(Message::text(answer)).await?;
        }
    }
    Ok(())
}

fn is_data(message: &Message) -> bool {
    message.is_text() || message.is_binary()
}
