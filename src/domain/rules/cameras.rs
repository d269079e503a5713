//! How each camera does, all sources taken together, and the rules that follow from it.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::Look;
use super::camera_groups::Groups;
use super::camera_view::{STATUS_HOLDS, View, merged};
use crate::domain::finding::{Advice, Code, Severity, Subject};
use crate::domain::findings::{Found, Observed};
use crate::domain::moment::{Moment, Now};
use crate::domain::report::{Camera, CameraReason, CameraState};
use crate::domain::snapshot::Ingest;

/// What the judge remembers of the cameras.
#[derive(Debug, Clone, Default)]
pub struct CameraMemory {
    /// Sorted by id.
    known: Vec<(Arc<str>, Track)>,
}

#[derive(Debug, Clone)]
struct Track {
    state: CameraState,
    reason: Option<CameraReason>,
    since: Timestamp,
    changed: Moment,
    /// The best that it has delivered: what to expect of it where nobody says.
    best_fps: Option<f64>,
    /// The worse state that it seems to be in, and since when.
    pending: Option<(CameraState, Moment)>,
}

/// A camera that changed its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    /// Which.
    pub id: String,
    /// The new state; `None` when the camera is gone.
    pub state: Option<CameraState>,
    /// The old one; `None` for a camera first seen.
    pub was: Option<CameraState>,
    /// Why.
    pub reason: Option<CameraReason>,
}

impl CameraMemory {
    /// Settles every camera's state and says which ones changed. What is known and what is seen are both sorted
    /// by id, so one walk over the two side by side settles all.
    pub fn settle(&mut self, look: Look<'_>) -> (Vec<Camera>, Vec<Edge>) {
        let views = merged(look);
        let mut cameras = Vec::with_capacity(views.len());
        let mut known = Vec::with_capacity(views.len());
        let mut edges = Vec::new();
        let mut before = std::mem::take(&mut self.known).into_iter().peekable();
        for (id, view) in views {
            while let Some((gone, track)) = before.next_if(|(old, _)| &**old < id) {
                edges.push(Edge::gone(&gone, &track));
            }
            let (id, track) = match before.next_if(|(old, _)| &**old == id) {
                Some((id, mut track)) => {
                    let was = track.state;
                    track.see(&view, look);
                    if track.state != was {
                        edges.push(Edge::to(&id, &track, Some(was)));
                    }
                    (id, track)
                }
                None => {
                    let track = Track::first(&view, look.now);
                    edges.push(Edge::to(id, &track, None));
                    (Arc::from(id), track)
                }
            };
            cameras.push(Camera {
                id: Arc::clone(&id),
                source: view.source,
                state: track.state,
                fps: view.fps,
                expected_fps: view.expected_fps,
                usual_fps: view.expected_fps.or(track.best_fps),
                last_frame_age_s: view.last_frame_age.map(|age| age.as_secs_f64()),
                since: track.since,
                changed: track.changed,
                reason: track.reason,
            });
            known.push((id, track));
        }
        edges.extend(before.map(|(gone, track)| Edge::gone(&gone, &track)));
        self.known = known;
        (cameras, edges)
    }
}

impl Edge {
    fn to(id: &str, track: &Track, was: Option<CameraState>) -> Self {
        Edge {
            id: id.to_owned(),
            state: Some(track.state),
            was,
            reason: track.reason,
        }
    }

    fn gone(id: &str, track: &Track) -> Self {
        Edge {
            id: id.to_owned(),
            state: None,
            was: Some(track.state),
            reason: None,
        }
    }
}

impl Track {
    fn first(view: &View, now: Now) -> Self {
        Track {
            state: view.state,
            reason: view.reason,
            since: now.wall,
            changed: now.moment,
            best_fps: view.fps,
            pending: None,
        }
    }

    /// Better at once; worse only after the state has lasted. What already proves that it lasted (the last
    /// frame is too old) is not waited for again.
    fn see(&mut self, view: &View, look: Look<'_>) {
        let (config, now) = (&look.config.cameras, look.now);
        let hold = match view.state {
            // What follows on not knowing is no change for the worse.
            _ if self.state == CameraState::Unknown => Duration::ZERO,
            CameraState::Down
                if view
                    .last_frame_age
                    .is_none_or(|age| age < config.down_after) =>
            {
                config.down_after
            }
            CameraState::Degraded if self.state != CameraState::Down => {
                look.config.judge.camera_degraded_after
            }
            CameraState::Down
            | CameraState::Degraded
            | CameraState::Up
            | CameraState::Disabled
            | CameraState::Idle
            | CameraState::Unknown => Duration::ZERO,
        };
        self.best_fps = view.fps.into_iter().chain(self.best_fps).reduce(f64::max);
        if view.state == self.state {
            self.pending = None;
            self.reason = view.reason;
            return;
        }
        let since = match self.pending {
            Some((state, since)) if state == view.state => since,
            Some(_) | None => now.moment,
        };
        if now.moment - since >= hold {
            *self = Track {
                best_fps: self.best_fps,
                ..Track::first(view, now)
            };
        } else {
            self.pending = Some((view.state, since));
        }
    }
}

/// `camera.down`, `camera.degraded`, `camera.unknown`, `ingest.down`.
pub fn observe(look: Look<'_>, cameras: &[Camera], groups: &Groups, found: &mut Found) {
    for camera in cameras.iter().filter(|camera| !groups.holds(camera)) {
        camera_rules(look, camera, found);
    }
    for source in look
        .seen
        .cameras
        .iter()
        .filter_map(|reading| reading.value())
    {
        if let Ingest::Offline { why, .. } = &source.ingest {
            let subject = Subject::Source(source.name.clone());
            let (severity, advice) = (Severity::Degraded, Advice::RestartApp);
            found.push(Observed::state(
                Code::IngestDown,
                subject,
                severity,
                advice,
                why.clone(),
            ));
        }
    }
}

fn camera_rules(look: Look<'_>, camera: &Camera, found: &mut Found) {
    let (code, evidence, hold) = match camera.state {
        CameraState::Up | CameraState::Disabled | CameraState::Idle => return,
        CameraState::Down => {
            let evidence = match (camera.reason, camera.last_frame_age_s) {
                (_, Some(age)) => format!("no frames for {age:.0} s"),
                (Some(CameraReason::Offline), None) => "the source says offline".to_owned(),
                (Some(_) | None, None) => "no frames arrive".to_owned(),
            };
            (Code::CameraDown, evidence, None)
        }
        CameraState::Degraded => {
            let number =
                |fps: Option<f64>| fps.map_or_else(|| "?".to_owned(), |fps| format!("{fps:.1}"));
            let evidence = format!(
                "{} of {} frames a second",
                number(camera.fps),
                number(camera.expected_fps)
            );
            (Code::CameraDegraded, evidence, None)
        }
        CameraState::Unknown => match camera.reason {
            // A source may take a spacing before it speaks of a camera for the first time.
            Some(CameraReason::NotHeard) => (
                Code::CameraUnknown,
                "no source has spoken of it".to_owned(),
                Some(STATUS_HOLDS),
            ),
            Some(CameraReason::IngestDown) => (
                Code::CameraUnknown,
                "the ingest program is gone".to_owned(),
                Some(look.config.cameras.down_after),
            ),
            Some(
                CameraReason::Stale
                | CameraReason::NoFrames
                | CameraReason::LowFps
                | CameraReason::Offline,
            )
            | None => (
                Code::CameraUnknown,
                "the last word of its source is too old".to_owned(),
                None,
            ),
        },
    };
    let subject = Subject::Camera(camera.id.to_string());
    let (severity, advice) = (Severity::Degraded, Advice::Inspect);
    found.push(Observed {
        opens_after: hold,
        ..Observed::state(code, subject, severity, advice, evidence)
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::judge::Surroundings;
    use std::collections::BTreeMap;

    use crate::config::Config;
    use crate::domain::reading::Reading;
    use crate::domain::snapshot::{CameraSeen, CameraSource, Kind, Snapshot, StreamStatus};

    fn at(seconds: u64) -> Now {
        let moment = Moment::after_boot(Duration::from_secs(seconds));
        let wall = Timestamp::from_second(1_700_000_000 + i64::try_from(seconds).unwrap()).unwrap();
        Now {
            moment,
            wall,
            sure: true,
        }
    }

    fn source(seen: CameraSeen, ingest: Ingest) -> Reading<CameraSource> {
        let cameras = BTreeMap::from([("hole07".to_owned(), seen)]);
        let value = CameraSource {
            kind: Kind::Frigate,
            name: "frigate".into(),
            ingest,
            cameras,
            ..Default::default()
        };
        Reading::ok(value, Moment::BOOT)
    }

    fn settle(
        memory: &mut CameraMemory,
        config: &Config,
        sources: &[&Reading<CameraSource>],
        now: Now,
    ) -> Camera {
        let seen = Snapshot {
            host: &Reading::Off,
            gpus: &Reading::Off,
            kernel: &Reading::Off,
            drives: &Reading::Off,
            ups: &Reading::Off,
            checks: &Reading::Off,
            cameras: sources,
        };
        let (mut cameras, _) = memory.settle(Look {
            seen,
            config,
            around: &Surroundings::default(),
            now,
        });
        assert_eq!(cameras.len(), 1);
        cameras.remove(0)
    }

    fn measured(fps: f64, second: u64) -> CameraSeen {
        let measured = Some(at(second).moment);
        CameraSeen {
            fps: Some(fps),
            expected_fps: Some(5.0),
            measured,
            ..Default::default()
        }
    }

    /// `fps` a sample every 10 s from second 100; below, the state after each: `u`p, de`g`raded, `d`own, `?`.
    fn check(fps: &[f64], expected: &str) {
        let (mut memory, config) = (CameraMemory::default(), Config::default());
        let shown: String = fps
            .iter()
            .zip(0..)
            .map(|(fps, step)| {
                let second = 100 + step * 10;
                let reading = source(measured(*fps, second), Ingest::Online);
                match settle(&mut memory, &config, &[&reading], at(second)).state {
                    CameraState::Up => 'u',
                    CameraState::Degraded => 'g',
                    CameraState::Down => 'd',
                    CameraState::Disabled | CameraState::Idle => '-',
                    CameraState::Unknown => '?',
                }
            })
            .collect();
        assert_eq!(shown, expected, "{fps:?}");
    }

    #[test]
    fn down_after_20_s_degraded_after_60_s_better_at_once() {
        check(&[5.0, 0.0, 0.0, 0.0, 5.0], "uuudu");
        check(&[5.0, 0.0, 5.0, 0.0, 5.0], "uuuuu");
        check(&[0.0, 0.0, 5.0], "ddu");
        check(&[5.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 4.0], "uuuuuuugu");
        check(&[0.0, 2.0], "dg");
    }

    #[test]
    fn what_a_source_says_decides() {
        let online = |seconds| Some((StreamStatus::Online, at(seconds).moment));
        let offline = Ingest::Offline {
            why: "stopped".into(),
            since: at(90).moment,
        };
        let frame = |seconds| CameraSeen {
            last_frame: Some(at(seconds).wall),
            measured: Some(at(100).moment),
            ..Default::default()
        };
        for (what, seen, ingest, expected, reason) in [
            (
                "nothing yet",
                CameraSeen::default(),
                Ingest::Online,
                CameraState::Unknown,
                Some(CameraReason::NotHeard),
            ),
            (
                "old stats",
                measured(5.0, 100 - 99),
                Ingest::Online,
                CameraState::Up,
                None,
            ),
            (
                "older stats",
                CameraSeen {
                    every: Some(Duration::from_secs(15)),
                    ..measured(5.0, 1)
                },
                Ingest::Online,
                CameraState::Unknown,
                Some(CameraReason::Stale),
            ),
            (
                "switched off",
                CameraSeen {
                    enabled: Some(false),
                    ..measured(0.0, 100)
                },
                Ingest::Online,
                CameraState::Disabled,
                None,
            ),
            (
                "only a status",
                CameraSeen {
                    status: online(95),
                    ..Default::default()
                },
                Ingest::Online,
                CameraState::Up,
                None,
            ),
            (
                "an old status",
                CameraSeen {
                    status: online(1),
                    every: Some(Duration::from_secs(15)),
                    ..Default::default()
                },
                Ingest::Online,
                CameraState::Unknown,
                Some(CameraReason::Stale),
            ),
            (
                "an offline stream",
                CameraSeen {
                    status: Some((StreamStatus::Offline, at(99).moment)),
                    ..measured(5.0, 60)
                },
                Ingest::Online,
                CameraState::Down,
                Some(CameraReason::Offline),
            ),
            (
                "no ingest",
                measured(5.0, 100),
                offline,
                CameraState::Unknown,
                Some(CameraReason::IngestDown),
            ),
            (
                "a fresh frame",
                frame(99),
                Ingest::Online,
                CameraState::Up,
                None,
            ),
            (
                "an old frame",
                frame(70),
                Ingest::Online,
                CameraState::Down,
                Some(CameraReason::NoFrames),
            ),
        ] {
            let reading = source(seen, ingest);
            let camera = settle(
                &mut CameraMemory::default(),
                &Config::default(),
                &[&reading],
                at(100),
            );
            assert_eq!((camera.state, camera.reason), (expected, reason), "{what}");
        }
    }

    #[test]
    fn of_two_sources_the_one_that_knows_trouble_is_believed() {
        let up = source(measured(5.0, 100), Ingest::Online);
        let down = source(measured(0.0, 100), Ingest::Online);
        let silent = source(CameraSeen::default(), Ingest::Online);
        for (sources, expected) in [
            ([&up, &silent], CameraState::Up),
            ([&silent, &up], CameraState::Up),
            ([&up, &down], CameraState::Down),
            ([&down, &silent], CameraState::Down),
        ] {
            let camera = settle(
                &mut CameraMemory::default(),
                &Config::default(),
                &sources,
                at(100),
            );
            assert_eq!(camera.state, expected);
        }
    }
}
