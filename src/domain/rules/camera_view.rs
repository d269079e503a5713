//! One camera at one moment: what its sources say, and which of them is believed.

use std::time::Duration;

use super::Look;
use crate::domain::report::{CameraReason, CameraState};
use crate::domain::snapshot::{CameraSeen, CameraSource, Ingest, StreamStatus};

/// Frigate's default spacing of statistics, until a source's own spacing is known.
const USUAL_SPACING: Duration = Duration::from_secs(60);

/// Measurements older than so many spacings say nothing any more (half of one is for the network).
const STALE_SPACINGS: f64 = 2.5;

/// A source's word on a stream (`online`, `offline`) holds so long without being repeated; Frigate 0.17
/// repeats it every 10 s, 0.18 sends a heartbeat.
pub(super) const STATUS_HOLDS: Duration = Duration::from_secs(75);

/// Frigate calls a stream with fewer frames than this unusable.
const NO_FRAMES_FPS: f64 = 0.1;

/// One camera at one moment, before hysteresis.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct View {
    pub(super) source: &'static str,
    pub(super) state: CameraState,
    pub(super) reason: Option<CameraReason>,
    pub(super) fps: Option<f64>,
    pub(super) expected_fps: Option<f64>,
    pub(super) last_frame_age: Option<Duration>,
}

/// Every camera that a source or the configuration names, by id; of several views the most telling one.
///
/// The parts are sorted already, so that sorting them together takes one pass.
pub(super) fn merged<'a>(look: Look<'a>) -> Vec<(&'a str, View)> {
    let sources = || {
        look.seen
            .cameras
            .iter()
            .filter_map(|reading| reading.value())
    };
    let mut views = Vec::with_capacity(sources().map(|source| source.cameras.len()).sum());
    for source in sources() {
        let cameras = source.cameras.iter();
        views.extend(cameras.map(|(id, seen)| (id.as_str(), view(look, source, id, seen))));
    }
    let first_source = sources().next().map_or("none", |source| source.kind.name());
    views.extend(look.config.cameras.expect.iter().map(|(id, expect)| {
        let not_heard = View {
            source: first_source,
            state: CameraState::Unknown,
            reason: Some(CameraReason::NotHeard),
            fps: None,
            expected_fps: expect.fps,
            last_frame_age: None,
        };
        (id.as_str(), not_heard)
    }));
    views.sort_by_key(|(id, _)| *id);
    // Of equals the first stays: what a source says goes before what is only expected.
    views.dedup_by(|(later, other), (id, best)| {
        let same = later == id;
        if same && weight(other.state) > weight(best.state) {
            *best = *other;
        }
        same
    });
    views
}

/// Which of two views of one camera is believed: an operator's switch, then trouble, then health; a source
/// that knows nothing contradicts nobody.
fn weight(state: CameraState) -> u8 {
    match state {
        CameraState::Disabled => 5,
        CameraState::Down => 4,
        CameraState::Degraded => 3,
        CameraState::Up => 2,
        CameraState::Idle => 1,
        CameraState::Unknown => 0,
    }
}

fn view(look: Look<'_>, source: &CameraSource, id: &str, seen: &CameraSeen) -> View {
    let now = look.now;
    let spacing = seen.every.unwrap_or(USUAL_SPACING);
    let limit = spacing
        .mul_f64(STALE_SPACINGS)
        .max(look.config.cameras.down_after);
    let measured = seen.measured.filter(|at| now.moment - *at <= limit);
    let status = seen
        .status
        .filter(|(_, at)| now.moment - *at <= limit.max(STATUS_HOLDS))
        .map(|(status, _)| status);
    let expected_fps = look
        .config
        .cameras
        .expect
        .get(id)
        .and_then(|expect| expect.fps)
        .or(seen.expected_fps);
    let fps = seen.fps.filter(|_| measured.is_some());
    let last_frame_age = seen
        .last_frame
        .map(|frame| Duration::try_from(now.wall.duration_since(frame)).unwrap_or(Duration::ZERO));
    let low = |fps: f64| {
        expected_fps.is_some_and(|expected| fps < expected * look.config.judge.camera_fps_ratio)
    };
    let is_old = |age: Duration| age >= look.config.cameras.down_after;

    let (state, reason) = if seen.enabled == Some(false) || status == Some(StreamStatus::Disabled) {
        (CameraState::Disabled, None)
    } else if matches!(source.ingest, Ingest::Offline { .. }) {
        (CameraState::Unknown, Some(CameraReason::IngestDown))
    } else if status == Some(StreamStatus::Offline) {
        (CameraState::Down, Some(CameraReason::Offline))
    } else if measured.is_some() && last_frame_age.is_some_and(is_old) {
        (CameraState::Down, Some(CameraReason::NoFrames))
    } else if let Some(fps) = fps {
        if fps < NO_FRAMES_FPS {
            (CameraState::Down, Some(CameraReason::NoFrames))
        } else if low(fps) {
            (CameraState::Degraded, Some(CameraReason::LowFps))
        } else {
            (CameraState::Up, None)
        }
    } else if status == Some(StreamStatus::Online)
        || (measured.is_some() && last_frame_age.is_some())
    {
        (CameraState::Up, None)
    } else if status == Some(StreamStatus::Idle) {
        (CameraState::Idle, None)
    } else if seen.measured.is_some() || seen.status.is_some() {
        (CameraState::Unknown, Some(CameraReason::Stale))
    } else {
        (CameraState::Unknown, Some(CameraReason::NotHeard))
    };
    View {
        source: source.kind.name(),
        state,
        reason,
        fps,
        expected_fps,
        last_frame_age,
    }
}
