//! Cameras, as the ingest programs tell of them over MQTT: one task a source keeps its `CameraSource` up to date.

pub mod frigate;
mod frigate_stats;
mod intake;
pub mod json;
mod json_pick;

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::frigate::Frigate;
use self::intake::Heard;
use self::json::Json;
use crate::clients::mqtt::{
    self, Broker, Connection, ConnectionError, Incoming, Message, Patience,
};
use crate::clock::Clock;
use crate::config;
use crate::domain::moment::{Moment, Now};
use crate::domain::reading::Reading;
use crate::domain::snapshot::{CameraSource, Ingest, Kind};

/// Listens to one source, of which at most `max` cameras are followed, until `cancel`.
///
/// The reading is `Pending` until the broker has answered or failed, then always `Ok`: a broker that can't be
/// reached is an [`Ingest::Offline`] whose cameras grow old. The value is changed in place. Readers are woken when
/// something changed that the judge should hear of at once; a repeated "online" only moves its time.
///
/// # Errors
/// None in practice: trouble in the world, and in the source's settings, is published.
pub async fn run(
    source: config::Source,
    max: usize,
    out: watch::Sender<Reading<CameraSource>>,
    clock: Clock,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let program = match Program::new(&source, max) {
        Ok(program) => program,
        Err(error) => {
            give_up(&source, &error, &out, &clock);
            cancel.cancelled().await;
            return Ok(());
        }
    };
    let mut listener = Listener {
        kind: kind(&source),
        name: program.name(),
        program,
        out,
        clock,
        complained: false,
        overfull: false,
    };
    let broker = match Broker::parse(&source.url, source.ca.as_deref(), None) {
        Ok(broker) => broker,
        Err(error) => {
            listener.offline(&error.to_string());
            cancel.cancelled().await;
            return Ok(());
        }
    };
    let client_id = mqtt::random_client_id();
    let mut backoff = Patience::towards(&broker);
    let lives = async {
        loop {
            let (error, lasted) = listener.listen(&broker, &client_id).await;
            listener.offline(&error.to_string());
            sleep(backoff.next(lasted)).await;
        }
    };
    tokio::select! {
        () = cancel.cancelled() => Ok(()),
        () = lives => Ok(()),
    }
}

/// One source's program, in its own language.
#[derive(Debug)]
enum Program {
    Frigate(Frigate),
    Json(Json),
}

impl Program {
    fn new(source: &config::Source, max: usize) -> anyhow::Result<Program> {
        Ok(match source.kind {
            config::SourceKind::Frigate => {
                let prefix = source.prefix.as_deref().unwrap_or("frigate");
                Program::Frigate(Frigate::new(prefix, max))
            }
            config::SourceKind::Mqtt => {
                let topic = source.topic.as_deref().unwrap_or_default();
                let fields = source.fields.clone().unwrap_or_default();
                Program::Json(Json::new(topic, &fields, max)?)
            }
        })
    }

    fn name(&self) -> String {
        match self {
            Program::Frigate(frigate) => frigate.name(),
            Program::Json(json) => json.name(),
        }
    }

    fn filters(&self) -> Vec<String> {
        match self {
            Program::Frigate(frigate) => frigate.filters(),
            Program::Json(json) => json.filters(),
        }
    }

    fn connected(&mut self, now: Moment) {
        match self {
            Program::Frigate(frigate) => frigate.connected(),
            Program::Json(json) => json.connected(now),
        }
    }

    fn apply(&mut self, source: &mut CameraSource, message: &Message, now: Now) -> Heard {
        let (topic, payload) = (message.topic(), message.payload());
        let retained = message.is_retained();
        match self {
            Program::Frigate(frigate) => frigate.apply(source, topic, payload, retained, now),
            Program::Json(json) => json.apply(source, topic, payload, retained, now),
        }
    }
}

/// Takes in what one source says.
#[derive(Debug)]
struct Listener {
    kind: Kind,
    name: String,
    program: Program,
    out: watch::Sender<Reading<CameraSource>>,
    clock: Clock,
    /// A message that can't be understood has been logged.
    complained: bool,
    /// That there are too many cameras has been logged.
    overfull: bool,
}

impl Listener {
    /// One life of a connection: why it ended, and how long it was up.
    async fn listen(&mut self, broker: &Broker, client_id: &str) -> (ConnectionError, Duration) {
        let mut connection = match Connection::open(broker, client_id, None) {
            Ok(connection) => connection,
            Err(error) => return (error, Duration::ZERO),
        };
        let mut since = None;
        loop {
            match connection.next().await {
                Ok(Incoming::Connected) => {
                    since = Some(self.clock.moment());
                    self.connected(broker);
                    if let Err(error) = connection.subscribe(self.program.filters()) {
                        return (refused(broker, &error.to_string()), Duration::ZERO);
                    }
                }
                Ok(Incoming::Subscribed { refused: 0 }) => {}
                Ok(Incoming::Subscribed { refused: n }) if n < self.program.filters().len() => {
                    warn!(source = %self.name, %broker, "the broker refuses a part of the subscription");
                }
                Ok(Incoming::Subscribed { .. }) => {
                    let why = "no right to read the source's topics";
                    return (refused(broker, why), Duration::ZERO);
                }
                Ok(Incoming::Message(message)) => self.hear(&message),
                // Nothing is published here.
                Ok(Incoming::Acked(_)) => {}
                Err(error) => {
                    let lasted = since.map(|since| self.clock.moment() - since);
                    return (error, lasted.unwrap_or_default());
                }
            }
        }
    }

    /// The broker has let us in: whether the program is there will show.
    fn connected(&mut self, broker: &Broker) {
        let now = self.clock.moment();
        self.program.connected(now);
        info!(source = %self.name, %broker, "connected");
        self.update(now, |source, _| {
            let news = source.ingest != Ingest::Unknown;
            source.ingest = Ingest::Unknown;
            news
        });
    }

    /// The broker can't be reached, or the source's settings lead nowhere. What is known of the cameras stays.
    fn offline(&mut self, why: &str) {
        let now = self.clock.moment();
        let mut news = false;
        self.update(now, |source, _| {
            let since = match &source.ingest {
                Ingest::Offline { since, .. } => *since,
                Ingest::Unknown | Ingest::Online => now,
            };
            let ingest = Ingest::Offline {
                why: why.to_owned(),
                since,
            };
            news = source.ingest != ingest;
            source.ingest = ingest;
            news
        });
        if news {
            warn!(source = %self.name, "{why}");
        }
    }

    fn hear(&mut self, message: &Message) {
        let now = self.clock.now();
        let mut heard = Heard::default();
        let mut over_limit = 0;
        self.update(now.moment, |source, program| {
            heard = program.apply(source, message, now);
            over_limit = source.over_limit;
            heard.edge
        });
        if let Some(why) = heard.trouble
            && !self.complained
        {
            self.complained = true;
            // Never the payload: it may hold passwords. Quoted, a topic can't forge lines.
            warn!(source = %self.name, topic = ?message.topic(), "not understood: {why}");
        }
        if over_limit > 0 && !self.overfull {
            self.overfull = true;
            warn!(source = %self.name, "more cameras than cameras.max; the rest is not followed");
        }
    }

    /// Changes the value in place; `change` returns whether readers should be woken.
    fn update(
        &mut self,
        now: Moment,
        change: impl FnOnce(&mut CameraSource, &mut Program) -> bool,
    ) {
        let (kind, name, program) = (self.kind, &self.name, &mut self.program);
        self.out.send_if_modified(|reading| {
            let first = reading.value().is_none();
            if first {
                *reading = Reading::ok(empty(kind, name), now);
            }
            let Reading::Ok { value, at } = reading else {
                return false;
            };
            *at = now;
            change(value, program) || first
        });
    }
}

fn empty(kind: Kind, name: &str) -> CameraSource {
    CameraSource {
        kind,
        name: name.to_owned(),
        ..CameraSource::default()
    }
}

fn kind(source: &config::Source) -> Kind {
    match source.kind {
        config::SourceKind::Frigate => Kind::Frigate,
        config::SourceKind::Mqtt => Kind::Mqtt,
    }
}

fn refused(broker: &Broker, why: &str) -> ConnectionError {
    ConnectionError {
        broker: broker.to_string(),
        why: why.to_owned(),
        rejected: true,
        unreachable: false,
    }
}

/// Settings that no checked configuration has: the source is there, and offline for good.
fn give_up(
    source: &config::Source,
    error: &anyhow::Error,
    out: &watch::Sender<Reading<CameraSource>>,
    clock: &Clock,
) {
    let kind = kind(source);
    warn!(source = kind.name(), "{error}");
    let now = clock.moment();
    let ingest = Ingest::Offline {
        why: error.to_string(),
        since: now,
    };
    let value = CameraSource {
        ingest,
        ..empty(kind, kind.name())
    };
    out.send_replace(Reading::ok(value, now));
}
