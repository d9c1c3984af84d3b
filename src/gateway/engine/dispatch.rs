//! The way of one event: guards, interceptors, payload, handler, interceptors, reply; any error
//! through the exception filters. Polled once on the spot: a handler that need not wait is done
//! without a task. Knows the connection only by its client.

use std::any::type_name;
use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use ahash::AHashMap;
use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use serde_json::Value;
use tracing::{Instrument as _, Level, debug, enabled, error, warn};

use crate::auth::{CALLER, Caller};
use crate::gateway::client::{Handshake, WsClient};
use crate::gateway::context::{ExecutionContext, UpgradeContext, WsArgumentsHost};
use crate::gateway::engine::answers::{internal_error, unknown_event};
use crate::gateway::engine::caught::{caught, note_panic, now_or_later, poll_once};
use crate::gateway::engine::container::{Container, Resolver, StartError, short_name};
use crate::gateway::engine::line::Line;
use crate::gateway::engine::spans;
use crate::gateway::engine::table::{
    Hook, Invocation, Layers, Local, Messages, Panicked, Running, Table,
};
use crate::gateway::engine::wire::{KeptWire, Wire};
use crate::gateway::extract::{EventData, KeptData};
use crate::gateway::filter::{AnyFilter, filtered};
use crate::gateway::guard::{AnyMessageGuard, AnyUpgradeGuard, Layer, joined};
use crate::gateway::interceptor::{AnyInterceptor, Next};
use crate::gateway::reply::{Exception, ExceptionKind, Frame, WsReply};
use crate::proto::CloseCode;

/// An event as it was read from the wire.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Its name.
    pub event: &'a str,
    /// Its payload, `null` where there was none.
    pub data: EventData<'a>,
    /// How its answer stands on the wire.
    pub wire: Wire<'a>,
}

/// What goes out for an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing.
    Nothing,
    /// One frame.
    Frame(Frame),
    /// A close frame, and the end.
    Close {
        /// The close code.
        code: CloseCode,
        /// The reason.
        reason: String,
    },
}

/// How far an event got at once.
#[derive(Debug)]
pub enum Handling {
    /// To its end.
    Done(Outcome),
    /// It waits for something, and is to become a task.
    Pending(Pending),
}

/// An event that waits for something. Dropped, it ends where it stands.
pub struct Pending {
    future: LocalBoxFuture<'static, Outcome>,
    is_concurrent: bool,
}

impl Pending {
    pub(super) fn new(future: LocalBoxFuture<'static, Outcome>, is_concurrent: bool) -> Self {
        Self {
            future,
            is_concurrent,
        }
    }

    /// Whether the events behind it may go on meanwhile.
    pub fn is_concurrent(&self) -> bool {
        self.is_concurrent
    }
}

impl Future for Pending {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        self.future.as_mut().poll(context)
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending")
            .field("is_concurrent", &self.is_concurrent)
            .finish_non_exhaustive()
    }
}

/// A gateway on one shard, whatever its type.
pub trait Dispatch {
    /// May the request become a connection? `false` is a 403.
    fn upgrade(
        self: Rc<Self>,
        caller: Arc<Caller>,
        handshake: Arc<Handshake>,
    ) -> LocalBoxFuture<'static, bool>;

    /// May a client join the namespace of Socket.IO that the gateway is, with what it says to join?
    fn join(
        self: Rc<Self>,
        caller: Arc<Caller>,
        handshake: Arc<Handshake>,
        auth: Arc<Value>,
    ) -> LocalBoxFuture<'static, Result<(), Denied>>;

    /// A connection has been made; nothing to wait for where no hook is bound.
    fn connected(&self, client: &WsClient) -> Handling;

    /// A connection has ended; it leaves its registry when this has.
    fn disconnected(&self, client: &WsClient) -> Handling;

    /// An event has come.
    fn message(&self, client: &WsClient, request: Request<'_>) -> Handling;
}

/// Why a client may not join a namespace: what a guard said beside its no.
#[derive(Debug)]
pub struct Denied {
    /// As JSON.
    pub data: Option<Vec<u8>>,
}

/// A gateway on one shard.
pub(crate) struct Dispatcher<G> {
    name: Rc<str>,
    gateway: Rc<Local<G>>,
    container: Rc<Container>,
    bindings: AHashMap<&'static str, Rc<Bound<G>>>,
    connect: Vec<Hook<G>>,
    disconnect: Vec<Hook<G>>,
    upgrade_guards: Vec<Layer<dyn AnyUpgradeGuard>>,
}

type Handler<G> = dyn Fn(Invocation<G>, EventData<'_>) -> Result<Running, Exception>;

/// An event, its handler, and all that stands around it.
struct Bound<G> {
    event: &'static str,
    gateway: Rc<str>,
    handler: Rc<Handler<G>>,
    is_concurrent: bool,
    guards: Vec<Layer<dyn AnyMessageGuard>>,
    interceptors: Vec<Layer<dyn AnyInterceptor>>,
    filters: Vec<Layer<dyn AnyFilter>>,
    close_on_deny: bool,
    close_on_panic: bool,
}

impl<G: Messages> Dispatcher<G> {
    /// Opens a gateway on this shard: `server` holds what stands around all gateways.
    pub(crate) fn open(
        container: &Container,
        server: &Layers,
        own: &Layers,
    ) -> Result<Self, StartError> {
        let name: Rc<str> = short_name(type_name::<G>()).into();
        let gateway = Resolver::over(container, &name).service::<G>()?;
        let (outer, inner) = (server.open(container)?, own.open(container)?);
        let mut table = Table::<G>::collect();
        let mut bindings = AHashMap::with_capacity(table.bindings.len());
        for binding in table.bindings.drain(..) {
            let method = binding.layers.open(container)?;
            let guards = joined(&outer.message_guards, &inner.message_guards);
            let interceptors = joined(&outer.interceptors, &inner.interceptors);
            let filters = joined(&method.filters, &inner.filters);
            let bound = Bound {
                event: binding.event,
                gateway: name.clone(),
                handler: binding.handler,
                is_concurrent: binding.concurrent,
                guards: joined(&guards, &method.message_guards),
                interceptors: joined(&interceptors, &method.interceptors),
                filters: joined(&filters, &outer.filters),
                close_on_deny: server.close_on_deny || own.close_on_deny,
                close_on_panic: server.close_on_panic || own.close_on_panic,
            };
            bindings.insert(binding.event, Rc::new(bound));
        }
        Ok(Self {
            name,
            gateway: Rc::new(Local(gateway)),
            container: Rc::new(container.clone()),
            bindings,
            connect: table.connect,
            disconnect: table.disconnect,
            upgrade_guards: joined(&outer.upgrade_guards, &inner.upgrade_guards),
        })
    }

    fn call(&self, client: &WsClient, event: &'static str) -> Invocation<G> {
        let (gateway, container) = (self.gateway.clone(), self.container.clone());
        Invocation::new(gateway, client.clone(), event, container)
    }

    /// Runs hooks one after the other. While a connection begins, the first that ends it is the
    /// last; at its end all of them run, for there is nothing left to refuse.
    fn hooks(&self, hooks: &[Hook<G>], client: &WsClient, event: &'static str) -> Handling {
        let is_beginning = event == CONNECT;
        if hooks.is_empty() {
            return Handling::Done(Outcome::Nothing);
        }
        let started = hooks.iter().map(|hook| {
            let (handler, call) = (hook.0.clone(), self.call(client, event));
            async move {
                match caught(|| handler(call, EventData::null())) {
                    Ok(Ok(running)) => running.await,
                    Ok(Err(exception)) => Ok(WsReply::Exception(exception)),
                    Err(panicked) => Err(panicked),
                }
            }
        });
        let started: Vec<_> = started.collect();
        let gateway = self.name.clone();
        let sender = client.clone();
        let future = async move {
            for hook in started {
                let reply = hook.await;
                let outcome = hook_outcome(&gateway, event, &sender, reply);
                if is_beginning && matches!(outcome, Outcome::Close { .. }) {
                    return outcome;
                }
            }
            Outcome::Nothing
        };
        let future = future.instrument(client.span().clone());
        now_or_later(future.boxed_local(), false)
    }
}

impl<G: Messages> Dispatch for Dispatcher<G> {
    fn upgrade(
        self: Rc<Self>,
        caller: Arc<Caller>,
        handshake: Arc<Handshake>,
    ) -> LocalBoxFuture<'static, bool> {
        if self.upgrade_guards.is_empty() {
            return std::future::ready(true).boxed_local();
        }
        let checks = async move {
            let context = UpgradeContext::new(&self.name, &caller, &handshake);
            for guard in &self.upgrade_guards {
                // A guard may be a plain function that panics before it answers with a future.
                let check =
                    CALLER.scope(caller.clone(), async { guard.layer.check(&context).await });
                let passed = AssertUnwindSafe(check).catch_unwind().await;
                if passed.is_err() {
                    error!(target: "tidegate::ws", gateway = &*self.name, "a guard panicked");
                    note_panic();
                }
                if !passed.unwrap_or(false) {
                    return false;
                }
            }
            true
        };
        checks.boxed_local()
    }

    fn join(
        self: Rc<Self>,
        caller: Arc<Caller>,
        handshake: Arc<Handshake>,
        auth: Arc<Value>,
    ) -> LocalBoxFuture<'static, Result<(), Denied>> {
        if self.upgrade_guards.is_empty() {
            return std::future::ready(Ok(())).boxed_local();
        }
        let checks = async move {
            let said = RefCell::new(None);
            let context =
                UpgradeContext::new(&self.name, &caller, &handshake).joining(&auth, &said);
            for guard in &self.upgrade_guards {
                let check =
                    CALLER.scope(caller.clone(), async { guard.layer.check(&context).await });
                let passed = AssertUnwindSafe(check).catch_unwind().await;
                if !passed.unwrap_or(false) {
                    let data = said.take();
                    let data = data.and_then(|data: Value| serde_json::to_vec(&data).ok());
                    return Err(Denied { data });
                }
            }
            Ok(())
        };
        checks.boxed_local()
    }

    fn connected(&self, client: &WsClient) -> Handling {
        debug!(target: "tidegate::ws", gateway = &*self.name, conn_id = client.id(), "connect");
        self.hooks(&self.connect, client, CONNECT)
    }

    fn disconnected(&self, client: &WsClient) -> Handling {
        debug!(target: "tidegate::ws", gateway = &*self.name, conn_id = client.id(), "disconnect");
        self.hooks(&self.disconnect, client, DISCONNECT)
    }

    fn message(&self, client: &WsClient, request: Request<'_>) -> Handling {
        let Some(bound) = self.bindings.get(request.event) else {
            return Handling::Done(unknown_event(request));
        };
        match spans::are_wanted() {
            true => spans::in_span(client, bound.event, || {
                self.message_known(bound, client, request)
            }),
            false => self.message_known(bound, client, request),
        }
    }
}

impl<G: Messages> Dispatcher<G> {
    fn message_known(
        &self,
        bound: &Rc<Bound<G>>,
        client: &WsClient,
        request: Request<'_>,
    ) -> Handling {
        match enabled!(target: "tidegate::ws", Level::DEBUG) {
            true => self.message_logged(bound, client, request),
            false => self.message_to(bound, client, request),
        }
    }

    fn message_to(
        &self,
        bound: &Rc<Bound<G>>,
        client: &WsClient,
        request: Request<'_>,
    ) -> Handling {
        let call = self.call(client, bound.event);
        if bound.guards.is_empty() && bound.interceptors.is_empty() {
            bound.run_bare(call, request)
        } else {
            bound.run_layered(call, request)
        }
    }

    /// The same, with a line in the log when it has ended.
    fn message_logged(
        &self,
        bound: &Rc<Bound<G>>,
        client: &WsClient,
        request: Request<'_>,
    ) -> Handling {
        let line = Line::begin(bound.event, client);
        match self.message_to(bound, client, request) {
            Handling::Done(outcome) => {
                line.write(&outcome);
                Handling::Done(outcome)
            }
            Handling::Pending(pending) => {
                let is_concurrent = pending.is_concurrent;
                let future = async move {
                    let outcome = pending.await;
                    line.write(&outcome);
                    outcome
                };
                Handling::Pending(Pending {
                    future: future.boxed_local(),
                    is_concurrent,
                })
            }
        }
    }
}

impl<G: Messages> fmt::Debug for Dispatcher<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dispatcher")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl<G: 'static> Bound<G> {
    /// Nothing stands around the handler: the payload is read where it lies.
    fn run_bare(self: &Rc<Self>, call: Invocation<G>, request: Request<'_>) -> Handling {
        let client = call.client().clone();
        let mut running = match caught(|| (self.handler)(call, request.data)) {
            Ok(Ok(running)) => running,
            Ok(Err(exception)) => {
                let reply = Ok(WsReply::Exception(exception));
                return Handling::Done(self.outcome(reply, &client, request));
            }
            Err(panicked) => {
                return Handling::Done(self.outcome(Err(panicked), &client, request));
            }
        };
        match poll_once(&mut running) {
            Poll::Ready(reply) => Handling::Done(self.outcome(reply, &client, request)),
            Poll::Pending => self.later(running, client, request),
        }
    }

    fn later(
        self: &Rc<Self>,
        running: Running,
        client: WsClient,
        request: Request<'_>,
    ) -> Handling {
        let kept = Kept::of(request);
        let bound = self.clone();
        let future = async move {
            let reply = running.await;
            bound.outcome(reply, &client, kept.request(bound.event))
        };
        Handling::Pending(Pending {
            future: future.boxed_local(),
            is_concurrent: self.is_concurrent,
        })
    }

    /// With guards and interceptors around it, the payload is kept for as long as they take.
    fn run_layered(self: &Rc<Self>, call: Invocation<G>, request: Request<'_>) -> Handling {
        let kept = Kept::of(request);
        let bound = self.clone();
        let client = call.client().clone();
        let caller = client.caller().clone();
        let future = async move {
            let request = kept.request(bound.event);
            let inner = CALLER.scope(caller, bound.layered(call, &client, request));
            let reply = AssertUnwindSafe(inner).catch_unwind().await;
            let reply = reply.unwrap_or(Err(Panicked));
            bound.outcome(reply, &client, request)
        };
        now_or_later(future.boxed_local(), self.is_concurrent)
    }

    async fn layered(
        &self,
        call: Invocation<G>,
        client: &WsClient,
        request: Request<'_>,
    ) -> Result<WsReply, Panicked> {
        let context = ExecutionContext::new(&self.gateway, self.event, request.data.json(), client);
        for guard in &self.guards {
            if !guard.layer.check(&context).await {
                return Ok(self.denied());
            }
        }
        let has_panicked = std::cell::Cell::new(false);
        let handler = async {
            match (self.handler)(call, request.data) {
                Ok(running) => running.await.unwrap_or_else(|Panicked| {
                    has_panicked.set(true);
                    WsReply::Exception(Exception::panic())
                }),
                Err(exception) => WsReply::Exception(exception),
            }
        };
        let next = Next {
            context: &context,
            inner: &self.interceptors,
            handler: handler.boxed_local(),
        };
        let reply = next.run().await;
        match has_panicked.get() {
            true => Err(Panicked),
            false => Ok(reply),
        }
    }

    fn denied(&self) -> WsReply {
        match self.close_on_deny {
            true => WsReply::Close {
                code: CloseCode::Policy,
                reason: FORBIDDEN.to_owned(),
            },
            false => {
                let message = FORBIDDEN.to_owned();
                WsReply::Exception(Exception::of(ExceptionKind::Denied, message))
            }
        }
    }

    /// What goes out: errors pass the filters, which are code of the user's too.
    fn outcome(
        &self,
        reply: Result<WsReply, Panicked>,
        client: &WsClient,
        request: Request<'_>,
    ) -> Outcome {
        let exception = match reply {
            Ok(WsReply::Exception(exception)) => exception,
            Ok(reply) => return sent(reply, request.wire),
            Err(Panicked) => {
                error!(target: "tidegate::ws", event = self.event, "a handler panicked");
                note_panic();
                if self.close_on_panic {
                    return internal_error();
                }
                Exception::panic()
            }
        };
        let host = WsArgumentsHost::new(self.event, request.data.json(), client);
        let reply = CALLER.sync_scope(client.caller().clone(), || {
            caught(|| filtered(&exception, &self.filters, &host))
        });
        let reply = reply.unwrap_or_else(|Panicked| {
            note_panic();
            filtered(&Exception::panic(), &[], &host)
        });
        sent(reply, request.wire)
    }
}

/// A request that outlives the buffer it came in.
struct Kept {
    data: KeptData,
    wire: KeptWire,
}

impl Kept {
    fn of(request: Request<'_>) -> Self {
        Self {
            data: request.data.to_kept(),
            wire: request.wire.to_kept(),
        }
    }

    fn request<'a>(&'a self, event: &'a str) -> Request<'a> {
        Request {
            event,
            data: self.data.data(),
            wire: self.wire.wire(),
        }
    }
}

fn sent(reply: WsReply, wire: Wire<'_>) -> Outcome {
    match reply {
        WsReply::Silent | WsReply::Exception(_) => {
            Frame::empty_ack(wire).map_or(Outcome::Nothing, Outcome::Frame)
        }
        WsReply::Frame(body) => Outcome::Frame(body.into_frame(wire)),
        WsReply::Close { code, reason } => Outcome::Close { code, reason },
    }
}

/// An error in a hook has no event to stand under: a refused connection is closed. What a hook
/// answers is a push.
fn hook_outcome(
    gateway: &str,
    hook: &str,
    client: &WsClient,
    reply: Result<WsReply, Panicked>,
) -> Outcome {
    match reply {
        Ok(WsReply::Frame(body)) => {
            client.give_push(body.into_push());
            Outcome::Nothing
        }
        Ok(WsReply::Exception(exception)) => {
            let error = exception.log_text();
            warn!(target: "tidegate::ws", gateway, hook, error, "a hook failed");
            Outcome::Close {
                code: CloseCode::Policy,
                reason: exception.message().to_owned(),
            }
        }
        Ok(reply) => sent(reply, Wire::PLAIN),
        Err(Panicked) => {
            error!(target: "tidegate::ws", gateway, hook, "a hook panicked");
            note_panic();
            internal_error()
        }
    }
}

const FORBIDDEN: &str = "forbidden";
const CONNECT: &str = "connect";
const DISCONNECT: &str = "disconnect";
