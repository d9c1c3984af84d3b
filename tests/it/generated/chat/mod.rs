//! The gateway on `/chat`.

mod gateway;
mod module;

pub(crate) use module::ChatModule;
