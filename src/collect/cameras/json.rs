//! Cameras of any program that publishes JSON over MQTT: a topic per camera, values found by JSON pointers.
//!
//! A message tells how the camera is now: a value that is missing from it is not known any more. Only a live
//! message proves anything. A retained one, of unknown age, shows at most that there is such a camera; where it
//! carries the time of the last frame, its values count as measured at that time. An empty payload, MQTT's way to
//! clear a retained message, removes the camera.

use anyhow::ensure;
use jiff::{SignedDuration, Timestamp};

use super::intake::{Heard, Intake, Scalar, is_online, learned};
use super::json_pick::{self, Pointer};
use crate::config::Fields;
use crate::domain::moment::{Moment, Now};
use crate::domain::snapshot::{CameraSeen, CameraSource, StreamStatus};

/// Reads the messages of one program.
#[derive(Debug)]
pub struct Json {
    filter: String,
    /// The topic before and after the camera's name.
    before: String,
    after: String,
    /// State, fps, expected fps, last frame.
    fields: [Option<Pointer>; 4],
    intake: Intake,
    /// Spacings that reach back before this connection say nothing of the program's rhythm.
    connected: Moment,
}

/// What a message says.
#[derive(Debug, Default, PartialEq)]
struct Told {
    status: Option<StreamStatus>,
    fps: Option<f64>,
    expected_fps: Option<f64>,
    last_frame: Option<Timestamp>,
}

impl Json {
    /// A program that publishes on `topic`, where `+` stands for the camera's name; at most `max` cameras are
    /// followed.
    ///
    /// # Errors
    /// A topic without exactly one `+`, or a field that is no JSON pointer.
    pub fn new(topic: &str, fields: &Fields, max: usize) -> anyhow::Result<Self> {
        let levels = topic.split('/').filter(|level| *level == "+").count();
        ensure!(
            levels == 1 && topic.matches('+').count() == 1 && !topic.contains('#'),
            "topic must have + once, as a whole level, for the camera's name, and no #"
        );
        let (before, after) = topic.split_once('+').unwrap_or((topic, ""));
        let pointers = [
            &fields.state,
            &fields.fps,
            &fields.expected_fps,
            &fields.last_frame,
        ];
        ensure!(
            pointers.iter().any(|pointer| pointer.is_some()),
            "fields must name at least one of state, fps and last_frame"
        );
        let mut parsed = [const { None }; 4];
        for (slot, pointer) in parsed.iter_mut().zip(pointers) {
            *slot = pointer.as_deref().map(Pointer::parse).transpose()?;
        }
        Ok(Json {
            filter: topic.to_owned(),
            before: before.to_owned(),
            after: after.to_owned(),
            fields: parsed,
            intake: Intake::new(max),
            connected: Moment::BOOT,
        })
    }

    /// What tells it from other sources: its topic.
    #[must_use]
    pub fn name(&self) -> String {
        format!("mqtt:{}", self.filter)
    }

    /// What to subscribe to.
    #[must_use]
    pub fn filters(&self) -> Vec<String> {
        vec![self.filter.clone()]
    }

    /// A connection begins.
    pub fn connected(&mut self, now: Moment) {
        self.connected = now;
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
        let Some(camera) = topic
            .strip_prefix(self.before.as_str())
            .and_then(|rest| rest.strip_suffix(self.after.as_str()))
        else {
            return Heard::default();
        };
        if payload.is_empty() {
            return Heard::edge(source.cameras.remove(camera).is_some());
        }
        let mut heard = Heard::default();
        match self.read(payload, now, &mut heard) {
            Ok(told) => self.take(source, camera, &told, retained, now, &mut heard),
            Err(why) => heard.trouble = Some(why),
        }
        if heard.trouble.is_some() {
            source.malformed += 1;
        }
        heard
    }

    /// What the payload says. A bad value costs only itself; a message with no value at all is an error.
    fn read(&self, payload: &[u8], now: Now, heard: &mut Heard) -> Result<Told, &'static str> {
        let picked = json_pick::pick(payload, &self.fields).ok_or("the payload must be JSON")?;
        if picked.iter().all(Option::is_none) {
            return Err("none of the fields is in the message");
        }
        let [state, fps, expected_fps, last_frame] =
            picked.map(|value| value.unwrap_or(Scalar::Null));
        let trouble = &mut heard.trouble;
        let told = Told {
            status: or_trouble(status(&state), trouble),
            fps: or_trouble(fps.rate(), trouble),
            expected_fps: or_trouble(expected_fps.rate(), trouble).filter(|fps| *fps > 0.0),
            last_frame: or_trouble(frame_time(&last_frame, now), trouble),
        };
        match heard.trouble {
            Some(why) if told == Told::default() => Err(why),
            Some(_) | None => Ok(told),
        }
    }

    fn take(
        &mut self,
        source: &mut CameraSource,
        camera: &str,
        told: &Told,
        retained: bool,
        now: Now,
        heard: &mut Heard,
    ) {
        if !retained {
            heard.edge |= is_online(source);
        }
        let connected = self.connected;
        let Some(seen) = self.intake.admit(source, camera, now.moment, heard) else {
            return;
        };
        seen.expected_fps = told.expected_fps.or(seen.expected_fps);
        let measured = if retained {
            // After a reconnect it may be the very message that was heard live.
            let frame = told.last_frame.and_then(|frame| now.moment_at(frame));
            let Some(at) = frame.filter(|at| seen.measured.is_none_or(|known| known < *at)) else {
                return;
            };
            at
        } else {
            if let Some(before) = seen.measured.filter(|before| connected <= *before) {
                seen.every = Some(learned(seen.every, now.moment - before));
            }
            now.moment
        };
        heard.edge |= is_edge(seen, told);
        seen.measured = Some(measured);
        seen.status = told.status.map(|status| (status, measured));
        seen.fps = told.fps;
        seen.last_frame = told.last_frame;
    }
}

/// Whether the judge should hear of it at once: the state changes, frames stop or begin.
fn is_edge(seen: &CameraSeen, told: &Told) -> bool {
    let flows = |fps: Option<f64>| fps.map(|fps| fps > 0.0);
    seen.measured.is_none()
        || seen.status.map(|(status, _)| status) != told.status
        || flows(seen.fps) != flows(told.fps)
}

fn or_trouble<T>(
    value: Result<Option<T>, &'static str>,
    trouble: &mut Option<&'static str>,
) -> Option<T> {
    value.unwrap_or_else(|why| {
        *trouble = Some(why);
        None
    })
}

fn status(state: &Scalar) -> Result<Option<StreamStatus>, &'static str> {
    let is_up = |up| {
        if up {
            StreamStatus::Online
        } else {
            StreamStatus::Offline
        }
    };
    Ok(Some(match state {
        Scalar::Null => return Ok(None),
        Scalar::Bool(up) => is_up(*up),
        Scalar::Number(number) => is_up(*number != 0.0),
        Scalar::Word(word) => match word.trim().to_ascii_lowercase().as_str() {
            "online" | "up" | "on" | "ok" | "true" | "1" => StreamStatus::Online,
            "offline" | "down" | "off" | "error" | "false" | "0" => StreamStatus::Offline,
            "disabled" => StreamStatus::Disabled,
            "idle" => StreamStatus::Idle,
            _ => {
                return Err(
                    "the state must be a boolean, a number or a word like online or offline",
                );
            }
        },
        Scalar::Other => return Err("the state must be a boolean, a number or a word"),
    }))
}

/// The time of the last frame; zero and null: there was none.
fn frame_time(value: &Scalar, now: Now) -> Result<Option<Timestamp>, &'static str> {
    /// As seconds 5138 AD, as milliseconds 1973: between the two readings there is no doubt.
    const FIRST_MILLISECOND: f64 = 1e11;
    /// Later than now by more, the program's clock is not this machine's: the age can't be told.
    const AHEAD: SignedDuration = SignedDuration::from_secs(60);
    const WRONG: &str =
        "the last frame's time must be RFC 3339, or seconds or milliseconds since 1970";
    let frame = match (value, value.number()) {
        (Scalar::Null, _) => return Ok(None),
        (_, Some(0.0)) => return Ok(None),
        (_, Some(number)) => {
            let seconds = if number < FIRST_MILLISECOND {
                number
            } else {
                number / 1000.0
            };
            SignedDuration::try_from_secs_f64(seconds).and_then(Timestamp::from_duration)
        }
        (Scalar::Word(word), None) => word.trim().parse(),
        (Scalar::Bool(_) | Scalar::Number(_) | Scalar::Other, None) => return Err(WRONG),
    };
    let frame = frame.ok().filter(|frame| *frame > Timestamp::UNIX_EPOCH);
    let frame = frame.ok_or(WRONG)?;
    if frame.duration_since(now.wall) > AHEAD {
        return Err("the last frame's time lies in the future");
    }
    Ok(Some(frame.min(now.wall)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::snapshot::Ingest;

    fn at(seconds: u64) -> Now {
        Now {
            moment: Moment::after_boot(Duration::from_secs(10_000 + seconds)),
            wall: Timestamp::from_second(1_700_000_000 + i64::try_from(seconds).unwrap()).unwrap(),
            sure: true,
        }
    }

    const TOPIC: &str = "site/cameras/hole07/status";

    fn program() -> Json {
        let fields = Fields {
            state: Some("/online".into()),
            fps: Some("/stream/fps".into()),
            expected_fps: Some("/stream/nominal".into()),
            last_frame: Some("/last".into()),
        };
        Json::new("site/cameras/+/status", &fields, 100).unwrap()
    }

    /// What one live message about `hole07` makes of an empty source.
    fn hear(payload: &str) -> (Heard, CameraSource) {
        let mut source = CameraSource::default();
        let heard = program().apply(&mut source, TOPIC, payload.as_bytes(), false, at(0));
        (heard, source)
    }

    #[test]
    fn states_are_booleans_numbers_and_words() {
        use StreamStatus::{Disabled, Idle, Offline, Online};
        for (state, expected) in [
            ("true", Some(Online)),
            ("false", Some(Offline)),
            ("1", Some(Online)),
            ("0", Some(Offline)),
            ("0.0", Some(Offline)),
            ("-1", Some(Online)),
            (r#""Online""#, Some(Online)),
            (r#"" ON ""#, Some(Online)),
            (r#""ok""#, Some(Online)),
            (r#""up""#, Some(Online)),
            (r#""DOWN""#, Some(Offline)),
            (r#""off""#, Some(Offline)),
            (r#""error""#, Some(Offline)),
            (r#""disabled""#, Some(Disabled)),
            (r#""idle""#, Some(Idle)),
            ("null", None),
            (r#""perhaps""#, None),
            ("[]", None),
        ] {
            let (heard, source) = hear(&format!(r#"{{"online":{state},"stream":{{"fps":5}}}}"#));
            let status = source.cameras["hole07"].status;
            assert_eq!(status.map(|(status, _)| status), expected, "{state}");
            let bad = expected.is_none() && state != "null";
            assert_eq!(
                (heard.trouble.is_some(), source.malformed),
                (bad, bad.into())
            );
        }
    }

    #[test]
    fn last_frames_are_told_in_three_ways() {
        let now = 1_700_000_000_i64;
        for (last, expected) in [
            ("1699999990", Ok(Some(now - 10))),
            ("1699999990.0", Ok(Some(now - 10))),
            (r#""1699999990""#, Ok(Some(now - 10))),
            ("1699999990000", Ok(Some(now - 10))),
            (r#""2023-11-14T22:13:10Z""#, Ok(Some(now - 10))),
            (r#""2023-11-14T23:13:10.000+01:00""#, Ok(Some(now - 10))),
            // A clock that is a little ahead.
            ("1700000005", Ok(Some(now))),
            ("0", Ok(None)),
            ("null", Ok(None)),
            // A clock that is wrong, and what is no time.
            ("1700003600", Err(())),
            ("-5", Err(())),
            ("1e300", Err(())),
            ("true", Err(())),
            (r#""yesterday""#, Err(())),
            (r#""2023-11-14T22:13:10""#, Err(())),
        ] {
            let (heard, source) = hear(&format!(r#"{{"last":{last},"stream":{{"fps":5}}}}"#));
            let seen = source.cameras["hole07"]
                .last_frame
                .map(Timestamp::as_second);
            assert_eq!(seen, expected.unwrap_or(None), "{last}");
            assert_eq!(heard.trouble.is_some(), expected.is_err(), "{last}");
        }
    }

    #[test]
    fn a_live_message_is_the_whole_truth() {
        let (mut json, mut source) = (program(), CameraSource::default());
        let full =
            br#"{"online":true,"stream":{"fps":5,"nominal":"25"},"last":1700000000,"x":"A"}"#;
        assert!(json.apply(&mut source, TOPIC, full, false, at(0)).edge);
        let expected = CameraSeen {
            fps: Some(5.0),
            expected_fps: Some(25.0),
            status: Some((StreamStatus::Online, at(0).moment)),
            measured: Some(at(0).moment),
            last_frame: Some(at(0).wall),
            first_heard: at(0).moment,
            ..CameraSeen::default()
        };
        assert_eq!(source.cameras["hole07"], expected);
        assert_eq!(source.ingest, Ingest::Online);
        // The same again is no news.
        assert!(!json.apply(&mut source, TOPIC, full, false, at(10)).edge);
        let every = source.cameras["hole07"].every;
        assert_eq!(every, Some(Duration::from_secs(10)));
        // What is missing is not known any more, but for what the camera should deliver.
        let partial = br#"{"online":true}"#;
        assert!(json.apply(&mut source, TOPIC, partial, false, at(20)).edge);
        let seen = &source.cameras["hole07"];
        assert_eq!((seen.fps, seen.last_frame), (None, None));
        assert_eq!(seen.expected_fps, Some(25.0));
        // Nothing is a farewell.
        assert!(json.apply(&mut source, TOPIC, b"", false, at(30)).edge);
        assert!(source.cameras.is_empty());
    }

    #[test]
    fn a_retained_message_proves_only_what_it_dates() {
        let undated = br#"{"online":true,"stream":{"fps":5,"nominal":25}}"#;
        let dated = br#"{"online":true,"stream":{"fps":5},"last":1699999900}"#;
        let (mut json, mut source) = (program(), CameraSource::default());

        json.apply(&mut source, TOPIC, undated, true, at(0));
        let seen = &source.cameras["hole07"];
        assert_eq!((seen.fps, seen.measured, seen.status), (None, None, None));
        assert_eq!(seen.expected_fps, Some(25.0));
        assert_eq!(source.ingest, Ingest::Unknown);

        json.apply(&mut source, TOPIC, dated, true, at(0));
        let seen = &source.cameras["hole07"];
        let then = Moment::after_boot(Duration::from_secs(9_900));
        assert_eq!((seen.fps, seen.measured), (Some(5.0), Some(then)));

        // Older than what was heard live.
        json.apply(&mut source, TOPIC, br#"{"online":false}"#, false, at(10));
        json.apply(&mut source, TOPIC, dated, true, at(20));
        let seen = &source.cameras["hole07"];
        let live = Some((StreamStatus::Offline, at(10).moment));
        assert_eq!(seen.status, live);
    }

    #[test]
    fn an_outage_of_the_connection_is_no_rhythm() {
        let (mut json, mut source) = (program(), CameraSource::default());
        for seconds in [0, 5, 10, 3600, 3605] {
            if seconds == 3600 {
                json.connected(at(3600).moment);
            }
            json.apply(
                &mut source,
                TOPIC,
                br#"{"online":true}"#,
                false,
                at(seconds),
            );
        }
        let every = source.cameras["hole07"].every;
        assert_eq!(every, Some(Duration::from_secs(5)));
    }

    #[test]
    fn what_can_not_be_understood_is_counted() {
        let large = format!(r#"{{"picture":"{}"}}"#, "A".repeat(1_000_000));
        let deep = format!(r#"{{"online":{}"#, "[".repeat(1_000_000));
        for payload in [
            "online",
            "{}",
            "[]",
            "[true]",
            "{",
            "null",
            "\u{0}",
            &large,
            &deep,
            r#"{"online":{}}"#,
            r#"{"stream":{"fps":"nan"}}"#,
            r#"{"stream":{"fps":-5}}"#,
            r#"{"other":1}"#,
        ] {
            let (heard, source) = hear(payload);
            let start = &payload[..payload.len().min(30)];
            assert!(heard.trouble.is_some() && !heard.edge, "{start}");
            assert_eq!((source.malformed, source.cameras.len()), (1, 0), "{start}");
        }
    }

    #[test]
    fn topics_name_cameras() {
        let ok = br#"{"online":true}"#;
        let (mut json, mut source) = (program(), CameraSource::default());
        for name in ["a/b", "", "\u{1b}"] {
            let topic = format!("site/cameras/{name}/status");
            let heard = json.apply(&mut source, &topic, ok, false, at(0));
            assert!(heard.trouble.is_some(), "{topic:?}");
        }
        json.apply(&mut source, "elsewhere", ok, false, at(0));
        assert_eq!((source.malformed, source.cameras.len()), (3, 0));
        for n in 0..10_000 {
            let topic = format!("site/cameras/camera{n}/status");
            json.apply(&mut source, &topic, ok, false, at(0));
        }
        assert_eq!((source.cameras.len(), source.over_limit), (100, 9_900));
    }

    #[test]
    fn bad_settings_are_told() {
        let pointer = |text: &str| Fields {
            state: Some(text.into()),
            ..Fields::default()
        };
        for (topic, fields) in [
            ("cameras/status", pointer("/a")),
            ("cameras/+/+", pointer("/a")),
            ("cameras/+x/status", pointer("/a")),
            ("cameras/+/#", pointer("/a")),
            ("cameras/+/status", pointer("a")),
            ("cameras/+/status", Fields::default()),
        ] {
            assert!(Json::new(topic, &fields, 1).is_err(), "{topic} {fields:?}");
        }
        assert!(Json::new("+", &pointer(""), 1).is_ok());
    }
}
