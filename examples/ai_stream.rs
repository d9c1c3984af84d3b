//! Streaming: tokens go out one by one, as fast as the client reads, while other events of the
//! connection are answered, and a `cancel` ends the stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};
use tidegate::prelude::*;
use tokio::sync::Notify;

#[derive(Deserialize)]
struct Prompt {
    prompt: String,
    #[serde(default = "default_delay_ms")]
    delay_ms: u64,
}

fn default_delay_ms() -> u64 {
    20
}

/// The prompts that are streaming now.
#[injectable]
#[derive(Default)]
struct Streams(Mutex<AHashMap<ConnId, Arc<Stream>>>);

struct Stream {
    tenant: Tenant,
    tokens: AtomicUsize,
    cancelled: Notify,
}

/// A stream that is listed while its handler runs, which ends with the connection too.
struct Listed<'a> {
    streams: &'a Streams,
    id: ConnId,
    stream: Arc<Stream>,
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        let mut streams = self.streams.0.lock();
        if streams
            .get(&self.id)
            .is_some_and(|listed| Arc::ptr_eq(listed, &self.stream))
        {
            streams.remove(&self.id);
        }
    }
}

impl Streams {
    fn start(&self, client: &WsClient) -> Option<Listed<'_>> {
        let stream = Arc::new(Stream {
            tenant: client.tenant().clone(),
            tokens: AtomicUsize::new(0),
            cancelled: Notify::new(),
        });
        let mut streams = self.0.lock();
        if streams.contains_key(&client.id()) {
            return None;
        }
        streams.insert(client.id(), stream.clone());
        Some(Listed {
            streams: self,
            id: client.id(),
            stream,
        })
    }
}

#[gateway(path = "/ai")]
struct AgentGateway {
    #[inject]
    streams: Arc<Streams>,
}

async fn tell(prompt: &Prompt, client: &WsClient, stream: &Stream) -> Result<(), SendError> {
    for token in prompt.prompt.split_whitespace() {
        tokio::time::sleep(Duration::from_millis(prompt.delay_ms.min(1_000))).await;
        client.stream("token", &token).await?;
        stream.tokens.fetch_add(1, Ordering::Relaxed);
    }
    client.emit("done", &json!({}))?;
    Ok(())
}

#[messages]
impl AgentGateway {
    #[subscribe_message("prompt")]
    #[concurrent]
    async fn prompt(&self, prompt: Prompt, client: &WsClient) -> Result<(), String> {
        let listed = self.streams.start(client).ok_or("busy")?;
        tokio::select! {
            biased;
            () = listed.stream.cancelled.notified() => Ok(()),
            told = tell(&prompt, client, &listed.stream) => told.map_err(|error| error.to_string()),
        }
    }

    #[subscribe_message("cancel")]
    async fn cancel(&self, client: &WsClient) -> Result<Reply, &'static str> {
        let stream = self.streams.0.lock().remove(&client.id());
        let stream = stream.ok_or("nothing to cancel")?;
        stream.cancelled.notify_one();
        let tokens = stream.tokens.load(Ordering::Relaxed);
        Ok(Reply::event("cancelled", json!({ "tokens": tokens })))
    }

    #[subscribe_message("active")]
    async fn active(&self, client: &WsClient) -> usize {
        let streams = self.streams.0.lock();
        let own = |stream: &&Arc<Stream>| stream.tenant == *client.tenant();
        streams.values().filter(own).count()
    }

    #[subscribe_message("ping")]
    async fn ping(&self) -> Value {
        json!({ "event": "pong", "data": {} })
    }
}

#[module(providers = [Streams], gateways = [AgentGateway])]
pub(crate) struct AiModule;

fn main() -> tidegate::Result<()> {
    Ok(Server::from_args()?.module::<AiModule>().run()?)
}
