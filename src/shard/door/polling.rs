//! Requests of Engine.IO: sessions that begin by polling, polls and posts. A request that lands on any
//! shard is answered by the one that its session names. Knows requests; of a session only its name.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use http::header::{self, HeaderValue};
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use tokio::sync::oneshot;

use crate::gateway::client::Handshake;
use crate::metrics::Counter;
use crate::proto::engineio::{self, Open, Payload, Query, Refusal, Sid, Transport};
use crate::proto::http::Head;
use crate::session::engineio::{Engine, PollId, Up};

use crate::proto::json::JsonParser;
use crate::shard::door::engine::Begin;
use crate::shard::door::line::Watch;
use crate::shard::kernel::ring::SlotKey;
use crate::shard::socket::half_open::{Bounds, Place};
use crate::shard::socket::tickets::counted;
use crate::shard::state::State;
use crate::shard::state::command::Command;
use crate::shard::state::engines::{Carried, EngineAsk, Polled, Waiting, What};
use crate::shard::state::shard::Shard;
use crate::shard::state::shared::Shared;

/// Answers a plain request to a mount of Engine.IO.
pub(crate) async fn answer(
    shard: &Rc<Shard>,
    mount: u16,
    from: (SocketAddr, Watch),
    (request, head): (Request<Incoming>, Option<Head>),
) -> Response<Body> {
    let origin = request.headers().get(header::ORIGIN).cloned();
    let allowed = shard.with_state(|state| {
        let origin = origin.as_ref().map(|origin| origin.to_str().unwrap_or("?"));
        state.live.origins.allows(origin)
    });
    if !allowed {
        return response_of(Polled::Refused(Refusal::Forbidden));
    }
    let preflight = (request.method() == Method::OPTIONS).then(|| request.headers().clone());
    let mut response = match preflight {
        Some(asked) => preflight_of(&asked),
        None => response_to(shard, mount, from, (request, head)).await,
    };
    if let Some(origin) = origin {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::VARY, HeaderValue::from_static("origin"));
        let yes = HeaderValue::from_static("true");
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
    }
    response
}

fn preflight_of(asked: &HeaderMap) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = http::StatusCode::NO_CONTENT;
    let methods = HeaderValue::from_static("GET, POST");
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    if let Some(names) = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
    }
    response
}

async fn response_to(
    shard: &Rc<Shard>,
    mount: u16,
    from: (SocketAddr, Watch),
    (request, head): (Request<Incoming>, Option<Head>),
) -> Response<Body> {
    let polled = match shard.query_of(request.uri().query().unwrap_or("")) {
        Err(refusal) => Polled::Refused(refusal),
        Ok(query) => match (query.sid, request.method().clone()) {
            (None, Method::GET) if query.transport == Transport::Polling => match head {
                Some(head) => shard.begin_polling(mount, from.0, head),
                None => Polled::Refused(Refusal::Request),
            },
            (None, Method::GET) => Polled::Refused(Refusal::Request),
            (None, _) => Polled::Refused(Refusal::Method),
            (Some(sid), method) => {
                with_session(shard, (mount, &sid), (method, request), from.1).await
            }
        },
    };
    let cookie = shard.with_state(|state| state.live.socketio.cookie.clone());
    match (&polled, cookie.is_empty()) {
        (Polled::Opened(_, sid), false) => {
            let cookie = format!("{cookie}={sid}; Path=/; HttpOnly; SameSite=Lax");
            let mut response = response_of(polled);
            if let Ok(value) = HeaderValue::from_str(&cookie) {
                response.headers_mut().insert(header::SET_COOKIE, value);
            }
            response
        }
        _ => response_of(polled),
    }
}

async fn with_session(
    shard: &Rc<Shard>,
    (mount, sid): (u16, &str),
    (method, request): (Method, Request<Incoming>),
    watch: Watch,
) -> Polled {
    let shared = Arc::clone(&shard.shared);
    let Some(sid) = Sid::parse(sid).filter(|sid| sid.shard() < shared.shards()) else {
        return Polled::Refused(Refusal::Sid);
    };
    match method {
        Method::GET => {
            let number = shared.polls.fetch_add(1, Ordering::Relaxed);
            let (waiting, answer) = oneshot::channel();
            let asked = Asked {
                shared: &shared,
                mount,
                sid,
                gone: Some(What::PollGone(number)),
            };
            asked.poll((number, waiting), answer, watch).await
        }
        Method::POST => {
            let (bytes_max, body_ms_max) = shard.with_state(|state| {
                let limits = state.live.limits_of(mount);
                (limits.message_bytes_max, limits.body_ms_max)
            });
            let octets = HeaderValue::from_static("application/octet-stream");
            if request.headers().get(header::CONTENT_TYPE) == Some(&octets) {
                post(&shared, mount, sid, What::PostBegin);
                post(&shared, mount, sid, What::PostBegin);
                return Polled::Refused(Refusal::Request);
            }
            let asked = Asked {
                shared: &shared,
                mount,
                sid,
                gone: Some(What::PostGone),
            };
            post(&shared, mount, sid, What::PostBegin);
            let body = Limited::new(request.into_body(), bytes_max).collect();
            let within = Duration::from_millis(body_ms_max);
            match tokio::time::timeout(within, body).await {
                Ok(Ok(body)) => {
                    let (waiting, answer) = oneshot::channel();
                    asked
                        .wait(What::Post(body.to_bytes(), waiting), answer)
                        .await
                }
                Ok(Err(_)) => Polled::Problem(413, String::new()),
                Err(_) => {
                    let text = format!("the body took longer than body_ms_max = {body_ms_max}");
                    Polled::Problem(408, text)
                }
            }
        }
        _ => Polled::Refused(Refusal::Request),
    }
}

/// A request that a session knows of; if it is given up, the session hears of that.
struct Asked<'a> {
    shared: &'a Shared,
    mount: u16,
    sid: Sid,
    gone: Option<What>,
}

impl Asked<'_> {
    /// Asks for packets. Who ends its side while none are there has given the poll up: the session
    /// hears of that at once, and answers with what it still has, or refuses.
    async fn poll(
        mut self,
        (number, waiting): (PollId, Waiting),
        mut answer: oneshot::Receiver<Polled>,
        watch: Watch,
    ) -> Polled {
        if !post(
            self.shared,
            self.mount,
            self.sid,
            What::Poll(number, waiting),
        ) {
            return Polled::Problem(503, "the server is overloaded".to_owned());
        }
        let polled = tokio::select! {
            biased;
            polled = &mut answer => polled,
            () = watch.peer_ended() => {
                self.give_up();
                answer.await
            }
        };
        self.gone = None;
        polled.unwrap_or(Polled::Refused(Refusal::Sid))
    }

    fn give_up(&mut self) {
        if let Some(gone) = self.gone.take() {
            post(self.shared, self.mount, self.sid, gone);
        }
    }

    async fn wait(mut self, what: What, answer: oneshot::Receiver<Polled>) -> Polled {
        if !post(self.shared, self.mount, self.sid, what) {
            return Polled::Problem(503, "the server is overloaded".to_owned());
        }
        let polled = answer.await;
        self.gone = None;
        polled.unwrap_or(Polled::Refused(Refusal::Sid))
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.give_up();
    }
}

fn post(shared: &Shared, mount: u16, sid: Sid, what: What) -> bool {
    let ask = EngineAsk { mount, sid, what };
    let port = &shared.ports[usize::from(sid.shard())];
    port.post(Command::Engine(ask)).is_ok()
}

fn response_of(polled: Polled) -> Response<Body> {
    let text = "text/plain; charset=UTF-8";
    let (status, kind, body) = match polled {
        Polled::Body(body) | Polled::Opened(body, _) => (200, text, body),
        Polled::Taken => (200, "text/html", b"ok".to_vec()),
        Polled::Refused(refusal) => (refusal.status(), "application/json", refusal.body()),
        Polled::Problem(status, text) => (status, "text/plain; charset=UTF-8", text.into_bytes()),
    };
    let response = Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, kind)
        .header(header::CACHE_CONTROL, "no-store")
        .body(Body::from(body));
    response.unwrap_or_default()
}

impl Shard {
    /// Reads a query; a transport that is switched off is unknown.
    pub(crate) fn query_of(&self, query: &str) -> Result<Query, Refusal> {
        let query = Query::parse(query)?;
        let wanted = match query.transport {
            Transport::Polling => crate::config::Transport::Polling,
            Transport::WebSocket => crate::config::Transport::WebSocket,
        };
        let known = self.with_state(|state| state.live.socketio.transports.contains(&wanted));
        match known {
            true => Ok(query),
            false => Err(Refusal::Transport),
        }
    }

    /// Begins a session whose packets travel by requests.
    fn begin_polling(self: &Rc<Self>, mount: u16, peer: SocketAddr, head: Head) -> Polled {
        let mut secret = [0; 12];
        if getrandom::fill(&mut secret).is_err() {
            return Polled::Problem(503, "no random numbers".to_owned());
        }
        let begun = self.with_state(|state| {
            if state.draining || state.shared.memory.is_short() {
                return Err(Polled::Problem(
                    503,
                    "the server takes nobody new".to_owned(),
                ));
            }
            let (caller, has_token) = state
                .engine_identity(mount, &head)
                .map_err(Polled::Refused)?;
            state.make_room_for_polling(peer.ip())?;
            let sid = Sid::new(state.index, state.engines.next_place(), secret);
            let expires_ms = state.token_end_ms(&caller);
            let limits = state.engine_limits(mount);
            let engine = Engine::of_polling(sid, state.now_ms, &limits);
            let mut open = Vec::new();
            let name = sid.text();
            engineio::put_open(
                &mut open,
                &Open {
                    sid: &name,
                    may_upgrade: state.offers_upgrade(),
                    ping_interval_ms: limits.ping_interval_ms,
                    pong_timeout_ms: limits.pong_timeout_ms,
                    payload_bytes_max: limits.payload_bytes_max,
                },
            );
            let begin = Begin {
                mount,
                caller,
                has_token,
                expires_ms,
                handshake: Arc::new(Handshake {
                    peer,
                    head,
                    subprotocol: None,
                }),
            };
            Ok((begin, engine, open, name))
        });
        match begun {
            Err(refused) => refused,
            Ok((begin, engine, open, name)) => {
                let key = self.begin_engine(begin, engine);
                self.with_state(|state| state.note_unjoined(key, peer.ip()));
                Polled::Opened(open, name)
            }
        }
    }
}

impl Shard {
    /// A request asks something of a session here.
    pub(crate) fn handle_engine(
        self: &Rc<Self>,
        ask: EngineAsk,
        now_ms: u64,
        json: &mut JsonParser,
    ) {
        let EngineAsk { mount, sid, what } = ask;
        let key = self.with_state(|state| {
            state.now_ms = state.now_ms.max(now_ms);
            let key = state.engines.find(&sid)?;
            (state.engines.alive(key)?.mount == mount).then_some(key)
        });
        let Some(key) = key else {
            if let What::Poll(_, waiting) | What::Post(_, waiting) = what {
                waiting.send(Polled::Refused(Refusal::Sid)).ok();
            }
            return;
        };
        match what {
            What::Poll(number, waiting) => self.with_state(|state| {
                state.engines.await_answer(number, waiting);
                state.with_engine(key, |engine, limits, now_ms, effects| {
                    engine.handle_poll(number, now_ms, limits, effects);
                });
                state.wake_engine_streams(key);
            }),
            What::PollGone(number) => self.with_state(|state| {
                // Nothing waits for this answer any more; what was kept for it goes.
                let gone = Polled::Refused(Refusal::Request);
                state.engines.answer(number, gone);
                state.with_engine(key, |engine, _, _, effects| {
                    engine.handle_poll_gone(number, effects);
                });
            }),
            What::PostBegin => self.with_state(|state| {
                state.with_engine(key, |engine, limits, now_ms, effects| {
                    engine.handle_post_begin(now_ms, limits, effects);
                });
            }),
            What::PostGone => self.with_state(|state| {
                state.with_engine(key, |engine, limits, now_ms, effects| {
                    engine.handle_post_end(now_ms, limits, effects);
                });
            }),
            What::Post(body, waiting) => {
                let taken = self.take_post(key, &body, json);
                waiting.send(taken).ok();
            }
        }
    }

    fn take_post(self: &Rc<Self>, key: SlotKey, body: &[u8], json: &mut JsonParser) -> Polled {
        let is_taken = self.with_state(|state| {
            state.with_engine(key, |engine, limits, now_ms, effects| {
                engine.handle_post_end(now_ms, limits, effects)
            })
        });
        if is_taken != Some(true) {
            return Polled::Refused(Refusal::Request);
        }
        let packets_max = self.with_state(|state| state.live.socketio.packets_per_post_max);
        let payload = Payload::of(body).ok();
        let payload = payload.filter(|payload| payload.count() <= packets_max);
        for packet in payload.iter().flat_map(Payload::packets) {
            let Ok(packet) = packet else {
                return self.refuse_post(key);
            };
            let up = self.with_state(|state| {
                state.with_engine(key, |engine, limits, _, effects| match engine.is_open() {
                    true => engine.handle_packet(None, packet, limits, effects),
                    false => Up::Nothing,
                })
            });
            self.handle_up(key, up.unwrap_or(Up::Nothing), json);
            self.run_calls();
        }
        match payload {
            Some(_) => Polled::Taken,
            None => self.refuse_post(key),
        }
    }
}

impl State {
    /// Makes room for one more session that requests carry. Each shard has its part.
    fn make_room_for_polling(&mut self, peer: IpAddr) -> Result<(), Polled> {
        let (limits, shards) = (&self.live.limits, usize::from(self.shared.shards()));
        let bounds = Bounds {
            all_max: limits.half_open_max.div_ceil(shards),
            address_max: limits.half_open_per_address_max.div_ceil(shards),
        };
        let is_full = self.live.connections_max.div_ceil(shards) <= self.engines.polling();
        // Requests are answered between turns, so here each session that begins is a turn.
        self.engines.unjoined.begin_turn();
        let address = self.unjoined_address(peer);
        let place = self.engines.unjoined.place(address, bounds, self.now_ms);
        if let (Place::Instead(key), false) = (place, is_full) {
            self.metrics.add(Counter::EngineIoRefused, 1);
            self.with_engine(key, |engine, _, _, effects| engine.handle_evicted(effects));
        }
        if is_full || place == Place::Full {
            self.metrics.add(Counter::EngineIoRefused, 1);
            let text = "too many sessions poll (limits.connections_max, limits.half_open_max)";
            return Err(Polled::Problem(503, text.to_owned()));
        }
        Ok(())
    }

    fn note_unjoined(&mut self, key: SlotKey, peer: IpAddr) {
        let address = self.unjoined_address(peer);
        let must_join = |carried: &mut Carried| 0 < carried.connect_by_ms;
        if self.engines.alive(key).is_some_and(must_join) {
            self.engines.note_unjoined(key, address, self.now_ms);
        }
    }

    /// What a session counts for until it has joined; of a proxy, which brings many, nothing.
    fn unjoined_address(&self, peer: IpAddr) -> Option<IpAddr> {
        (!self.live.trusts(peer)).then(|| counted(peer))
    }
}

impl Shard {
    fn refuse_post(&self, key: SlotKey) -> Polled {
        self.with_state(|state| {
            state.with_engine(key, |engine, _, _, effects| {
                engine.handle_invalid(None, effects);
            });
        });
        Polled::Refused(Refusal::Request)
    }
}
