//! Guards: who may come in, and which events may pass. The first one that says no decides. A
//! guard for upgrades is not accepted where events are guarded, by type.

use std::any::TypeId;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use futures_util::future::LocalBoxFuture;

use crate::gateway::context::{ExecutionContext, UpgradeContext};
use crate::gateway::engine::container::Injectable;

/// Decides once, before there is a connection: `false` is answered with 403.
#[diagnostic::on_unimplemented(
    message = "`{Self}` guards no upgrades",
    label = "implement `UpgradeGuard` for `{Self}`"
)]
pub trait UpgradeGuard: Injectable {
    /// May it become a connection?
    fn can_upgrade(&self, context: &UpgradeContext<'_>) -> impl Future<Output = bool>;
}

/// Decides for each event, before its payload is looked at: `false` is an error frame.
#[diagnostic::on_unimplemented(
    message = "`{Self}` guards no events",
    label = "implement `MessageGuard` for `{Self}`",
    note = "`#[use_guards(..)]` on a method takes what implements `MessageGuard`; a guard for \
            upgrades stands in `#[gateway(guards(..))]`"
)]
pub trait MessageGuard: Injectable {
    /// May the event pass?
    fn can_activate(&self, context: &ExecutionContext<'_>) -> impl Future<Output = bool>;
}

/// Upgrade guards of any type.
pub(crate) trait AnyUpgradeGuard: Send + Sync {
    fn check<'a>(&'a self, context: &'a UpgradeContext<'a>) -> LocalBoxFuture<'a, bool>;
}

impl<G: UpgradeGuard> AnyUpgradeGuard for G {
    fn check<'a>(&'a self, context: &'a UpgradeContext<'a>) -> LocalBoxFuture<'a, bool> {
        Box::pin(self.can_upgrade(context))
    }
}

/// Message guards of any type.
pub(crate) trait AnyMessageGuard: Send + Sync {
    fn check<'a>(&'a self, context: &'a ExecutionContext<'a>) -> LocalBoxFuture<'a, bool>;
}

impl<G: MessageGuard> AnyMessageGuard for G {
    fn check<'a>(&'a self, context: &'a ExecutionContext<'a>) -> LocalBoxFuture<'a, bool> {
        Box::pin(self.can_activate(context))
    }
}

/// Something that stands around handlers, with the type that tells it from others.
pub(crate) struct Layer<T: ?Sized> {
    pub(crate) id: TypeId,
    pub(crate) layer: Arc<T>,
}

impl<T: ?Sized> Clone for Layer<T> {
    fn clone(&self) -> Self {
        Self {
            id: self.id,
            layer: self.layer.clone(),
        }
    }
}

impl<T: ?Sized> fmt::Debug for Layer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Layer").field(&self.id).finish()
    }
}

/// Outer layers, then inner ones; one that stands there already is not put there again.
pub(crate) fn joined<T: ?Sized>(outer: &[Layer<T>], inner: &[Layer<T>]) -> Vec<Layer<T>> {
    let mut layers: Vec<Layer<T>> = Vec::with_capacity(outer.len() + inner.len());
    for layer in outer.iter().chain(inner) {
        if !layers.iter().any(|known| known.id == layer.id) {
            layers.push(layer.clone());
        }
    }
    layers
}
