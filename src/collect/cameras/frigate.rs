//! Frigate 0.8 to 0.18 over MQTT: its topics → what is seen of its cameras.
//!
//! | topic below the prefix | retained | meaning |
//! |---|---|---|
//! | `available` | yes, and the will | `online`, `stopped` (a clean stop) or `offline` (the will) |
//! | `stats` | no | JSON every `mqtt.stats_interval` (60 s): the frame rates of every camera |
//! | `<camera>/status/detect` | no | from 0.17: `online`, `offline` or `disabled`, repeated every 10 s |
//! | `<camera>/enabled/state` | yes | from 0.16: `ON` or `OFF`, the operator's switch |
//!
//! `status/record` is sent on change only, so a late subscriber never learns it: it says nothing here. Everything
//! else below the prefix is left alone: `<camera>/<label>/snapshot` are retained pictures.
//!
//! `camera_fps` counts the frames that come out of ffmpeg; `process_fps` can stay up without any, and
//! `detection_enabled` is not the camera's switch.

use std::collections::BTreeMap;
use std::time::Duration;

use super::frigate_stats::Stats;
use super::intake::{Heard, Intake, is_online, learned};
use crate::domain::moment::{Moment, Now};
use crate::domain::snapshot::{CameraSeen, CameraSource, Ingest, StreamStatus, is_valid_camera_id};

/// Reads one Frigate's messages.
#[derive(Debug)]
pub struct Frigate {
    prefix: String,
    intake: Intake,
    max: usize,
    /// Switches of cameras that are not known yet. They are retained, and a camera that was removed from Frigate
    /// leaves its switch behind: by itself a switch makes no camera.
    switches: BTreeMap<String, bool>,
    /// The latest stats of this connection.
    stats_at: Option<Moment>,
    every: Option<Duration>,
}

impl Frigate {
    /// Frigate with this `mqtt.topic_prefix`, of which at most `max` cameras are followed.
    #[must_use]
    pub fn new(prefix: &str, max: usize) -> Self {
        Frigate {
            prefix: prefix.trim_end_matches('/').to_owned(),
            intake: Intake::new(max),
            max,
            switches: BTreeMap::new(),
            stats_at: None,
            every: None,
        }
    }

    /// What tells it from other sources: its prefix.
    #[must_use]
    pub fn name(&self) -> String {
        format!("frigate:{}", self.prefix)
    }

    /// What to subscribe to. Never the prefix with `#`.
    #[must_use]
    pub fn filters(&self) -> Vec<String> {
        ["available", "stats", "+/status/detect", "+/enabled/state"]
            .map(|below| format!("{}/{below}", self.prefix))
            .into()
    }

    /// A connection begins: what was missed in between says nothing of Frigate's rhythm.
    pub fn connected(&mut self) {
        self.stats_at = None;
    }

    /// Takes a message in. `retained`: the broker had kept it, its age is not known.
    pub fn apply(
        &mut self,
        source: &mut CameraSource,
        topic: &str,
        payload: &[u8],
        retained: bool,
        now: Now,
    ) -> Heard {
        let Some(below) = topic
            .strip_prefix(self.prefix.as_str())
            .and_then(|rest| rest.strip_prefix('/'))
        else {
            return Heard::default();
        };
        let now = now.moment;
        let mut levels = below.split('/');
        let levels = [(); 4].map(|()| levels.next());
        let heard = match levels {
            [Some("available"), None, ..] => self.available(source, payload, now),
            [Some("stats"), None, ..] => self.stats(source, payload, retained, now),
            [Some(camera), Some("status"), Some("detect"), None] => {
                self.status(source, camera, payload, retained, now)
            }
            [Some(camera), Some("enabled"), Some("state"), None] => {
                self.enabled(source, camera, payload)
            }
            _ => Heard::default(),
        };
        if heard.trouble.is_some() {
            source.malformed += 1;
        }
        heard
    }

    fn available(&mut self, source: &mut CameraSource, payload: &[u8], now: Moment) -> Heard {
        let why = match payload {
            b"online" => return Heard::edge(is_online(source)),
            b"stopped" => "frigate was stopped",
            b"offline" => "frigate is gone",
            // Somebody cleared the retained message.
            b"" => return Heard::default(),
            _ => return Heard::trouble("available must be online, stopped or offline"),
        };
        self.stats_at = None;
        let already = matches!(&source.ingest, Ingest::Offline { why: known, .. } if known == why);
        if !already {
            source.ingest = Ingest::Offline {
                why: why.to_owned(),
                since: now,
            };
        }
        Heard::edge(!already)
    }

    fn stats(
        &mut self,
        source: &mut CameraSource,
        payload: &[u8],
        retained: bool,
        now: Moment,
    ) -> Heard {
        let Some(stats) = Stats::read(payload) else {
            return Heard::trouble("stats must be Frigate's JSON");
        };
        // Frigate does not retain its stats: somebody else did, who knows when.
        if retained {
            return Heard::default();
        }
        is_online(source);
        if let Some(before) = self.stats_at.replace(now) {
            self.every = Some(learned(self.every, now - before));
        }
        let mut heard = Heard {
            edge: true,
            trouble: stats.trouble,
        };
        // The stats list every camera that Frigate is configured for: one that is missing was removed.
        // They make room before new ones are taken in.
        let mut listed: Vec<&str> = stats.cameras.iter().map(|(name, _)| &**name).collect();
        listed.sort_unstable();
        source
            .cameras
            .retain(|name, _| listed.binary_search(&name.as_str()).is_ok());
        for (name, figures) in &stats.cameras {
            let every = self.every;
            let Some(seen) = self.admit(source, name, now, &mut heard) else {
                continue;
            };
            seen.every = every;
            match figures.fps.rate() {
                Ok(Some(fps)) => {
                    seen.fps = Some(fps);
                    seen.measured = Some(now);
                }
                Ok(None) => heard.trouble = Some("a camera has no camera_fps"),
                Err(why) => heard.trouble = Some(why),
            }
            match figures.expected_fps.rate() {
                Ok(expected) => seen.expected_fps = expected.filter(|fps| *fps > 0.0),
                Err(why) => heard.trouble = Some(why),
            }
        }
        heard
    }

    fn status(
        &mut self,
        source: &mut CameraSource,
        camera: &str,
        payload: &[u8],
        retained: bool,
        now: Moment,
    ) -> Heard {
        let status = match payload {
            b"online" => StreamStatus::Online,
            b"offline" => StreamStatus::Offline,
            b"disabled" => StreamStatus::Disabled,
            _ => return Heard::trouble("status/detect must be online, offline or disabled"),
        };
        // As with the stats.
        if retained {
            return Heard::default();
        }
        let mut heard = Heard::edge(is_online(source));
        if let Some(seen) = self.admit(source, camera, now, &mut heard) {
            heard.edge |= seen.status.is_none_or(|(before, _)| before != status);
            seen.status = Some((status, now));
        }
        heard
    }

    fn enabled(&mut self, source: &mut CameraSource, camera: &str, payload: &[u8]) -> Heard {
        let enabled = match payload {
            b"ON" => true,
            b"OFF" => false,
            b"" => return Heard::default(),
            _ => return Heard::trouble("enabled/state must be ON or OFF"),
        };
        if let Some(seen) = source.cameras.get_mut(camera) {
            let news = seen.enabled != Some(enabled);
            seen.enabled = Some(enabled);
            return Heard::edge(news);
        }
        if let Some(known) = self.switches.get_mut(camera) {
            *known = enabled;
        } else if is_valid_camera_id(camera) && self.switches.len() < self.max {
            self.switches.insert(camera.to_owned(), enabled);
        }
        Heard::default()
    }

    fn admit<'a>(
        &mut self,
        source: &'a mut CameraSource,
        camera: &str,
        now: Moment,
        heard: &mut Heard,
    ) -> Option<&'a mut CameraSeen> {
        let seen = self.intake.admit(source, camera, now, heard)?;
        if let Some(enabled) = self.switches.remove(camera) {
            seen.enabled = Some(enabled);
        }
        Some(seen)
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::super::frigate_stats::SHAPES;
    use super::*;

    fn at(seconds: u64) -> Now {
        Now {
            moment: Moment::after_boot(Duration::from_secs(seconds)),
            wall: Timestamp::UNIX_EPOCH,
            sure: true,
        }
    }

    /// A Frigate and what was seen of it.
    struct Scene {
        frigate: Frigate,
        source: CameraSource,
    }

    impl Scene {
        fn new(max: usize) -> Self {
            Scene {
                frigate: Frigate::new("frigate", max),
                source: CameraSource::default(),
            }
        }

        fn live(&mut self, seconds: u64, topic: &str, payload: impl AsRef<[u8]>) -> Heard {
            let topic = format!("frigate/{topic}");
            self.frigate.apply(
                &mut self.source,
                &topic,
                payload.as_ref(),
                false,
                at(seconds),
            )
        }

        fn retained(&mut self, seconds: u64, topic: &str, payload: impl AsRef<[u8]>) -> Heard {
            let topic = format!("frigate/{topic}");
            self.frigate.apply(
                &mut self.source,
                &topic,
                payload.as_ref(),
                true,
                at(seconds),
            )
        }

        fn names(&self) -> Vec<&str> {
            self.source.cameras.keys().map(String::as_str).collect()
        }
    }

    #[test]
    fn stats_of_every_version_are_read() {
        for (version, stats) in SHAPES {
            let mut scene = Scene::new(100);
            let heard = scene.live(1, "stats", stats);
            assert_eq!(heard, Heard::edge(true), "{version}");
            let names: Vec<String> = (1..=18).map(|hole| format!("hole{hole:02}")).collect();
            assert_eq!(scene.names(), names, "{version}");
            for (name, seen) in &scene.source.cameras {
                // Hole 7 has no frames though its process_fps says 15.1.
                let fps = match name.as_str() {
                    "hole07" => 0.0,
                    "hole03" => 5.0,
                    _ => 5.1,
                };
                let expected = CameraSeen {
                    fps: Some(fps),
                    expected_fps: (version == "0.18").then_some(5.0),
                    measured: Some(at(1).moment),
                    first_heard: at(1).moment,
                    ..CameraSeen::default()
                };
                assert_eq!(seen, &expected, "{version} {name}");
            }
            assert_eq!(scene.source.ingest, Ingest::Online, "{version}");
            // Command lines hold the cameras' passwords.
            let kept = format!("{:?} {:?}", scene.source, scene.frigate);
            assert!(!kept.contains("s3cret"), "{version}");
        }
    }

    #[test]
    fn bad_stats_change_nothing_but_the_count() {
        let huge = format!(r#"{{"x":"{}"}}"#, "A".repeat(1_000_000));
        let deep = "[".repeat(1_000_000);
        for payload in [
            "",
            "junk",
            "[]",
            "{}",
            "null",
            r#"{"a":1}"#,
            "{\"cameras\":",
            &huge,
            &deep,
        ] {
            let mut scene = Scene::new(100);
            scene.live(1, "stats", SHAPES[3].1);
            let before = scene.source.clone();
            for _ in 0..2 {
                let heard = scene.live(61, "stats", payload);
                assert!(!heard.edge && heard.trouble.is_some());
                let heard = scene.retained(61, "stats", payload);
                assert!(!heard.edge && heard.trouble.is_some());
            }
            let after = CameraSource {
                malformed: 4,
                ..before
            };
            assert_eq!(scene.source, after, "{}", &payload[..payload.len().min(20)]);
        }
    }

    #[test]
    fn a_bad_value_costs_only_its_camera_s_measurement() {
        for fps in ["-1", r#""nan""#, r#""fast""#, "null", "[5]", "{}", "true"] {
            let mut scene = Scene::new(100);
            let good = r#"{"cameras":{"a":{"camera_fps":5},"b":{"camera_fps":5}}}"#;
            scene.live(1, "stats", good);
            let stats =
                format!(r#"{{"cameras":{{"a":{{"camera_fps":{fps}}},"b":{{"camera_fps":4}}}}}}"#);
            let heard = scene.live(61, "stats", stats);
            assert!(heard.edge && heard.trouble.is_some(), "{fps}");
            let cameras = &scene.source.cameras;
            assert_eq!(
                (cameras["a"].fps, cameras["a"].measured),
                (Some(5.0), Some(at(1).moment))
            );
            assert_eq!(
                (cameras["b"].fps, cameras["b"].measured),
                (Some(4.0), Some(at(61).moment))
            );
            assert_eq!(scene.source.malformed, 1);
        }
    }

    #[test]
    fn retained_stats_and_states_prove_nothing() {
        let mut scene = Scene::new(100);
        assert_eq!(scene.retained(1, "stats", SHAPES[3].1), Heard::default());
        assert_eq!(
            scene.retained(1, "a/status/detect", "online"),
            Heard::default()
        );
        assert_eq!(scene.source, CameraSource::default());
    }

    #[test]
    fn a_camera_that_left_frigate_leaves_us() {
        let mut scene = Scene::new(100);
        scene.live(
            1,
            "stats",
            r#"{"cameras":{"a":{"camera_fps":5},"b":{"camera_fps":5}}}"#,
        );
        scene.live(2, "c/status/detect", "online");
        assert_eq!(scene.names(), ["a", "b", "c"]);
        scene.live(
            61,
            "stats",
            r#"{"cameras":{"b":{"camera_fps":5},"d":{"camera_fps":5}}}"#,
        );
        assert_eq!(scene.names(), ["b", "d"]);
    }

    #[test]
    fn a_switch_makes_no_camera_and_is_remembered_for_it() {
        let mut scene = Scene::new(2);
        for camera in ["gone", "a"] {
            let topic = format!("{camera}/enabled/state");
            assert_eq!(scene.retained(1, &topic, "OFF"), Heard::default());
        }
        // No more are remembered than there may be cameras.
        scene.retained(1, "late/enabled/state", "OFF");
        assert_eq!(scene.frigate.switches.len(), 2);
        assert!(scene.names().is_empty());
        scene.live(2, "stats", r#"{"cameras":{"a":{"camera_fps":0}}}"#);
        assert_eq!(scene.source.cameras["a"].enabled, Some(false));
        assert_eq!(scene.live(3, "a/enabled/state", "ON"), Heard::edge(true));
        assert_eq!(scene.live(4, "a/enabled/state", "ON"), Heard::edge(false));
        assert_eq!(scene.source.cameras["a"].enabled, Some(true));
        assert!(scene.live(5, "a/enabled/state", "1").trouble.is_some());
    }

    #[test]
    fn a_repeated_state_moves_its_time_and_wakes_nobody() {
        let mut scene = Scene::new(100);
        for (seconds, topic, payload, edge, status) in [
            (
                1,
                "a/status/detect",
                "online",
                true,
                Some((StreamStatus::Online, 1)),
            ),
            (
                11,
                "a/status/detect",
                "online",
                false,
                Some((StreamStatus::Online, 11)),
            ),
            (
                21,
                "a/status/record",
                "offline",
                false,
                Some((StreamStatus::Online, 11)),
            ),
            (
                31,
                "a/status/detect",
                "offline",
                true,
                Some((StreamStatus::Offline, 31)),
            ),
            (
                41,
                "a/status/detect",
                "disabled",
                true,
                Some((StreamStatus::Disabled, 41)),
            ),
            (
                51,
                "a/status/detect",
                "what",
                false,
                Some((StreamStatus::Disabled, 41)),
            ),
        ] {
            assert_eq!(
                scene.live(seconds, topic, payload).edge,
                edge,
                "at {seconds} s"
            );
            let status = status.map(|(status, seconds)| (status, at(seconds).moment));
            assert_eq!(scene.source.cameras["a"].status, status, "at {seconds} s");
        }
        assert_eq!(scene.source.malformed, 1);
    }

    #[test]
    fn frigate_s_own_word_and_its_data_tell_whether_it_is_there() {
        let gone = |why: &str, seconds| Ingest::Offline {
            why: why.into(),
            since: at(seconds).moment,
        };
        let mut scene = Scene::new(100);
        for (seconds, topic, payload, edge, ingest) in [
            (1, "available", "online", true, Ingest::Online),
            (2, "available", "online", false, Ingest::Online),
            (3, "available", "offline", true, gone("frigate is gone", 3)),
            (4, "available", "offline", false, gone("frigate is gone", 3)),
            // A will that overtook the next birth: the data is right.
            (5, "a/status/detect", "online", true, Ingest::Online),
            (
                6,
                "available",
                "stopped",
                true,
                gone("frigate was stopped", 6),
            ),
            (
                7,
                "available",
                "perhaps",
                false,
                gone("frigate was stopped", 6),
            ),
            (8, "available", "", false, gone("frigate was stopped", 6)),
            (9, "stats", r#"{"cameras":{}}"#, true, Ingest::Online),
        ] {
            assert_eq!(
                scene.live(seconds, topic, payload).edge,
                edge,
                "at {seconds} s"
            );
            assert_eq!(scene.source.ingest, ingest, "at {seconds} s");
        }
    }

    #[test]
    fn the_rhythm_of_the_stats_is_learned_without_outages() {
        let mut scene = Scene::new(100);
        let stats = r#"{"cameras":{"a":{"camera_fps":5}}}"#;
        let every = |scene: &Scene| scene.source.cameras["a"].every.map(|every| every.as_secs());
        for (seconds, before, expected) in [
            (0, "", None),
            (15, "", Some(15)),
            (30, "", Some(15)),
            (9_000, "reconnect", Some(15)),
            (9_015, "", Some(15)),
            (20_000, "offline", Some(15)),
            (20_015, "", Some(15)),
        ] {
            match before {
                "reconnect" => scene.frigate.connected(),
                "offline" => drop(scene.live(seconds - 5_000, "available", "offline")),
                _ => {}
            }
            scene.live(seconds, "stats", stats);
            assert_eq!(every(&scene), expected, "at {seconds} s");
        }
    }

    #[test]
    fn hostile_names_and_crowds_are_bounded() {
        let mut scene = Scene::new(4096);
        for name in ["", "a b", "\u{1b}[2J", "+", &"x".repeat(129)] {
            scene.live(1, &format!("{name}/status/detect"), "online");
        }
        assert_eq!((scene.names(), scene.source.malformed), (vec!["a b"], 4));
        let entries: Vec<String> = (0..10_000)
            .map(|n| format!(r#""camera{n}":{{"camera_fps":5}}"#))
            .collect();
        let stats = format!(
            r#"{{"cameras":{{{},"a/b":{{"camera_fps":5}}}}}}"#,
            entries.join(",")
        );
        for seconds in [60, 120, 180] {
            scene.live(seconds, "stats", &stats);
            assert_eq!(scene.source.cameras.len(), 4096);
        }
        assert_eq!(scene.source.over_limit, 10_000 - 4096);
    }

    #[test]
    fn nothing_below_the_prefix_is_swept_in() {
        let frigate = Frigate::new("site/frigate/", 1);
        let filters = frigate.filters();
        assert_eq!(
            filters,
            [
                "site/frigate/available",
                "site/frigate/stats",
                "site/frigate/+/status/detect",
                "site/frigate/+/enabled/state"
            ]
        );
        let mut scene = Scene::new(1);
        for topic in [
            "frigate/events",
            "frigatex/stats",
            "frigate",
            "frigate/a/person/snapshot",
            "frigate/a/status/detect/x",
        ] {
            let heard = scene
                .frigate
                .apply(&mut scene.source, topic, b"{}", false, at(1));
            assert_eq!(heard, Heard::default(), "{topic}");
        }
        assert_eq!(scene.source, CameraSource::default());
    }
}
