//! Picks a few values out of a JSON text by JSON pointers (RFC 6901) while reading it; the rest is never kept, so
//! that a picture in the message costs nothing.

use std::fmt;

use anyhow::ensure;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::intake::{Scalar, ScalarVisitor};

/// A JSON pointer, cut at its slashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pointer(Vec<String>);

impl Pointer {
    /// Reads `/a/b~1c/0`; empty is the whole text.
    pub(super) fn parse(text: &str) -> anyhow::Result<Pointer> {
        ensure!(
            text.is_empty() || text.starts_with('/'),
            "\"{text}\" is no JSON pointer; write /name or /outer/inner"
        );
        let tokens = text.split('/').skip(1);
        Ok(Pointer(
            tokens
                .map(|token| token.replace("~1", "/").replace("~0", "~"))
                .collect(),
        ))
    }
}

/// The values at the pointers, `None` where there is none; `None` altogether if the text is not JSON.
pub(super) fn pick<const N: usize>(
    text: &[u8],
    pointers: &[Option<Pointer>; N],
) -> Option<[Option<Scalar>; N]> {
    let mut found = [const { None }; N];
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let here = Here {
        pointers,
        found: &mut found,
        wanted: [true; N],
        depth: 0,
    };
    here.deserialize(&mut deserializer).ok()?;
    deserializer.end().ok()?;
    Some(found)
}

/// A place in the text, and which pointers lead to it or through it.
struct Here<'a, const N: usize> {
    pointers: &'a [Option<Pointer>; N],
    found: &'a mut [Option<Scalar>; N],
    wanted: [bool; N],
    depth: usize,
}

impl<const N: usize> Here<'_, N> {
    /// The place one step further, `None` if no pointer leads there.
    fn step(&mut self, key: &str) -> Option<Here<'_, N>> {
        let mut wanted = [false; N];
        for (n, pointer) in self.pointers.iter().enumerate() {
            wanted[n] = self.wanted[n]
                && pointer
                    .as_ref()
                    .and_then(|pointer| pointer.0.get(self.depth))
                    .is_some_and(|token| token == key);
        }
        wanted.contains(&true).then_some(Here {
            pointers: self.pointers,
            found: self.found,
            wanted,
            depth: self.depth + 1,
        })
    }

    /// This is the value that some pointers lead to.
    fn keep(&mut self, value: &Scalar) {
        for (n, pointer) in self.pointers.iter().enumerate() {
            let ends_here = pointer.as_ref().is_some_and(|p| p.0.len() == self.depth);
            if self.wanted[n] && ends_here {
                self.found[n] = Some(value.clone());
            }
        }
    }
}

impl<'de, const N: usize> DeserializeSeed<'de> for Here<'_, N> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, const N: usize> Visitor<'de> for Here<'_, N> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E: serde::de::Error>(mut self, value: bool) -> Result<(), E> {
        ScalarVisitor
            .visit_bool(value)
            .map(|value| self.keep(&value))
    }

    fn visit_i64<E: serde::de::Error>(mut self, value: i64) -> Result<(), E> {
        ScalarVisitor
            .visit_i64(value)
            .map(|value| self.keep(&value))
    }

    fn visit_u64<E: serde::de::Error>(mut self, value: u64) -> Result<(), E> {
        ScalarVisitor
            .visit_u64(value)
            .map(|value| self.keep(&value))
    }

    fn visit_f64<E: serde::de::Error>(mut self, value: f64) -> Result<(), E> {
        ScalarVisitor
            .visit_f64(value)
            .map(|value| self.keep(&value))
    }

    fn visit_str<E: serde::de::Error>(mut self, value: &str) -> Result<(), E> {
        ScalarVisitor
            .visit_str(value)
            .map(|value| self.keep(&value))
    }

    fn visit_unit<E: serde::de::Error>(mut self) -> Result<(), E> {
        self.keep(&Scalar::Null);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        self.keep(&Scalar::Other);
        for index in 0_usize.. {
            let more = match self.step(&index.to_string()) {
                Some(place) => list.next_element_seed(place)?.is_some(),
                None => list.next_element::<IgnoredAny>()?.is_some(),
            };
            if !more {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut object: A) -> Result<(), A::Error> {
        self.keep(&Scalar::Other);
        while let Some(key) = object.next_key::<String>()? {
            match self.step(&key) {
                Some(place) => object.next_value_seed(place)?,
                None => {
                    object.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picked(text: &str, pointer: &str) -> Option<Option<Scalar>> {
        let pointers = [Some(Pointer::parse(pointer).unwrap())];
        pick(text.as_bytes(), &pointers).map(|[value]| value)
    }

    #[test]
    fn pointers_lead_to_values() {
        let text = r#"{"a":{"b":5,"c/d":"x","e~f":null},"list":[1,[true,2.5]],"":-1,"a2":7}"#;
        for (pointer, expected) in [
            ("/a/b", Some(Scalar::Number(5.0))),
            ("/a/c~1d", Some(Scalar::Word("x".into()))),
            ("/a/e~0f", Some(Scalar::Null)),
            ("/list/0", Some(Scalar::Number(1.0))),
            ("/list/1/0", Some(Scalar::Bool(true))),
            ("/list/1/1", Some(Scalar::Number(2.5))),
            ("/", Some(Scalar::Number(-1.0))),
            ("/a", Some(Scalar::Other)),
            ("/list", Some(Scalar::Other)),
            ("", Some(Scalar::Other)),
            ("/a/x", None),
            ("/a/b/c", None),
            ("/list/2", None),
            ("/A", None),
        ] {
            assert_eq!(picked(text, pointer), Some(expected), "{pointer}");
        }
        assert_eq!(picked("true", ""), Some(Some(Scalar::Bool(true))));
    }

    #[test]
    fn pointers_may_share_their_way() {
        let pointers = ["/a/x", "/a/y", "/a"].map(|p| Some(Pointer::parse(p).unwrap()));
        let found = pick(br#"{"a":{"x":1,"y":2}}"#, &pointers).unwrap();
        assert_eq!(
            found,
            [
                Some(Scalar::Number(1.0)),
                Some(Scalar::Number(2.0)),
                Some(Scalar::Other)
            ]
        );
    }

    #[test]
    fn what_is_not_json_is_told() {
        let deep = "[".repeat(1_000_000);
        for text in ["", "online", "{", "{}x", "{\"a\":NaN}", "\u{0}", &deep] {
            assert_eq!(picked(text, "/a"), None, "{}", &text[..text.len().min(20)]);
        }
        assert!(Pointer::parse("a/b").is_err());
    }
}
