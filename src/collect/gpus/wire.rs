//! What the probe and the agent say to each other: a line each, on the probe's standard input and output.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::domain::snapshot::Gpu;

/// No line of the probe is longer; a hundred times what eight cards need.
pub(super) const LONGEST_LINE: usize = 1 << 20;

/// How long a reading may take before the probe says which call holds it up, where the agent doesn't ask for less.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// What the probe says, as one line of JSON. Every question is answered by one `Reading` or one `Failed`.
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
    /// The cards, in NVML's order.
    Reading {
        /// What NVML lists. A card that can't be named has no id: its place in the list tells which it was.
        cards: Vec<Gpu>,
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
    /// The reading under way waits for this call.
    Stuck(String),
    /// There is nothing to read.
    Failed {
        /// What is missing.
        kind: Missing,
        /// In the loader's or NVML's words.
        why: String,
    },
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

    /// A line without its end.
    ///
    /// # Errors
    /// The beginning of what is no line of the probe.
    pub(super) fn decode(line: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(line).map_err(|_| {
            let start = line.get(..line.len().min(60)).unwrap_or(line);
            format!("spoke nonsense: {:?}", String::from_utf8_lossy(start))
        })
    }
}

/// The agent's only question, as a line: `read 2500` asks for a reading, and for the name of the call
/// that holds it up after 2500 ms.
pub(super) fn question(patience: Duration) -> String {
    format!("read {}\n", patience.as_millis())
}

/// The patience of a question; `None` for a line that is none.
pub(super) fn patience(question: &str) -> Option<Duration> {
    let rest = question.trim().strip_prefix("read")?;
    if rest.is_empty() {
        return Some(PATIENCE);
    }
    rest.trim().parse().ok().map(Duration::from_millis)
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
            Line::Reading {
                cards: vec![card, Gpu::default()],
                driver: None,
            },
            Line::Reading {
                cards: vec![],
                driver: None,
            },
            Line::Xid {
                gpu: "GPU-1".into(),
                number: 79,
            },
            Line::Stuck("nvmlDeviceGetTemperature".into()),
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
            (Line::Stuck("nvmlInit".into()), r#"{"stuck":"nvmlInit"}"#),
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
        ] {
            let why = Line::decode(line).unwrap_err();
            assert_eq!(why, format!("spoke nonsense: \"{told}\""));
        }
        assert!(Line::decode(&[b'x'; 10_000]).unwrap_err().len() < 100);
    }

    #[test]
    fn a_question_carries_its_patience() {
        let millis = |millis| Some(Duration::from_millis(millis));
        for (line, expected) in [
            (&question(Duration::from_millis(2500)), millis(2500)),
            (&"read".to_owned(), Some(PATIENCE)),
            (&"read\n".to_owned(), Some(PATIENCE)),
            (&"read soon".to_owned(), None),
            (&"write 5".to_owned(), None),
            (&String::new(), None),
        ] {
            assert_eq!(patience(line), expected, "{line:?}");
        }
    }
}
