//! Messages of camera programs: whatever they say, what is made of them is sound, bounded and no better than they
//! are.
//!
//! An input is a list of messages. The first line of each is `+SECONDS TOPIC`, `=SECONDS TOPIC` for one that the
//! broker had kept, or `^SECONDS`, where a connection begins; the seconds count from the message before. The rest is
//! the payload. `mqtt_json` has a part before them: the topic, then `state=/online` and the like.

use std::fmt::Debug;
use std::time::Duration;

use jiff::Timestamp;
use sideline::collect::cameras::frigate::Frigate;
use sideline::collect::cameras::json::Json;
use sideline::config::{Config, Fields};
use sideline::domain::judge::{Judge, Surroundings};
use sideline::domain::memory::Memory;
use sideline::domain::moment::{Moment, Now};
use sideline::domain::reading::Reading;
use sideline::domain::report::{CameraState, Node, State};
use sideline::domain::snapshot::{CameraSource, Snapshot, is_valid_camera_id};

use super::parts;

/// `cameras.max`.
const MAX: usize = 8;

/// Twice a camera's name, as long as it may be and every character of it escaped, with all that is known of the camera.
const LARGEST_CAMERA: usize = 4096;

/// Frigate's messages.
pub(super) fn frigate(input: &[u8]) {
    let mut frigate = Frigate::new("frigate", MAX);
    let mut world = World::new();
    for message in parts(input) {
        let message = world.next(message);
        if message.begins {
            frigate.connected();
            continue;
        }
        let (topic, payload) = (&*message.topic, message.payload);
        let source = &mut world.source;
        let heard = frigate.apply(source, topic, payload, message.retained, world.now);
        world.check(heard.trouble.is_some());
    }
    world.end(&frigate, 0);
}

/// The messages of any program that publishes JSON.
pub(super) fn json(input: &[u8]) {
    let mut parts = parts(input).into_iter();
    let settings = String::from_utf8_lossy(parts.next().unwrap_or_default());
    let (topic, fields) = self::settings(&settings);
    let Ok(mut json) = Json::new(topic, &fields, MAX) else {
        return;
    };
    let mut world = World::new();
    for message in parts {
        let message = world.next(message);
        if message.begins {
            json.connected(world.now.moment);
            continue;
        }
        let (topic, payload) = (&*message.topic, message.payload);
        let source = &mut world.source;
        let heard = json.apply(source, topic, payload, message.retained, world.now);
        world.check(heard.trouble.is_some());
    }
    world.end(&json, settings.len());
}

fn settings(text: &str) -> (&str, Fields) {
    let mut lines = text.lines();
    let topic = lines.next().unwrap_or_default();
    let mut fields = Fields::default();
    for (key, pointer) in lines.filter_map(|line| line.split_once('=')) {
        let field = match key {
            "state" => &mut fields.state,
            "fps" => &mut fields.fps,
            "expected_fps" => &mut fields.expected_fps,
            "last_frame" => &mut fields.last_frame,
            _ => continue,
        };
        *field = Some(pointer.to_owned());
    }
    (topic, fields)
}

struct Message<'a> {
    begins: bool,
    retained: bool,
    topic: String,
    payload: &'a [u8],
}

/// What the source says, and what the judge makes of it.
struct World {
    now: Now,
    source: CameraSource,
    judge: Judge,
    messages: usize,
    complaints: u64,
}

impl World {
    fn new() -> Self {
        let now = Now {
            sure: true,
            moment: Moment::after_boot(Duration::from_secs(10_000)),
            wall: Timestamp::UNIX_EPOCH + Duration::from_secs(1_800_000_000),
        };
        let memory = Memory::default();
        World {
            now,
            source: CameraSource::default(),
            judge: Judge::new(Config::default(), Node::default(), &memory, now.moment),
            messages: 0,
            complaints: 0,
        }
    }

    fn next<'a>(&mut self, part: &'a [u8]) -> Message<'a> {
        let end = part.iter().position(|byte| *byte == b'\n');
        let (head, payload) = match end {
            Some(end) => (&part[..end], &part[end + 1..]),
            None => (part, &[][..]),
        };
        let head = String::from_utf8_lossy(head);
        let (when, topic) = head.split_once(' ').unwrap_or((&head, ""));
        let seconds: u16 = when
            .trim_start_matches(['+', '=', '^'])
            .parse()
            .unwrap_or_default();
        self.pass(Duration::from_secs(seconds.into()));
        self.messages += 1;
        Message {
            begins: when.starts_with('^'),
            retained: when.starts_with('='),
            topic: topic.to_owned(),
            payload,
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now.moment = self.now.moment + time;
        self.now.wall += time;
    }

    /// What has to hold after each message.
    fn check(&mut self, complained: bool) {
        let now = self.now;
        self.complaints += u64::from(complained);
        assert_eq!(self.source.malformed, self.complaints, "miscounted");
        assert!(self.source.cameras.len() <= MAX, "more than cameras.max");
        for (id, seen) in &self.source.cameras {
            assert!(is_valid_camera_id(id), "{id:?} is no camera's id");
            let is_rate = |fps: f64| fps.is_finite() && fps >= 0.0;
            assert!(seen.fps.is_none_or(is_rate), "{seen:?}");
            assert!(
                seen.expected_fps
                    .is_none_or(|fps| is_rate(fps) && fps > 0.0)
            );
            let told = seen.status.map(|(_, at)| at);
            for at in [seen.measured, told, Some(seen.first_heard)] {
                assert!(at.is_none_or(|at| at <= now.moment), "in the future");
            }
            assert!(seen.last_frame.is_none_or(|frame| frame <= now.wall));
        }
        for camera in self.look() {
            let seen = &self.source.cameras[&camera.0];
            let has_evidence = seen.measured.is_some() || seen.status.is_some();
            assert!(
                camera.1 != CameraState::Up || has_evidence,
                "{seen:?} is up without evidence"
            );
        }
    }

    /// Cameras that nobody speaks of any more are not up, and little was kept of all the words.
    fn end(mut self, program: &dyn Debug, settings: usize) {
        let spacings = self.source.cameras.values().filter_map(|seen| seen.every);
        let slowest = spacings.max().unwrap_or_default();
        self.pass(slowest * 4 + Duration::from_secs(3600));
        for (id, state) in self.look() {
            assert_ne!(state, CameraState::Up, "{id} is up in silence");
        }
        let kept = format!("{:?}{program:?}", self.source).len();
        let most = 4096 + MAX * LARGEST_CAMERA + 32 * self.messages + 64 * settings;
        assert!(kept <= most, "{kept} bytes are kept, more than {most}");
    }

    fn look(&mut self) -> Vec<(String, CameraState)> {
        let source = Reading::ok(self.source.clone(), self.now.moment);
        let seen = Snapshot {
            host: &Reading::Pending,
            gpus: &Reading::Off,
            kernel: &Reading::Pending,
            drives: &Reading::Off,
            ups: &Reading::Off,
            checks: &Reading::Off,
            cameras: &[&source],
        };
        let report = self
            .judge
            .judge(seen, Surroundings::default(), self.now)
            .report;
        assert_ne!(report.verdict.state, State::Healthy, "of an unknown host");
        let written = serde_json::to_string(&*report);
        assert!(written.is_ok(), "{written:?}");
        assert_eq!(report.cameras.len(), self.source.cameras.len());
        let cameras = report.cameras.iter();
        cameras
            .map(|camera| (camera.id.to_string(), camera.state))
            .collect()
    }
}
