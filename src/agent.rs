//! The agent: the parts of the house, the tick that judges, and reload.

mod ecs;
mod fit;
mod identity;
mod notes;
mod orders;
mod outlets;
mod part;
pub mod record;
mod restart;
mod settings;
mod sources;
pub mod ssm;
mod systemd;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures_util::future::{FutureExt, select_all};
use tokio::net::UnixListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};

use crate::clients::credentials::NodeCredentials;
use crate::clock::Clock;
use crate::collect::host;
use crate::collect::identity::ecs as introspection;
use crate::collect::identity::{self as collected, Identity};
use crate::config::Config;
use crate::config::layers::Base;
use crate::domain::ecs::EcsView;
use crate::domain::judge::{Judge, Judgement, Surroundings};
use crate::domain::moment::Moment;
use crate::domain::report::{EventKind, Node, Outlet, Report};
use crate::status::orders::{self as told, Order};
use crate::status::server;
use crate::store::{Keeping, Limits, Store, inspect};

use ecs::{Ecs, EcsPart};
use fit::FitFile;
use identity::IdentityPart;
use notes::Notes;
use outlets::Outlets;
use part::Part;
use settings::Settings;
use sources::Sources;
use ssm::{SsmPart, Way};
use systemd::Watchdog;

/// Between two looks when nothing happens; what happens is looked at at once.
const TICK: Duration = Duration::from_secs(2);

/// Readings that come in one burst are judged together.
const COALESCE: Duration = Duration::from_millis(20);

/// What the kernel log has brought without changing a finding is kept so often.
const KEEP_KERNEL: Duration = Duration::from_secs(10);

/// How long the last commit may take.
const FAREWELL: Duration = Duration::from_secs(5);

/// Runs until TERM or INT; on HUP it goes on with what `reload` gives. Calls `show` with every report.
///
/// # Errors
/// The socket can't be opened, or a part of the agent broke; systemd starts it again.
pub async fn run(
    base: Base,
    reload: impl Fn() -> anyhow::Result<Base>,
    show: Option<fn(&Report)>,
) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    let settings = Settings::open(base, &host::boot_id(), Clock::start(None).now()).await;
    let identity = identify(settings.config());
    let (orders, mut ordered) = told::channel();
    let mut house = House::open(settings, &identity, orders, show).await?;
    house.settle(identity).await?;
    house.announce("started").await?;
    let mut watchdog = Watchdog::ready();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let outcome = loop {
        tokio::select! {
            wish = signals.next() => match wish {
                Wish::Stop => {
                    house.settings.stop().await;
                    break Ok(());
                }
                Wish::Reload => match reload() {
                    Ok(base) => {
                        house.settings.reload(base, house.clock.now()).await;
                        // Whoever has just put a parameter need not wait for the next look.
                        house.ssm.forget_parameters().await;
                        house.settle(identify(house.settings.config())).await?;
                        tracing::info!("the configuration was read again");
                    }
                    Err(error) => house.settings.refuse_file(&error),
                },
            },
            Some(order) = ordered.recv() => house.carry_out(order).await?,
            stirred = house.stir() => match stirred {
                Ok(()) => tokio::time::sleep(COALESCE).await,
                Err(error) => break Err(error),
            },
            _ = tick.tick() => {}
        }
        house.follow_parameters().await?;
        house.tick().await?;
        watchdog.feed();
    };
    watchdog.stopping();
    house.announce("stopped").await?;
    house.leave().await;
    outcome
}

/// Observes once: runs the collectors until all have answered or `patience` is over, and judges.
///
/// # Errors
/// A collector broke.
pub async fn observe_once(config: &Config, patience: Duration) -> anyhow::Result<Arc<Report>> {
    let mut memory = inspect::memory(&config.paths.state);
    let identity = identify(config);
    if memory.boot != identity.boot {
        memory.begin_boot(&identity.boot);
    }
    let clock = Clock::start(memory.clock_in(&identity.boot));
    let node = node(config, &identity);
    let mut judge = Judge::new(config.clone(), node, &memory, clock.moment());
    let mut sources = Sources::default();
    sources.furnish(config, &memory, &clock).await;
    let place = introspection::ask(&config.aws.ecs_agent, false).await.ok();
    let credentials = NodeCredentials::new(&config.aws, environment, clock.clone());
    let seen = identity::watching(config, &identity, &credentials)
        .look()
        .await;
    let around = Surroundings {
        outlets: ["cloudwatch", "relay", "ssm", "ecs"]
            .map(Outlet::off)
            .to_vec(),
        clock_offset: clock.offset(),
        in_memory: None,
        identity: seen,
        heard: None,
        place,
        ecs: EcsView::default(),
        config_rejected: None,
    };
    let deadline = Instant::now() + patience;
    let report = loop {
        let report = sources
            .judge(&mut judge, around.clone(), clock.now())
            .report;
        if judge.is_settled() || Instant::now() >= deadline {
            break report;
        }
        tokio::select! {
            (stirred, ..) = select_all(sources.stir()) => stirred?,
            () = tokio::time::sleep_until(deadline) => {}
        }
    };
    sources.stop().await;
    Ok(report)
}

fn identify(config: &Config) -> Identity {
    let (identity, problems) = collected::read(config, environment);
    for problem in problems {
        tracing::warn!("{problem}");
    }
    identity
}

fn node(config: &Config, identity: &Identity) -> Node {
    Node {
        id: identity.node_id.clone(),
        site: config.node.site.clone(),
        hostname: identity.hostname.clone(),
        agent: env!("CARGO_PKG_VERSION").to_owned(),
        boot: identity.boot.clone(),
        ..Node::default()
    }
}

fn limits(config: &Config) -> Limits {
    Limits {
        bytes: config.outbox.max_bytes.as_u64(),
        age: config.outbox.max_age,
    }
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Everything that lives on when the configuration is read again; a part only as long as its settings last.
struct House {
    clock: Clock,
    settings: Settings,
    notes: Notes,
    judge: Judge,
    sources: Sources,
    outlets: Outlets,
    ecs: Option<EcsPart>,
    ssm: SsmPart,
    identity: Option<IdentityPart>,
    socket: Option<Part<PathBuf, FitFile>>,
    metrics: Option<Part<String, ()>>,
    latest: watch::Sender<Option<Arc<Report>>>,
    /// The socket's end of the way by which orders come in.
    orders: mpsc::Sender<Order>,
    show: Option<fn(&Report)>,
    kernel_kept: Moment,
}

impl House {
    /// An empty house, with what an earlier life remembered.
    async fn open(
        settings: Settings,
        identity: &Identity,
        orders: mpsc::Sender<Order>,
        show: Option<fn(&Report)>,
    ) -> anyhow::Result<Self> {
        let opening = Clock::start(None).now();
        let config = settings.config();
        let (folder, limits) = (&config.paths.state, limits(config));
        let written = inspect::last_written(folder);
        let opened = Store::open(folder, limits, &identity.boot, opening).await;
        let (store, mut memory) = opened?;
        memory.clock = memory.clock_in(&identity.boot);
        let clock = Clock::start(memory.clock);
        if memory.boot != identity.boot {
            if let Some(restart) = restart::unclean(&memory, written, &identity.boot, clock.now()) {
                memory.restarted(restart);
            }
            memory.begin_boot(&identity.boot);
        }
        memory.stopped = false;
        let judge = Judge::new(
            config.clone(),
            node(config, identity),
            &memory,
            clock.moment(),
        );
        Ok(House {
            clock,
            settings,
            notes: Notes::new(store, memory),
            judge,
            sources: Sources::default(),
            outlets: Outlets::default(),
            ecs: None,
            ssm: SsmPart::default(),
            identity: None,
            socket: None,
            metrics: None,
            latest: watch::Sender::new(None),
            orders,
            show,
            kernel_kept: Moment::BOOT,
        })
    }

    /// Furnishes with the configuration in force; if that can't be done for parameters that are new, without them.
    async fn settle(&mut self, mut identity: Identity) -> anyhow::Result<()> {
        loop {
            let config = self.settings.config().clone();
            let Err(error) = self.furnish(&config, &identity).await else {
                return Ok(());
            };
            if !self.settings.take_back(&error).await {
                return Err(error);
            }
            identity = identify(self.settings.config());
        }
    }

    /// Goes on with what SSM has given, if it is new.
    async fn follow_parameters(&mut self) -> anyhow::Result<()> {
        let now = self.clock.now();
        if self.settings.follow(self.ssm.fetched(), now).await {
            self.settle(identify(self.settings.config())).await?;
            self.announce(match self.settings.is_on_trial() {
                true => "parameters on trial",
                false => "parameters taken back",
            })
            .await?;
        }
        self.settings.tick(now.moment).await;
        Ok(())
    }

    /// Starts every part that the configuration asks for; what runs with the same settings is left alone.
    async fn furnish(&mut self, config: &Config, identity: &Identity) -> anyhow::Result<()> {
        self.open_socket(config).await?;
        self.judge
            .reconfigure(config.clone(), node(config, identity), self.clock.moment());
        self.notes.store.limit(limits(config));
        let (memory, store) = (&mut self.notes.memory, &self.notes.store);
        self.sources.furnish(config, memory, &self.clock).await;
        self.outlets
            .furnish(config, identity, memory, store, &self.clock)
            .await;
        // A session must be on disk before it is told, or a crash would give it out twice.
        self.notes.has_changed();
        self.notes.keep(Vec::new(), self.clock.now()).await?;
        let credentials = self.outlets.credentials(config, &self.clock);
        let way = Way {
            connections: self.outlets.connections(),
            credentials: &credentials,
            clock: &self.clock,
        };
        let to_come_back = self.judge.failover().is_to_come_back();
        Ecs::furnish(&mut self.ecs, to_come_back, config, identity, &way).await;
        let restarts = self.judge.restarts_wanted();
        identity::furnish(&mut self.identity, config, identity, &credentials, restarts).await;
        self.ssm.furnish(config, identity, &self.latest, &way).await;
        Ok(())
    }

    async fn open_socket(&mut self, config: &Config) -> anyhow::Result<()> {
        let folder = config.paths.run.clone();
        let path = folder.join(crate::status::SOCKET);
        if !self.socket.as_ref().is_some_and(|part| part.is(&path)) {
            let listener: UnixListener = server::open(&path)?;
            Part::renew(&mut self.socket, path, |path, tasks| {
                let task = server::run(
                    listener,
                    path.clone(),
                    self.latest.subscribe(),
                    self.orders.clone(),
                    tasks.token(),
                );
                tasks.spawn("the status socket", task);
                FitFile::in_folder(&folder)
            })
            .await;
        }
        if config.status.metrics_listen.is_empty() {
            Part::remove(&mut self.metrics).await;
        } else {
            Part::renew(
                &mut self.metrics,
                config.status.metrics_listen.clone(),
                |address, tasks| {
                    let task = server::run_metrics(
                        address.clone(),
                        self.latest.subscribe(),
                        tasks.token(),
                    );
                    tasks.spawn("the metrics listener", task);
                },
            )
            .await;
        }
        Ok(())
    }

    /// Waits until a part has something new to say, or ends badly.
    async fn stir(&mut self) -> anyhow::Result<()> {
        let mut waits = self.sources.stir();
        waits.extend(self.outlets.stir());
        waits.extend(self.ssm.stir());
        waits.extend(self.identity.as_mut().map(|part| part.stir().boxed_local()));
        waits.extend(self.ecs.as_mut().map(|part| part.stir().boxed_local()));
        waits.extend(
            self.socket
                .as_mut()
                .map(|part| part.failure().boxed_local()),
        );
        waits.extend(
            self.metrics
                .as_mut()
                .map(|part| part.failure().boxed_local()),
        );
        select_all(waits).await.0
    }

    async fn tick(&mut self) -> anyhow::Result<()> {
        let judgement = self.look();
        self.tell(judgement).await
    }

    /// Journals what the agent itself has done, with the report that holds then; both are kept.
    async fn announce(&mut self, what: &'static str) -> anyhow::Result<()> {
        let agent = env!("CARGO_PKG_VERSION").to_owned();
        let now = self.clock.now();
        let event = self.judge.event(EventKind::Agent { what, agent }, now);
        let mut judgement = self.look();
        judgement.events.insert(0, event);
        self.tell(judgement).await
    }

    fn look(&mut self) -> Judgement {
        let part = self.ecs.as_mut().map(|part| part.value.look());
        let (place, ecs, to_ecs) = part.unwrap_or_else(ecs::nothing);
        let around = Surroundings {
            outlets: self.outlets.report(self.ssm.outlet(), to_ecs),
            clock_offset: self.clock.offset(),
            in_memory: match self.notes.store.keeping() {
                Keeping::OnDisk => None,
                Keeping::InMemory { why } => Some(why),
            },
            identity: self
                .identity
                .as_mut()
                .map(IdentityPart::seen)
                .unwrap_or_default(),
            heard: self.clock.verified().map(|verified| verified.moment),
            place,
            ecs,
            config_rejected: self.settings.rejected(),
        };
        let now = self.clock.now();
        self.sources.judge(&mut self.judge, around, now)
    }

    async fn tell(&mut self, judgement: Judgement) -> anyhow::Result<()> {
        self.remember();
        let now = self.clock.now();
        let drafts = self.outlets.drafts(&judgement.events, now);
        self.notes.keep(drafts, now).await?;
        if let Some(part) = &self.ecs {
            part.value.want(self.judge.want());
        }
        if let Some(part) = &self.identity {
            part.want_restarts(self.judge.restarts_wanted());
        }
        let judgement = Arc::new(judgement);
        self.outlets.ship(&judgement);
        if let Some(part) = &mut self.socket {
            part.value.follow(&judgement.report);
        }
        if let Some(show) = self.show {
            show(&judgement.report);
        }
        self.latest
            .send_replace(Some(Arc::clone(&judgement.report)));
        // Who reads of it in the log finds it in the report.
        for event in &judgement.events {
            tracing::info!(seq = event.seq, "{}", event.kind);
        }
        Ok(())
    }

    /// A number that is told must be on disk before, or a crash would give it out twice. What the kernel log has
    /// brought goes along; what changes no finding waits, so that a flood of lines is no flood of writes.
    fn remember(&mut self) {
        let now = self.clock.moment();
        let memory = &mut self.notes.memory;
        let mut changed = self.judge.remember(memory);
        if changed || now - self.kernel_kept >= KEEP_KERNEL {
            self.kernel_kept = now;
            let kernel = self.sources.kernel();
            if let Some(kernel) = kernel.as_deref().and_then(|reading| reading.value()) {
                // Position and facts go together: an old pair is read on from, so the position alone is no reason.
                changed |=
                    (memory.kernel.gaps, &memory.kernel.facts) != (kernel.gaps, &kernel.facts);
                memory.kernel.clone_from(kernel);
            }
        }
        changed |= memory.confirm(self.clock.verified());
        if changed {
            self.notes.has_changed();
        }
    }

    /// Stops every part, each with its farewell, and keeps what must be kept.
    async fn leave(mut self) {
        // Whoever takes the machine down asks the agent to stop first: else nobody did.
        self.notes.memory.stopped = true;
        self.notes.has_changed();
        if let Err(error) = self.notes.keep(Vec::new(), self.clock.now()).await {
            tracing::error!("{error:#}");
        }
        self.outlets.stop().await;
        self.sources.stop().await;
        Part::remove(&mut self.ecs).await;
        self.ssm.stop().await;
        Part::remove(&mut self.identity).await;
        Part::remove(&mut self.socket).await;
        Part::remove(&mut self.metrics).await;
        if tokio::time::timeout(FAREWELL, self.notes.store.flush())
            .await
            .is_err()
        {
            tracing::error!("stopping without the disk, which does not answer");
        }
    }
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Stop,
    Reload,
}

/// TERM and INT stop, HUP reloads.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("can't listen for signals");
        Ok(Signals {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.terminate.recv() => Wish::Stop,
            _ = self.interrupt.recv() => Wish::Stop,
            _ = self.hangup.recv() => Wish::Reload,
        }
    }
}
