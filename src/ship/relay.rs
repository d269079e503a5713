//! Status to an MQTT broker upstream: birth and will, retained state, and the journal of events.
//!
//! A connection lives once. On every new one the birth goes first, then the current state, then the journal
//! in order; a record leaves the outbox when the broker has acknowledged it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::clients::mqtt::{
    Backoff, Broker, Connection, ConnectionError, Incoming, Token, WINDOW, Will,
};
use crate::clock::Clock;
use crate::config::Relay as Settings;
use crate::domain::finding::Code;
use crate::domain::judge::Judgement;
use crate::domain::moment::Moment;
use crate::domain::outbox::{Id, Limits, Outbox, Rank};
use crate::domain::report::{
    Camera, CameraReason, CameraState, Event, EventKind, Outlet, OutletState, Report, State,
};

/// The version that stands in every topic and payload.
const VERSION: u32 = 1;

/// Journal entries a second: a backlog must not push the present aside. AWS IoT Core allows 100 publishes.
const JOURNAL_A_SECOND: usize = 20;

/// An event that is told so late is history.
const HISTORY_AFTER: Duration = Duration::from_secs(5);

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
    /// Bounds of what waits.
    pub limits: Limits,
    /// The time.
    pub clock: Clock,
}

/// Relays until it is cancelled.
///
/// # Errors
/// None; trouble with the broker is told in `status`.
pub async fn run(
    relay: Relay,
    mut judgements: mpsc::Receiver<Arc<Judgement>>,
    status: watch::Sender<Outlet>,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let mut desk = Desk::new(&relay, status);
    let broker = match relay.broker() {
        Ok(broker) => broker,
        Err(error) => {
            desk.trouble(OutletState::Rejected, format!("{error:#}"));
            cancel.cancelled().await;
            return Ok(());
        }
    };
    let mut backoff = Backoff::towards(&broker);
    loop {
        let opened = Instant::now();
        match Connection::open(&broker, &relay.node, Some(relay.will())) {
            Ok(connection) => {
                if live(connection, &mut desk, &mut judgements, &cancel).await == Life::Stopped {
                    return Ok(());
                }
            }
            Err(error) => desk.broken(&error),
        }
        let pause = tokio::time::sleep(backoff.next(opened.elapsed()));
        tokio::pin!(pause);
        loop {
            tokio::select! {
                () = &mut pause => break,
                () = cancel.cancelled() => return Ok(()),
                Some(judgement) = judgements.recv() => desk.take_in(&judgement),
            }
        }
    }
}

/// How a connection ended.
#[derive(PartialEq, Eq)]
enum Life {
    Broken,
    Stopped,
}

/// One life of a connection.
async fn live(
    mut connection: Connection,
    desk: &mut Desk<'_>,
    judgements: &mut mpsc::Receiver<Arc<Judgement>>,
    cancel: &CancellationToken,
) -> Life {
    let mut flying: HashMap<Token, Id> = HashMap::new();
    let mut connected = false;
    let mut journal = JOURNAL_A_SECOND;
    let mut second = tokio::time::interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        if connected {
            desk.publish(&mut connection, &mut flying, &mut journal);
        }
        tokio::select! {
            incoming = connection.next() => match incoming {
                Ok(Incoming::Connected) => {
                    connected = true;
                    desk.connected(&mut connection);
                }
                Ok(Incoming::Acked(token)) => {
                    if let Some(id) = flying.remove(&token) {
                        desk.acknowledged(id);
                    }
                }
                Ok(Incoming::Message(message)) => desk.reassert(&mut connection, message.payload()),
                Ok(Incoming::Subscribed { .. }) => {}
                Err(error) => {
                    desk.broken(&error);
                    return Life::Broken;
                }
            },
            Some(judgement) = judgements.recv() => desk.take_in(&judgement),
            // Only a backlog needs the second's new allowance.
            _ = second.tick(), if journal < JOURNAL_A_SECOND => journal = JOURNAL_A_SECOND,
            () = cancel.cancelled() => {
                while let Ok(judgement) = judgements.try_recv() {
                    desk.take_in(&judgement);
                }
                if connected {
                    desk.farewell(connection, flying).await;
                }
                return Life::Stopped;
            }
        }
    }
}

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
            "{}/{VERSION}/{}/{}/{rest}",
            self.settings.prefix, self.site, self.node
        )
    }

    fn presence(&self, status: &'static str) -> Vec<u8> {
        encode(&Presence {
            v: VERSION,
            status,
            boot: &self.boot,
            session: self.session,
            agent: (status == "online").then_some(env!("CARGO_PKG_VERSION")),
        })
    }

    fn will(&self) -> Will {
        Will {
            topic: self.topic("status"),
            payload: self.presence("lost"),
            retain: self.settings.retain,
        }
    }
}

/// A record on its way to the broker.
enum Record {
    State { topic: String, payload: Vec<u8> },
    Event(Box<Event>),
}

/// What waits and what is known of the way: everything a connection needs that outlives it.
struct Desk<'a> {
    relay: &'a Relay,
    outbox: Outbox<Record>,
    latest: Option<Arc<Judgement>>,
    health_told: Option<Moment>,
    outlet: Outlet,
    status: watch::Sender<Outlet>,
}

impl<'a> Desk<'a> {
    fn new(relay: &'a Relay, status: watch::Sender<Outlet>) -> Self {
        let mut desk = Desk {
            relay,
            outbox: Outbox::new(relay.limits),
            latest: None,
            health_told: None,
            outlet: Outlet {
                state: OutletState::Ok,
                ..Outlet::off("relay")
            },
            status,
        };
        desk.tell();
        desk
    }

    fn take_in(&mut self, judgement: &Arc<Judgement>) {
        let now = self.relay.clock.moment();
        let report = &judgement.report;
        for event in &judgement.events {
            let bytes = encode(event).len() as u64;
            self.outbox.put(
                Rank::Transition,
                Record::Event(Box::new(event.clone())),
                bytes,
                now,
            );
        }
        let due = self
            .health_told
            .is_none_or(|told| now - told >= self.relay.period);
        if due
            || judgement
                .events
                .iter()
                .any(|event| matches!(event.kind, EventKind::Verdict { .. }))
        {
            self.put_health(report, now);
        }
        for (id, is_here) in &judgement.cameras {
            // The report lists its cameras by id.
            match report
                .cameras
                .binary_search_by(|camera| camera.id.as_str().cmp(id))
            {
                Ok(at) if *is_here => self.put_camera(report, &report.cameras[at], now),
                Ok(_) | Err(_) => self.put_state(self.camera_topic(id), Vec::new(), now),
            }
        }
        self.latest = Some(Arc::clone(judgement));
        self.tell();
    }

    fn put_health(&mut self, report: &Report, now: Moment) {
        self.health_told = Some(now);
        let health = Health {
            v: VERSION,
            ts: report.at,
            seq: report.seq,
            boot: &report.node.boot,
            state: report.verdict.state,
            since: report.verdict.since,
            reasons: &report.verdict.reasons,
            slots: report.capacity.slots,
            available: report.capacity.available,
        };
        self.put_state(self.relay.topic("health"), encode(&health), now);
    }

    fn put_camera(&mut self, report: &Report, camera: &Camera, now: Moment) {
        let state = CameraStatus {
            v: VERSION,
            ts: report.at,
            seq: report.seq,
            boot: &report.node.boot,
            cam: &camera.id,
            state: camera.state,
            since: camera.since,
            reason: camera.reason,
            src: camera.source,
            fps: camera.fps,
            exp_fps: camera.expected_fps,
            age_s: camera.last_frame_age_s,
        };
        self.put_state(self.camera_topic(&camera.id), encode(&state), now);
    }

    fn camera_topic(&self, id: &str) -> String {
        self.relay.topic(&format!("cam/{id}/state"))
    }

    fn put_state(&mut self, topic: String, payload: Vec<u8>, now: Moment) {
        self.outbox
            .put_state(&topic.clone(), Record::State { topic, payload }, now);
    }

    /// The birth, then everything that holds now: the broker may have lost what it retained.
    fn connected(&mut self, connection: &mut Connection) {
        if let Some(error) = self.outlet.error.take() {
            tracing::info!(was = error, "the relay is connected again");
        }
        self.outlet.state = OutletState::Ok;
        self.outbox.release_at_once();
        self.birth(connection);
        if let Err(error) = connection.subscribe([self.relay.topic("status")]) {
            tracing::warn!(%error, "the relay can't watch its own status topic");
        }
        if let Some(latest) = self.latest.clone() {
            let now = self.relay.clock.moment();
            self.put_health(&latest.report, now);
            for camera in &latest.report.cameras {
                self.put_camera(&latest.report, camera, now);
            }
        }
        self.tell();
    }

    fn birth(&self, connection: &mut Connection) {
        let (topic, payload) = (self.relay.topic("status"), self.relay.presence("online"));
        if let Err(error) = connection.publish(&topic, payload, self.relay.settings.retain) {
            tracing::warn!(%error, "the relay's birth was not sent");
        }
    }

    /// A will of an earlier connection may arrive after our birth: it must not bury a live node.
    fn reassert(&self, connection: &mut Connection, payload: &[u8]) {
        let presence: serde_json::Value = serde_json::from_slice(payload).unwrap_or_default();
        if presence["status"] == "lost" || presence["status"] == "stopped" {
            tracing::info!("somebody took this node for dead: telling again that it lives");
            self.birth(connection);
        }
    }

    /// Hands to the connection what its window and the journal's rate allow.
    fn publish(
        &mut self,
        connection: &mut Connection,
        flying: &mut HashMap<Token, Id>,
        journal: &mut usize,
    ) {
        let now = self.relay.clock.moment();
        let room = WINDOW.saturating_sub(usize::try_from(connection.unacked()).unwrap_or(WINDOW));
        let mut refused = Vec::new();
        for (id, since, record) in self.outbox.take(room, *journal, now) {
            let sent = match record {
                Record::State { topic, payload } => {
                    connection.publish(topic, payload.clone(), self.relay.settings.retain)
                }
                Record::Event(event) => {
                    *journal = journal.saturating_sub(1);
                    let hist = (now - since > HISTORY_AFTER).then_some(true);
                    connection.publish(
                        &self.relay.topic("event"),
                        encode(&Told { event, hist }),
                        false,
                    )
                }
            };
            match sent {
                Ok(token) => {
                    flying.insert(token, id);
                }
                Err(error) => refused.push((id, error)),
            }
        }
        for (id, error) in refused {
            tracing::warn!(%error, "a record can't be relayed");
            self.outbox.refuse(id);
        }
    }

    fn acknowledged(&mut self, id: Id) {
        self.outbox.acknowledge(id);
        self.outlet.last_success = Some(self.relay.clock.now().wall);
        self.tell();
    }

    /// A connection has ended; a broker that refuses us is told apart from one that can't be reached.
    fn broken(&mut self, error: &ConnectionError) {
        let state = if error.rejected {
            OutletState::Rejected
        } else {
            OutletState::Retrying
        };
        self.trouble(state, error.to_string());
    }

    fn trouble(&mut self, state: OutletState, error: String) {
        if self.outlet.error.as_ref() != Some(&error) {
            tracing::warn!(error, "the relay is not connected");
        }
        self.outlet.state = state;
        self.outlet.error = Some(error);
        self.tell();
    }

    /// Tells the rest and that the node has stopped; the broker then forgets the will.
    async fn farewell(&mut self, mut connection: Connection, mut flying: HashMap<Token, Id>) {
        self.publish(&mut connection, &mut flying, &mut WINDOW.clone());
        let (topic, payload) = (self.relay.topic("status"), self.relay.presence("stopped"));
        if let Err(error) = connection.publish(&topic, payload, self.relay.settings.retain) {
            tracing::warn!(%error, "the relay's farewell was not sent");
        }
        for token in connection.disconnect(FAREWELL).await {
            if let Some(id) = flying.remove(&token) {
                self.outbox.acknowledge(id);
            }
        }
        if self.outbox.pending() > 0 {
            tracing::warn!(
                pending = self.outbox.pending(),
                "stopping with messages that the broker did not take"
            );
        }
    }

    fn tell(&mut self) {
        let now = self.relay.clock.moment();
        self.outlet.pending = self.outbox.pending();
        self.outlet.oldest_pending_s = self.outbox.oldest(now).as_secs();
        self.outlet.dropped = self.outbox.dropped();
        self.status.send_replace(self.outlet.clone());
    }
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("our own types have string keys")
}

#[derive(Serialize)]
struct Presence<'a> {
    v: u32,
    status: &'static str,
    boot: &'a str,
    session: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<&'static str>,
}

#[derive(Serialize)]
struct Health<'a> {
    v: u32,
    ts: Timestamp,
    seq: u64,
    boot: &'a str,
    state: State,
    since: Timestamp,
    reasons: &'a [Code],
    slots: u32,
    available: u32,
}

#[derive(Serialize)]
struct CameraStatus<'a> {
    v: u32,
    ts: Timestamp,
    seq: u64,
    boot: &'a str,
    cam: &'a str,
    state: CameraState,
    since: Timestamp,
    reason: Option<CameraReason>,
    src: &'static str,
    fps: Option<f64>,
    exp_fps: Option<f64>,
    age_s: Option<f64>,
}

/// An event as it is told: `hist` marks what comes late.
#[derive(Serialize)]
struct Told<'a> {
    #[serde(flatten)]
    event: &'a Event,
    #[serde(skip_serializing_if = "Option::is_none")]
    hist: Option<bool>,
}
