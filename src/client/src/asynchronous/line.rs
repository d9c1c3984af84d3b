//! One connection after the other to the same mount, on tokio. Whatever is given up half way, as in a
//! `select!`, is found again by the next call: what is to go out stands in a queue, an attempt to
//! come back has its time written down. Knows no dialect.

use std::collections::VecDeque;
use std::time::Instant;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::Client;
use crate::ClientError;
use crate::dial;
use crate::line::{Heard, RENEWED_EVERY, now};
use crate::reconnect::Pace;
use crate::sealed::{not_shaken, server_name};
use crate::socket::{Ended, not_upgraded, request};

type Socket = WebSocketStream<Box<dyn Duplex>>;

/// A stream that is sealed or is not.
trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

/// A connection that comes back, if its client says so.
pub(super) struct Line {
    client: Client,
    path: String,
    protocol: &'static str,
    /// Nothing while it is lost.
    socket: Option<Socket>,
    /// What goes out before anything else.
    queue: VecDeque<String>,
    opened_at: Instant,
    /// When the next attempt is due.
    try_at: Option<Instant>,
    renewed_at: Option<Instant>,
    /// A token that is being asked for.
    renewal: Option<JoinHandle<Result<String, ClientError>>>,
    pace: Pace,
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Line")
            .field("path", &self.path)
            .field("is_up", &self.socket.is_some())
            .finish_non_exhaustive()
    }
}

impl Line {
    pub(super) async fn open(
        client: &Client,
        path: &str,
        protocol: &'static str,
    ) -> Result<Self, ClientError> {
        let socket = open(client, path, protocol, false).await?;
        Ok(Self {
            client: client.clone(),
            path: path.to_owned(),
            protocol,
            socket: Some(socket),
            queue: VecDeque::new(),
            opened_at: now(),
            try_at: None,
            renewed_at: None,
            renewal: None,
            pace: Pace::default(),
        })
    }

    pub(super) fn is_lasting(&self) -> bool {
        self.client.reconnect.is_some()
    }

    /// Goes out with the next `send` or `receive`.
    pub(super) fn queue(&mut self, text: String) {
        self.queue.push_back(text);
    }

    /// Whether that has gone out. On a lasting line a failure is told by `receive`.
    pub(super) async fn send(&mut self, text: String) -> Result<bool, ClientError> {
        if self.socket.is_none() {
            return Ok(false);
        }
        self.queue.push_back(text);
        match self.flush().await {
            Err(ClientError::Closed(_)) if self.is_lasting() => Ok(false),
            sent => sent.map(|()| true),
        }
    }

    async fn flush(&mut self) -> Result<(), ClientError> {
        let Some(socket) = &mut self.socket else {
            return Ok(());
        };
        let sent = timeout(self.client.time_max, async {
            // Taken out when the socket has it: a call that is given up sends nothing twice.
            while !self.queue.is_empty() {
                futures_util::future::poll_fn(|context| socket.poll_ready_unpin(context)).await?;
                let Some(text) = self.queue.pop_front() else {
                    break;
                };
                socket.start_send_unpin(Message::text(text))?;
            }
            socket.flush().await
        });
        match sent.await {
            Ok(sent) => sent.map_err(|error| ClientError::Closed(error.to_string())),
            Err(_) => Err(ClientError::Closed(format!(
                "the server has read nothing for {} ms",
                self.client.time_max.as_millis()
            ))),
        }
    }

    pub(super) async fn receive(&mut self) -> Result<Heard, ClientError> {
        if self.socket.is_none() {
            return self.come_back().await;
        }
        if !self.queue.is_empty() {
            // What fails here is the loss that is read next.
            let _ = self.flush().await;
        }
        loop {
            let Some(socket) = &mut self.socket else {
                return self.come_back().await;
            };
            let ended = tokio::select! {
                token = finished(&mut self.renewal) => {
                    self.renewal = None;
                    // Whoever gives tokens may have one later; the connection has its old one.
                    if let Ok(token) = token {
                        let frame = serde_json::json!({ "type": "auth", "token": token });
                        self.send(frame.to_string()).await?;
                    }
                    continue;
                }
                read = socket.next() => match read {
                    Some(Ok(Message::Text(text))) => return Ok(Heard::Text(text.to_string())),
                    Some(Ok(Message::Close(frame))) => Ended::by(frame),
                    Some(Ok(_)) => continue,
                    Some(Err(error)) => Ended { code: None, reason: error.to_string() },
                    None => Ended { code: None, reason: "the connection is closed".to_owned() },
                },
            };
            return self.lose(ended).await.map(Heard::Lost);
        }
    }

    async fn lose(&mut self, ended: Ended) -> Result<String, ClientError> {
        let Ended { code, reason } = ended;
        if let Some(mut socket) = self.socket.take() {
            // The answer to a close goes out now or never.
            let _ = timeout(self.client.time_max, socket.flush()).await;
        }
        self.queue.clear();
        if !self.is_lasting() {
            return Err(ClientError::Closed(reason));
        }
        let can_renew = self.client.can_renew();
        match self.pace.lost(code, self.opened_at.elapsed(), can_renew) {
            true => Ok(reason),
            false => Err(ClientError::Closed(reason)),
        }
    }

    async fn come_back(&mut self) -> Result<Heard, ClientError> {
        let Some(how) = self.client.reconnect else {
            return Err(ClientError::Closed("the connection has ended".to_owned()));
        };
        loop {
            let at = match self.try_at {
                Some(at) => at,
                None => *self.try_at.insert(now() + self.pace.wait(how)),
            };
            sleep_until(at.into()).await;
            let opened = open(&self.client, &self.path, self.protocol, self.pace.renew).await;
            self.try_at = None;
            match opened {
                Ok(socket) => {
                    self.socket = Some(socket);
                    self.opened_at = now();
                    self.pace.renew = false;
                    return Ok(Heard::Back);
                }
                Err(error) if self.pace.failed(how, &error, self.client.can_renew()) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The token soon ends: another one is asked for, not too often and beside what else is done.
    pub(super) fn renew(&mut self) {
        let is_soon = |at: Instant| at.elapsed() < RENEWED_EVERY;
        if !self.client.can_renew() || self.renewed_at.is_some_and(is_soon) {
            return;
        }
        self.renewed_at = Some(now());
        let client = self.client.clone();
        self.renewal = Some(tokio::task::spawn_blocking(move || client.token(true)));
    }

    pub(super) async fn close(mut self) {
        let time_max = self.client.time_max;
        if let Some(socket) = &mut self.socket {
            let goodbye = async {
                if socket.close(None).await.is_ok() {
                    while let Some(Ok(_)) = socket.next().await {}
                }
            };
            let _ = timeout(time_max, goodbye).await;
        }
    }
}

/// The end of what runs, if anything does.
async fn finished(
    running: &mut Option<JoinHandle<Result<String, ClientError>>>,
) -> Result<String, ClientError> {
    match running {
        Some(running) => running.await.unwrap_or_else(|_| Err(ended_early())),
        None => std::future::pending().await,
    }
}

/// What blocks, on a thread for that.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ClientError> + Send + 'static,
) -> Result<T, ClientError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(ended_early()))
}

fn ended_early() -> ClientError {
    ClientError::Strange("a thread ended early".to_owned())
}

async fn open(
    client: &Client,
    path: &str,
    protocol: &str,
    renew: bool,
) -> Result<Socket, ClientError> {
    let asked = client.clone();
    let token = blocking(move || asked.token(renew)).await?;
    let request = request(client, path, protocol, &token)?;
    let unreached = |source| ClientError::Connect(client.host.clone(), source);
    let opened = timeout(client.time_max, async {
        let stream = TcpStream::connect(&client.host).await.map_err(unreached)?;
        dial::prepare(&stream).map_err(unreached)?;
        let stream = sealed(client, stream).await?;
        let upgraded = tokio_tungstenite::client_async(request, stream).await;
        upgraded.map_err(|error| not_upgraded(path, &error))
    });
    match opened.await {
        Ok(opened) => opened.map(|(socket, _)| socket),
        Err(_) => Err(ClientError::Timeout {
            what: format!("answer to the upgrade at {path}"),
            limit: client.time_max,
        }),
    }
}

async fn sealed(client: &Client, stream: TcpStream) -> Result<Box<dyn Duplex>, ClientError> {
    let Some(tls) = &client.tls else {
        return Ok(Box::new(stream));
    };
    let sealed = tls.connector().connect(server_name(client)?, stream).await;
    Ok(Box::new(sealed.map_err(|error| not_shaken(client, error))?))
}
