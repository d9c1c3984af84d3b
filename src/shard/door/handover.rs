//! From the data ring to hyper: a request that is for no mount goes, with its socket and the
//! bytes read so far, to an axum router on the same shard. Knows sockets and streams; no routes.

use std::cell::Cell;
use std::convert::Infallible;
use std::net::{SocketAddr, TcpStream as StdStream};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use http::header::{HOST, HeaderValue};
use http::{Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tower::ServiceExt;

use crate::config::Limits;
use crate::metrics::Refusal as RefusedFor;
use crate::proto::handshake::HandshakeError;
use crate::proto::http::{Head, check_host, error_response};

use crate::shard::door::bodies::{Lateness, hold};
use crate::shard::door::line::{Line, Watch};
use crate::shard::door::polling;
use crate::shard::door::rewound::Rewound;
use crate::shard::door::sealed::Stream;
use crate::shard::door::upgrade;
use crate::shard::link;
use crate::shard::socket::connection::Arrival;
use crate::shard::socket::connection::{Connection, Guard};
use crate::shard::socket::tickets::TOO_MANY_FAILURES;
use crate::shard::socket::transport::Transport;
use crate::shard::state::admitted::Admitted;
use crate::shard::state::command::{Accepted, Command, Moved};
use crate::shard::state::shard::Shard;
use crate::tls::Tls;

/// HTTP on one shard.
#[derive(Clone)]
pub(crate) struct Http {
    router: Router,
    open: Rc<Cell<usize>>,
    drain: watch::Sender<bool>,
}

impl std::fmt::Debug for Http {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Http")
            .field("open", &self.open.get())
            .finish_non_exhaustive()
    }
}

impl Http {
    pub(crate) fn new(router: Router) -> Self {
        Self {
            router,
            open: Rc::default(),
            drain: watch::Sender::new(false),
        }
    }

    /// Serves a connection whose first bytes have been read already.
    pub(crate) fn serve(&self, shard: Rc<Shard>, connection: Connection, read: Vec<u8>) {
        let http = self.clone();
        self.open.set(self.open.get() + 1);
        // The place that the connection takes of its address stays taken.
        let (fd, tls) = (connection.fd, connection.transport.into_tls());
        let place = Rc::new(Cell::new(connection.guard));
        tokio::task::spawn_local(async move {
            if let Err(error) = http.serve_stream(&shard, (fd, tls), &place, read).await {
                tracing::debug!(target: "tidegate::http", %error, "connection ended");
            }
            drop(place);
            shard.with_state(|state| state.give_up_place());
            http.open.set(http.open.get() - 1);
        });
    }

    async fn serve_stream(
        &self,
        shard: &Rc<Shard>,
        (fd, tls): (OwnedFd, Option<Box<Tls>>),
        place: &Place,
        read: Vec<u8>,
    ) -> Result<(), ServeError> {
        let stream = StdStream::from(fd);
        stream.set_nonblocking(true)?;
        let peer = stream.peer_addr()?;
        let live = shard.with_state(|state| Arc::clone(&state.live));
        let stall = Duration::from_millis(live.limits.write_stall_ms_max);
        let line = Line::new(TcpStream::from_std(stream)?);
        let watch = line.watch();
        let stream = Rewound::new(Stream::new(line, tls), read, stall);
        let answer = |request| {
            let from = (peer, Rc::clone(place), watch.clone());
            answer(Rc::clone(shard), self.router.clone(), from, request)
        };
        let connection = builder(&live.limits)
            .serve_connection(TokioIo::new(stream), service_fn(answer))
            .with_upgrades();
        let mut drain = self.drain.subscribe();
        tokio::pin!(connection);
        tokio::select! {
            served = &mut connection => served?,
            _ = drain.wait_for(|draining| *draining) => {
                connection.as_mut().graceful_shutdown();
                connection.await?;
            }
        }
        Ok(())
    }

    /// Ends connections after their current request.
    pub(crate) fn drain(&self) {
        self.drain.send_replace(true);
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.open.get() == 0
    }
}

/// What a connection holds of its address, for whoever has it last: HTTP, or an upgrade.
type Place = Rc<Cell<Option<Box<Guard>>>>;

/// Where a request comes from, what a proxy said of it, and the place of its connection.
struct Requester {
    peer: SocketAddr,
    arrival: Option<Arrival>,
    place: Place,
}

impl Requester {
    /// An upgrade takes along what is counted.
    fn move_to(self, connection: &mut Connection) {
        match self.arrival {
            Some(arrival) => connection.arrive(arrival),
            None => connection.guard = self.place.take(),
        }
    }
}

/// The heads that follow on a connection are bounded as the first one is.
fn builder(limits: &Limits) -> Builder {
    let mut builder = Builder::new();
    builder
        .timer(TokioTimer::new())
        // Who has sent all there is to send still reads the answers (RFC 9112, 9.6).
        .half_close(true)
        .header_read_timeout(Duration::from_millis(limits.handshake_ms_max))
        .max_headers(limits.headers_max)
        .max_buf_size(limits.head_bytes_max.max(BUFFER_BYTES_MIN));
    builder
}

/// Hyper's buffer is not made smaller.
const BUFFER_BYTES_MIN: usize = 8_192;

#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Http(#[from] hyper::Error),
}

/// A mount that is upgraded to late, on a connection that spoke HTTP before; else the router.
async fn answer(
    shard: Rc<Shard>,
    router: Router,
    (peer, place, watch): (SocketAddr, Place, Watch),
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let uri_bytes_max = shard.with_state(|state| state.live.limits.uri_bytes_max);
    let target = request.uri().path_and_query();
    if target.is_some_and(|target| uri_bytes_max < target.as_str().len()) {
        let text = format!("the request target exceeds uri_bytes_max = {uri_bytes_max}");
        return Ok(response_of(&error_response(414, &text)));
    }
    let hosts = request.headers().get_all(HOST).iter();
    let is_version_11 = request.version() == Version::HTTP_11;
    if let Err(error) = check_host(hosts.map(HeaderValue::as_bytes), is_version_11) {
        shard.with_state(|state| state.metrics.refused(RefusedFor::Head));
        return Ok(response_of(&error.response()));
    }
    let arrival = match shard.with_state(|state| state.arrival_of(peer, request.headers())) {
        Ok(arrival) => arrival,
        Err((status, text)) => {
            shard.with_state(|state| state.metrics.refused(RefusedFor::Limit));
            return Ok(response_of(&error_response(status, text)));
        }
    };
    let peer = arrival.as_ref().map_or(peer, |arrival| arrival.client);
    let mount = upgrade::mount_of(&shard.shared, request.uri().path());
    if let Some(mount) = mount.filter(|mount| shard.is_engine(*mount))
        && !request.headers().contains_key(http::header::UPGRADE)
    {
        let head = head_of(&request);
        let from = (peer, watch);
        return Ok(polling::answer(&shard, mount, from, (request, Some(head))).await);
    }
    let is_for_mount = upgrade::is_for_mount(&shard.shared, request.method().as_str());
    if let Some(mount) = mount.filter(|_| is_for_mount) {
        let from = Requester {
            peer,
            arrival,
            place,
        };
        return Ok(upgrade_late(&shard, mount, from, request).await);
    }
    let extensions = request.extensions_mut();
    extensions.insert(ConnectInfo(peer));
    extensions.insert(link::relay_of(&shard.shared));
    if let Some(world) = &shard.shared.durable {
        extensions.insert(world.topics.clone());
    }
    extensions.insert(shard.shared.program.clone());
    let body_ms_max = shard.with_state(|state| state.live.limits.body_ms_max);
    let lateness = Lateness::default();
    let request = request.map(|body| lateness.watch(body, body_ms_max));
    let answer = router.oneshot(request).await?;
    if lateness.is_late() {
        let text = format!("the body took longer than body_ms_max = {body_ms_max}");
        return Ok(response_of(&error_response(408, &text)));
    }
    if mount.is_some() && is_routeless(answer.status()) {
        return Ok(response_of(&HandshakeError::Method.response()));
    }
    let within = answer.status() != StatusCode::UNAUTHORIZED
        || shard.with_state(|state| state.note_auth_failure(peer.ip()));
    let ticket = arrival.and_then(|arrival| arrival.ticket);
    Ok(match within {
        true => answer.map(|body| hold(body, ticket)),
        false => response_of(&error_response(429, TOO_MANY_FAILURES)),
    })
}

/// Whether nobody has a route there: then what stands there is the mount alone.
fn is_routeless(status: StatusCode) -> bool {
    status == StatusCode::NOT_FOUND || status == StatusCode::METHOD_NOT_ALLOWED
}

async fn upgrade_late(
    shard: &Rc<Shard>,
    mount: u16,
    from: Requester,
    request: Request<Incoming>,
) -> Response<Body> {
    let head = head_of(&request);
    let peer = from.peer;
    let admitted = shard.with_state(|state| state.admit(&head, mount, |_| Some(peer.ip())));
    let admitted = match admitted {
        Ok(mut admitted) if shard.is_engine(mount) => match shard.check_engine(&head) {
            Ok(()) => {
                admitted.keep(peer, head);
                Ok(admitted)
            }
            Err(refusal) => Err((RefusedFor::Head, refusal.response())),
        },
        Ok(admitted) if shard.is_event(mount) => {
            let verdict = shard.guard((peer, head), admitted).await;
            verdict.ok_or_else(|| (RefusedFor::Guard, crate::shard::speak::event::forbidden()))
        }
        Ok(mut admitted) if shard.is_raw(mount) => {
            admitted.keep(peer, head);
            Ok(admitted)
        }
        admitted => admitted,
    };
    let admitted = match admitted {
        Ok(admitted) => admitted,
        Err((why, response)) => {
            shard.with_state(|state| state.metrics.refused(why));
            return response_of(&response);
        }
    };
    let response = response_of(&admitted.response);
    let shard = Rc::clone(shard);
    tokio::task::spawn_local(async move {
        match hyper::upgrade::on(request).await {
            Ok(upgraded) => return_to_ring(&shard, upgraded, admitted, from),
            Err(error) => tracing::debug!(target: "tidegate::http", %error, "upgrade failed"),
        }
    });
    response
}

/// From hyper back to the data ring.
fn return_to_ring(shard: &Rc<Shard>, upgraded: Upgraded, admitted: Admitted, from: Requester) {
    let Ok(parts) = upgraded.downcast::<TokioIo<Rewound>>() else {
        return;
    };
    let (stream, tls, mut read) = parts.io.into_inner().into_parts();
    read.extend_from_slice(&parts.read_buf);
    let Some(Ok(stream)) = stream.map(TcpStream::into_std) else {
        return;
    };
    let head = admitted.handshake.as_ref().map(|handshake| &handshake.head);
    if let Some(home) = head.and_then(|head| shard.engine_home(admitted.mount, head)) {
        shard.with_state(|state| {
            state.shared.loads[usize::from(home)].fetch_add(1, Ordering::Relaxed);
            let accepted = Accepted {
                fd: stream.into(),
                ticket: from.arrival.and_then(|arrival| arrival.ticket),
                is_tls: false,
                moved: Some(Box::new(Moved {
                    transport: Transport::of(tls),
                    read,
                    admitted: Some(Box::new(admitted)),
                })),
            };
            state.posts.post(home, Command::Adopt(accepted));
        });
        return;
    }
    let key = shard.with_state(|state| {
        state.shared.loads[usize::from(state.index)].fetch_add(1, Ordering::Relaxed);
        let key = state.insert(stream.into(), None);
        if let Some(connection) = state.connections.alive(key) {
            connection.transport = Transport::of(tls);
            from.move_to(connection);
        }
        key
    });
    shard.open(key, admitted, false);
    shard.with_state(|state| state.returned.push((key, read)));
}

/// The head of a request as the data ring would have read it, so that one place decides.
fn head_of(request: &Request<Incoming>) -> Head {
    let target = request.uri().path_and_query();
    let lines = request.headers().iter();
    Head::of_parts(
        request.method().as_str(),
        target.map_or("/", |target| target.as_str()),
        request.version() == Version::HTTP_11,
        lines.map(|(name, value)| (name.as_str(), value.as_bytes())),
    )
}

/// An encoded answer as hyper wants it.
fn response_of(bytes: &[u8]) -> Response<Body> {
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut parsed = httparse::Response::new(&mut headers);
    let Ok(httparse::Status::Complete(body)) = parsed.parse(bytes) else {
        return Response::new(Body::empty());
    };
    let mut response = Response::builder().status(parsed.code.unwrap_or(500));
    for header in parsed.headers.iter() {
        response = response.header(header.name, header.value);
    }
    response
        .body(Body::from(bytes[body..].to_vec()))
        .unwrap_or_default()
}
