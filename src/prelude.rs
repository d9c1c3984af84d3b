//! What a program with gateways usually needs: `use tidegate::prelude::*;`. Names only what other
//! modules hold.

pub use ahash::AHashMap;
pub use schemars::JsonSchema;
pub use tidegate_macros::{
    after_init, concurrent, gateway, injectable, messages, module, on_connect, on_disconnect,
    relay, subscribe_message, use_filters, use_guards, use_interceptors,
};

pub use crate::auth::CurrentUser;
pub use crate::gateway::arguments::{Args, Attachment};
pub use crate::gateway::ask::{Answers, AskError};
pub use crate::gateway::builtin::{
    Admin, EventMetrics, JwtGuard, RateLimit, Role, RoleGuard, Timeout,
};
pub use crate::gateway::call::{Call, FromCall};
pub use crate::gateway::client::{Reason, WsClient};
pub use crate::gateway::container::State;
pub use crate::gateway::context::{ExecutionContext, UpgradeContext, WsArgumentsHost};
pub use crate::gateway::extract::Scoped;
pub use crate::gateway::filter::{Caught, ExceptionFilter};
pub use crate::gateway::guard::{MessageGuard, UpgradeGuard};
pub use crate::gateway::interceptor::{Interceptor, Next};
pub use crate::gateway::module::{App, Gateway, Module};
pub use crate::gateway::relay::Relay;
pub use crate::gateway::relay_handler::RelayEvent;
pub use crate::gateway::reply::{Exception, Opaque, Reply, WsEnvelope, WsReply};
pub use crate::gateway::send::SendError;
pub use crate::gateway::server::{Global, Registry, WsServer};
pub use crate::gateway::topics::Topics;
pub use crate::id::{ConnId, Tenant};
pub use crate::proto::CloseCode;
pub use crate::server::{RelayConfig, Server};
