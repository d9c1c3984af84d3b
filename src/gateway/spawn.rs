//! Tasks that go on for the caller of the task that starts them. Knows callers; no shard.

use std::future::Future;

use tokio::task::JoinHandle;

use crate::auth::{CALLER, Caller};

/// Starts a task on this core that works for the same caller as the running one, so that what it
/// sends reaches that caller's tenant. A plain `tokio::spawn` forgets whom it works for.
///
/// # Panics
/// Outside of handlers and requests of a server.
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    match Caller::current() {
        Some(caller) => tokio::task::spawn_local(CALLER.scope(caller, future)),
        None => tokio::task::spawn_local(future),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// D-06
    #[tokio::test]
    async fn a_task_works_for_the_caller_of_the_one_that_started_it() {
        let tasks = tokio::task::LocalSet::new();
        let of_task = || async { spawn(async { Caller::current() }).await.unwrap() };
        let caller = Caller::anonymous();
        let with = tasks
            .run_until(CALLER.scope(caller.clone(), of_task()))
            .await;
        assert_eq!(with, Some(caller));
        assert_eq!(tasks.run_until(of_task()).await, None);
    }
}
