//! What the relay publishes: the payloads, and the form in which events are kept until then.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use crate::domain::finding::Code;
use crate::domain::moment::Now;
use crate::domain::outbox::{Fate, Number, Rank};
use crate::domain::report::{
    Because, Camera, CameraReason, CameraState, Event, EventKind, FailoverState, Report, State,
};
use crate::store::{Draft, Lost, Record};

/// The version that stands in every topic and payload.
pub const VERSION: u32 = 1;

/// An event that is told so late is history.
const HISTORY_AFTER: Duration = Duration::from_secs(5);

/// That the node lives (`online`), has stopped or is lost.
#[must_use]
pub fn presence(status: &'static str, boot: &str, session: u64) -> Vec<u8> {
    encode(&Presence {
        v: VERSION,
        status,
        boot,
        session,
        agent: (status == "online").then_some(env!("CARGO_PKG_VERSION")),
    })
}

/// How the node does.
#[must_use]
pub fn health(report: &Report) -> Vec<u8> {
    encode(&Health {
        v: VERSION,
        ts: report.at,
        seq: report.seq,
        boot: &report.node.boot,
        state: report.verdict.state,
        since: report.verdict.since,
        reasons: &report.verdict.reasons,
        slots: report.capacity.slots,
        available: report.capacity.available,
        because: report.capacity.because,
        failover: report.failover.state,
    })
}

/// How a camera does.
#[must_use]
pub fn camera(report: &Report, camera: &Camera) -> Vec<u8> {
    encode(&CameraStatus {
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
    })
}

/// Numbers that will never come.
#[must_use]
pub fn gap(lost: &Lost) -> Vec<u8> {
    encode(&Gap {
        v: VERSION,
        from: *lost.range.start(),
        to: *lost.range.end(),
        cause: match lost.fate {
            Fate::Full => "full",
            Fate::Expired => "expired",
            // What the broker can't take is as good as destroyed.
            Fate::Corrupt | Fate::Refused | Fate::Sent | Fate::Unsure => "corrupt",
        },
    })
}

/// An event as it is kept: all but what the store knows better.
#[must_use]
pub fn draft(event: &Event, now: Now) -> Draft {
    let kept = Kept {
        boot: &event.boot,
        kind: &event.kind,
    };
    Draft {
        number: Some(event.seq),
        rank: Rank::Transition,
        moment: now.moment,
        wall: event.ts,
        period: None,
        payload: encode(&kept),
    }
}

/// An event as it is told; `None` where what was kept is no event.
#[must_use]
pub fn event(record: &Record) -> Option<Vec<u8>> {
    let mut kept: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&record.payload).ok()?;
    if !["boot", "kind"]
        .iter()
        .all(|name| kept.get(*name).is_some_and(serde_json::Value::is_string))
    {
        return None;
    }
    // What is said here is not said twice.
    kept.retain(|name, _| !["v", "ts", "seq", "hist"].contains(&name.as_str()));
    Some(encode(&Told {
        v: VERSION,
        ts: record.at,
        seq: record.number,
        kept,
        hist: (record.age > HISTORY_AFTER).then_some(true),
    }))
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
    because: Option<Because>,
    failover: FailoverState,
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

/// Numbers that will never come.
#[derive(Serialize)]
struct Gap {
    v: u32,
    from: Number,
    to: Number,
    cause: &'static str,
}

#[derive(Serialize)]
struct Kept<'a> {
    boot: &'a str,
    #[serde(flatten)]
    kind: &'a EventKind,
}

/// `hist` marks what comes late.
#[derive(Serialize)]
struct Told {
    v: u32,
    ts: Timestamp,
    seq: Number,
    #[serde(flatten)]
    kept: serde_json::Map<String, serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hist: Option<bool>,
}
