//! A relay as it is commonly built on tokio: tokio-tungstenite, one broadcast channel for each
//! topic, a forwarding task for each subscription, messages parsed into `serde_json::Value`.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Result;
use futures_util::stream::SplitSink;
use futures_util::{SinkExt, StreamExt};
use serde::Serialize;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Mutex, broadcast, mpsc};
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

/// The channels of all topics.
pub(super) type Topics = Arc<Mutex<BTreeMap<String, broadcast::Sender<Utf8Bytes>>>>;

/// Speaks the relay protocol with one connection.
pub(super) async fn serve(
    stream: TcpStream,
    config: WebSocketConfig,
    topics: Topics,
    coalesce: bool,
) -> Result<()> {
    let socket = tokio_tungstenite::accept_async_with_config(stream, Some(config)).await?;
    let (sink, mut messages) = socket.split();
    let (outgoing, waiting) = mpsc::channel(OUTGOING_MAX);
    let writer = tokio::spawn(write(sink, waiting, coalesce));
    let mut peer = Peer {
        topics,
        outgoing,
        subscriptions: BTreeMap::new(),
    };
    while let Some(Ok(message)) = messages.next().await {
        if let Message::Text(text) = message {
            peer.handle(&text).await?;
        }
    }
    peer.subscriptions
        .into_values()
        .for_each(|forwarding| forwarding.abort());
    writer.abort();
    Ok(())
}

struct Peer {
    topics: Topics,
    outgoing: mpsc::Sender<Utf8Bytes>,
    subscriptions: BTreeMap<String, JoinHandle<()>>,
}

impl Peer {
    async fn handle(&mut self, text: &str) -> Result<()> {
        let message: Value = match serde_json::from_str(text) {
            Ok(message) => message,
            Err(error) => return self.refuse(&format!("invalid message: {error}")).await,
        };
        let topic = message["topic"].as_str().unwrap_or_default().to_owned();
        match message["type"].as_str() {
            Some("subscribe") => self.subscribe(topic).await,
            Some("unsubscribe") => self.unsubscribe(topic).await,
            Some("message") => self.publish(topic, message).await,
            Some("ping") => self.answer(&Answer::Pong).await,
            _ => self.refuse("invalid message: unknown type").await,
        }
    }

    async fn subscribe(&mut self, topic: String) -> Result<()> {
        if !self.subscriptions.contains_key(&topic) {
            let mut topics = self.topics.lock().await;
            let channel = topics.entry(topic.clone());
            let channel = channel.or_insert_with(|| broadcast::channel(TOPIC_CAPACITY).0);
            let forwarding = forward(channel.subscribe(), self.outgoing.clone());
            self.subscriptions
                .insert(topic.clone(), tokio::spawn(forwarding));
        }
        self.answer(&Answer::Subscribed { topic }).await
    }

    async fn unsubscribe(&mut self, topic: String) -> Result<()> {
        if let Some(forwarding) = self.subscriptions.remove(&topic) {
            forwarding.abort();
        }
        self.answer(&Answer::Unsubscribed { topic }).await
    }

    async fn publish(&self, topic: String, mut message: Value) -> Result<()> {
        if !self.subscriptions.contains_key(&topic) {
            return self.refuse(&format!("not subscribed to {topic}")).await;
        }
        let (event, payload) = (message["event"].take(), message["payload"].take());
        if let Some(channel) = self.topics.lock().await.get(&topic) {
            let event = event.as_str().unwrap_or_default().to_owned();
            let push = Answer::Push {
                topic,
                event,
                payload,
            };
            // Nobody listening is no error.
            drop(channel.send(serde_json::to_string(&push)?.into()));
        }
        Ok(())
    }

    async fn refuse(&self, message: &str) -> Result<()> {
        self.answer(&Answer::Error {
            message: message.into(),
        })
        .await
    }

    async fn answer(&self, answer: &Answer) -> Result<()> {
        Ok(self
            .outgoing
            .send(serde_json::to_string(answer)?.into())
            .await?)
    }
}

/// What the relay says, its keys in the protocol's order.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Answer {
    Subscribed {
        topic: String,
    },
    Unsubscribed {
        topic: String,
    },
    Push {
        topic: String,
        event: String,
        payload: Value,
    },
    Pong,
    Error {
        message: String,
    },
}

async fn forward(mut topic: broadcast::Receiver<Utf8Bytes>, outgoing: mpsc::Sender<Utf8Bytes>) {
    loop {
        let push = match topic.recv().await {
            Ok(push) => push,
            // What a slow receiver missed is lost without a word, as in the model.
            Err(RecvError::Lagged(_)) => continue,
            Err(RecvError::Closed) => return,
        };
        if outgoing.send(push).await.is_err() {
            return;
        }
    }
}

async fn write(
    mut sink: SplitSink<WebSocketStream<TcpStream>, Message>,
    mut waiting: mpsc::Receiver<Utf8Bytes>,
    coalesce: bool,
) -> Result<()> {
    while let Some(text) = waiting.recv().await {
        sink.feed(Message::Text(text)).await?;
        while coalesce && let Ok(text) = waiting.try_recv() {
            sink.feed(Message::Text(text)).await?;
        }
        sink.flush().await?;
    }
    Ok(())
}

const TOPIC_CAPACITY: usize = 128;
const OUTGOING_MAX: usize = 128;
