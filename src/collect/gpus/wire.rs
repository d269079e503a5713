//! What the probe and the agent say to each other: a line each, on the probe's standard input and output.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::domain::snapshot::Gpu;

/// No line of the probe is longer; a hundred times what eight cards need.
pub(super) const LONGEST_LINE: usize = 1 << 20;

/// NVML itself lists no more cards.
pub(super) const MOST_CARDS: u32 = 64;

/// The patience of a question that does not say, and the longest that the agent asks for.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// What the probe says, as one line of JSON. Every question is answered by a `Card` for each card that is read, and
/// then one `Reading` or one `Failed`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line {
    /// NVML has started; said once, before the first reading.
    Hello {
        /// The driver's version.
        driver: Option<String>,
        /// The library's version.
        nvml: Option<String>,
    },
    /// A card, as soon as it has been read.
    Card {
        /// Its place in NVML's list: it tells which card it is that can't say its name, and so has no id.
        place: u32,
        /// What it told.
        card: Box<Gpu>,
    },
    /// All cards that were asked for have been read.
    Reading {
        /// How many NVML lists.
        count: u32,
        /// The driver's version.
        driver: Option<String>,
    },
    /// The driver announced an Xid.
    Xid {
        /// The card's UUID; empty where it could not be told.
        gpu: String,
        /// The Xid.
        number: u32,
    },
    /// Where the reading under way is: said before each card; before each call where trouble is near, in the first
    /// reading and about suspected cards; and of a call that takes too long.
    At(At),
    /// There is nothing to read.
    Failed {
        /// What is missing.
        kind: Missing,
        /// In the loader's or NVML's words.
        why: String,
    },
}

/// Where a reading is.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct At {
    /// The card's place in NVML's list; `None` for calls about none.
    pub(super) place: Option<u32>,
    /// The card's UUID, where it is known already.
    pub(super) card: Option<String>,
    /// The call under way; `None` where it is not told.
    pub(super) call: Option<String>,
}

/// What keeps NVML from starting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Missing {
    /// The library's file.
    NoLibrary,
    /// A driver that goes with it.
    Driver,
}

impl Line {
    /// The line with its end.
    pub(super) fn encode(&self) -> serde_json::Result<Vec<u8>> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        Ok(line)
    }

    /// Whether it speaks of no more cards than there can be.
    fn is_sane(&self) -> bool {
        match self {
            Line::Card { place, .. } => *place < MOST_CARDS,
            Line::Reading { count, .. } => *count <= MOST_CARDS,
            Line::At(at) => at.place.is_none_or(|place| place < MOST_CARDS),
            Line::Hello { .. } | Line::Xid { .. } | Line::Failed { .. } => true,
        }
    }

    /// A line without its end.
    ///
    /// # Errors
    /// The beginning of what is no line of the probe.
    pub(super) fn decode(line: &[u8]) -> Result<Self, String> {
        // By way of a value, as records and the memory are read: the same code reads cards everywhere.
        let value = serde_json::from_slice(line).ok();
        let decoded = value.and_then(|value| serde_json::from_value(value).ok());
        decoded.filter(Line::is_sane).ok_or_else(|| {
            let start = line.get(..line.len().min(60)).unwrap_or(line);
            format!("spoke nonsense: {:?}", String::from_utf8_lossy(start))
        })
    }
}

/// The agent's only question: asks for a reading. As a line, `read 2500` or `read 2500 last 1,0` or
/// `read 2500 without 1,0`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Question {
    /// How long the reading may take before the probe says which call holds it up; in the line, milliseconds.
    pub(super) patience: Duration,
    /// Cards at which a reading hung or crashed, by their places in NVML's list.
    pub(super) suspects: Vec<u32>,
    /// Whether they are to be read too, after all others and in this order.
    pub(super) tries_suspects: bool,
}

impl Question {
    /// The line with its end.
    pub(super) fn encode(&self) -> String {
        let places: Vec<String> = self.suspects.iter().map(u32::to_string).collect();
        let manner = match (self.suspects.is_empty(), self.tries_suspects) {
            (true, _) => "",
            (false, true) => " last ",
            (false, false) => " without ",
        };
        let millis = self.patience.as_millis();
        format!("read {millis}{manner}{}\n", places.join(","))
    }

    /// The question in a line; `None` for a line that is none.
    pub(super) fn decode(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        if words.next() != Some("read") {
            return None;
        }
        let patience = match words.next() {
            Some(millis) => Duration::from_millis(millis.parse().ok()?),
            None => PATIENCE,
        };
        let tries_suspects = match words.next() {
            Some("last") | None => true,
            Some("without") => false,
            Some(_) => return None,
        };
        let places = words.next().unwrap_or_default().split(',');
        let suspects = places
            .filter(|place| !place.is_empty())
            .map(|place| place.parse().ok());
        Some(Question {
            patience,
            suspects: suspects.collect::<Option<_>>()?,
            tries_suspects,
        })
    }

    /// The places of `count` cards in the order in which they are to be read.
    pub(super) fn order(&self, count: u32) -> impl Iterator<Item = u32> {
        let suspects = self.suspects.iter().copied();
        let first = (0..count).filter(|place| !self.suspects.contains(place));
        first.chain(suspects.filter(move |place| self.tries_suspects && *place < count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::snapshot::GpuState;

    #[test]
    fn lines_are_what_they_were() {
        let card = Gpu {
            id: "GPU-1".into(),
            state: GpuState::Lost,
            temperature_c: Some(56.0),
            ecc_corrected: Some(u64::MAX - 1),
            problems: vec!["nvmlDeviceGetSerial: \"odd\"\nwords".into()],
            ..Gpu::default()
        };
        for line in [
            Line::Hello {
                driver: Some("550.90.07".into()),
                nvml: None,
            },
            Line::Card {
                place: 1,
                card: Box::new(card),
            },
            Line::Reading {
                count: 2,
                driver: None,
            },
            Line::Xid {
                gpu: "GPU-1".into(),
                number: 79,
            },
            Line::At(At {
                place: Some(1),
                card: Some("GPU-1".into()),
                call: Some("nvmlDeviceGetTemperature".into()),
            }),
            Line::Failed {
                kind: Missing::NoLibrary,
                why: "libnvidia-ml.so.1: cannot open".into(),
            },
        ] {
            let bytes = line.encode().unwrap();
            let (end, text) = bytes.split_last().unwrap();
            assert_eq!(*end, b'\n');
            assert!(!text.contains(&b'\n'), "{line:?} takes one line");
            assert_eq!(Line::decode(text), Ok(line));
        }
    }

    #[test]
    fn lines_look_like_this() {
        for (line, text) in [
            (
                Line::Xid {
                    gpu: "GPU-1".into(),
                    number: 79,
                },
                r#"{"xid":{"gpu":"GPU-1","number":79}}"#,
            ),
            (
                Line::Reading {
                    count: 2,
                    driver: None,
                },
                r#"{"reading":{"count":2,"driver":null}}"#,
            ),
            (
                Line::At(At {
                    call: Some("nvmlInit".into()),
                    ..At::default()
                }),
                r#"{"at":{"place":null,"card":null,"call":"nvmlInit"}}"#,
            ),
            (
                Line::Failed {
                    kind: Missing::Driver,
                    why: "no".into(),
                },
                r#"{"failed":{"kind":"driver","why":"no"}}"#,
            ),
        ] {
            assert_eq!(line.encode().unwrap(), format!("{text}\n").into_bytes());
        }
    }

    #[test]
    fn nonsense_is_told_by_its_beginning() {
        for (line, told) in [
            (&b"Segmentation fault"[..], "Segmentation fault"),
            (b"", ""),
            (b"{\"reading\":{}}", "{\\\"reading\\\":{}}"),
            (b"\xff\xfe", "\u{fffd}\u{fffd}"),
            (
                br#"{"reading":{"count":65,"driver":null}}"#,
                r#"{\"reading\":{\"count\":65,\"driver\":null}}"#,
            ),
        ] {
            let why = Line::decode(line).unwrap_err();
            assert_eq!(why, format!("spoke nonsense: \"{told}\""));
        }
        assert!(Line::decode(&[b'x'; 10_000]).unwrap_err().len() < 100);
    }

    #[test]
    fn a_question_is_a_line() {
        let question = |millis, suspects: &[u32], tries_suspects| Question {
            patience: Duration::from_millis(millis),
            suspects: suspects.to_vec(),
            tries_suspects,
        };
        for (line, asked, order) in [
            ("read 2500\n", question(2500, &[], true), "0 1 2"),
            ("read 9 last 1,0\n", question(9, &[1, 0], true), "2 1 0"),
            ("read 9 last 7\n", question(9, &[7], true), "0 1 2"),
            ("read 9 without 1\n", question(9, &[1], false), "0 2"),
        ] {
            assert_eq!(Question::decode(line), Some(asked.clone()), "{line:?}");
            assert_eq!(asked.encode(), line);
            let places: Vec<String> = asked.order(3).map(|place| place.to_string()).collect();
            assert_eq!(places.join(" "), order, "{line:?}");
        }
        assert_eq!(
            Question::decode("read").map(|asked| asked.patience),
            Some(PATIENCE)
        );
        for line in [
            "",
            "write 5",
            "read soon",
            "read 5 first 1",
            "read 5 last one",
        ] {
            assert_eq!(Question::decode(line), None, "{line:?}");
        }
    }
}
