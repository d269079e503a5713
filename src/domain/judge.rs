//! One tick: snapshot in, report and journal out. The only place where the domain's memory changes.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;

use super::assets;
use super::capacity::capacity;
use super::correlate::{self, Circumstances};
use super::ecs::{EcsView, Place, Want};
use super::failover::{self, Cause, Failover, Step};
use super::findings::{Change, Findings, Found};
use super::identity::{self, Watchdog};
use super::inventory::{self, Accepted};
use super::memory::Memory;
use super::moment::{Moment, Now};
use super::reading::Reading;
use super::report::{
    Because, Capacity, Event, EventKind, Measured, Node, Outlet, OutletState, Report, State,
    VERSION,
};
use super::rules::agent::AgentMemory;
use super::rules::camera_groups::Groups;
use super::rules::cameras::{CameraMemory, Edge};
use super::rules::gpu::GpuMemory;
use super::rules::host::HostMemory;
use super::rules::{self, Look};
use super::snapshot::{CameraSource, Ingest, Snapshot, UpsPower};
use super::verdict::Verdict;
use crate::config::{Config, Expected};

/// A reading older than so many of its intervals is stale.
const STALE_INTERVALS: u32 = 3;

/// A camera source that has connected and says nothing is waited for so long at the start.
const SOURCE_GRACE: Duration = Duration::from_secs(75);

/// Everything that lies outside the readings and goes into a report.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// How the outlets do.
    pub outlets: Vec<Outlet>,
    /// How far the true time is ahead of this machine's clock; `None` where AWS has not said in this boot.
    pub clock_offset: Option<SignedDuration>,
    /// Why what waits is kept in memory; `None` where it is on disk, as it should be.
    pub in_memory: Option<String>,
    /// What proves who this node is.
    pub identity: identity::Seen,
    /// When AWS last answered anything, in this boot.
    pub heard: Option<Moment>,
    /// Where the ECS agent has registered this node; `None` where there is none.
    pub place: Option<Place>,
    /// What was seen in ECS.
    pub ecs: EcsView,
    /// Why a configuration that is newer than the one in force is not; `None` where there is none.
    pub config_rejected: Option<String>,
}

/// What came of one tick.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    /// What to think now.
    pub report: Arc<Report>,
    /// What changed, in the journal's order.
    pub events: Vec<Event>,
    /// Cameras whose state is new, or (`false`) that are gone with everything that is retained of them.
    pub cameras: Vec<(String, bool)>,
}

/// Judges; owns everything that is remembered between ticks.
#[derive(Debug, Clone)]
pub struct Judge {
    config: Arc<Config>,
    node: Node,
    findings: Findings,
    verdict: Verdict,
    cameras: CameraMemory,
    groups: Groups,
    gpus: GpuMemory,
    host: HostMemory,
    agent: AgentMemory,
    identity: Watchdog,
    /// Of the SSM agent, that are in the journal.
    restarts_told: u64,
    failover: Failover,
    /// Checksum of configuration and version.
    settings: Option<u32>,
    /// When they last became other than they were.
    configured: Option<Moment>,
    started: Moment,
    settled: bool,
    /// A UPS feeds the machine from its battery.
    on_battery: bool,
    /// When the latest readings will be too old.
    stale_at: Option<Moment>,
    seq: u64,
    capacity: Option<Capacity>,
    last_available: Option<u32>,
}

impl Judge {
    /// A judge that knows nothing but what an earlier life remembered.
    #[must_use]
    pub fn new(config: Config, node: Node, memory: &Memory, now: Moment) -> Self {
        let mut judge = Judge {
            config: Arc::new(config),
            node,
            findings: Findings::default(),
            verdict: Verdict::default(),
            cameras: CameraMemory::default(),
            groups: Groups::default(),
            gpus: GpuMemory::new(memory),
            host: HostMemory::new(
                memory.machine.clone(),
                memory.restarts.clone(),
                memory.boot.clone(),
            ),
            agent: AgentMemory::default(),
            identity: Watchdog::default(),
            restarts_told: 0,
            failover: Failover::new(memory.failover.clone()),
            settings: memory.settings,
            configured: memory.configured,
            started: now,
            settled: false,
            on_battery: false,
            stale_at: None,
            seq: memory.seq,
            capacity: None,
            last_available: memory.available,
        };
        judge.note_settings(now);
        judge
    }

    /// Goes on with another configuration; nothing that was seen is forgotten.
    pub fn reconfigure(&mut self, config: Config, node: Node, now: Moment) {
        self.config = Arc::new(config);
        self.node = node;
        self.started = now;
        self.note_settings(now);
    }

    /// A node that fails right after its settings changed may be sound, and the settings wrong.
    fn note_settings(&mut self, now: Moment) {
        let written = serde_json::to_vec(&*self.config).unwrap_or_default();
        let mut checksum = crc32fast::Hasher::new();
        checksum.update(&written);
        checksum.update(self.node.agent.as_bytes());
        let before = self.settings.replace(checksum.finalize());
        self.node.config = format!("{:08x}", assets::config_checksum(&self.config));
        // A node's first settings are no change.
        if before.is_some() && before != self.settings {
            self.configured = Some(now);
        }
    }

    /// The configuration in force.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Moving the work away: for orders of a person, and for who acts in ECS.
    pub fn failover(&mut self) -> &mut Failover {
        &mut self.failover
    }

    /// How often a restart of an SSM agent that sleeps was wanted since the agent started.
    #[must_use]
    pub fn restarts_wanted(&self) -> u64 {
        self.identity.restarts_wanted()
    }

    /// What this node wants of its place in ECS.
    #[must_use]
    pub fn want(&self) -> &Want {
        self.failover.want()
    }

    /// Writes what must outlive the agent into `memory`; returns whether it changed.
    pub fn remember(&self, memory: &mut Memory) -> bool {
        let available = self.last_available;
        let changed = memory.seq != self.seq
            || memory.available != available
            || memory.failover != *self.failover.kept()
            || memory.settings != self.settings
            || memory.configured != self.configured
            || memory.inventory != self.gpus.inventory
            || memory.links != self.gpus.levels.links
            || memory.recovered != self.gpus.recovered
            || memory.usual_answer_s != self.gpus.usual_answer_s
            || memory.driver != self.gpus.driver
            || memory.on_battery != self.on_battery
            || memory.restarts != self.host.restarts
            || memory.machine != self.host.machine;
        if changed {
            memory.seq = self.seq;
            memory.available = available;
            memory.failover.clone_from(self.failover.kept());
            memory.settings = self.settings;
            memory.configured = self.configured;
            memory.inventory.clone_from(&self.gpus.inventory);
            memory.links.clone_from(&self.gpus.levels.links);
            memory.recovered.clone_from(&self.gpus.recovered);
            memory.usual_answer_s = self.gpus.usual_answer_s;
            memory.restarts.clone_from(&self.host.restarts);
            memory.machine.clone_from(&self.host.machine);
            memory.driver.clone_from(&self.gpus.driver);
            memory.on_battery = self.on_battery;
        }
        changed
    }

    /// Takes the hardware as it is seen now for what it should be, and forgets the rest; what is gone is no finding
    /// from the next tick on.
    pub fn accept_inventory(&mut self, seen: Snapshot<'_>, now: Moment) -> Accepted {
        let (gpus, machine) = (&mut self.gpus, &mut self.host.machine);
        inventory::accept(gpus, machine, seen, &self.config, now)
    }

    /// One tick.
    pub fn judge(&mut self, seen: Snapshot<'_>, around: Surroundings, now: Now) -> Judgement {
        if let Some(gpus) = seen.gpus.value() {
            self.gpus.take_in(gpus, now.moment);
        }
        if let Some(kernel) = seen.kernel.value() {
            self.gpus.hear(kernel);
            self.host.hear(kernel, now);
        }
        if let Reading::Ok { value, at } = seen.host {
            self.host.take_in(value, *at);
        }
        if let Some(upses) = seen.ups.value() {
            self.on_battery = upses.iter().any(|ups| ups.power == UpsPower::Battery);
        }
        self.agent.take_in(&around.outlets, now.moment);
        let may_restart = self.config.aws.restart_ssm_agent;
        self.identity
            .take_in(&around.identity, around.heard, may_restart, now);
        let config = Arc::clone(&self.config);
        let look = Look {
            seen,
            config: &config,
            around: &around,
            now,
        };
        let (cameras, camera_edges) = self.cameras.settle(look);
        self.groups.take_in(look, &cameras);

        let mut found = Found::default();
        rules::gpu::observe(look, &self.gpus, &mut found);
        rules::host::observe(look, &self.host, &self.gpus, &mut found);
        let held_back = self.failover.held_back();
        rules::agent::observe(look, &self.agent, held_back, &mut found);
        let speaks_to_aws =
            |outlet: &Outlet| outlet.name != "relay" && outlet.state != OutletState::Off;
        let needed = around.outlets.iter().any(speaks_to_aws);
        self.identity
            .observe(&around.identity, needed, now, &mut found);
        let around_faults = Circumstances {
            restarts: &self.host.restarts,
            at_full_power: &self.gpus.at_full_power(),
            driver_changed: self.gpus.driver_changed,
        };
        correlate::apply(around_faults, now, &mut found);
        rules::cameras::observe(look, &cameras, &self.groups, &mut found);
        self.groups
            .observe(self.gpus.let_go(now.moment), &mut found);
        let changes = self.findings.update(found, &config, now);

        let was = self.verdict.state();
        self.settled |= self.all_settled(look);
        self.stale_at = stale_at(look);
        let known = self.settled && !is_stale(look);
        let state =
            self.verdict
                .weigh(self.findings.open(), known, config.judge.recover_after, now);
        let (slots, gpus) = self.size(look);
        let carries = capacity(
            state,
            slots,
            gpus,
            self.findings.open(),
            self.last_available,
        );
        self.last_available = Some(carries.available);
        let steps = self.failover.decide(
            failover::Seen {
                verdict: state,
                carries,
                cause: Cause::of(self.findings.open(), slots, gpus),
                place: around.place.as_ref(),
                ecs: &around.ecs,
                configured: self.configured,
                driver_changed: self.gpus.driver_changed,
                settings: &config.failover,
            },
            now,
        );
        let offered = self.failover.offer(carries, config.failover.mode);
        let resized = self
            .capacity
            .replace(offered)
            .is_some_and(|was| was != offered);

        let mut events = Vec::new();
        let mut moved = Vec::with_capacity(camera_edges.len());
        for edge in camera_edges {
            moved.push((edge.id.clone(), edge.state.is_some()));
            // A camera seen for the first time, or for the last, has not changed its state.
            if let Edge {
                id: cam,
                state: Some(state),
                was: Some(was),
                reason,
            } = edge
            {
                events.push(self.event(
                    EventKind::Camera {
                        cam,
                        state,
                        was,
                        reason,
                    },
                    now,
                ));
            }
        }
        for change in changes {
            let kind = match change {
                Change::Opened(finding) => EventKind::FindingOpened { finding },
                Change::Closed(finding) => EventKind::FindingClosed { finding },
            };
            events.push(self.event(kind, now));
        }
        if state != was || resized {
            let Capacity {
                slots, available, ..
            } = offered;
            let reasons = self.verdict.report(now).reasons;
            events.push(self.event(
                EventKind::Verdict {
                    state,
                    was,
                    reasons,
                    slots,
                    available,
                },
                now,
            ));
        }
        let restarts = around.identity.restarts;
        if self.restarts_told < restarts {
            let (what, agent) = ("ssm agent restarted", self.node.agent.clone());
            events.push(self.event(EventKind::Agent { what, agent }, now));
        }
        self.restarts_told = restarts;
        for step in steps {
            let kind = self.told(step);
            events.push(self.event(kind, now));
        }
        Judgement {
            report: Arc::new(self.report(seen, around, cameras, offered, now)),
            events,
            cameras: moved,
        }
    }

    /// When the verdict or a finding may change though nothing new is seen. Cameras change with every moment.
    #[must_use]
    pub fn due(&self) -> Option<Moment> {
        let better = self.verdict.due(self.config.judge.recover_after);
        [
            self.findings.due(),
            better,
            self.stale_at,
            self.failover.due(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Whether every enabled source has answered or failed.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.settled
    }

    /// An entry of the journal that comes from outside the tick.
    pub fn event(&mut self, kind: EventKind, now: Now) -> Event {
        self.seq += 1;
        Event {
            v: VERSION,
            ts: now.wall,
            seq: self.seq,
            boot: self.node.boot.clone(),
            kind,
        }
    }

    /// A step of the failover as an entry of the journal.
    fn told(&self, step: Step) -> EventKind {
        let mode = self.config.failover.mode.name();
        let now = self.failover.kept().state();
        let (what, state, was, reason, until, slots) = match step {
            Step::State {
                was,
                state,
                why,
                until,
            } => ("state", state, was, Some(why), until, None),
            Step::DrillStarted(drill) => (
                "drill started",
                now,
                now,
                None,
                Some(drill.until),
                Some(drill.slots),
            ),
            Step::DrillEnded => ("drill ended", now, now, None, None, None),
        };
        EventKind::Failover {
            what,
            mode,
            state,
            was,
            reason,
            until,
            slots,
        }
    }

    /// Every enabled source has answered or failed.
    fn all_settled(&self, look: Look<'_>) -> bool {
        let heard = |source: &CameraSource| {
            source.ingest != Ingest::Unknown || look.now.moment - self.started >= SOURCE_GRACE
        };
        look.seen.host.is_settled()
            && look.seen.gpus.is_settled()
            && look.seen.kernel.is_settled()
            && look.seen.cameras.iter().all(|reading| match reading {
                Reading::Ok { value, .. } => heard(value),
                Reading::Pending => false,
                Reading::Off | Reading::Failed { .. } => true,
            })
    }

    /// Slots of the healthy node, and the GPUs that it should have.
    /// Slots, and GPUs: `None` before anybody has counted them.
    fn size(&self, look: Look<'_>) -> (u32, Option<usize>) {
        let listed = look.seen.gpus.value().map_or(0, |gpus| gpus.cards.len());
        let gpus = match look.config.gpu.expected {
            Expected::Remember(_) => listed.max(self.gpus.inventory.len()),
            Expected::Count(count) => listed.max(count as usize),
        };
        let counted = |count: usize| u32::try_from(count).ok().filter(|count| *count > 0);
        let slots = look
            .config
            .node
            .slots
            .or_else(|| counted(look.config.cameras.expect.len()))
            .or_else(|| counted(gpus))
            .unwrap_or(1);
        let is_counted = gpus > 0 || look.seen.gpus.is_settled();
        (slots, is_counted.then_some(gpus))
    }

    fn report(
        &self,
        seen: Snapshot<'_>,
        around: Surroundings,
        cameras: Vec<super::report::Camera>,
        capacity: Capacity,
        now: Now,
    ) -> Report {
        let host = seen.host.value().cloned();
        let uptime_s = host.as_ref().and_then(|host| host.uptime_s);
        let driver = seen.gpus.value().and_then(|gpus| gpus.driver.clone());
        Report {
            version: VERSION,
            at: now.wall,
            seq: self.seq,
            node: Node {
                uptime_s,
                driver: driver.or_else(|| self.gpus.driver.clone()),
                ..self.node.clone()
            },
            verdict: self.verdict.report(now),
            capacity,
            findings: self.findings.open().cloned().collect(),
            host,
            drives: seen
                .drives
                .value()
                .map_or_else(Vec::new, |drives| drives.drives.clone()),
            ups: seen.ups.value().cloned().unwrap_or_default(),
            checks: seen.checks.value().cloned().unwrap_or_default(),
            gpus: seen
                .gpus
                .value()
                .map(|gpus| gpus.cards.clone())
                .unwrap_or_default(),
            cameras,
            outlets: around.outlets,
            identity: self.identity.report(&around.identity, now),
            failover: self
                .failover
                .report(self.config.failover.mode, around.place.as_ref()),
            measured: Measured {
                judged: now.moment,
                host: match seen.host {
                    Reading::Ok { at, .. } => Some(*at),
                    Reading::Pending | Reading::Off | Reading::Failed { .. } => None,
                },
                gpus: seen.gpus.value().and_then(|gpus| gpus.cards_at),
            },
        }
    }
}

/// Whether a source that keeps a rhythm has lost it. The GPU probe has findings of its own for that.
fn is_stale(look: Look<'_>) -> bool {
    match look.seen.host {
        Reading::Ok { at, .. } => look.now.moment - *at > rhythm(look),
        Reading::Failed { .. } => true,
        Reading::Pending | Reading::Off => false,
    }
}

/// When that will be.
fn stale_at(look: Look<'_>) -> Option<Moment> {
    match look.seen.host {
        Reading::Ok { at, .. } => {
            let stale = *at + rhythm(look) + Duration::from_millis(1);
            (look.now.moment < stale).then_some(stale)
        }
        Reading::Failed { .. } | Reading::Pending | Reading::Off => None,
    }
}

fn rhythm(look: Look<'_>) -> Duration {
    look.config.host.every * STALE_INTERVALS
}

impl Report {
    /// Whether the node may take new work (`sideline fit`).
    #[must_use]
    pub fn is_fit(&self) -> bool {
        matches!(self.verdict.state, State::Healthy | State::Degraded)
            && self.capacity.available > 0
            && self.capacity.because != Some(Because::Maintenance)
    }
}
