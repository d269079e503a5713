//! A receiver of the relay's messages that proves from them alone that nothing is missing.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses a part of it"
)]

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use jiff::Timestamp;
use serde_json::Value;

/// What an `event` may be about.
const KINDS: [&str; 6] = [
    "finding_opened",
    "finding_closed",
    "verdict",
    "camera",
    "failover",
    "agent",
];

/// Why a number may be lost.
const CAUSES: [&str; 3] = ["full", "corrupt", "expired"];

/// Violations that are kept word for word: one mistake can break every message.
const KEPT: usize = 50;

/// Takes in one node's messages, in the order in which they arrive.
#[derive(Debug, Default)]
pub struct Receiver {
    /// `sideline/1/{site}/{node}/`, by the first message.
    node: Option<String>,
    /// Content of each number, as a hash that leaves out `hist`.
    events: BTreeMap<u64, u64>,
    repeated: u64,
    /// Ends of the lost ranges, both inclusive.
    lost: Vec<(u64, u64)>,
    /// The number that the latest `health` was current as of.
    health: Option<u64>,
    presence: Option<Presence>,
    violations: Vec<Violation>,
}

/// The latest word of the latest session.
#[derive(Debug)]
struct Presence {
    session: u64,
    status: String,
}

/// What was received, of a journal that is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Lowest number.
    pub first: u64,
    /// Highest number.
    pub last: u64,
    /// Different numbers that came as an `event`.
    pub events: u64,
    /// Events that came once more.
    pub repeated: u64,
    /// Numbers that are lost for good: announced, and never seen.
    pub lost: u64,
    /// Announcements of lost numbers.
    pub ranges: usize,
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// There is no number at all.
    Silence,
    /// These numbers, both inclusive, neither came nor were announced as lost.
    Gap {
        /// The lowest.
        first: u64,
        /// The highest.
        last: u64,
    },
    /// A number came twice with different content.
    Changed {
        /// The number.
        seq: u64,
    },
    /// A message is not as promised.
    Shape {
        /// Where it came.
        topic: String,
        /// What is wrong with it.
        why: String,
    },
    /// `health` is current as of an older number than the `health` before it.
    WentBack {
        /// The number before.
        from: u64,
        /// The number now.
        to: u64,
    },
    /// `health` is current as of a number that never came; so is a journal of which something still waits.
    Untold {
        /// The number of `health`.
        health: u64,
        /// The highest number that came.
        last: u64,
    },
    /// `status` calls the latest session lost.
    TakenForDead {
        /// The session.
        session: u64,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::Silence => write!(f, "no event came"),
            Violation::Gap { first, last } if first == last => write!(f, "{first} is missing"),
            Violation::Gap { first, last } => write!(f, "{first} to {last} are missing"),
            Violation::Changed { seq } => write!(f, "{seq} came twice, with different content"),
            Violation::Shape { topic, why } => write!(f, "{topic}: {why}"),
            Violation::WentBack { from, to } => write!(f, "health went back from {from} to {to}"),
            Violation::Untold { health, last } => {
                write!(f, "health is of {health}, but the last event is {last}")
            }
            Violation::TakenForDead { session } => {
                write!(f, "status calls the live session {session} lost")
            }
        }
    }
}

impl Receiver {
    /// Takes in a message.
    pub fn take_in(&mut self, topic: &str, payload: &[u8]) {
        if let Err(why) = self.read(topic, payload) {
            self.note(Violation::Shape {
                topic: topic.to_owned(),
                why,
            });
        }
    }

    /// Whether this number came or was announced as lost.
    #[must_use]
    pub fn accounts_for(&self, seq: u64) -> bool {
        let within = |(from, to): &(u64, u64)| (*from..=*to).contains(&seq);
        self.events.contains_key(&seq) || self.lost.iter().any(within)
    }

    /// Proves that each number from the first to the last came or was announced as lost.
    ///
    /// A node must have told all that it has to tell before it is asked for this.
    ///
    /// # Errors
    /// Every promise that was broken.
    pub fn proof(&self) -> Result<Summary, Vec<Violation>> {
        let mut violations = self.violations.clone();
        let covered = self.covered();
        let (Some((first, _)), Some(last)) =
            (covered.first(), covered.iter().map(|(_, to)| *to).max())
        else {
            violations.push(Violation::Silence);
            return Err(violations);
        };
        violations.extend(
            self.health
                .filter(|health| last < *health)
                .map(|health| Violation::Untold { health, last }),
        );
        violations.extend(
            self.presence
                .iter()
                .filter(|presence| presence.status == "lost")
                .map(|presence| Violation::TakenForDead {
                    session: presence.session,
                }),
        );
        // Last, because one mistake can make very many.
        let mut next = *first;
        for (from, to) in &covered {
            if next < *from {
                violations.push(Violation::Gap {
                    first: next,
                    last: from - 1,
                });
            }
            next = next.max(to.saturating_add(1));
        }
        if !violations.is_empty() {
            return Err(violations);
        }
        let events = self.events.len() as u64;
        Ok(Summary {
            first: *first,
            last,
            events,
            repeated: self.repeated,
            lost: last - first + 1 - events,
            ranges: self.lost.len(),
        })
    }

    /// Ranges that are told or announced as lost, by their beginnings; they may overlap.
    fn covered(&self) -> Vec<(u64, u64)> {
        let events = self.events.keys().map(|seq| (*seq, *seq));
        let mut covered: Vec<(u64, u64)> = events.chain(self.lost.iter().copied()).collect();
        covered.sort_unstable();
        covered
    }

    fn note(&mut self, violation: Violation) {
        if self.violations.len() < KEPT {
            self.violations.push(violation);
        }
    }

    fn read(&mut self, topic: &str, payload: &[u8]) -> Result<(), String> {
        let levels: Vec<&str> = topic.splitn(5, '/').collect();
        let [_, version, _, _, rest] = levels[..] else {
            return Err("a topic has at least five levels".to_owned());
        };
        if version != "1" {
            return Err(format!("the topic's version must be 1, is {version}"));
        }
        let node = &topic[..topic.len() - rest.len()];
        if self.node.get_or_insert_with(|| node.to_owned()) != node {
            return Err("the message is another node's".to_owned());
        }
        let camera = rest
            .strip_prefix("cam/")
            .and_then(|rest| rest.strip_suffix("/state"));
        if camera.is_some() && payload.is_empty() {
            return Ok(());
        }
        let message = Message::read(payload)?;
        match rest {
            "event" => self.event(message),
            "lost" => self.lost(&message),
            "health" => self.health(&message),
            "status" => self.status(&message),
            _ if camera.is_some() => message.head().map(|_| ()),
            _ => Err("no such topic is promised".to_owned()),
        }
    }

    fn event(&mut self, message: Message) -> Result<(), String> {
        let seq = message.head()?;
        let kind = message.text("kind")?;
        if !KINDS.contains(&kind) {
            return Err(format!("no such kind is promised: {kind}"));
        }
        let content = message.content();
        match self.events.insert(seq, content) {
            None => {}
            Some(before) if before == content => self.repeated += 1,
            Some(_) => self.note(Violation::Changed { seq }),
        }
        Ok(())
    }

    fn lost(&mut self, message: &Message) -> Result<(), String> {
        let (from, to) = (message.number("from")?, message.number("to")?);
        let cause = message.text("cause")?;
        if !CAUSES.contains(&cause) {
            return Err(format!("no such cause is promised: {cause}"));
        }
        if from == 0 || to < from {
            return Err(format!("{from} to {to} is no range of numbers"));
        }
        self.lost.push((from, to));
        Ok(())
    }

    fn health(&mut self, message: &Message) -> Result<(), String> {
        let to = message.head()?;
        message.text("state")?;
        let before = self.health.replace(to);
        if let Some(from) = before.filter(|from| to < *from) {
            self.note(Violation::WentBack { from, to });
        }
        Ok(())
    }

    fn status(&mut self, message: &Message) -> Result<(), String> {
        let session = message.number("session")?;
        let status = message.text("status")?;
        message.text("boot")?;
        if !["online", "stopped", "lost"].contains(&status) {
            return Err(format!("no such status is promised: {status}"));
        }
        // The will of a session that is over may come late.
        if self
            .presence
            .as_ref()
            .is_none_or(|latest| latest.session <= session)
        {
            self.presence = Some(Presence {
                session,
                status: status.to_owned(),
            });
        }
        Ok(())
    }
}

/// A JSON object of version 1.
struct Message(Value);

impl Message {
    fn read(payload: &[u8]) -> Result<Self, String> {
        let message = serde_json::from_slice(payload).map(Message);
        let message = message.map_err(|error| format!("the payload is no JSON: {error}"))?;
        match message.number("v")? {
            1 => Ok(message),
            other => Err(format!("v must be 1, is {other}")),
        }
    }

    /// Checks what every numbered message begins with, and returns its number.
    fn head(&self) -> Result<u64, String> {
        let at = self.text("ts")?;
        at.parse::<Timestamp>()
            .map_err(|_| format!("ts must be a time, is {at}"))?;
        self.text("boot")?;
        self.number("seq")
    }

    fn number(&self, key: &str) -> Result<u64, String> {
        let value = &self.0[key];
        value
            .as_u64()
            .ok_or_else(|| format!("{key} must be a whole number, is {value}"))
    }

    fn text(&self, key: &str) -> Result<&str, String> {
        let value = &self.0[key];
        value
            .as_str()
            .filter(|text| !text.is_empty())
            .ok_or_else(|| format!("{key} must be a text, is {value}"))
    }

    /// A hash of all but `hist`, whatever the order of the keys.
    fn content(mut self) -> u64 {
        if let Some(object) = self.0.as_object_mut() {
            object.remove("hist");
        }
        self.0.sort_all_objects();
        let mut hasher = DefaultHasher::new();
        self.0.to_string().hash(&mut hasher);
        hasher.finish()
    }
}
