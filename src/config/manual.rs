//! The sample and the JSON schema, made from the types: their doc comments are the manual.

use std::fmt::Write as _;

use serde_json::Value;

use super::Config;
use super::problem::join;
use super::schema::{self, Schema, Shape};

/// Comments are broken at this column.
const WIDTH: usize = 110;

const HEAD: &str = "\
# The configuration of sideline: every key, its meaning and its default.
#
# A line that starts with # and a key shows the default: take the # away and change the value.
# Lines that start with #| are examples. Durations are written 10s, 2m, 1h30m, 14d.
#
# This file is made by `sideline config defaults`; `sideline config check FILE` checks yours.
";

/// What a table of the user's own entries looks like, by its path.
pub(super) const EXAMPLES: [(&str, &str); 4] = [
    (
        "check",
        "\
[[check]]
name = \"load\"
command = [\"/usr/lib/nagios/plugins/check_load\", \"-w\", \"20,15,10\", \"-c\", \"40,30,20\"]
every = \"1m\"
timeout = \"10s\"
user = \"nobody\"
",
    ),
    (
        "cameras.source",
        "\
[[cameras.source]]
kind = \"frigate\"
url = \"mqtt://127.0.0.1:1883\"
prefix = \"frigate\"

[[cameras.source]]
kind = \"mqtt\"
url = \"mqtt://127.0.0.1:1883\"
topic = \"cameras/+/status\"
fields = { state = \"/online\", fps = \"/stream/fps\", last_frame = \"/last_frame_at\" }
",
    ),
    (
        "cameras.expect",
        "\
[cameras.expect]
hole07 = { fps = 25 }
hole08 = {}
",
    ),
    (
        "judge.rules",
        "\
[judge.rules]
\"gpu.xid.79\" = \"failing\"
\"host.disk_*\" = \"off\"
",
    ),
];

/// A value of a key that has no default.
pub(super) const VALUES: [(&str, &str); 3] = [
    ("node.id", "\"camera-server-1\""),
    ("node.slots", "18"),
    ("judge.gpu_celsius", "88"),
];

/// The sample: a file that changes nothing, and tells everything.
#[must_use]
pub fn sample() -> String {
    let schema = Schema::new();
    let defaults = toml::Table::try_from(Config::default()).unwrap_or_default();
    let mut text = HEAD.to_owned();
    for (section, node) in keys(&schema, schema.root()) {
        if matches!(schema.shape(node), Shape::List(_)) {
            entries(&mut text, &schema, section, node);
            continue;
        }
        text.push('\n');
        comment(&mut text, "# ", description(schema.follow(node)));
        let _ = writeln!(text, "[{section}]");
        let (tables, own): (Vec<_>, Vec<_>) =
            keys(&schema, node).partition(|(_, node)| schema.is_section(node));
        for (at, (key, node)) in own.into_iter().enumerate() {
            if at > 0 {
                text.push('\n');
            }
            comment(&mut text, "# ", description(node));
            let path = join(section, key);
            if let Some(value) = defaults[section].get(key) {
                let _ = writeln!(text, "#{key} = {value}");
            } else if let Some((_, value)) = VALUES.iter().find(|(known, _)| *known == path) {
                let _ = writeln!(text, "#| {key} = {value}");
            }
        }
        for (key, node) in tables {
            entries(&mut text, &schema, &join(section, key), node);
        }
    }
    text
}

/// The JSON schema, for editors.
#[must_use]
pub fn schema() -> &'static str {
    schema::FILE
}

/// The user's own tables at a path: what they are, what their keys are, and an example.
fn entries(text: &mut String, schema: &Schema, path: &str, node: &Value) {
    text.push('\n');
    comment(text, "# ", description(node));
    for (key, node) in keys(schema, node) {
        fields(text, schema, key, node);
    }
    for (_, example) in EXAMPLES.iter().filter(|(known, _)| *known == path) {
        for line in example.lines() {
            let _ = writeln!(text, "{}", format!("#| {line}").trim_end());
        }
    }
}

/// The keys of the user's own tables, a comment each.
fn fields(text: &mut String, schema: &Schema, path: &str, node: &Value) {
    comment(text, "#   ", &format!("{path}: {}", description(node)));
    if let Shape::Table { keys, .. } = schema.shape(node) {
        for (key, node) in keys {
            fields(text, schema, &join(path, key), node);
        }
    }
}

pub(super) fn keys<'s>(
    schema: &'s Schema,
    node: &'s Value,
) -> impl DoubleEndedIterator<Item = (&'s String, &'s Value)> {
    schema.table(node).into_iter().flatten()
}

pub(super) fn description(node: &Value) -> &str {
    node["description"].as_str().unwrap_or_default()
}

/// A text as comment lines, broken between words.
fn comment(text: &mut String, start: &str, words: &str) {
    let mut line = start.to_owned();
    for word in words.split_whitespace() {
        if line.len() + 1 + word.len() > WIDTH {
            let _ = writeln!(text, "{}", line.trim_end());
            // What goes on stands further in, where every entry has a line of its own.
            line = start.to_owned() + if start.len() > 2 { "  " } else { "" };
        }
        if !line.ends_with(' ') {
            line.push(' ');
        }
        line.push_str(word);
    }
    let _ = writeln!(text, "{}", line.trim_end());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    #[test]
    fn the_files_in_the_repository_are_fresh() {
        let types = schemars::schema_for!(Config).to_value();
        assert!(
            schema() == format!("{types:#}\n"),
            "config/sideline.schema.json is stale; refresh it: just generate"
        );
        assert!(
            include_str!("../../config/sideline.toml") == sample(),
            "config/sideline.toml is stale; refresh it: just generate"
        );
    }

    #[test]
    fn the_sample_is_the_defaults_also_with_every_key_uncommented() {
        let sample = sample();
        let active: String = sample
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(key) if key.starts_with(|c: char| c.is_ascii_lowercase()) => key,
                _ => line,
            })
            .flat_map(|line| [line, "\n"])
            .collect();
        assert_ne!(sample, active);
        let before = parse(&sample).unwrap();
        let after = parse(&active).unwrap();
        assert_eq!(before.config, Config::default());
        assert_eq!(after.config, Config::default());
        // Every key that has a default can be uncommented.
        let defaults = toml::Table::try_from(Config::default()).unwrap();
        for (section, keys) in &defaults {
            // A list of tables has no keys by default.
            for key in keys.as_table().into_iter().flat_map(toml::Table::keys) {
                let path = format!("{section}.{key}");
                let example = EXAMPLES.iter().any(|(known, _)| *known == path);
                assert!(example || after.lines.contains_key(&path), "{path}");
            }
        }
    }

    #[test]
    fn the_examples_are_right() {
        let sample = sample();
        let examples = sample.lines().map(|line| match line.strip_prefix("#|") {
            Some(example) => example.trim_start(),
            None => line,
        });
        let text = examples.collect::<Vec<_>>().join("\n");
        let config = parse(&text).unwrap().config;
        assert_eq!(config.cameras.source.len(), 2);
        assert_eq!(config.cameras.expect.len(), 2);
        assert_eq!(config.check.len(), 1);
        assert_eq!(config.judge.rules.len(), 2);
        assert_eq!(config.node.slots, Some(18));
    }
}
