//! The types as JSON schema, which is how the parser and the manual read them.

use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value};
use toml::de::DeValue;

use super::problem::either;
use super::units;

/// What the text of a key stands for, where the type alone does not say it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Written {
    /// A duration from here to there.
    Duration(&'static str, &'static str),
    /// A size from here to there.
    Size(&'static str, &'static str),
    /// A period that CloudWatch takes.
    Period,
}

/// The keys that hold durations and sizes, and how long and how large they may be; `[]` is every element of a list.
pub(super) const WRITTEN: [(&str, Written); 18] = [
    ("host.every", Written::Duration("1s", "5m")),
    ("gpu.every", Written::Duration("1s", "5m")),
    ("gpu.deadline", Written::Duration("100ms", "5m")),
    ("ups.every", Written::Duration("1s", "5m")),
    ("check[].every", Written::Duration("1s", "1d")),
    ("check[].timeout", Written::Duration("100ms", "5m")),
    ("cameras.down_after", Written::Duration("1s", "1h")),
    ("judge.recover_after", Written::Duration("0s", "1h")),
    ("judge.forget_after", Written::Duration("1m", "7d")),
    ("judge.gpu_hot_after", Written::Duration("0s", "1h")),
    ("judge.camera_degraded_after", Written::Duration("0s", "1h")),
    ("cloudwatch.period", Written::Period),
    ("outbox.max_bytes", Written::Size("1MiB", "64GiB")),
    ("outbox.max_age", Written::Duration("1m", "14d")),
    ("ssm.every", Written::Duration("1m", "1d")),
    ("failover.hold", Written::Duration("0s", "1h")),
    ("failover.probation", Written::Duration("0s", "7d")),
    ("failover.changes", Written::Duration("0s", "7d")),
];

impl Written {
    /// How the key at a path is written, if specially.
    pub(super) fn at(path: &str) -> Option<Self> {
        let digit = |c: char| c.is_ascii_digit();
        let row = WRITTEN.iter().find(|(key, _)| match key.split_once("[]") {
            None => *key == path,
            Some((list, key)) => path.strip_prefix(list).is_some_and(|rest| {
                let index = rest
                    .strip_suffix(key)
                    .and_then(|rest| rest.strip_prefix('['));
                let index = index.and_then(|rest| rest.strip_suffix(']'));
                index.is_some_and(|index| index.chars().all(digit))
            }),
        });
        row.map(|(_, written)| *written)
    }

    /// Whether the text can be read and is in range.
    pub(super) fn accepts(self, text: &str) -> bool {
        let duration = units::parse_duration;
        let size = |text: &str| text.parse::<bytesize::ByteSize>();
        match self {
            Written::Duration(least, most) => {
                within(duration(text), duration(least), duration(most))
            }
            Written::Size(least, most) => within(size(text), size(least), size(most)),
            Written::Period => duration(text).is_ok_and(|period| {
                let seconds = period.as_secs();
                period == Duration::from_secs(seconds)
                    && (matches!(seconds, 1 | 5 | 10 | 30)
                        || (60..=86_400).contains(&seconds) && seconds.is_multiple_of(60))
            }),
        }
    }
}

fn within<T: PartialOrd, E>(value: Result<T, E>, least: Result<T, E>, most: Result<T, E>) -> bool {
    match (value, least, most) {
        (Ok(value), Ok(least), Ok(most)) => least <= value && value <= most,
        _ => false,
    }
}

/// "must be …".
impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Written::Duration(least, most) => {
                write!(f, "a duration from \"{least}\" to \"{most}\"")
            }
            Written::Size(least, most) => write!(f, "a size from \"{least}\" to \"{most}\""),
            Written::Period => f.write_str(
                "\"1s\", \"5s\", \"10s\", \"30s\" or a multiple of \"60s\" up to \"1d\"",
            ),
        }
    }
}

/// What may stand at a place.
pub(super) enum Shape<'s> {
    /// A table with these keys, of which some must be there.
    Table {
        keys: &'s Map<String, Value>,
        required: Vec<&'s str>,
    },
    /// A table whose keys are the user's.
    Named(&'s Value),
    /// A list.
    List(&'s Value),
    /// A single value.
    Leaf(Leaf<'s>),
}

/// A single value: any of these.
#[derive(Debug, Default)]
pub(super) struct Leaf<'s> {
    /// One of these words.
    pub(super) words: Vec<&'s str>,
    /// Any text.
    text: bool,
    /// true or false.
    switch: bool,
    /// A number in this range.
    number: Option<Range>,
}

/// A range of numbers, both ends in it.
#[derive(Debug, Clone, Copy)]
struct Range {
    whole: bool,
    least: f64,
    most: f64,
}

impl Leaf<'_> {
    /// Whether the value is one of them.
    pub(super) fn accepts(&self, value: &DeValue<'_>) -> bool {
        let within = |number: f64| {
            self.number
                .is_some_and(|range| range.least <= number && number <= range.most)
        };
        match value {
            DeValue::String(text) => self.text || self.words.contains(&text.as_ref()),
            DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix())
                // Far below 2^53, where every range ends, an i64 is exact as f64.
                .is_ok_and(|number| within(number as f64)),
            DeValue::Float(float) => {
                !self.number.is_some_and(|range| range.whole)
                    && float.as_str().parse().is_ok_and(within)
            }
            DeValue::Boolean(_) => self.switch,
            DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => false,
        }
    }

    /// "must be …", to somebody who wrote `instead`.
    pub(super) fn wanted(&self, instead: &DeValue<'_>) -> String {
        let words = self.words.iter().map(|word| format!("\"{word}\""));
        let mut ways: Vec<String> = words.collect();
        if self.text {
            ways.push("a text in quotes".into());
        }
        if self.switch {
            ways.push("true or false".into());
        }
        if let Some(Range { whole, least, most }) = self.number {
            let whole = if whole && matches!(instead, DeValue::Float(_)) {
                "a whole number, "
            } else {
                ""
            };
            ways.push(if most < f64::from(u32::MAX) {
                format!("{whole}{least} to {most}")
            } else {
                format!("a whole number from {least}")
            });
        }
        either(&ways)
    }
}

/// The schema of [`Config`](super::Config), made of the types when a key changes (`just generate`) and not by the
/// program, which would be larger by what makes it. A test holds it against the types.
pub(super) const FILE: &str = include_str!("../../config/sideline.schema.json");

/// The schema, read.
pub(super) struct Schema(Value);

impl Schema {
    pub(super) fn new() -> Self {
        Schema(serde_json::from_str(FILE).expect("the file is fresh, so it is JSON"))
    }

    pub(super) fn root(&self) -> &Value {
        &self.0
    }

    /// What a node of the schema allows.
    pub(super) fn shape<'s>(&'s self, node: &'s Value) -> Shape<'s> {
        let node = self.follow(node);
        if let Some(keys) = node["properties"].as_object() {
            let required = node["required"].as_array().into_iter().flatten();
            return Shape::Table {
                keys,
                required: required.filter_map(Value::as_str).collect(),
            };
        }
        if node["additionalProperties"].is_object() {
            return Shape::Named(&node["additionalProperties"]);
        }
        if node["items"].is_object() {
            return Shape::List(&node["items"]);
        }
        let mut leaf = Leaf::default();
        self.gather(node, &mut leaf);
        Shape::Leaf(leaf)
    }

    /// The table at a node: through references, lists and tables of the user's names.
    pub(super) fn table<'s>(&'s self, node: &'s Value) -> Option<&'s Map<String, Value>> {
        match self.shape(node) {
            Shape::Table { keys, .. } => Some(keys),
            Shape::Named(inner) | Shape::List(inner) => self.table(inner),
            Shape::Leaf(_) => None,
        }
    }

    /// Whether a node is written under headers of its own.
    pub(super) fn is_section(&self, node: &Value) -> bool {
        match self.shape(node) {
            Shape::Table { .. } | Shape::Named(_) => true,
            Shape::List(item) => self.table(item).is_some(),
            Shape::Leaf(_) => false,
        }
    }

    /// The node that a reference names, and what an optional value is when it is there.
    pub(super) fn follow<'s>(&'s self, mut node: &'s Value) -> &'s Value {
        loop {
            if let Some(name) = node["$ref"].as_str() {
                node = self.0.pointer(&name[1..]).unwrap_or(&Value::Null);
            } else if let Some([one, null]) = node["anyOf"].as_array().map(Vec::as_slice)
                && null["type"] == "null"
            {
                node = one;
            } else {
                return node;
            }
        }
    }

    fn gather<'s>(&'s self, node: &'s Value, leaf: &mut Leaf<'s>) {
        for ways in ["oneOf", "anyOf"] {
            for way in node[ways].as_array().into_iter().flatten() {
                self.gather(self.follow(way), leaf);
            }
        }
        if let Some(word) = node["const"].as_str() {
            leaf.words.push(word);
            return;
        }
        for word in node["enum"].as_array().into_iter().flatten() {
            leaf.words.extend(word.as_str());
        }
        let named = |name: &str| {
            node["type"] == name
                || (node["type"].as_array()).is_some_and(|types| types.iter().any(|t| t == name))
        };
        if named("string") && node["enum"].is_null() {
            leaf.text = true;
        }
        if named("boolean") {
            leaf.switch = true;
        }
        if named("integer") || named("number") {
            leaf.number = Some(Range {
                whole: named("integer"),
                least: node["minimum"].as_f64().unwrap_or(f64::MIN),
                // No integer of the configuration is wider.
                most: node["maximum"].as_f64().unwrap_or(u32::MAX.into()),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::Config;

    /// The paths and descriptions of all texts that are read as durations or sizes.
    fn measured(schema: &Schema) -> Vec<(String, String)> {
        // Lists are empty by default: one of each element shows its keys.
        let check = json!({"name": "a", "command": ["/a"]});
        let check = serde_json::from_value(check).unwrap();
        let filled = Config {
            check: vec![check],
            ..Config::default()
        };
        let filled = serde_json::to_value(filled).unwrap();
        let mut found = Vec::new();
        for (section, value) in filled.as_object().unwrap() {
            let (table, list) = match value.get(0) {
                Some(first) => (first, "[]"),
                None => (value, ""),
            };
            for (key, value) in table.as_object().unwrap() {
                let measure = |text: &str| {
                    let digit = text.starts_with(|c: char| c.is_ascii_digit());
                    digit && text.chars().all(|c| c.is_ascii_alphanumeric())
                };
                if value.as_str().is_some_and(measure) {
                    let keys = schema.table(&schema.root()["properties"][section]).unwrap();
                    let text = keys[key]["description"].as_str().unwrap();
                    found.push((format!("{section}{list}.{key}"), text.to_owned()));
                }
            }
        }
        found
    }

    #[test]
    fn every_duration_and_size_has_a_range_that_its_manual_tells() {
        let measured = measured(&Schema::new());
        let keys: Vec<_> = WRITTEN.iter().map(|(key, _)| *key).collect();
        let paths: Vec<_> = measured.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(keys, paths);
        for ((path, manual), (_, written)) in measured.iter().zip(WRITTEN) {
            let wanted = match written {
                Written::Duration(least, most) | Written::Size(least, most) => {
                    format!("{least} to {most}")
                }
                Written::Period => "a multiple of 60s".into(),
            };
            // CloudWatch's own limit, told in the manual without a lower end.
            let wanted = if path == "outbox.max_age" {
                "14d"
            } else {
                &wanted
            };
            assert!(manual.contains(wanted), "{path}: {manual}");
        }
    }

    #[test]
    fn ranges_hold_at_their_ends() {
        for (path, text, wanted) in [
            ("host.every", "1s", true),
            ("host.every", "5m", true),
            ("host.every", "999ms", false),
            ("host.every", "301s", false),
            ("host.every", "10", false),
            ("host.every", "", false),
            ("outbox.max_bytes", "64GiB", true),
            ("outbox.max_bytes", "65GiB", false),
            ("outbox.max_bytes", "much", false),
            ("outbox.max_age", "14d", true),
            ("outbox.max_age", "15d", false),
            ("check[0].every", "1d", true),
            ("check[12].timeout", "99ms", false),
            ("cloudwatch.period", "1s", true),
            ("cloudwatch.period", "30s", true),
            ("cloudwatch.period", "2s", false),
            ("cloudwatch.period", "0s", false),
            ("cloudwatch.period", "90s", false),
            ("cloudwatch.period", "1m", true),
            ("cloudwatch.period", "60s500ms", false),
            ("cloudwatch.period", "1d", true),
            ("cloudwatch.period", "2d", false),
        ] {
            assert_eq!(
                Written::at(path).unwrap().accepts(text),
                wanted,
                "{path} {text}"
            );
        }
    }
}
