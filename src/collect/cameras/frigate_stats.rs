//! Frigate's stats message, every shape of it: up to 0.12 the cameras are top-level keys beside `detectors`,
//! `service` and others, from 0.13 they are under `cameras`.
//!
//! Only names and two numbers a camera are kept. `cpu_usages` holds command lines with the passwords of the
//! cameras: it is skipped while reading.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::intake::Scalar;

/// What one stats message says of the cameras.
#[derive(Debug, PartialEq)]
pub(super) struct Stats<'a> {
    /// Every camera that Frigate is configured for.
    pub(super) cameras: Vec<(Cow<'a, str>, Figures)>,
    /// An entry that is no camera where one should be.
    pub(super) trouble: Option<&'static str>,
}

/// One camera's figures, as they came.
#[derive(Debug, PartialEq)]
pub(super) struct Figures {
    /// Frames a second out of ffmpeg.
    pub(super) fps: Scalar,
    /// Frames a second that it should be; from 0.18.
    pub(super) expected_fps: Scalar,
}

impl<'a> Stats<'a> {
    /// `None`: not a stats message. Any other JSON on the topic must not look like stats without cameras.
    pub(super) fn read(payload: &'a [u8]) -> Option<Stats<'a>> {
        let Message {
            nested,
            flat,
            is_stats,
        } = serde_json::from_slice(payload).ok()?;
        match nested {
            Some(entries) => Some(Stats::nested(entries)),
            None if is_stats || !flat.is_empty() => Some(Stats {
                cameras: flat,
                trouble: None,
            }),
            None => None,
        }
    }

    fn nested(entries: Entries<'a>) -> Stats<'a> {
        let all = entries.0.len();
        let cameras: Vec<_> = entries
            .0
            .into_iter()
            .filter_map(|(name, camera)| Some((name.0, camera.0?.figures())))
            .collect();
        Stats {
            trouble: (cameras.len() < all).then_some("a camera's stats must be an object"),
            cameras,
        }
    }
}

/// The top level of the message.
struct Message<'a> {
    nested: Option<Entries<'a>>,
    flat: Vec<(Cow<'a, str>, Figures)>,
    /// It has a part that every Frigate's stats have.
    is_stats: bool,
}

impl<'de> Deserialize<'de> for Message<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MessageVisitor)
    }
}

struct MessageVisitor;

impl<'de> Visitor<'de> for MessageVisitor {
    type Value = Message<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Frigate's stats")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Message<'de>, A::Error> {
        let mut message = Message {
            nested: None,
            flat: Vec::new(),
            is_stats: false,
        };
        while let Some(Name(key)) = object.next_key()? {
            match &*key {
                "cameras" => message.nested = object.next_value::<IfObject<Entries>>()?.0,
                "detectors" | "service" => {
                    object.next_value::<IgnoredAny>()?;
                    message.is_stats = true;
                }
                "cpu_usages" | "gpu_usages" | "npu_usages" | "processes" | "embeddings"
                | "bandwidth_usages" => {
                    object.next_value::<IgnoredAny>()?;
                }
                _ => {
                    let camera = object.next_value::<IfObject<Camera>>()?.0;
                    if let Some(camera) = camera.filter(|camera| camera.camera_fps.is_some()) {
                        message.flat.push((key, camera.figures()));
                    }
                }
            }
        }
        Ok(message)
    }
}

/// One camera's object; the rest of its keys is skipped.
#[derive(Deserialize)]
struct Camera {
    camera_fps: Option<Scalar>,
    expected_fps: Option<Scalar>,
}

impl Camera {
    fn figures(self) -> Figures {
        Figures {
            fps: self.camera_fps.unwrap_or(Scalar::Null),
            expected_fps: self.expected_fps.unwrap_or(Scalar::Null),
        }
    }
}

/// A key, not copied where it has no escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

/// The object under `cameras`.
struct Entries<'a>(Vec<(Name<'a>, IfObject<Camera>)>);

impl<'de> Deserialize<'de> for Entries<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntriesVisitor;

        impl<'de> Visitor<'de> for EntriesVisitor {
            type Value = Entries<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("cameras by name")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Entries<'de>, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = object.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }

        deserializer.deserialize_map(EntriesVisitor)
    }
}

/// `T` if the value is an object; any other value is skipped and is no error.
struct IfObject<T>(Option<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for IfObject<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct IfObjectVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for IfObjectVisitor<T> {
            type Value = IfObject<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }

            fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
                Ok(IfObject(None))
            }

            fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
                Ok(IfObject(None))
            }

            fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
                Ok(IfObject(None))
            }

            fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
                Ok(IfObject(None))
            }

            fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
                Ok(IfObject(None))
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(IfObject(None))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(IfObject(None))
            }

            fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(object))
                    .map(|value| IfObject(Some(value)))
            }
        }

        deserializer.deserialize_any(IfObjectVisitor(PhantomData))
    }
}

/// One message of every shape: 18 cameras, of which hole07 has no frames.
#[cfg(test)]
pub(super) const SHAPES: [(&str, &[u8]); 5] = [
    (
        "0.8",
        include_bytes!("../../../tests/fixtures/frigate/stats-0.8.json"),
    ),
    (
        "0.12",
        include_bytes!("../../../tests/fixtures/frigate/stats-0.12.json"),
    ),
    (
        "0.13",
        include_bytes!("../../../tests/fixtures/frigate/stats-0.13.json"),
    ),
    (
        "0.17",
        include_bytes!("../../../tests/fixtures/frigate/stats-0.17.json"),
    ),
    (
        "0.18",
        include_bytes!("../../../tests/fixtures/frigate/stats-0.18.json"),
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Option<Vec<(String, Option<f64>)>> {
        let stats = Stats::read(json.as_bytes())?;
        let cameras = stats.cameras.iter();
        Some(
            cameras
                .map(|(name, figures)| (name.to_string(), figures.fps.number()))
                .collect(),
        )
    }

    #[test]
    fn cameras_are_found_in_every_shape() {
        let one = |name: &str, fps| Some(vec![(name.to_owned(), Some(fps))]);
        for (json, expected) in [
            (r#"{"cameras":{"a":{"camera_fps":5}}}"#, one("a", 5.0)),
            // Numbers come as integers, floats and texts; unknown keys of any type are skipped.
            (
                r#"{"a":{"camera_fps":5.1,"pid":null,"x":[{"y":1}]},"service":{}}"#,
                one("a", 5.1),
            ),
            (
                r#"{"a":{"camera_fps":"5.1"},"camera_fps":86.7,"x":[1],"y":"z","z":null,"b":true}"#,
                one("a", 5.1),
            ),
            // Where both are, the nested ones are the cameras.
            (
                r#"{"a":{"camera_fps":1},"cameras":{"b":{"camera_fps":2}}}"#,
                one("b", 2.0),
            ),
            // What is under `cameras` must be an object to count.
            (r#"{"a":{"camera_fps":1},"cameras":[1,2]}"#, one("a", 1.0)),
            // An escaped name.
            (
                r#"{"cameras":{"caf\u00e9":{"camera_fps":5}}}"#,
                one("café", 5.0),
            ),
            // No cameras are configured.
            (r#"{"cameras":{}}"#, Some(vec![])),
            (r#"{"detectors":{},"service":{}}"#, Some(vec![])),
            // Detectors, processes and usages are no cameras, whatever they hold.
            (
                r#"{"detectors":{"camera_fps":1},"processes":{"camera_fps":1},"cpu_usages":{"camera_fps":1}}"#,
                Some(vec![]),
            ),
        ] {
            assert_eq!(read(json), expected, "{json}");
        }
    }

    #[test]
    fn anything_else_is_no_stats_message() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let deep_object = format!(
            r#"{{"service":{}1{}}}"#,
            r#"{"a":"#.repeat(50_000),
            "}".repeat(50_000)
        );
        let unfinished = format!(r#"{{"service":{deep}"#);
        for json in [
            "",
            "null",
            "1",
            "\"online\"",
            "[]",
            "[{\"cameras\":{}}]",
            "{",
            "{}",
            r#"{"a":1}"#,
            r#"{"a":{"b":1}}"#,
            r#"{"cameras":{"a":{"camera_fps":NaN}}}"#,
            r#"{"cameras":{"a":{"camera_fps":1e999}}}"#,
            r#"{"cameras":{}} x"#,
            "\u{0}\u{1}",
            &deep,
            &unfinished,
        ] {
            assert_eq!(read(json), None, "{}", &json[..json.len().min(40)]);
        }
        assert_eq!(Stats::read(b"\xff\xfe{}"), None);
        // Deep but skipped: no harm, no stack.
        assert_eq!(read(&deep_object), Some(vec![]));
    }

    #[test]
    fn an_entry_that_is_no_object_is_told_and_costs_only_itself() {
        let stats = Stats::read(br#"{"cameras":{"a":5,"b":{"camera_fps":5},"c":[5,5]}}"#).unwrap();
        assert_eq!(stats.cameras.len(), 1);
        assert!(stats.trouble.is_some());
    }
}
