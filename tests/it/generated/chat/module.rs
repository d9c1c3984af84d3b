//! What `chat` consists of.

use tidegate::prelude::*;

use super::gateway::ChatGateway;

#[module(gateways = [ChatGateway])]
pub(crate) struct ChatModule;
