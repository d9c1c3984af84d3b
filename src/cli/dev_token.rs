//! A token of a running server of `--dev`: asked for over loopback, as its page does. Knows one
//! request; what a token says is told by the caller.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::http::Wish;

/// Why a running server gives no token.
#[derive(Debug, thiserror::Error)]
pub(super) enum DevTokenError {
    #[error(
        "no server of --dev answers on {0}: start `tidegate serve --dev`, or name its --listen here"
    )]
    Away(SocketAddr, #[source] AskError),
    #[error("--claim is for tokens that are signed here: leave it out, or leave --dev out")]
    Claims,
    #[error("no server of --dev answers on {0} within {ASKED_S} s")]
    Silent(SocketAddr),
    #[error("the server on {address} gives no token: {status}, {told}")]
    Refused {
        address: SocketAddr,
        status: u16,
        told: String,
    },
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error("no connection")]
    Connect(#[from] std::io::Error),
    #[error("no answer")]
    Http(#[from] hyper::Error),
    #[error("no request")]
    Request(#[from] http::Error),
    #[error("no body")]
    Body(#[from] serde_json::Error),
    #[error("an answer that is too long")]
    Long,
}

/// The token that the server on `address` gives for `wish`.
pub(super) fn ask(address: SocketAddr, wish: &Wish) -> Result<String, DevTokenError> {
    let address = reached(address);
    let away = |error: AskError| DevTokenError::Away(address, error);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| away(error.into()))?;
    let (status, body) = runtime
        .block_on(async {
            // A timer is made where it runs.
            let bound = Duration::from_secs(ASKED_S);
            timeout(bound, request(address, wish)).await
        })
        .map_err(|_| DevTokenError::Silent(address))?
        .map_err(away)?;
    match serde_json::from_slice::<Given>(&body) {
        Ok(given) if status == 200 => Ok(given.token),
        _ => {
            let problem = serde_json::from_slice::<Told>(&body);
            let told =
                problem.map_or_else(|_| "not a server of --dev".to_owned(), |told| told.detail);
            Err(DevTokenError::Refused {
                address,
                status,
                told,
            })
        }
    }
}

async fn request(address: SocketAddr, wish: &Wish) -> Result<(u16, Bytes), AskError> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = http::Request::post("/v1/dev/token")
        .header(HOST, address.to_string())
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(serde_json::to_vec(wish)?)))?;
    let answered = async {
        let answer = sender.send_request(request).await?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await
            .map_err(|_| AskError::Long)?;
        Ok((status, body.to_bytes()))
    };
    let (answer, _) = tokio::join!(answered, connection);
    answer
}

/// Where a server on all addresses is reached.
fn reached(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

#[derive(Deserialize)]
struct Given {
    token: String,
}

#[derive(Deserialize)]
struct Told {
    detail: String,
}

const ASKED_S: u64 = 5;
const ANSWER_BYTES_MAX: usize = 64 << 10;
