//! What a gateway binds: events to handlers, hooks, and the layers around them. `#[messages]` and
//! `#[gateway]` write the calls of this file; they can be written by hand as well.

use std::any::TypeId;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::ops::Deref;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;

use crate::auth::CALLER;
use crate::gateway::client::WsClient;
use crate::gateway::engine::container::{
    Container, ContainerBuilder, Dependency, Injectable, Resolver, StartError, short_name,
};
use crate::gateway::extract::{Call, EventData};
use crate::gateway::filter::{AnyFilter, ExceptionFilter};
use crate::gateway::guard::{AnyMessageGuard, AnyUpgradeGuard, Layer, MessageGuard, UpgradeGuard};
use crate::gateway::interceptor::{AnyInterceptor, Interceptor};
use crate::gateway::reply::{Exception, WsReply};
use crate::gateway::schema::Shapes;

/// One call of a handler or a hook of the gateway `G`.
pub struct Invocation<G> {
    gateway: Rc<Local<G>>,
    client: WsClient,
    event: &'static str,
    call: Call,
}

impl<G> Invocation<G> {
    pub(crate) fn new(
        gateway: Rc<Local<G>>,
        client: WsClient,
        event: &'static str,
        container: Rc<Container>,
    ) -> Self {
        Self {
            gateway,
            call: Call::of_event(client.clone(), event, container),
            client,
            event,
        }
    }

    /// The gateway.
    pub fn gateway(&self) -> &G {
        &self.gateway.0
    }

    /// The connection.
    pub fn client(&self) -> &WsClient {
        &self.client
    }

    /// The event's name.
    pub fn event(&self) -> &'static str {
        self.event
    }
}

/// A gateway as its shard holds it: calls count their holders on this core only, so that no two
/// cores write to one counter for each event.
#[derive(Debug)]
pub(crate) struct Local<G>(pub(crate) Arc<G>);

impl<G> Deref for Invocation<G> {
    type Target = Call;

    fn deref(&self) -> &Call {
        &self.call
    }
}

impl<G> fmt::Debug for Invocation<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Invocation").field(&self.call).finish()
    }
}

/// What becomes of a call: `Err` if the handler panicked.
pub(crate) type Running = LocalBoxFuture<'static, Result<WsReply, Panicked>>;

/// A handler has panicked; the panic hook has said how.
#[derive(Debug)]
pub(crate) struct Panicked;

type Handler<G> = dyn Fn(Invocation<G>, EventData<'_>) -> Result<Running, Exception>;

/// What runs once before the server listens.
type Ready<G> = dyn FnOnce(Arc<G>, Container) -> LocalBoxFuture<'static, Result<(), StartError>>;

/// The events and hooks of a gateway. `#[messages]` on an `impl` writes this.
#[diagnostic::on_unimplemented(
    message = "`{Self}` binds no events",
    label = "put `#[messages]` on an `impl {Self}` block",
    note = "a gateway without events has an empty one: `#[messages] impl {Self} {{}}`"
)]
pub trait Messages: Send + Sync + Sized + 'static {
    /// Binds events to handlers, and hooks.
    fn bind(table: &mut Table<Self>);
}

/// Collects what a gateway binds.
pub struct Table<G> {
    pub(crate) bindings: Vec<Binding<G>>,
    pub(crate) connect: Vec<Hook<G>>,
    pub(crate) disconnect: Vec<Hook<G>>,
    pub(crate) ready: Vec<Box<Ready<G>>>,
    pub(crate) wanted: Vec<(Dependency, String)>,
}

/// A hook of a connection.
pub(crate) struct Hook<G>(pub(crate) Rc<Handler<G>>);

/// An event and its handler.
pub struct Binding<G> {
    pub(crate) event: &'static str,
    pub(crate) handler: Rc<Handler<G>>,
    pub(crate) concurrent: bool,
    pub(crate) layers: Layers,
    pub(crate) describe: Option<fn(&mut Shapes<'_>)>,
}

impl<G: Messages> Table<G> {
    /// All that the gateway binds.
    pub(crate) fn collect() -> Self {
        let mut table = Self {
            bindings: Vec::new(),
            connect: Vec::new(),
            disconnect: Vec::new(),
            ready: Vec::new(),
            wanted: Vec::new(),
        };
        G::bind(&mut table);
        table
    }

    /// Binds an event. The handler takes its arguments at once, borrowing the payload's JSON, and
    /// answers with a future that owns them.
    pub fn on<F, R>(&mut self, event: &'static str, handler: F) -> &mut Binding<G>
    where
        F: Fn(Invocation<G>, EventData<'_>) -> Result<R, Exception> + 'static,
        R: Future<Output = WsReply> + 'static,
    {
        self.bindings.push(Binding {
            event,
            handler: erased(handler),
            concurrent: false,
            layers: Layers::default(),
            describe: None,
        });
        let last = self.bindings.len() - 1;
        &mut self.bindings[last]
    }

    /// Runs when a connection has been made. An error closes it with 1008.
    pub fn on_connect<F, R>(&mut self, hook: F) -> &mut Self
    where
        F: Fn(Invocation<G>) -> Result<R, Exception> + 'static,
        R: Future<Output = WsReply> + 'static,
    {
        self.connect
            .push(Hook(erased(move |call, _: EventData<'_>| hook(call))));
        self
    }

    /// Runs when a connection has ended, while its rooms can still be read.
    pub fn on_disconnect<F, R>(&mut self, hook: F) -> &mut Self
    where
        F: Fn(Invocation<G>) -> Result<R, Exception> + 'static,
        R: Future<Output = WsReply> + 'static,
    {
        self.disconnect
            .push(Hook(erased(move |call, _: EventData<'_>| hook(call))));
        self
    }

    /// Runs once before the server listens.
    pub fn after_init<F, R>(&mut self, hook: F) -> &mut Self
    where
        F: FnOnce(Arc<G>, Container) -> R + 'static,
        R: Future<Output = Result<(), StartError>> + 'static,
    {
        self.ready.push(Box::new(|gateway, container| {
            hook(gateway, container).boxed_local()
        }));
        self
    }

    /// Notes what an argument of a handler will ask for.
    pub fn requires(&mut self, who: &str, wanted: Vec<Dependency>) -> &mut Self {
        let who = format!("{} `{who}`", short_name(std::any::type_name::<G>()));
        self.wanted
            .extend(wanted.into_iter().map(|wanted| (wanted, who.clone())));
        self
    }
}

/// What an `after_init` hook answered: an error stops the start.
pub fn initialised(reply: WsReply) -> Result<(), StartError> {
    match reply {
        WsReply::Exception(exception) => Err(StartError::Init(exception.log_text().to_owned())),
        _ => Ok(()),
    }
}

impl<G> fmt::Debug for Table<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let events = self.bindings.iter().map(|binding| binding.event);
        f.debug_list().entries(events).finish()
    }
}

impl<G> Binding<G> {
    /// The events behind it on its connection need not wait until it ends.
    pub fn concurrent(&mut self) -> &mut Self {
        self.concurrent = true;
        self
    }

    /// Tells what the event carries and what is answered, for documents.
    pub fn describe(&mut self, describe: fn(&mut Shapes<'_>)) -> &mut Self {
        self.describe = Some(describe);
        self
    }

    /// Guards this event, besides what guards the gateway.
    pub fn guard<L: MessageGuard>(&mut self) -> &mut Self {
        self.layers.message_guard::<L>();
        self
    }

    /// Stands around this handler, inside of what stands around the gateway.
    pub fn interceptor<L: Interceptor>(&mut self) -> &mut Self {
        self.layers.interceptor::<L>();
        self
    }

    /// Is asked first what becomes of this handler's errors.
    pub fn filter<L: ExceptionFilter>(&mut self) -> &mut Self {
        self.layers.filter::<L>();
        self
    }
}

impl<G> fmt::Debug for Binding<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Binding")
            .field("event", &self.event)
            .field("concurrent", &self.concurrent)
            .finish_non_exhaustive()
    }
}

/// A handler of any future: it works for its caller, and its panics end with it.
fn erased<G, F, R>(handler: F) -> Rc<Handler<G>>
where
    F: Fn(Invocation<G>, EventData<'_>) -> Result<R, Exception> + 'static,
    R: Future<Output = WsReply> + 'static,
{
    Rc::new(move |call, data| {
        let caller = call.client().caller().clone();
        let future = CALLER.sync_scope(caller.clone(), || handler(call, data))?;
        let future = AssertUnwindSafe(future).catch_unwind();
        let future = CALLER.scope(caller, future);
        Ok(Box::pin(future.map(|ended| ended.map_err(|_| Panicked))))
    })
}

/// Guards, interceptors and filters of a server, a gateway or one event.
#[derive(Debug, Default)]
pub struct Layers {
    upgrade_guards: Vec<Recipe<dyn AnyUpgradeGuard>>,
    message_guards: Vec<Recipe<dyn AnyMessageGuard>>,
    interceptors: Vec<Recipe<dyn AnyInterceptor>>,
    filters: Vec<Recipe<dyn AnyFilter>>,
    pub(crate) close_on_deny: bool,
    pub(crate) close_on_panic: bool,
}

impl Layers {
    /// Guards upgrades.
    pub fn upgrade_guard<L: UpgradeGuard>(&mut self) -> &mut Self {
        self.upgrade_guards.push(Recipe::of::<L>(|layer| layer));
        self
    }

    /// Guards events.
    pub fn message_guard<L: MessageGuard>(&mut self) -> &mut Self {
        self.message_guards.push(Recipe::of::<L>(|layer| layer));
        self
    }

    /// Stands around handlers.
    pub fn interceptor<L: Interceptor>(&mut self) -> &mut Self {
        self.interceptors.push(Recipe::of::<L>(|layer| layer));
        self
    }

    /// Decides what becomes of errors.
    pub fn filter<L: ExceptionFilter>(&mut self) -> &mut Self {
        self.filters.push(Recipe::of::<L>(|layer| layer));
        self
    }

    /// A denied event ends its connection with 1008.
    pub fn close_on_deny(&mut self) -> &mut Self {
        self.close_on_deny = true;
        self
    }

    /// A panic in a handler ends its connection with 1011.
    pub fn close_on_panic(&mut self) -> &mut Self {
        self.close_on_panic = true;
        self
    }

    /// Whether any of them guards upgrades or events.
    pub(crate) fn has_guards(&self) -> bool {
        !self.upgrade_guards.is_empty() || !self.message_guards.is_empty()
    }

    /// Lists the layers as services, to be built with all others.
    pub(crate) fn provide(&self, builder: &mut ContainerBuilder) {
        let provide = [
            self.upgrade_guards
                .iter()
                .map(|recipe| recipe.provide)
                .collect::<Vec<_>>(),
            self.message_guards
                .iter()
                .map(|recipe| recipe.provide)
                .collect(),
            self.interceptors
                .iter()
                .map(|recipe| recipe.provide)
                .collect(),
            self.filters.iter().map(|recipe| recipe.provide).collect(),
        ];
        provide.concat().iter().for_each(|provide| provide(builder));
    }

    /// Takes the built layers.
    pub(crate) fn open(&self, container: &Container) -> Result<OpenLayers, StartError> {
        Ok(OpenLayers {
            upgrade_guards: opened(&self.upgrade_guards, container)?,
            message_guards: opened(&self.message_guards, container)?,
            interceptors: opened(&self.interceptors, container)?,
            filters: opened(&self.filters, container)?,
        })
    }
}

/// Layers that are built.
#[derive(Debug, Default)]
pub(crate) struct OpenLayers {
    pub(crate) upgrade_guards: Vec<Layer<dyn AnyUpgradeGuard>>,
    pub(crate) message_guards: Vec<Layer<dyn AnyMessageGuard>>,
    pub(crate) interceptors: Vec<Layer<dyn AnyInterceptor>>,
    pub(crate) filters: Vec<Layer<dyn AnyFilter>>,
}

struct Recipe<T: ?Sized> {
    id: TypeId,
    provide: fn(&mut ContainerBuilder),
    open: Box<OpenLayer<T>>,
}

type OpenLayer<T> = dyn Fn(&Container) -> Result<Arc<T>, StartError> + Send + Sync;

impl<T: ?Sized + 'static> Recipe<T> {
    fn of<L: Injectable>(erase: fn(Arc<L>) -> Arc<T>) -> Self {
        Self {
            id: TypeId::of::<L>(),
            provide: |builder| {
                builder.injectable::<L>();
            },
            open: Box::new(move |container| {
                Resolver::over(container, "a gateway").service().map(erase)
            }),
        }
    }
}

impl<T: ?Sized> fmt::Debug for Recipe<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Recipe").field(&self.id).finish()
    }
}

fn opened<T: ?Sized>(
    recipes: &[Recipe<T>],
    container: &Container,
) -> Result<Vec<Layer<T>>, StartError> {
    let open = |recipe: &Recipe<T>| {
        let layer = (recipe.open)(container)?;
        Ok(Layer {
            id: recipe.id,
            layer,
        })
    };
    recipes.iter().map(open).collect()
}

/// A guard that is told apart by the hooks it has: `GuardKind::<G>::new().add_upgrade(layers)`.
#[derive(Debug)]
pub struct GuardKind<L>(PhantomData<fn() -> L>);

impl<L> GuardKind<L> {
    /// To be told apart by its type.
    pub fn new() -> Self {
        Self(PhantomData)
    }
}

impl<L> Default for GuardKind<L> {
    fn default() -> Self {
        Self::new()
    }
}

impl<L: UpgradeGuard> GuardKind<L> {
    /// It guards upgrades.
    pub const UPGRADES: bool = true;

    /// Adds it.
    pub fn add_upgrade(&self, layers: &mut Layers) {
        layers.upgrade_guard::<L>();
    }
}

impl<L: MessageGuard> GuardKind<L> {
    /// It guards events.
    pub const MESSAGES: bool = true;

    /// Adds it.
    pub fn add_message(&self, layers: &mut Layers) {
        layers.message_guard::<L>();
    }
}

/// What a guard does not do.
pub trait NoGuard {
    /// It does not guard upgrades.
    const UPGRADES: bool = false;
    /// It does not guard events.
    const MESSAGES: bool = false;

    /// Adds nothing.
    fn add_upgrade(&self, _layers: &mut Layers) {}

    /// Adds nothing.
    fn add_message(&self, _layers: &mut Layers) {}
}

impl<L> NoGuard for GuardKind<L> {}

/// Adds a guard to a gateway, for whatever hooks its type has: `guard!(layers, AdminGuard)`.
#[macro_export]
macro_rules! guard {
    ($layers:expr, $guard:ty) => {{
        #[allow(unused_imports, reason = "the type decides what is needed")]
        use $crate::gateway::engine::table::{GuardKind, NoGuard as _};
        const _: () = assert!(
            GuardKind::<$guard>::UPGRADES || GuardKind::<$guard>::MESSAGES,
            "a guard implements `UpgradeGuard`, `MessageGuard` or both"
        );
        GuardKind::<$guard>::new().add_upgrade($layers);
        GuardKind::<$guard>::new().add_message($layers);
    }};
}
