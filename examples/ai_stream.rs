//! Streaming: tokens go out one by one, as fast as the client reads, while other events of the
//! connection are answered, and a `cancel` ends the stream.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
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

/// The prompts that are streaming now; each lives as long as its handler.
#[injectable]
#[derive(Default)]
struct Streams(Mutex<AHashMap<ConnId, Weak<Stream>>>);

struct Stream {
    tenant: Tenant,
    tokens: AtomicUsize,
    cancelled: Notify,
}

impl Streams {
    fn start(&self, client: &WsClient) -> Option<Arc<Stream>> {
        let mut streams = self.0.lock();
        streams.retain(|_, stream| 0 < stream.strong_count());
        if streams.contains_key(&client.id()) {
            return None;
        }
        let stream = Arc::new(Stream {
            tenant: client.tenant().clone(),
            tokens: AtomicUsize::new(0),
            cancelled: Notify::new(),
        });
        streams.insert(client.id(), Arc::downgrade(&stream));
        Some(stream)
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
        let stream = self.streams.start(client).ok_or("busy")?;
        tokio::select! {
            biased;
            () = stream.cancelled.notified() => Ok(()),
            told = tell(&prompt, client, &stream) => told.map_err(|error| error.to_string()),
        }
    }

    #[subscribe_message("cancel")]
    async fn cancel(&self, client: &WsClient) -> Result<Reply, &'static str> {
        let stream = self.streams.0.lock().remove(&client.id());
        let stream = stream.and_then(|stream| stream.upgrade());
        let stream = stream.ok_or("nothing to cancel")?;
        stream.cancelled.notify_one();
        let tokens = stream.tokens.load(Ordering::Relaxed);
        Ok(Reply::event("cancelled", json!({ "tokens": tokens })))
    }

    #[subscribe_message("active")]
    async fn active(&self, client: &WsClient) -> usize {
        let streams = self.streams.0.lock();
        let live = streams.values().filter_map(Weak::upgrade);
        live.filter(|stream| stream.tenant == *client.tenant())
            .count()
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
