//! `Call`: what any handler is called with, whatever the dialect: who calls, with which request, for
//! what. Extractors take their values from it. Knows callers, heads and services; no socket.

use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use crate::auth::{Caller, CurrentUser};
use crate::broker::relay::LeaveReason;
use crate::gateway::client::{Handshake, WsClient};
use crate::gateway::engine::container::{Container, Dependency, Resolver};
use crate::gateway::exception::Exception;
use crate::gateway::relay::Relay;
use crate::gateway::relay_handler::RelayEvent;
use crate::id::{ConnId, Tenant};
use crate::proto::http::Head;

/// What kind of handler is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallKind {
    /// A handler or a hook of a gateway.
    Event,
    /// A handler of relay topics.
    Relay,
    /// A handler of a raw mount.
    Raw,
}

/// One call of a handler: an event or a hook of a gateway, an event of a relay topic, or the opening
/// of a raw socket. What only some of them have is an `Option`.
///
/// It is the only thing that a [`FromCall`] sees, so one extractor serves all three; and it can be
/// an argument itself.
#[derive(Clone)]
pub struct Call {
    subject: Subject,
    container: Rc<Container>,
}

#[derive(Clone)]
enum Subject {
    Event {
        client: WsClient,
        event: &'static str,
    },
    Relay(Rc<RelayPart>),
    Raw(Rc<RawPart>),
}

/// What a relay handler is called with.
struct RelayPart {
    event: RelayEvent,
    reason: Option<LeaveReason>,
    caller: Arc<Caller>,
    relay: Relay,
}

/// What a raw handler is called with.
struct RawPart {
    caller: Arc<Caller>,
    handshake: Arc<Handshake>,
}

impl Call {
    pub(crate) fn of_event(
        client: WsClient,
        event: &'static str,
        container: Rc<Container>,
    ) -> Self {
        Self {
            subject: Subject::Event { client, event },
            container,
        }
    }

    pub(crate) fn of_relay(
        event: RelayEvent,
        reason: Option<LeaveReason>,
        (caller, relay, container): (Arc<Caller>, Relay, Container),
    ) -> Self {
        let part = RelayPart {
            event,
            reason,
            caller,
            relay,
        };
        Self {
            subject: Subject::Relay(Rc::new(part)),
            container: Rc::new(container),
        }
    }

    pub(crate) fn of_raw(
        caller: Arc<Caller>,
        handshake: Arc<Handshake>,
        container: Container,
    ) -> Self {
        let part = RawPart { caller, handshake };
        Self {
            subject: Subject::Raw(Rc::new(part)),
            container: Rc::new(container),
        }
    }

    /// What kind of handler is called.
    pub fn kind(&self) -> CallKind {
        match &self.subject {
            Subject::Event { .. } => CallKind::Event,
            Subject::Relay(_) => CallKind::Relay,
            Subject::Raw(_) => CallKind::Raw,
        }
    }

    /// Who calls, as the token said.
    pub fn caller(&self) -> &Arc<Caller> {
        match &self.subject {
            Subject::Event { client, .. } => client.caller(),
            Subject::Relay(part) => &part.caller,
            Subject::Raw(part) => &part.caller,
        }
    }

    /// Who calls.
    pub fn user(&self) -> CurrentUser {
        CurrentUser::from(&**self.caller())
    }

    /// The tenant of who calls.
    pub fn tenant(&self) -> &Tenant {
        &self.caller().tenant
    }

    /// The name of the event: that of the gateway's handler, or `connect` and `disconnect` in its
    /// hooks; in a relay handler that of the message, or `join` and `leave`; empty in a raw handler.
    pub fn event(&self) -> &str {
        match &self.subject {
            Subject::Event { event, .. } => event,
            Subject::Relay(part) => match &part.event {
                RelayEvent::Join { .. } => "join",
                RelayEvent::Message { event, .. } => event,
                RelayEvent::Leave { .. } => "leave",
            },
            Subject::Raw(_) => "",
        }
    }

    /// The connection of a gateway.
    pub fn client(&self) -> Option<&WsClient> {
        match &self.subject {
            Subject::Event { client, .. } => Some(client),
            _ => None,
        }
    }

    /// The number of the connection: in its registry, or on the relay.
    pub fn conn_id(&self) -> Option<ConnId> {
        match &self.subject {
            Subject::Event { client, .. } => Some(client.id()),
            Subject::Relay(part) => Some(part.event.conn_id()),
            Subject::Raw(_) => None,
        }
    }

    /// What happened to a relay topic.
    pub fn relay_event(&self) -> Option<&RelayEvent> {
        match &self.subject {
            Subject::Relay(part) => Some(&part.event),
            _ => None,
        }
    }

    /// The relay topic that it happened to.
    pub fn topic(&self) -> Option<&str> {
        self.relay_event().map(RelayEvent::topic)
    }

    /// Why a subscriber left a relay topic.
    pub fn leave_reason(&self) -> Option<LeaveReason> {
        match &self.subject {
            Subject::Relay(part) => part.reason,
            _ => None,
        }
    }

    /// The request that the connection came with: of gateways and raw mounts. Connections of the
    /// relay do not keep theirs.
    pub fn head(&self) -> Option<&Head> {
        self.handshake().map(|handshake| &handshake.head)
    }

    /// The first header of this name in that request, in whatever case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head()?.header(name)
    }

    /// All headers of that request, names in lower case.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.head().into_iter().flat_map(Head::headers)
    }

    /// The parameter of this name in the query of that request, decoded.
    pub fn query(&self, name: &str) -> Option<String> {
        self.head()?.query_param(name)
    }

    /// The subprotocol that was agreed on, as the answer to that request named it.
    pub fn subprotocol(&self) -> Option<&str> {
        self.handshake()?.subprotocol.as_deref()
    }

    /// Where the connection comes from: what a proxy of `server.trusted_proxies` told, else its
    /// peer.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.handshake().map(|handshake| handshake.peer)
    }

    /// The services.
    pub fn container(&self) -> &Container {
        &self.container
    }

    /// The service `T`, which may be a `dyn Trait`.
    ///
    /// # Errors
    /// When it is missing, which [`FromCall::dependencies`] tells before the server listens.
    pub fn service<T: ?Sized + Send + Sync + 'static>(&self) -> Result<Arc<T>, Exception> {
        let resolver = Resolver::over(&self.container, self.event());
        resolver.service().map_err(Exception::start)
    }

    fn handshake(&self) -> Option<&Handshake> {
        match &self.subject {
            Subject::Event { client, .. } => Some(client.handshake()),
            Subject::Raw(part) => Some(&part.handshake),
            Subject::Relay(_) => None,
        }
    }

    pub(crate) fn relay(&self) -> Result<Relay, Exception> {
        match &self.subject {
            Subject::Relay(part) => Ok(part.relay.clone()),
            _ => self.service::<Relay>().map(|relay| Relay::clone(&relay)),
        }
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("kind", &self.kind())
            .field("event", &self.event())
            .field("tenant", self.tenant())
            .finish_non_exhaustive()
    }
}

/// An argument that is taken from the call, of whatever kind of handler. Write one to give handlers
/// an argument of your own.
///
/// ```
/// use tidegate::prelude::*;
///
/// /// The language that the client prefers.
/// struct Language(String);
///
/// impl FromCall for Language {
///     fn from_call(call: &Call) -> Result<Self, Exception> {
///         let header = call.header("accept-language");
///         Ok(Self(header.unwrap_or("en").to_owned()))
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be taken from a call",
    label = "implement `FromCall` for `{Self}`"
)]
pub trait FromCall: Sized {
    /// The only kind of handler that has it. Elsewhere such an argument does not compile.
    const ONLY_FOR: Option<CallKind> = None;

    /// The services that it will ask for; checked before the server listens.
    fn dependencies() -> Vec<Dependency> {
        Vec::new()
    }

    /// Takes it; an error is answered like one of the handler's own. A raw socket is closed with it.
    ///
    /// # Errors
    /// When the call has no such thing, or what it has will not do.
    fn from_call(call: &Call) -> Result<Self, Exception>;
}

/// Whether a kind of handler can have an argument.
pub(crate) const fn fits(only_for: Option<CallKind>, kind: CallKind) -> bool {
    match only_for {
        None => true,
        Some(only) => only as u8 == kind as u8,
    }
}
