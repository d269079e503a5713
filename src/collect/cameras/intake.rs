//! What every camera source does alike: which cameras it takes in, how often they speak, what a value is worth.

use std::collections::HashSet;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::domain::moment::Moment;
use crate::domain::snapshot::{CameraSeen, CameraSource, Ingest, is_valid_camera_id};

/// What a message changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Heard {
    /// Worth waking the judge for; the rest it sees at its next look.
    pub edge: bool,
    /// Why the message, or a part of it, could not be understood.
    pub trouble: Option<&'static str>,
}

impl Heard {
    /// Nothing of it could be understood.
    pub(super) fn trouble(why: &'static str) -> Self {
        Heard {
            edge: false,
            trouble: Some(why),
        }
    }

    /// Nothing but perhaps an edge.
    pub(super) fn edge(edge: bool) -> Self {
        Heard {
            edge,
            trouble: None,
        }
    }
}

/// Lets cameras in, up to a number, and counts those that found no room.
#[derive(Debug)]
pub(super) struct Intake {
    max: usize,
    /// Hashes of the names that found no room, so that each counts once.
    refused: HashSet<u64>,
}

impl Intake {
    /// Refused names are told apart up to this number; the count stops there.
    const MAX_REFUSED: usize = 65_536;

    pub(super) fn new(max: usize) -> Self {
        Intake {
            max,
            refused: HashSet::new(),
        }
    }

    /// The camera of this name, taken in if it is new and there is room.
    pub(super) fn admit<'a>(
        &mut self,
        source: &'a mut CameraSource,
        name: &str,
        now: Moment,
        heard: &mut Heard,
    ) -> Option<&'a mut CameraSeen> {
        if !source.cameras.contains_key(name) {
            if !is_valid_camera_id(name) {
                heard.trouble = Some("the camera's name can't be used");
                return None;
            }
            let id = hash(name);
            if source.cameras.len() >= self.max {
                if self.refused.len() < Self::MAX_REFUSED {
                    self.refused.insert(id);
                }
                source.over_limit = self.refused.len() as u64;
                return None;
            }
            if self.refused.remove(&id) {
                source.over_limit = self.refused.len() as u64;
            }
            let first_heard = now;
            let seen = CameraSeen {
                first_heard,
                ..CameraSeen::default()
            };
            source.cameras.insert(name.to_owned(), seen);
            heard.edge = true;
        }
        source.cameras.get_mut(name)
    }
}

fn hash(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

/// The program is there: it says so, or its data comes in. Returns whether that is news.
pub(super) fn is_online(source: &mut CameraSource) -> bool {
    let news = source.ingest != Ingest::Online;
    if news {
        source.ingest = Ingest::Online;
    }
    news
}

/// How often something comes, after another spacing: the longest spacing, remembered for as long as it was long.
///
/// A burst does not shorten it at once. A silence far longer than what was usual is an outage, not a new rhythm:
/// past a minute, one spacing at most doubles it. Nothing is faster than a second.
pub(super) fn learned(usual: Option<Duration>, spacing: Duration) -> Duration {
    const UNDOUBTED: Duration = Duration::from_secs(60);
    const SHORTEST: Duration = Duration::from_secs(1);
    let every = match usual {
        None => spacing,
        Some(usual) if spacing > usual => spacing.min(UNDOUBTED.max(usual * 2)),
        Some(usual) => spacing.max(usual - spacing),
    };
    every.max(SHORTEST)
}

/// A JSON value as far as it may matter; long texts, lists and objects can't.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Scalar {
    Null,
    Bool(bool),
    Number(f64),
    Word(String),
    Other,
}

/// No word or number that matters is longer.
const LONGEST_WORD: usize = 64;

impl Scalar {
    /// A number, also one written as a word; never infinite, never NaN.
    pub(super) fn number(&self) -> Option<f64> {
        match self {
            Scalar::Number(number) => Some(*number),
            Scalar::Word(word) => word.trim().parse().ok(),
            Scalar::Null | Scalar::Bool(_) | Scalar::Other => None,
        }
        .filter(|number: &f64| number.is_finite())
    }

    /// Frames a second: `Ok(None)` for null, an error for what is no rate.
    pub(super) fn rate(&self) -> Result<Option<f64>, &'static str> {
        /// No camera delivers more.
        const FASTEST: f64 = 100_000.0;
        if *self == Scalar::Null {
            return Ok(None);
        }
        match self.number() {
            Some(fps) if (0.0..=FASTEST).contains(&fps) => Ok(Some(fps)),
            Some(_) | None => Err("a frame rate must be a number from 0 up"),
        }
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

/// Takes any value and never fails on its type: one odd value must not cost the whole message.
pub(super) struct ScalarVisitor;

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Scalar, E> {
        Ok(Scalar::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Scalar, E> {
        Ok(Scalar::Number(value as f64))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Scalar, E> {
        Ok(Scalar::Number(value as f64))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Scalar, E> {
        Ok(Scalar::Number(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Scalar, E> {
        Ok(if value.len() <= LONGEST_WORD {
            Scalar::Word(value.to_owned())
        } else {
            Scalar::Other
        })
    }

    fn visit_unit<E>(self) -> Result<Scalar, E> {
        Ok(Scalar::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Scalar, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Scalar, A::Error> {
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rhythm_is_learned() {
        for (spacings, expected) in [
            // Seconds between messages, and what is taken for usual after each.
            (&[60.0, 60.0][..], &[60.0, 60.0][..]),
            // Jitter keeps the longer one for a while.
            (&[60.0, 55.0, 65.0, 60.0], &[60.0, 55.0, 65.0, 60.0]),
            (&[10.0, 60.0, 10.0, 60.0], &[10.0, 60.0, 50.0, 60.0]),
            // The first message of a program may be followed by its second at once.
            (&[2.0, 60.0], &[2.0, 60.0]),
            // An outage is not a rhythm.
            (&[60.0, 3600.0, 60.0], &[60.0, 120.0, 60.0]),
            // A slow rhythm is believed when it goes on.
            (
                &[5.0, 300.0, 300.0, 300.0, 300.0],
                &[5.0, 60.0, 120.0, 240.0, 300.0],
            ),
            // A burst.
            (&[60.0, 0.1, 0.1, 60.0], &[60.0, 59.9, 59.8, 60.0]),
            (&[0.0, 0.0], &[1.0, 1.0]),
        ] {
            let mut usual = None;
            let learned: Vec<f64> = spacings
                .iter()
                .map(|seconds| {
                    let every = learned(usual, Duration::from_secs_f64(*seconds));
                    usual = Some(every);
                    every.as_secs_f64()
                })
                .collect();
            assert_eq!(learned, expected, "after {spacings:?}");
        }
    }

    #[test]
    fn rates_are_numbers_from_zero_up() {
        let rate = |json: &str| serde_json::from_str::<Scalar>(json).unwrap().rate();
        for (json, fps) in [
            ("5", Some(5.0)),
            ("5.1", Some(5.1)),
            ("0", Some(0.0)),
            (r#"" 5.1 ""#, Some(5.1)),
            ("null", None),
        ] {
            assert_eq!(rate(json), Ok(fps), "{json}");
        }
        let long = format!("\"{}\"", "5".repeat(1_000_000));
        for json in [
            "-1",
            "-0.1",
            "1e9",
            r#""nan""#,
            r#""inf""#,
            r#""1e999""#,
            r#""""#,
            r#""fast""#,
            "true",
            "[5]",
            r#"{"a":5}"#,
            &long,
        ] {
            assert!(rate(json).is_err(), "{}", &json[..json.len().min(20)]);
        }
    }

    #[test]
    fn cameras_find_room_once_and_hostile_names_find_none() {
        let mut source = CameraSource::default();
        let mut intake = Intake::new(2);
        let mut heard = Heard::default();
        for _ in 0..3 {
            for name in ["a", "b", "c", "d"] {
                intake.admit(&mut source, name, Moment::BOOT, &mut heard);
            }
        }
        assert_eq!((source.cameras.len(), source.over_limit), (2, 2));
        assert_eq!(heard, Heard::edge(true));
        source.cameras.remove("a");
        assert!(
            intake
                .admit(&mut source, "c", Moment::BOOT, &mut heard)
                .is_some()
        );
        assert_eq!((source.cameras.len(), source.over_limit), (2, 1));

        let long = "x".repeat(129);
        for name in ["", "a/b", "+", "a#", "a\nb", "\u{1b}[31m", "\u{9b}", &long] {
            let mut heard = Heard::default();
            assert!(
                intake
                    .admit(&mut source, name, Moment::BOOT, &mut heard)
                    .is_none()
            );
            assert!(heard.trouble.is_some() && !heard.edge, "{name:?}");
        }
    }
}
