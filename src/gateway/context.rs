//! What guards, interceptors and filters see of an upgrade or of an event. Borrowed from the
//! call: none of it outlives the event.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::Value;

use crate::auth::{Caller, CurrentUser};
use crate::gateway::client::{Handshake, WsClient};
use crate::proto::http::Head;

/// A request that wants to become a connection.
#[derive(Debug, Clone, Copy)]
pub struct UpgradeContext<'a> {
    gateway: &'a str,
    caller: &'a Arc<Caller>,
    handshake: &'a Handshake,
    joining: Option<Joining<'a>>,
}

/// What only those who join a namespace of Socket.IO have.
#[derive(Debug, Clone, Copy)]
struct Joining<'a> {
    auth: &'a Value,
    said: &'a RefCell<Option<Value>>,
}

impl<'a> UpgradeContext<'a> {
    pub(crate) fn new(gateway: &'a str, caller: &'a Arc<Caller>, handshake: &'a Handshake) -> Self {
        Self {
            gateway,
            caller,
            handshake,
            joining: None,
        }
    }

    /// The same for who joins a namespace: with what it says, and a place for what is said to it.
    pub(crate) fn joining(self, auth: &'a Value, said: &'a RefCell<Option<Value>>) -> Self {
        Self {
            joining: Some(Joining { auth, said }),
            ..self
        }
    }

    /// What a client says to join a namespace of Socket.IO; `null` on other dialects.
    pub fn auth(&self) -> &'a Value {
        self.joining.map_or(&Value::Null, |joining| joining.auth)
    }

    /// Says more than no: `data` of the refusal on Socket.IO; other dialects have no place for it.
    /// Answers `false`, to be returned.
    pub fn deny_with(&self, data: Value) -> bool {
        if let Some(joining) = self.joining {
            joining.said.replace(Some(data));
        }
        false
    }

    /// The gateway's type.
    pub fn gateway(&self) -> &'a str {
        self.gateway
    }

    /// Who asks, as the token said.
    pub fn caller(&self) -> &'a Arc<Caller> {
        self.caller
    }

    /// Who asks.
    pub fn user(&self) -> CurrentUser {
        CurrentUser::from(&**self.caller)
    }

    /// Where it comes from: what a proxy of `server.trusted_proxies` told, else its peer.
    pub fn peer(&self) -> SocketAddr {
        self.handshake.peer
    }

    /// The request.
    pub fn head(&self) -> &'a Head {
        &self.handshake.head
    }

    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.handshake.head.header(name)
    }
}

/// An event on its way to a handler.
#[derive(Debug, Clone, Copy)]
pub struct ExecutionContext<'a> {
    gateway: &'a str,
    event: &'a str,
    data: &'a [u8],
    client: &'a WsClient,
}

impl<'a> ExecutionContext<'a> {
    pub(crate) fn new(
        gateway: &'a str,
        event: &'a str,
        data: &'a [u8],
        client: &'a WsClient,
    ) -> Self {
        Self {
            gateway,
            event,
            data,
            client,
        }
    }

    /// The gateway's type.
    pub fn gateway(&self) -> &'a str {
        self.gateway
    }

    /// The event's name.
    pub fn event(&self) -> &'a str {
        self.event
    }

    /// The connection that it came on.
    pub fn client(&self) -> &'a WsClient {
        self.client
    }

    /// Who sent it.
    pub fn user(&self) -> CurrentUser {
        self.client.user()
    }

    /// The part of the context that only a WebSocket has.
    pub fn switch_to_ws(&self) -> WsArgumentsHost<'a> {
        WsArgumentsHost {
            event: self.event,
            data: self.data,
            client: self.client,
        }
    }
}

/// The arguments of an event handler before they are taken apart.
#[derive(Debug, Clone, Copy)]
pub struct WsArgumentsHost<'a> {
    event: &'a str,
    data: &'a [u8],
    client: &'a WsClient,
}

impl<'a> WsArgumentsHost<'a> {
    pub(crate) fn new(event: &'a str, data: &'a [u8], client: &'a WsClient) -> Self {
        Self {
            event,
            data,
            client,
        }
    }

    /// The connection; its handshake's headers are at hand.
    pub fn client(&self) -> &'a WsClient {
        self.client
    }

    /// The JSON of the payload, as it was sent.
    pub fn data(&self) -> &'a [u8] {
        self.data
    }

    /// The event's name.
    pub fn event(&self) -> &'a str {
        self.event
    }
}
