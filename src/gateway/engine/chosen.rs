//! Whom a send is for, and how many took it. Knows names and counts.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::broker::registry::{Rooms, Target};
use crate::gateway::engine::registries::total;
use crate::gateway::send::SendError;
use crate::id::ConnId;

/// Those that a send is for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Whom<'a> {
    pub(crate) target: Target<&'a str>,
    pub(crate) named: bool,
    pub(crate) except: Option<ConnId>,
    pub(crate) more: Option<&'a Arc<Rooms>>,
}

impl<'a> Whom<'a> {
    pub(crate) const EVERYONE: Self = Self {
        target: Target::Everyone,
        named: false,
        except: None,
        more: None,
    };

    pub(crate) fn room(name: &'a str) -> Self {
        Self {
            target: Target::Room(name),
            ..Self::EVERYONE
        }
    }
}

/// How many took a frame: here, and where the others will say.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    pub(crate) here: usize,
    pub(crate) elsewhere: Vec<oneshot::Receiver<usize>>,
}

impl Sent {
    pub(crate) async fn total(self) -> Result<usize, SendError> {
        Ok(self.here + total(self.elsewhere).await)
    }
}
