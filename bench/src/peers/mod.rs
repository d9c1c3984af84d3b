//! The peers: published crates in the shape that their own documentation shows, on one thread.

mod epoll_floor;
mod fastwebsockets_echo;
mod raw_floor;
mod tungstenite_echo;
mod tungstenite_relay;

use std::future::Future;
use std::io::Write;
use std::net::SocketAddr;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

/// A server to compare with.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Peer {
    /// tokio-tungstenite, an echo.
    TungsteniteEcho {
        #[command(flatten)]
        listen: Listen,
        #[command(flatten)]
        buffers: Buffers,
        /// Pass messages on as a stream into a sink, which flushes only when no message waits.
        #[arg(long)]
        forward: bool,
        /// Read each message as a typed event, and answer with another.
        #[arg(long, conflicts_with = "forward")]
        typed: bool,
    },
    /// fastwebsockets, an echo.
    FastwebsocketsEcho {
        #[command(flatten)]
        listen: Listen,
    },
    /// tokio-tungstenite and one tokio broadcast channel for each topic, the relay protocol.
    TungsteniteRelay {
        #[command(flatten)]
        listen: Listen,
        #[command(flatten)]
        buffers: Buffers,
        /// Write what waits for a connection together, with one flush.
        #[arg(long)]
        coalesce: bool,
    },
    /// Plain TCP on epoll that returns the bytes it gets.
    EpollFloor {
        #[command(flatten)]
        listen: Listen,
    },
    /// Plain TCP on io_uring that returns the bytes it gets: the floor below any WebSocket.
    RawFloor {
        #[command(flatten)]
        listen: Listen,
    },
}

/// Where to listen.
#[derive(Debug, Clone, Args)]
pub(crate) struct Listen {
    /// Port 0 picks a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
}

/// How much a tungstenite connection buffers.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Buffers {
    /// 128 KiB each way, as the crate does by itself, in place of 4 KiB.
    #[arg(long)]
    default_buffers: bool,
}

impl Buffers {
    fn config(self) -> WebSocketConfig {
        let config = WebSocketConfig::default();
        if self.default_buffers {
            return config;
        }
        config
            .read_buffer_size(BUFFER_BYTES)
            .write_buffer_size(BUFFER_BYTES)
    }
}

impl Peer {
    /// Serves until the process is ended.
    pub(crate) fn serve(self) -> Result<()> {
        match self {
            Self::TungsteniteEcho {
                listen,
                buffers,
                typed: true,
                ..
            } => accept_all(&listen, move |stream| {
                tungstenite_echo::serve_typed(stream, buffers.config())
            }),
            Self::TungsteniteEcho {
                listen,
                buffers,
                forward,
                ..
            } => accept_all(&listen, move |stream| {
                tungstenite_echo::serve(stream, buffers.config(), forward)
            }),
            Self::FastwebsocketsEcho { listen } => accept_all(&listen, fastwebsockets_echo::serve),
            Self::TungsteniteRelay {
                listen,
                buffers,
                coalesce,
            } => {
                let topics = tungstenite_relay::Topics::default();
                accept_all(&listen, move |stream| {
                    tungstenite_relay::serve(stream, buffers.config(), topics.clone(), coalesce)
                })
            }
            Self::EpollFloor { listen } => epoll_floor::serve(&listen),
            Self::RawFloor { listen } => raw_floor::serve(&listen),
        }
    }
}

/// One task for each connection, all on this thread.
fn accept_all<F>(listen: &Listen, serve: impl Fn(TcpStream) -> F) -> Result<()>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(listen.listen).await;
        let listener = listener.with_context(|| format!("listen on {}", listen.listen))?;
        announce(listener.local_addr()?)?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            // A connection that ends with an error is the end of that connection alone.
            tokio::spawn(serve(stream));
        }
    })
}

/// The first line on stdout, the same as Tidegate's but for the name.
fn announce(address: SocketAddr) -> Result<()> {
    let mut stdout = std::io::stdout();
    writeln!(stdout, "bench listening on http://{address}")?;
    Ok(stdout.flush()?)
}

/// What tungstenite's documentation advises for many connections.
const BUFFER_BYTES: usize = 4 << 10;
