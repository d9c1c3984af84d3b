//! The server as its routes see it: what they ask is asked of every shard and put together.
//! Knows shards by their queues only.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use arc_swap::ArcSwap;
use axum::Router;
use axum::http::Method;
use tokio::sync::oneshot;

use crate::auth::Authenticator;
use crate::broker::relay::{TopicFilter, TopicPage};
use crate::config::{Config, RestPush};
use crate::http::{
    self, Access, Answer, ConnectionInfo, Connections, Console, Deps, Inside, Node, PathError,
    PublicRoute, PublicRoutes, SlowInfo, Which,
};
use crate::id::Tenant;
use crate::metrics::{Gauge, Metrics};
use crate::shard::kernel::ring::SlotKey;
use crate::shard::state::State;
use crate::shard::state::command::{Command, StateJob};
use crate::shard::state::shared::{Dialect, Shared};
use crate::shard::tell::listing::{ListFilter, Listed};
use crate::shard::tell::slow::Slow;

use super::{ServerBuilder, origins_of, run};

struct ServerNode {
    shared: Arc<Shared>,
    metrics: Metrics,
}

impl Node for ServerNode {
    fn is_ready(&self) -> bool {
        !self.shared.draining.load(Ordering::Relaxed)
            && !self.shared.memory.is_short()
            && self.metrics.sum(Gauge::PartitionsFailed) == 0
    }

    fn connections(&self, tenant: &Tenant, which: Which) -> Answer<'_, Connections> {
        let tenant = tenant.clone();
        let limit = which.limit.unwrap_or(usize::MAX);
        let filter = ListFilter {
            contains: which.contains.unwrap_or_default().to_lowercase().into(),
            limit,
            addresses: which.addresses,
        };
        Box::pin(async move {
            let question = move |state: &mut State| state.listed(&tenant, &filter);
            let mut all = Connections::default();
            for (shard, page) in self.ask_all(question).await {
                all.count += page.count;
                let listed = page.listed.into_iter().map(|one| self.info(shard, one));
                all.connections.extend(listed);
            }
            all.connections.truncate(limit);
            all
        })
    }

    fn relay_topics(&self, tenant: &Tenant, filter: TopicFilter) -> Answer<'_, TopicPage> {
        let tenant = tenant.clone();
        let limit = filter.limit;
        Box::pin(async move {
            let page = move |state: &mut State| {
                let home = state.home.as_ref();
                home.map(|home| home.page(&tenant, &filter))
                    .unwrap_or_default()
            };
            let mut all = TopicPage::default();
            for (_, page) in self.ask_all(page).await {
                all.join(page, limit);
            }
            all
        })
    }

    fn slow(&self, tenant: &Tenant, limit: usize) -> Answer<'_, Vec<SlowInfo>> {
        let tenant = tenant.clone();
        Box::pin(async move {
            let all = self.ask_all(move |state| state.slow(&tenant, limit)).await;
            let of_shard = |(shard, slow): (u16, Vec<Slow>)| {
                slow.into_iter().map(move |one| self.slow_info(shard, one))
            };
            let mut slow: Vec<_> = all.into_iter().flat_map(of_shard).collect();
            slow.sort_unstable_by_key(|one| std::cmp::Reverse((one.queued_bytes, one.missed)));
            slow.truncate(limit);
            slow
        })
    }

    fn close(&self, tenant: &Tenant, id: &str) -> Answer<'_, bool> {
        let tenant = tenant.clone();
        let place = parse_id(id).filter(|(shard, _)| *shard < self.shared.shards());
        Box::pin(async move {
            let Some((shard, key)) = place else {
                return false;
            };
            let (sender, receiver) = oneshot::channel();
            self.run(
                shard,
                Box::new(move |state| {
                    let _ = sender.send(state.kick(&tenant, key));
                }),
            )
            .await;
            receiver.await.unwrap_or(false)
        })
    }
}

impl ServerNode {
    /// Has a shard do something with its own state. A full queue empties within turns.
    async fn run(&self, shard: u16, job: StateJob) {
        let port = &self.shared.ports[usize::from(shard)];
        while port.is_full() {
            tokio::task::yield_now().await;
        }
        // If others filled it meanwhile the answer is dropped, and who waits sees that.
        let _ = port.post(Command::Run(job));
    }

    /// Asks every shard, one after the other; one that stops has nothing to say.
    async fn ask_all<T, F>(&self, question: F) -> Vec<(u16, T)>
    where
        T: Default + Send + 'static,
        F: Fn(&mut State) -> T + Clone + Send + 'static,
    {
        let mut answers = Vec::new();
        for shard in 0..self.shared.shards() {
            let question = question.clone();
            let (sender, receiver) = oneshot::channel();
            let job = move |state: &mut State| {
                // Whoever asked may have gone.
                let _ = sender.send(question(state));
            };
            self.run(shard, Box::new(job)).await;
            answers.push((shard, receiver.await.unwrap_or_default()));
        }
        answers
    }

    fn slow_info(&self, shard: u16, one: Slow) -> SlowInfo {
        SlowInfo {
            connection: self.info(shard, one.who),
            queued_frames: one.queued_frames,
            queued_bytes: one.queued_bytes,
            missed: one.missed,
            stalled_ms: one.stalled_ms,
            paused: one.paused,
        }
    }

    fn info(&self, shard: u16, one: Listed) -> ConnectionInfo {
        let mount = self.shared.mounts.get(usize::from(one.mount));
        ConnectionInfo {
            id: one.id(shard),
            path: mount.map(|mount| mount.path.clone()).unwrap_or_default(),
            conn_id: one.conn_id,
            sub: one.subject,
            peer: one.peer,
        }
    }
}

/// Shard, slot and generation.
fn parse_id(id: &str) -> Option<(u16, SlotKey)> {
    let mut parts = id.split('-');
    let shard = parts.next()?.parse().ok()?;
    let slot = parts.next()?.parse().ok()?;
    let generation = parts.next()?.parse().ok()?;
    parts
        .next()
        .is_none()
        .then_some((shard, SlotKey { slot, generation }))
}

/// What a reload replaces for HTTP.
pub(super) fn access_of(config: &Config, authenticator: Arc<Authenticator>) -> Arc<Access> {
    Arc::new(Access {
        authenticator,
        origins: origins_of(config),
        limits: config.limits.clone(),
    })
}

impl ServerBuilder {
    /// What the routes of this server work with.
    pub(super) fn deps(&self, shared: &Arc<Shared>, metrics: &Metrics) -> Result<Deps, PathError> {
        let config = &self.config;
        let access = access_of(config, Arc::clone(&self.authenticator));
        let inside = match (config.admin.listen, config.dev) {
            (Some(_), _) => Inside::Elsewhere,
            (None, true) => Inside::Everybody,
            (None, false) => Inside::Admins,
        };
        Ok(Deps {
            access: Arc::new(ArcSwap::new(access)),
            node: Arc::new(ServerNode {
                shared: Arc::clone(shared),
                metrics: metrics.clone(),
            }),
            metrics: metrics.clone(),
            public: Arc::new(self.public_routes(shared)?),
            inside,
            rest_push: config
                .relay
                .as_ref()
                .map_or(RestPush::Handlers, |relay| relay.rest_push),
            console: self.console(shared),
            settings: Arc::new(ArcSwap::from_pointee(self.settings.clone())),
            unix_s: run::unix_s,
        })
    }

    /// What the console page has to know.
    fn console(&self, shared: &Shared) -> Console {
        let mut mounts = shared.mounts.iter();
        let relay = mounts.find(|mount| matches!(mount.dialect, Dialect::Relay));
        let process = self.process.as_ref().filter(|_| self.config.dev);
        Console {
            relay: relay.map(|mount| mount.path.clone()),
            durable: shared.durable.is_some(),
            tokens: process.and_then(|process| process.tokens()),
        }
    }

    /// The routes that the user declared public and that are no mounts.
    fn public_routes(&self, shared: &Shared) -> Result<PublicRoutes, PathError> {
        let is_mount = |(method, path): &&(Method, String)| {
            *method == Method::GET && shared.mount_of.contains_key(path)
        };
        let routes = self.public.iter().filter(|route| !is_mount(route));
        PublicRoutes::new(routes.map(|(method, path)| PublicRoute {
            method: method.clone(),
            path: path.clone(),
        }))
    }

    /// All routes of this server.
    pub(super) fn routes(&self, deps: Deps) -> Router {
        http::router(deps, self.router.clone())
    }
}
