//! Services by type: who provides what, checked before the server listens, then read only.
//! Knows no gateway, no shard and no socket.

use std::any::{Any, TypeId, type_name};
use std::cell::Cell;
use std::fmt;
use std::ops::Deref;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use ahash::AHashMap;
use thiserror::Error;

use super::workshop::{Factory, Workshop};

/// Why the services do not fit together. The text names who wants what.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// A service that somebody wants is missing.
    #[error("`{wanted}` is not provided (wanted by {chain}): {hint}")]
    Missing {
        /// The type that is wanted.
        wanted: String,
        /// Who wants it, and who wants that, and so on.
        chain: String,
        /// The line that mends it.
        hint: String,
    },
    /// A service needs itself, by way of others.
    #[error("providers need each other in a circle: {chain}")]
    Circular {
        /// The circle, its first name repeated at the end.
        chain: String,
    },
    /// A service refused to be built.
    #[error("`{provider}` cannot be built: {source}")]
    Provider {
        /// The service.
        provider: String,
        /// Its own reason.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Two gateways claim one path.
    #[error("`{first}` and `{second}` are both mounted on `{path}`: give one of them another path")]
    PathTaken {
        /// The path.
        path: String,
        /// Who was there first.
        first: String,
        /// Who came later.
        second: String,
    },
    /// Two registries have markers of one name.
    #[error(
        "`{marker}` is the second marker with the name `{name}`: registries are known by it, so give one of them another name"
    )]
    RegistryTaken {
        /// The name.
        name: String,
        /// The second marker, with its path.
        marker: String,
    },
    /// An `after_init` hook answered with an error.
    #[error("an after_init hook failed: {0}")]
    Init(String),
    /// One gateway binds one event twice.
    #[error("`{gateway}` binds the event `{event}` twice: one event has one handler")]
    EventTaken {
        /// The gateway.
        gateway: String,
        /// The event.
        event: String,
    },
}

/// A type that somebody wants, by identity and by a name for people.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Dependency {
    id: TypeId,
    full_name: &'static str,
}

impl Dependency {
    /// The dependency on a service `T`.
    pub fn of<T: ?Sized + Send + Sync + 'static>() -> Self {
        Self {
            id: TypeId::of::<T>(),
            full_name: type_name::<T>(),
        }
    }

    /// The name of the type without the paths of its modules.
    pub fn name(&self) -> String {
        short_name(self.full_name)
    }
}

impl fmt::Debug for Dependency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Dependency").field(&self.name()).finish()
    }
}

/// A service that is built from other services. `#[injectable]` writes this.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a service",
    label = "put `#[injectable]` on the struct `{Self}`",
    note = "a value that is made elsewhere is provided with `.provide(value)`"
)]
pub trait Injectable: Send + Sync + Sized + 'static {
    /// What [`build`](Self::build) will ask for.
    fn dependencies() -> Vec<Dependency>;

    /// Builds the service; everything in [`dependencies`](Self::dependencies) is there.
    fn build(resolver: &Resolver<'_>) -> Result<Self, StartError>;
}

/// What can be injected into a field: an [`Arc`] of a service, or a handle that is made of one.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be injected",
    label = "a service is shared: inject `Arc<{Self}>`"
)]
pub trait Inject: Sized {
    /// The services that it is made of.
    fn dependencies() -> Vec<Dependency>;

    /// Takes it from the services that stand already.
    fn inject(resolver: &Resolver<'_>) -> Result<Self, StartError>;
}

impl<T: ?Sized + Send + Sync + 'static> Inject for Arc<T> {
    fn dependencies() -> Vec<Dependency> {
        vec![Dependency::of::<T>()]
    }

    fn inject(resolver: &Resolver<'_>) -> Result<Self, StartError> {
        resolver.service()
    }
}

/// A service taken by value of its handle: `State<Settings>` reads like a `&Settings`.
pub struct State<T: ?Sized>(pub Arc<T>);

impl<T: ?Sized + Send + Sync + 'static> Inject for State<T> {
    fn dependencies() -> Vec<Dependency> {
        vec![Dependency::of::<T>()]
    }

    fn inject(resolver: &Resolver<'_>) -> Result<Self, StartError> {
        resolver.service().map(Self)
    }
}

impl<T: ?Sized> Clone for State<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: ?Sized> Deref for State<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for State<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("State").field(&self.0).finish()
    }
}

/// The services that stand while another one is built.
#[derive(Debug)]
pub struct Resolver<'a> {
    services: &'a Services,
    building: &'a str,
}

impl<'a> Resolver<'a> {
    /// Over a finished container, for what is built later than at start.
    pub fn over(container: &'a Container, building: &'a str) -> Self {
        Self {
            services: &container.services,
            building,
        }
    }

    /// The service `T`. It is missing only if the one that asks did not list it.
    pub fn service<T: ?Sized + Send + Sync + 'static>(&self) -> Result<Arc<T>, StartError> {
        self.services
            .get()
            .ok_or_else(|| missing(Dependency::of::<T>(), &[self.building]))
    }

    /// Anything injectable: `resolver.inject::<Arc<ChatRoom>>()`.
    pub fn inject<T: Inject>(&self) -> Result<T, StartError> {
        T::inject(self)
    }
}

/// All services of a running server, shared by its shards.
#[derive(Debug, Clone, Default)]
pub struct Container {
    services: Arc<Services>,
    /// Where services that had to wait for something were made; it runs on for them.
    _workshop: Option<Arc<Workshop>>,
}

impl Container {
    /// The service `T`, if somebody provides it.
    pub fn get<T: ?Sized + Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.services.get()
    }
}

/// Collects providers and wishes, then builds each service once, after what it needs.
#[derive(Debug, Default)]
pub struct ContainerBuilder {
    services: Services,
    recipes: Vec<Recipe>,
    wishes: Vec<(Dependency, String)>,
    workshop: Option<Arc<Workshop>>,
}

impl ContainerBuilder {
    /// Nothing is provided yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Provides a value as it is. It stands in place of a listed provider of the same type, and
    /// of a value that was provided before.
    pub fn provide<T: Send + Sync + 'static>(&mut self, value: T) -> &mut Self {
        self.provide_arc(Arc::new(value))
    }

    /// Provides a value that is shared already, also as a `dyn Trait`.
    pub fn provide_arc<T: ?Sized + Send + Sync + 'static>(&mut self, value: Arc<T>) -> &mut Self {
        self.services
            .0
            .insert(TypeId::of::<T>(), Service::of(value));
        self
    }

    /// Lists a service to be built from others. Listing it again changes nothing.
    pub fn injectable<T: Injectable>(&mut self) -> &mut Self {
        let provides = Dependency::of::<T>();
        if !self.recipes.iter().any(|known| known.provides == provides) {
            self.recipes
                .push(Recipe::new(provides, T::dependencies(), |resolver, _| {
                    T::build(resolver).map(|value| Service::of(Arc::new(value)))
                }));
        }
        self
    }

    /// Lists a service under a trait of its own: who wants `Arc<dyn Trait>` gets it.
    pub fn injectable_as<T, D>(&mut self, as_dyn: fn(Arc<T>) -> Arc<D>) -> &mut Self
    where
        T: Injectable,
        D: ?Sized + Send + Sync + 'static,
    {
        self.injectable::<T>();
        let build = move |resolver: &Resolver<'_>, _: &mut Option<Arc<Workshop>>| {
            Ok(Service::of(as_dyn(resolver.service()?)))
        };
        let needs = vec![Dependency::of::<T>()];
        self.recipe(Recipe::new(Dependency::of::<D>(), needs, build))
    }

    /// Lists an async function that makes a service. It runs before the server listens, on a thread
    /// whose runtime lives as long as the services, so that what it starts there goes on.
    pub fn factory<Args, T>(&mut self, factory: impl Factory<Args, T>) -> &mut Self
    where
        T: Send + Sync + 'static,
    {
        self.factory_as(factory, Arc::new)
    }

    /// The same for a function that makes an `Arc<dyn Trait>`.
    pub fn factory_dyn<Args, D>(&mut self, factory: impl Factory<Args, Arc<D>>) -> &mut Self
    where
        D: ?Sized + Send + Sync + 'static,
    {
        self.factory_as(factory, |made| made)
    }

    fn factory_as<Args, T, D>(
        &mut self,
        factory: impl Factory<Args, T>,
        share: fn(T) -> Arc<D>,
    ) -> &mut Self
    where
        T: Send + 'static,
        D: ?Sized + Send + Sync + 'static,
    {
        let (provides, needs) = (Dependency::of::<D>(), factory.dependencies());
        let build = move |resolver: &Resolver<'_>, workshop: &mut Option<Arc<Workshop>>| {
            let name = resolver.building;
            let failed = |source| StartError::Provider {
                provider: name.to_owned(),
                source,
            };
            let making = factory.start(resolver)?;
            let workshop = match workshop {
                Some(workshop) => workshop,
                None => workshop.insert(Workshop::open().map_err(|error| failed(error.into()))?),
            };
            let made = workshop.make(making).ok_or_else(|| panicked(name))?;
            Ok(Service::of(share(made.map_err(failed)?)))
        };
        self.recipe(Recipe::new(provides, needs, build))
    }

    /// The last recipe for a type holds.
    fn recipe(&mut self, recipe: Recipe) -> &mut Self {
        self.recipes.retain(|known| !known.same_as(&recipe));
        self.recipes.push(recipe);
        self
    }

    /// Notes that `who`, beside the services, will want `wanted`.
    pub fn require(&mut self, wanted: Dependency, who: &str) -> &mut Self {
        self.wishes.push((wanted, who.to_owned()));
        self
    }

    /// Builds everything, or says which provider is missing or stands in a circle.
    pub fn build(mut self) -> Result<Container, StartError> {
        let recipes = std::mem::take(&mut self.recipes);
        for recipe in &recipes {
            self.raise(recipe, &recipes, &mut Vec::new())?;
        }
        for (wanted, who) in &self.wishes {
            if !self.services.0.contains_key(&wanted.id) {
                return Err(missing(*wanted, &[who]));
            }
        }
        Ok(Container {
            services: Arc::new(self.services),
            _workshop: self.workshop,
        })
    }

    /// Builds one service after those that it needs; `path` holds who asked, outermost first.
    fn raise<'a>(
        &mut self,
        recipe: &'a Recipe,
        recipes: &'a [Recipe],
        path: &mut Vec<&'a Recipe>,
    ) -> Result<(), StartError> {
        if self.services.0.contains_key(&recipe.provides.id) {
            return Ok(());
        }
        if let Some(start) = path.iter().position(|asked| asked.same_as(recipe)) {
            return Err(circular(&path[start..], recipe));
        }
        path.push(recipe);
        for need in &recipe.needs {
            self.satisfy(*need, recipes, path)?;
        }
        path.pop();
        let name = recipe.provides.name();
        let resolver = Resolver {
            services: &self.services,
            building: &name,
        };
        // It is code of the user's, and a panic there should name the service like any failure.
        let Some(build) = recipe.build.take() else {
            return Ok(());
        };
        let workshop = &mut self.workshop;
        let built = std::panic::catch_unwind(AssertUnwindSafe(|| build(&resolver, workshop)));
        let service = built.unwrap_or_else(|_| Err(panicked(&name)))?;
        self.services.0.insert(recipe.provides.id, service);
        Ok(())
    }

    fn satisfy<'a>(
        &mut self,
        need: Dependency,
        recipes: &'a [Recipe],
        path: &mut Vec<&'a Recipe>,
    ) -> Result<(), StartError> {
        if self.services.0.contains_key(&need.id) {
            return Ok(());
        }
        match recipes.iter().find(|recipe| recipe.provides == need) {
            Some(recipe) => self.raise(recipe, recipes, path),
            None => {
                let names: Vec<String> = path.iter().map(|asked| asked.provides.name()).collect();
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                Err(missing(need, &names))
            }
        }
    }
}

/// How one service is built.
struct Recipe {
    provides: Dependency,
    needs: Vec<Dependency>,
    /// Taken when it is followed, which is once.
    build: Cell<Option<Box<Build>>>,
}

type Build =
    dyn FnOnce(&Resolver<'_>, &mut Option<Arc<Workshop>>) -> Result<Service, StartError> + Send;

impl Recipe {
    fn new<F>(provides: Dependency, needs: Vec<Dependency>, build: F) -> Self
    where
        F: FnOnce(&Resolver<'_>, &mut Option<Arc<Workshop>>) -> Result<Service, StartError>
            + Send
            + 'static,
    {
        Self {
            provides,
            needs,
            build: Cell::new(Some(Box::new(build))),
        }
    }

    fn same_as(&self, other: &Self) -> bool {
        self.provides == other.provides
    }
}

impl fmt::Debug for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recipe")
            .field("provides", &self.provides)
            .field("needs", &self.needs)
            .finish()
    }
}

#[derive(Debug, Default)]
struct Services(AHashMap<TypeId, Service>);

/// An `Arc` of any type, which may be a `dyn Trait`.
struct Service(Box<dyn Any + Send + Sync>);

impl Service {
    fn of<T: ?Sized + Send + Sync + 'static>(service: Arc<T>) -> Self {
        Self(Box::new(service))
    }
}

impl Services {
    fn get<T: ?Sized + Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        let service = self.0.get(&TypeId::of::<T>())?;
        service.0.downcast_ref::<Arc<T>>().cloned()
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Service")
    }
}

fn missing(wanted: Dependency, path: &[&str]) -> StartError {
    let name = wanted.name();
    let hint = match registry_marker(&name) {
        Some("Global") => "no gateway uses the Global registry; mount one".to_owned(),
        Some(marker) => {
            format!("no gateway uses this registry; mount one with `namespace = {marker}`")
        }
        None if name.starts_with("dyn ") => {
            format!("call `.provide_dyn::<{name}>(Arc::new(..))`, or list a factory of it")
        }
        None => format!("list it in `providers = [{name}]` of a module, or call `.provide(..)`"),
    };
    StartError::Missing {
        wanted: name,
        chain: chain(path.iter().rev().map(|name| (*name).to_owned())),
        hint,
    }
}

fn panicked(provider: &str) -> StartError {
    StartError::Provider {
        provider: provider.to_owned(),
        source: "it panicked".into(),
    }
}

/// A registry comes with the gateways that use it, so what mends its absence is another line.
fn registry_marker(name: &str) -> Option<&str> {
    name.strip_prefix("WsServer<")?.strip_suffix('>')
}

fn circular(circle: &[&Recipe], again: &Recipe) -> StartError {
    let names = circle.iter().copied().chain([again]);
    StartError::Circular {
        chain: names
            .map(|recipe| recipe.provides.name())
            .collect::<Vec<_>>()
            .join(" -> "),
    }
}

fn chain(names: impl Iterator<Item = String>) -> String {
    names.collect::<Vec<_>>().join(", wanted by ")
}

/// Cuts the paths of modules from the name of a type, inside its generic arguments too.
pub(crate) fn short_name(full: &str) -> String {
    let mut short = String::with_capacity(full.len());
    let mut segment = 0;
    let mut rest = full.chars().peekable();
    while let Some(char) = rest.next() {
        if char == ':' && rest.peek() == Some(&':') {
            rest.next();
            short.truncate(segment);
        } else {
            short.push(char);
            if !(char.is_alphanumeric() || char == '_') {
                segment = short.len();
            }
        }
    }
    short
}

#[cfg(test)]
#[path = "container_tests.rs"]
mod tests;
