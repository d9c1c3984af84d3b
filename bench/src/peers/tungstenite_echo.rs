//! An echo on tokio-tungstenite.

use anyhow::Result;
use futures_util::{SinkExt, StreamExt, TryStreamExt, future};
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

fn is_data(message: &Message) -> bool {
    message.is_text() || message.is_binary()
}
