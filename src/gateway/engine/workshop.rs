//! Where services are made that must wait for something, as the pool of a database waits for its
//! first connection: a thread with a runtime that lives as long as the services. Knows futures and
//! services; no gateway.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, mpsc};

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use super::container::{Dependency, Inject, Resolver, StartError};

/// Why a service could not be made: any error of the user's.
type Failed = Box<dyn std::error::Error + Send + Sync>;

/// A service that is being made.
pub type Making<T> = Pin<Box<dyn Future<Output = Result<T, Failed>> + Send>>;

/// An async function that makes a `T`: its arguments are services, up to six, and it answers with a
/// `Result`.
pub trait Factory<Args, T>: Send + 'static {
    /// The services that its arguments need.
    fn dependencies(&self) -> Vec<Dependency>;

    /// Takes its arguments and starts it.
    ///
    /// # Errors
    /// When a service is missing.
    fn start(self, resolver: &Resolver<'_>) -> Result<Making<T>, StartError>;
}

macro_rules! factory {
    ($($arg:ident $name:ident),*) => {
        impl<F, Fut, T, E, $($arg,)*> Factory<($($arg,)*), T> for F
        where
            F: FnOnce($($arg),*) -> Fut + Send + 'static,
            Fut: Future<Output = Result<T, E>> + Send + 'static,
            E: Into<Failed>,
            $($arg: Inject,)*
        {
            fn dependencies(&self) -> Vec<Dependency> {
                let all: [Vec<Dependency>; _] = [$($arg::dependencies()),*];
                all.into_iter().flatten().collect()
            }

            fn start(self, resolver: &Resolver<'_>) -> Result<Making<T>, StartError> {
                // Without arguments nothing is taken from it.
                let _ = resolver;
                $(let $name = resolver.inject::<$arg>()?;)*
                let making = self($($name),*);
                Ok(Box::pin(async move { making.await.map_err(Into::into) }))
            }
        }
    };
}

factory!();
factory!(A1 a1);
factory!(A1 a1, A2 a2);
factory!(A1 a1, A2 a2, A3 a3);
factory!(A1 a1, A2 a2, A3 a3, A4 a4);
factory!(A1 a1, A2 a2, A3 a3, A4 a4, A5 a5);
factory!(A1 a1, A2 a2, A3 a3, A4 a4, A5 a5, A6 a6);

/// The thread and its runtime. It ends with its value.
#[derive(Debug)]
pub(crate) struct Workshop {
    handle: Handle,
    /// Dropped, it tells the thread to end.
    _open: oneshot::Sender<()>,
}

impl Workshop {
    pub(crate) fn open() -> io::Result<Arc<Self>> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (open, closed) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name("services".to_owned());
        // Its end is told by the sender's, and nobody waits for it.
        let run = move || runtime.block_on(closed).unwrap_or_default();
        thread.spawn(run)?;
        Ok(Arc::new(Self {
            handle,
            _open: open,
        }))
    }

    /// Makes a service there and waits for it; nothing if that panicked.
    pub(crate) fn make<T: Send + 'static>(&self, making: Making<T>) -> Option<Result<T, Failed>> {
        let (made, is_made) = mpsc::channel();
        self.handle.spawn(async move {
            // Whoever waits for it waits until it is there.
            made.send(making.await).ok();
        });
        is_made.recv().ok()
    }
}
