//! The agent: channels between the rooms, the tick that judges, and reload.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};

use crate::clients::aws;
use crate::clients::credentials::NodeCredentials;
use crate::clock::Clock;
use crate::collect::identity::ecs::{self, Ecs};
use crate::collect::identity::{self, Identity};
use crate::collect::{cameras, gpus, host, kernel_log};
use crate::config::{Config, Enabled};
use crate::domain::judge::{Judge, Judgement, Surroundings};
use crate::domain::memory::Memory;
use crate::domain::moment::Now;
use crate::domain::outbox::Limits;
use crate::domain::reading::Reading;
use crate::domain::report::{EventKind, Node, Outlet, Report};
use crate::domain::snapshot::{CameraSource, Gpus, Host, KernelLog, Snapshot};
use crate::ship::{cloudwatch, relay};
use crate::status::server;
use crate::store::Store;
use crate::supervisor::Supervisor;

/// Between two looks when nothing happens; what happens is looked at at once.
const TICK: Duration = Duration::from_secs(2);

/// Readings that come in one burst are judged together.
const COALESCE: Duration = Duration::from_millis(20);

/// Judgements that an outlet may be behind before it misses some.
const JUDGEMENTS_IN_FLIGHT: usize = 64;

/// Why the agent ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It was asked to stop.
    Stop,
    /// It was asked to read its configuration again.
    Reload,
}

/// What lives on when the configuration is read again.
#[derive(Debug)]
pub struct State {
    clock: Clock,
    store: Store,
    judge: Option<Judge>,
}

impl State {
    /// A fresh start with what an earlier life remembered.
    #[must_use]
    pub fn open(config: &Config) -> Self {
        State {
            clock: Clock::start(),
            store: Store::open(&config.paths.state),
            judge: None,
        }
    }
}

/// Runs until a signal ends it; calls `show` with every report.
///
/// # Errors
/// A part of the agent broke; systemd starts it again.
pub async fn run(
    config: &Config,
    show: Option<fn(&Report)>,
    state: &mut State,
) -> anyhow::Result<Exit> {
    let clock = state.clock.clone();
    let mut signals = Signals::new()?;
    let mut tasks = Supervisor::default();
    let identity = identify(config);

    let memory = state.store.memory_mut();
    if memory.boot != identity.boot {
        // Another boot: what the kernel said before it is history.
        memory.kernel = KernelLog::default();
        memory.boot.clone_from(&identity.boot);
    }
    let now = clock.now();
    let fresh = state.judge.is_none();
    let judge = match &mut state.judge {
        Some(judge) => {
            judge.reconfigure(config.clone(), node(config, &identity), now.moment);
            judge
        }
        empty @ None => empty.insert(Judge::new(
            config.clone(),
            node(config, &identity),
            memory,
            now.moment,
        )),
    };

    let mut sources = Sources::start(config, memory, &clock, &mut tasks);
    let outlets = Outlets::start(config, &identity, memory, &clock, &mut tasks);
    let (ecs_sender, ecs) = watch::channel(None);
    if !config.aws.ecs_agent.is_empty() {
        let token = tasks.token();
        let url = config.aws.ecs_agent.clone();
        tasks.spawn("the ECS agent", async move {
            ecs::follow(&url, ecs_sender, token).await
        });
    }
    let (latest, receiver) = watch::channel(None);
    let socket = config.paths.run.join(crate::status::SOCKET);
    let listener = server::open(&socket)?;
    tasks.spawn(
        "the status socket",
        server::run(listener, socket, receiver.clone(), tasks.token()),
    );
    if !config.status.metrics_listen.is_empty() {
        let address = config.status.metrics_listen.clone();
        tasks.spawn(
            "the metrics listener",
            server::run_metrics(address, receiver, tasks.token()),
        );
    }

    let mut room = Room {
        judge,
        store: &mut state.store,
        sources: &mut sources,
        outlets: &outlets,
        ecs,
        latest,
        show,
    };
    if fresh {
        room.announce("started", clock.now());
    }
    let mut watchdog = Watchdog::new();
    watchdog.ready();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let exit = loop {
        tokio::select! {
            exit = signals.next() => break Ok(exit),
            error = tasks.failure() => break Err(error),
            _ = tick.tick() => {}
            () = room.sources.changed() => tokio::time::sleep(COALESCE).await,
        }
        room.tick(clock.now());
        watchdog.feed();
    };
    if matches!(exit, Ok(Exit::Stop)) {
        watchdog.stopping();
        room.announce("stopped", clock.now());
    }
    // The senders go, so that the outlets see the end of the journal.
    drop(outlets);
    tasks.stop().await;
    state.store.save();
    exit
}

/// Observes once: runs the collectors until all have answered or `patience` is over, and judges.
///
/// # Errors
/// A collector broke.
pub async fn observe_once(config: &Config, patience: Duration) -> anyhow::Result<Arc<Report>> {
    let clock = Clock::start();
    let mut tasks = Supervisor::default();
    let store = Store::open(&config.paths.state);
    let memory = store.memory();
    let node = node(config, &identify(config));
    let mut judge = Judge::new(config.clone(), node, memory, clock.moment());
    let mut sources = Sources::start(config, memory, &clock, &mut tasks);
    let ecs = ecs::ask(&config.aws.ecs_agent).await.ok();
    let ecs = ecs.map(|ecs| (ecs.cluster, Some(ecs.container_instance)));
    let deadline = Instant::now() + patience;
    let report = loop {
        let outlets = ["cloudwatch", "relay", "ssm", "ecs"]
            .map(Outlet::off)
            .to_vec();
        let report = sources
            .judge(
                &mut judge,
                Surroundings {
                    outlets,
                    ecs: ecs.clone(),
                },
                clock.now(),
            )
            .report;
        if judge.is_settled() || Instant::now() >= deadline {
            break report;
        }
        tokio::select! {
            error = tasks.failure() => return Err(error),
            () = sources.changed() => {}
            () = tokio::time::sleep_until(deadline) => {}
        }
    };
    tasks.stop().await;
    Ok(report)
}

fn identify(config: &Config) -> Identity {
    let (identity, problems) = identity::read(config, environment);
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
        uptime_s: None,
    }
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The receiving ends of the collectors.
struct Sources {
    host: watch::Receiver<Reading<Host>>,
    gpus: watch::Receiver<Reading<Gpus>>,
    kernel: watch::Receiver<Reading<KernelLog>>,
    cameras: Vec<watch::Receiver<Reading<CameraSource>>>,
}

impl Sources {
    fn start(config: &Config, memory: &Memory, clock: &Clock, tasks: &mut Supervisor) -> Self {
        let (host_sender, host) = watch::channel(Reading::Pending);
        tasks.spawn(
            "the host",
            host::run(config.host.every, host_sender, clock.clone(), tasks.token()),
        );
        let (gpus_sender, gpus) = watch::channel(Reading::Pending);
        tasks.spawn(
            "the GPUs",
            gpus::run(
                config.gpu.clone(),
                gpus_sender,
                clock.clone(),
                tasks.token(),
            ),
        );
        let (kernel_sender, kernel) = watch::channel(Reading::Pending);
        let path = config.kernel_log.path.clone();
        let known = memory.kernel.clone();
        tasks.spawn(
            "the kernel log",
            kernel_log::run(path, known, kernel_sender, clock.clone(), tasks.token()),
        );
        let cameras = config
            .cameras
            .source
            .iter()
            .map(|source| {
                let (sender, receiver) = watch::channel(Reading::Pending);
                let task = cameras::run(
                    source.clone(),
                    config.cameras.max,
                    sender,
                    clock.clone(),
                    tasks.token(),
                );
                tasks.spawn("a camera source", task);
                receiver
            })
            .collect();
        Sources {
            host,
            gpus,
            kernel,
            cameras,
        }
    }

    /// Waits until a source says something new.
    async fn changed(&mut self) {
        let cameras = self
            .cameras
            .iter_mut()
            .map(|camera| Box::pin(heard(camera)));
        let any_camera = async {
            let cameras: Vec<_> = cameras.collect();
            if cameras.is_empty() {
                std::future::pending::<()>().await;
            }
            futures_util::future::select_all(cameras).await;
        };
        tokio::select! {
            () = heard(&mut self.host) => {}
            () = heard(&mut self.gpus) => {}
            () = heard(&mut self.kernel) => {}
            () = any_camera => {}
        }
    }

    fn judge(&mut self, judge: &mut Judge, around: Surroundings, now: Now) -> Judgement {
        let host = self.host.borrow_and_update();
        let gpus = self.gpus.borrow_and_update();
        let kernel = self.kernel.borrow_and_update();
        let cameras: Vec<_> = self
            .cameras
            .iter_mut()
            .map(watch::Receiver::borrow_and_update)
            .collect();
        let cameras: Vec<&Reading<CameraSource>> = cameras.iter().map(|camera| &**camera).collect();
        judge.judge(
            Snapshot {
                host: &host,
                gpus: &gpus,
                kernel: &kernel,
                cameras: &cameras,
            },
            around,
            now,
        )
    }
}

/// A collector that has ended says nothing any more; the supervisor hears of it.
async fn heard<T>(receiver: &mut watch::Receiver<T>) {
    if receiver.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// The ways to the cloud.
struct Outlets {
    ways: Vec<(mpsc::Sender<Arc<Judgement>>, watch::Receiver<Outlet>)>,
    off: Vec<&'static str>,
}

impl Outlets {
    fn start(
        config: &Config,
        identity: &Identity,
        memory: &mut Memory,
        clock: &Clock,
        tasks: &mut Supervisor,
    ) -> Self {
        let mut outlets = Outlets {
            ways: Vec::new(),
            off: vec!["ssm", "ecs"],
        };
        let limits = Limits {
            bytes: config.outbox.max_bytes.as_u64().min(MEMORY_FOR_JOURNAL),
            age: config.outbox.max_age,
        };

        let enabled = config.cloudwatch.enabled;
        match &identity.region {
            Some(region) if enabled != Enabled::Never => {
                let credentials = NodeCredentials::new(&config.aws, environment, clock.clone());
                let endpoint = aws::endpoint("CLOUDWATCH", environment);
                let ship = cloudwatch::CloudWatch {
                    settings: config.cloudwatch.clone(),
                    source: cloudwatch::Source {
                        site: config.node.site.clone(),
                        node: identity.node_id.clone(),
                    },
                    limits,
                    client: aws::cloudwatch(region, credentials.clone(), endpoint, clock.clone()),
                    credentials,
                    clock: clock.clone(),
                };
                let token = tasks.token();
                outlets.way("cloudwatch", |judgements, status| {
                    tasks.spawn(
                        "CloudWatch",
                        cloudwatch::run(ship, judgements, status, token),
                    );
                });
            }
            Some(_) | None => {
                if enabled == Enabled::Always {
                    tracing::error!(
                        "cloudwatch.enabled is always, but no region is known; set aws.region"
                    );
                }
                outlets.off.push("cloudwatch");
            }
        }

        if config.relay.url.is_empty() {
            outlets.off.push("relay");
        } else {
            memory.session += 1;
            let relay = relay::Relay {
                settings: config.relay.clone(),
                site: config.node.site.clone(),
                node: identity.node_id.clone(),
                boot: identity.boot.clone(),
                session: memory.session,
                period: config.cloudwatch.period,
                limits,
                clock: clock.clone(),
            };
            let token = tasks.token();
            outlets.way("relay", |judgements, status| {
                tasks.spawn("the relay", relay::run(relay, judgements, status, token));
            });
        }
        outlets
    }

    fn way(
        &mut self,
        name: &'static str,
        spawn: impl FnOnce(mpsc::Receiver<Arc<Judgement>>, watch::Sender<Outlet>),
    ) {
        let (sender, receiver) = mpsc::channel(JUDGEMENTS_IN_FLIGHT);
        let (status, told) = watch::channel(Outlet::off(name));
        spawn(receiver, status);
        self.ways.push((sender, told));
    }

    /// In the order of the contract.
    fn report(&self) -> Vec<Outlet> {
        let told = self.ways.iter().map(|(_, outlet)| outlet.borrow().clone());
        let mut outlets: Vec<Outlet> = told
            .chain(self.off.iter().map(|name| Outlet::off(name)))
            .collect();
        outlets.sort_by_key(|outlet| {
            ["cloudwatch", "relay", "ssm", "ecs"]
                .iter()
                .position(|name| *name == outlet.name)
        });
        outlets
    }

    fn ship(&self, judgement: &Arc<Judgement>) {
        for (way, outlet) in &self.ways {
            if way.try_send(Arc::clone(judgement)).is_err() {
                tracing::error!(outlet = outlet.borrow().name, "an outlet does not keep up");
            }
        }
    }
}

/// While outboxes live in memory, they must not eat it.
const MEMORY_FOR_JOURNAL: u64 = 4 << 20;

/// Everything that one tick touches.
struct Room<'a> {
    judge: &'a mut Judge,
    store: &'a mut Store,
    sources: &'a mut Sources,
    outlets: &'a Outlets,
    ecs: watch::Receiver<Option<Ecs>>,
    latest: watch::Sender<Option<Arc<Report>>>,
    show: Option<fn(&Report)>,
}

impl Room<'_> {
    fn tick(&mut self, now: Now) {
        let judgement = self.look(now);
        self.tell(judgement);
    }

    /// Journals that the agent has started or stops, with the report that holds then.
    fn announce(&mut self, what: &'static str, now: Now) {
        let agent = env!("CARGO_PKG_VERSION").to_owned();
        let event = self.judge.event(EventKind::Agent { what, agent }, now);
        let mut judgement = self.look(now);
        judgement.events.insert(0, event);
        self.tell(judgement);
    }

    fn look(&mut self, now: Now) -> Judgement {
        let ecs = self
            .ecs
            .borrow()
            .clone()
            .map(|ecs| (ecs.cluster, Some(ecs.container_instance)));
        self.sources.judge(
            self.judge,
            Surroundings {
                outlets: self.outlets.report(),
                ecs,
            },
            now,
        )
    }

    fn tell(&mut self, judgement: Judgement) {
        for event in &judgement.events {
            tracing::info!(seq = event.seq, "{}", event.kind);
        }
        // A number that has been told must be on disk before, or a crash would give it out twice.
        let memory = self.store.memory_mut();
        let mut changed = self.judge.remember(memory);
        if let Some(kernel) = self.sources.kernel.borrow().value() {
            // Position and facts go together: an old pair is read on from, so the position alone is no reason.
            changed |= (memory.kernel.gaps, &memory.kernel.facts) != (kernel.gaps, &kernel.facts);
            memory.kernel.clone_from(kernel);
        }
        if changed {
            self.store.save();
        }
        let judgement = Arc::new(judgement);
        self.outlets.ship(&judgement);
        if let Some(show) = self.show {
            show(&judgement.report);
        }
        self.latest
            .send_replace(Some(Arc::clone(&judgement.report)));
    }
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

    async fn next(&mut self) -> Exit {
        tokio::select! {
            _ = self.terminate.recv() => Exit::Stop,
            _ = self.interrupt.recv() => Exit::Stop,
            _ = self.hangup.recv() => Exit::Reload,
        }
    }
}

/// systemd's watchdog, fed only when a tick really ran.
struct Watchdog {
    every: Option<Duration>,
    fed: Instant,
}

impl Watchdog {
    fn new() -> Self {
        Watchdog {
            every: sd_notify::watchdog_enabled(),
            fed: Instant::now(),
        }
    }

    fn ready(&self) {
        notify(&[sd_notify::NotifyState::Ready]);
    }

    fn feed(&mut self) {
        if self
            .every
            .is_some_and(|every| self.fed.elapsed() >= every / 4)
        {
            self.fed = Instant::now();
            notify(&[sd_notify::NotifyState::Watchdog]);
        }
    }

    fn stopping(&self) {
        notify(&[sd_notify::NotifyState::Stopping]);
    }
}

fn notify(states: &[sd_notify::NotifyState<'_>]) {
    // Without systemd there is nobody to notify.
    let _ = sd_notify::notify(states);
}
