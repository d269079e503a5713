//! Status to an MQTT broker upstream: birth and will, retained state, and the journal of events.
//!
//! A connection lives once. On every new one the birth goes first, then the current state, then what is lost and the
//! journal in order. Events are in the store before they are told, and leave it when the broker has acknowledged them;
//! current state is not kept, for the next start knows better.

pub mod wire;

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::ops::RangeInclusive;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::clients::mqtt::{
    Broker, Connection, ConnectionError, Incoming, Patience, Token, WINDOW, Will,
};
use crate::clients::reach::{self, Target};
use crate::clock::Clock;
use crate::config::Relay as Settings;
use crate::domain::judge::Judgement;
use crate::domain::moment::Moment;
use crate::domain::outbox::{Current, Fate, Number, Version, Want};
use crate::domain::report::{Camera, EventKind, Outlet, OutletState, Report};
use crate::store::{Batch, Destination, Lost, Record, Standing, Store, Turn};

/// Journal entries a second: a backlog must not push the present aside. AWS IoT Core allows 100 publishes.
const JOURNAL_A_SECOND: usize = 20;

/// Bytes of events that are taken from the store at once.
const MAX_BATCH: u64 = 256 << 10;

/// How long a clean stop may wait for the broker.
const FAREWELL: Duration = Duration::from_secs(3);

/// What the relay needs to know.
#[derive(Debug, Clone)]
pub struct Relay {
    /// Where to, and as whom.
    pub settings: Settings,
    /// Third level of every topic.
    pub site: String,
    /// Fourth level of every topic; the client id too, as AWS IoT Core's policies demand.
    pub node: String,
    /// Boot and session tell a late will from a live node.
    pub boot: String,
    /// Grows with every start of the agent.
    pub session: u64,
    /// `health` is repeated so often.
    pub period: Duration,
    /// What waits.
    pub store: Store,
    /// The time.
    pub clock: Clock,
}

/// Relays until it is cancelled.
///
/// # Errors
/// The store has ended. Trouble with the broker is told in `status`.
pub async fn run(
    relay: Relay,
    mut judgements: mpsc::Receiver<Arc<Judgement>>,
    status: watch::Sender<Outlet>,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let mut desk = Desk::new(&relay, status);
    // What waits from an earlier life.
    desk.ask_store();
    let batch = step(&mut desk.storing).await;
    desk.stored(batch.context("the store has ended")?);
    let broker = match relay.broker() {
        Ok(broker) => broker,
        Err(error) => {
            desk.trouble(OutletState::Rejected, format!("{error:#}"));
            cancel.cancelled().await;
            return Ok(());
        }
    };
    let server = Target::from(&broker);
    let mut patience = Patience::towards(&broker);
    loop {
        let opened = Instant::now();
        let mut knock = false;
        match Connection::open(&broker, &relay.node, Some(relay.will())) {
            Ok(connection) => match live(connection, &mut desk, &mut judgements, &cancel).await? {
                Life::Stopped => return desk.close().await,
                Life::Broken { unreachable } => knock = unreachable,
            },
            Err(error) => desk.broken(&error),
        }
        let pause = tokio::time::sleep(patience.next(opened.elapsed()));
        let opens = async {
            if knock {
                reach::opens(&server).await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        tokio::pin!(pause, opens);
        loop {
            desk.ask_store();
            tokio::select! {
                () = &mut pause => break,
                () = &mut opens => break,
                () = cancel.cancelled() => return desk.close().await,
                Some(judgement) = judgements.recv() => desk.take_in(&judgement),
                batch = step(&mut desk.storing) => desk.stored(batch.context("the store has ended")?),
            }
        }
    }
}

/// How a connection ended.
enum Life {
    Broken { unreachable: bool },
    Stopped,
}

/// One life of a connection.
async fn live(
    mut connection: Connection,
    desk: &mut Desk<'_>,
    judgements: &mut mpsc::Receiver<Arc<Judgement>>,
    cancel: &CancellationToken,
) -> anyhow::Result<Life> {
    let mut second = tokio::time::interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        desk.publish(&mut connection);
        desk.ask_store();
        tokio::select! {
            incoming = connection.next() => match incoming {
                Ok(Incoming::Connected) => desk.connected(&mut connection),
                Ok(Incoming::Acked(token)) => desk.acknowledged(token),
                Ok(Incoming::Message(message)) => desk.reassert(&mut connection, message.payload()),
                Ok(Incoming::Subscribed { .. }) => {}
                Err(error) => {
                    desk.broken(&error);
                    let unreachable = error.unreachable;
                    return Ok(Life::Broken { unreachable });
                }
            },
            Some(judgement) = judgements.recv() => desk.take_in(&judgement),
            batch = step(&mut desk.storing) => desk.stored(batch.context("the store has ended")?),
            // Only a backlog needs the second's new allowance.
            _ = second.tick(), if desk.allowance < JOURNAL_A_SECOND => desk.allowance = JOURNAL_A_SECOND,
            () = cancel.cancelled() => {
                while let Ok(judgement) = judgements.try_recv() {
                    desk.take_in(&judgement);
                }
                if desk.is_connected {
                    desk.farewell(connection).await?;
                }
                return Ok(Life::Stopped);
            }
        }
    }
}

/// Waits for what the store is asked, and takes it off; for ever where nothing is.
async fn step(storing: &mut Storing<'_>) -> Option<Batch> {
    let batch = match storing {
        Some(future) => future.as_mut().await,
        None => std::future::pending().await,
    };
    *storing = None;
    batch
}

type Storing<'a> = Option<Pin<Box<dyn Future<Output = Option<Batch>> + Send + 'a>>>;

impl Relay {
    fn broker(&self) -> anyhow::Result<Broker> {
        let file = |path: &'_ String| (!path.is_empty()).then(|| Path::new(path).to_owned());
        let Settings {
            url,
            ca,
            certificate,
            key,
            ..
        } = &self.settings;
        let (ca, identity) = (file(ca), file(certificate).zip(file(key)));
        let identity = identity
            .as_ref()
            .map(|(certificate, key)| (certificate.as_path(), key.as_path()));
        Broker::parse(url, ca.as_deref(), identity)
    }

    fn topic(&self, rest: &str) -> String {
        format!(
            "{}/{}/{}/{}/{rest}",
            self.settings.prefix,
            wire::VERSION,
            self.site,
            self.node
        )
    }

    fn presence(&self, status: &'static str) -> Vec<u8> {
        wire::presence(status, &self.boot, self.session)
    }

    fn will(&self) -> Will {
        Will {
            topic: self.topic("status"),
            payload: self.presence("lost"),
            retain: self.settings.retain,
        }
    }
}

/// What a message is about: what to do when the broker has it.
enum Flying {
    Presence,
    State(Version),
    Event(Number),
    Lost(RangeInclusive<Number>),
}

/// What waits and what is known of the way: everything a connection needs that outlives it.
struct Desk<'a> {
    relay: &'a Relay,
    /// Current state, by topic.
    state: Current<Vec<u8>>,
    /// Events from the store that are not sent yet.
    events: VecDeque<Record>,
    /// Losses that are not told yet.
    lost: VecDeque<Lost>,
    flying: HashMap<Token, Flying>,
    is_connected: bool,
    /// Journal entries that may be sent in this second.
    allowance: usize,
    storing: Storing<'a>,
    /// What the store has not been told yet.
    turn: Turn,
    has_news: bool,
    standing: Standing,
    stood_at: Moment,
    latest: Option<Arc<Judgement>>,
    health_told: Option<Moment>,
    outlet: Outlet,
    status: watch::Sender<Outlet>,
}

impl<'a> Desk<'a> {
    fn new(relay: &'a Relay, status: watch::Sender<Outlet>) -> Self {
        let now = relay.clock.now();
        Desk {
            relay,
            state: Current::default(),
            events: VecDeque::new(),
            lost: VecDeque::new(),
            flying: HashMap::new(),
            is_connected: false,
            allowance: JOURNAL_A_SECOND,
            storing: None,
            turn: Turn::new(Destination::Relay, now),
            has_news: true,
            standing: Standing::default(),
            stood_at: now.moment,
            latest: None,
            health_told: None,
            // Until it is connected.
            outlet: Outlet {
                state: OutletState::Retrying,
                ..Outlet::off("relay")
            },
            status,
        }
    }

    /// Its events are in the store already.
    fn take_in(&mut self, judgement: &Arc<Judgement>) {
        let now = self.relay.clock.moment();
        let report = &judgement.report;
        if !judgement.events.is_empty() {
            self.standing.more = true;
            self.has_news = true;
        }
        let due = self
            .health_told
            .is_none_or(|told| now - told >= self.relay.period);
        if due
            || judgement.events.iter().any(|event| {
                matches!(
                    event.kind,
                    EventKind::Verdict { .. } | EventKind::Failover { .. }
                )
            })
        {
            self.put_health(report, now);
        }
        for (id, is_here) in &judgement.cameras {
            // The report lists its cameras by id.
            match report
                .cameras
                .binary_search_by(|camera| (*camera.id).cmp(id))
            {
                Ok(at) if *is_here => self.put_camera(report, &report.cameras[at]),
                Ok(_) | Err(_) => self.state.put(self.camera_topic(id), Vec::new()),
            }
        }
        self.latest = Some(Arc::clone(judgement));
        self.tell();
    }

    fn put_health(&mut self, report: &Report, now: Moment) {
        self.health_told = Some(now);
        self.state
            .put(self.relay.topic("health"), wire::health(report));
    }

    fn put_camera(&mut self, report: &Report, camera: &Camera) {
        self.state
            .put(self.camera_topic(&camera.id), wire::camera(report, camera));
    }

    fn camera_topic(&self, id: &str) -> String {
        self.relay.topic(&format!("cam/{id}/state"))
    }

    /// Tells the store what is new, and asks it for what may be sent.
    fn ask_store(&mut self) {
        let takes = self.is_connected && self.events.is_empty() && self.allowance > 0;
        let wants_more = takes && self.standing.more;
        if self.storing.is_some() || !(self.has_news || wants_more) {
            return;
        }
        if self.turn.hand_back {
            // They wait again, and are fetched again.
            self.events.clear();
        }
        let now = self.relay.clock.now();
        let fresh = Turn::new(Destination::Relay, now);
        let mut turn = std::mem::replace(&mut self.turn, fresh);
        turn.now = now;
        turn.take = takes.then_some(Want {
            records: self.allowance,
            bytes: MAX_BATCH,
            newest: 0,
        });
        self.has_news = false;
        self.storing = Some(Box::pin(self.relay.store.turn(turn)));
    }

    fn stored(&mut self, batch: Batch) {
        self.standing = batch.standing;
        self.stood_at = self.relay.clock.moment();
        if self.is_connected {
            self.events.extend(batch.records);
            let is_flying = |lost: &Lost| {
                let mut flying = self.flying.values();
                flying.any(|one| matches!(one, Flying::Lost(range) if *range == lost.range))
            };
            self.lost = batch
                .lost
                .into_iter()
                .filter(|lost| !is_flying(lost))
                .collect();
        } else if !batch.records.is_empty() {
            // The connection broke while they were fetched.
            self.hand_back();
        }
        self.tell();
    }

    /// The birth, then everything that holds now: the broker may have lost what it retained.
    fn connected(&mut self, connection: &mut Connection) {
        if let Some(error) = self.outlet.error.take() {
            tracing::info!(was = error, "the relay is connected again");
        }
        self.outlet.state = OutletState::Ok;
        self.is_connected = true;
        self.has_news = true;
        self.birth(connection);
        if let Err(error) = connection.subscribe([self.relay.topic("status")]) {
            tracing::warn!(%error, "the relay can't watch its own status topic");
        }
        if let Some(latest) = self.latest.clone() {
            self.put_health(&latest.report, self.relay.clock.moment());
            for camera in &latest.report.cameras {
                self.put_camera(&latest.report, camera);
            }
        }
        self.tell();
    }

    fn birth(&mut self, connection: &mut Connection) {
        let (topic, payload) = (self.relay.topic("status"), self.relay.presence("online"));
        match connection.publish(&topic, payload, self.relay.settings.retain) {
            Ok(token) => {
                self.flying.insert(token, Flying::Presence);
            }
            Err(error) => tracing::warn!(%error, "the relay's birth was not sent"),
        }
    }

    /// A will of an earlier connection may arrive after our birth: it must not bury a live node.
    fn reassert(&mut self, connection: &mut Connection, payload: &[u8]) {
        let presence: serde_json::Value = serde_json::from_slice(payload).unwrap_or_default();
        if presence["status"] == "lost" || presence["status"] == "stopped" {
            tracing::info!("somebody took this node for dead: telling again that it lives");
            self.birth(connection);
        }
    }

    /// Hands to the connection what its window and the journal's rate allow: state, losses, events.
    fn publish(&mut self, connection: &mut Connection) {
        if !self.is_connected {
            return;
        }
        let room = WINDOW.saturating_sub(usize::try_from(connection.unacked()).unwrap_or(WINDOW));
        let retain = self.relay.settings.retain;
        let mut refused = Vec::new();
        for (version, topic, payload) in self.state.take(room) {
            match connection.publish(topic, payload.clone(), retain) {
                Ok(token) => {
                    self.flying.insert(token, Flying::State(version));
                }
                Err(error) => refused.push((version, error)),
            }
        }
        for (version, error) in refused {
            tracing::warn!(%error, "a state can't be relayed");
            self.state.settle(version);
        }
        while self.allowance > 0 && connection.unacked() < WINDOW as u64 {
            let told = if let Some(lost) = self.lost.pop_front() {
                let told = wire::gap(&lost);
                (
                    self.relay.topic("lost"),
                    Some(told),
                    Flying::Lost(lost.range),
                )
            } else if let Some(record) = self.events.pop_front() {
                let told = wire::event(&record);
                (
                    self.relay.topic("event"),
                    told,
                    Flying::Event(record.number),
                )
            } else {
                break;
            };
            self.allowance -= 1;
            let (topic, payload, flying) = told;
            let sent = payload.map(|payload| connection.publish(&topic, payload, false));
            match (sent, flying) {
                (Some(Ok(token)), flying) => {
                    self.flying.insert(token, flying);
                }
                (Some(Err(_)), Flying::Event(number)) => self.settle(number, Fate::Refused),
                (None, Flying::Event(number)) => self.settle(number, Fate::Corrupt),
                (Some(Err(_)) | None, Flying::Lost(_) | Flying::Presence | Flying::State(_)) => {}
            }
        }
    }

    fn settle(&mut self, number: Number, fate: Fate) {
        self.turn.settled.push((number, fate));
        self.has_news = true;
    }

    fn acknowledged(&mut self, token: Token) {
        match self.flying.remove(&token) {
            Some(Flying::State(version)) => self.state.settle(version),
            Some(Flying::Event(number)) => self.settle(number, Fate::Sent),
            Some(Flying::Lost(range)) => {
                self.turn.announced.push(range);
                self.has_news = true;
            }
            Some(Flying::Presence) | None => {}
        }
        self.outlet.last_success = Some(self.relay.clock.now().wall);
        self.tell();
    }

    /// A connection has ended; a broker that refuses us is told apart from one that can't be reached.
    fn broken(&mut self, error: &ConnectionError) {
        self.is_connected = false;
        self.hand_back();
        let state = if error.rejected {
            OutletState::Rejected
        } else {
            OutletState::Retrying
        };
        self.trouble(state, error.to_string());
    }

    /// Nothing that was sent will be acknowledged any more.
    fn hand_back(&mut self) {
        self.state.hand_back();
        self.flying.clear();
        self.events.clear();
        self.lost.clear();
        self.turn.hand_back = true;
        self.has_news = true;
    }

    fn trouble(&mut self, state: OutletState, error: String) {
        if self.outlet.error.as_ref() != Some(&error) {
            tracing::warn!(error, "the relay is not connected");
        }
        self.outlet.state = state;
        self.outlet.error = Some(error);
        self.tell();
    }

    /// Tells what can be told in time, and that the node has stopped; the broker then forgets the will.
    async fn farewell(&mut self, mut connection: Connection) -> anyhow::Result<()> {
        let rest = async {
            self.allowance = WINDOW;
            loop {
                self.publish(&mut connection);
                self.ask_store();
                if self.storing.is_none() && self.events.is_empty() && self.flying.is_empty() {
                    return anyhow::Ok(());
                }
                tokio::select! {
                    incoming = connection.next() => match incoming {
                        Ok(Incoming::Acked(token)) => self.acknowledged(token),
                        Ok(Incoming::Connected | Incoming::Message(_) | Incoming::Subscribed { .. }) => {}
                        Err(_) => return Ok(()),
                    },
                    batch = step(&mut self.storing) => {
                        self.stored(batch.context("the store has ended")?);
                    }
                }
            }
        };
        if let Ok(told) = tokio::time::timeout(FAREWELL, rest).await {
            told?;
        }
        let (topic, payload) = (self.relay.topic("status"), self.relay.presence("stopped"));
        match connection.publish(&topic, payload, self.relay.settings.retain) {
            Ok(token) => {
                self.flying.insert(token, Flying::Presence);
            }
            Err(error) => {
                // Without a goodbye the broker tells the will, so that nobody takes the node for alive.
                tracing::warn!(%error, "the relay's farewell was not sent");
                return Ok(());
            }
        }
        for token in connection.disconnect(FAREWELL).await {
            self.acknowledged(token);
        }
        Ok(())
    }

    /// Tells the store the rest.
    async fn close(mut self) -> anyhow::Result<()> {
        if self.storing.is_some() {
            let batch = step(&mut self.storing).await;
            self.stored(batch.context("the store has ended")?);
        }
        self.turn.hand_back = true;
        self.turn.now = self.relay.clock.now();
        let batch = self.relay.store.turn(self.turn).await;
        let pending = batch.context("the store has ended")?.standing.pending;
        if pending > 0 {
            tracing::info!(pending, "what the broker did not take is kept");
        }
        Ok(())
    }

    fn tell(&mut self) {
        let now = self.relay.clock.moment();
        self.outlet.pending = self.standing.pending + self.state.pending();
        self.outlet.oldest_pending_s = if self.standing.pending == 0 {
            0
        } else {
            (self.standing.oldest + (now - self.stood_at)).as_secs()
        };
        self.outlet.dropped = self.standing.dropped;
        super::tell(&self.status, &self.outlet);
    }
}
