//! The man page of the configuration file, made from the schema as the sample is.

use std::fmt::Write as _;

use super::Config;
use super::manual::{EXAMPLES, VALUES, description, keys};
use super::problem::join;
use super::schema::{Schema, Shape};

const HEAD: &str = "\
.SH NAME
sideline.toml \\- configuration of sideline
.SH SYNOPSIS
/etc/sideline/sideline.toml
.SH DESCRIPTION
TOML. Every key may be left out, and so may the file; what stands below is the default where there is one.
Durations are written 10s, 2m, 1h30m, 14d.
.PP
.B sideline config check
.I FILE
tells every problem of a file with its line,
.B sideline config show
what is in force and where each value came from.
.B systemctl reload sideline
makes the agent read it again; a file that is wrong changes nothing.
.SH KEYS
";

const FOOT: &str = "\
.SH SEE ALSO
.BR sideline (1),
.BR sideline\\-config (1)
";

/// The page, `sideline.toml(5)`, as roff.
#[must_use]
pub fn page() -> String {
    let schema = Schema::new();
    let defaults = toml::Table::try_from(Config::default()).unwrap_or_default();
    let version = env!("CARGO_PKG_VERSION");
    let mut text = format!(".TH sideline.toml 5 \"\" \"sideline {version}\" sideline\n{HEAD}");
    for (section, node) in keys(&schema, schema.root()) {
        if matches!(schema.shape(node), Shape::List(_)) {
            section_of_lists(&mut text, &schema, section, node);
            continue;
        }
        let _ = writeln!(text, ".SS [{section}]");
        paragraph(&mut text, description(schema.follow(node)));
        for (key, node) in keys(&schema, node) {
            let path = join(section, key);
            if schema.is_section(node) {
                section_of_lists(&mut text, &schema, &path, node);
                continue;
            }
            let example = VALUES.iter().find(|(known, _)| *known == path);
            let shown = match (defaults[section].get(key), example) {
                (Some(value), _) => format!(" = {value}"),
                (None, Some((_, value))) => format!(" = {value} (an example)"),
                (None, None) => String::new(),
            };
            entry(&mut text, key, &shown, description(node));
        }
    }
    text + FOOT
}

/// The user's own tables at a path: what they are, what their keys are, and an example.
fn section_of_lists(text: &mut String, schema: &Schema, path: &str, node: &serde_json::Value) {
    let list = matches!(schema.shape(node), Shape::List(_));
    let _ = match list {
        true => writeln!(text, ".SS [[{path}]]"),
        false => writeln!(text, ".SS [{path}]"),
    };
    paragraph(text, description(node));
    let mut rows: Vec<(String, &serde_json::Value)> = keys(schema, node)
        .map(|(key, node)| (key.clone(), node))
        .rev()
        .collect();
    while let Some((path, node)) = rows.pop() {
        entry(text, &path, "", description(node));
        if let Shape::Table { keys, .. } = schema.shape(node) {
            rows.extend(
                keys.iter()
                    .rev()
                    .map(|(key, node)| (join(&path, key), node)),
            );
        }
    }
    for (_, example) in EXAMPLES.iter().filter(|(known, _)| *known == path) {
        text.push_str(".PP\n.nf\n");
        for line in example.lines() {
            let _ = writeln!(text, "{}", escaped(line));
        }
        text.push_str(".fi\n");
    }
}

fn entry(text: &mut String, key: &str, value: &str, words: &str) {
    let _ = writeln!(text, ".TP\n\\fB{}\\fR{}", escaped(key), escaped(value));
    let _ = writeln!(text, "{}", escaped(words));
}

fn paragraph(text: &mut String, words: &str) {
    let _ = writeln!(text, ".PP\n{}", escaped(words));
}

/// Text as roff prints it: some letters, and a dot that starts a line, mean something there.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    let mut starts = true;
    for letter in text.chars() {
        match letter {
            '\\' => escaped.push_str("\\e"),
            '-' => escaped.push_str("\\-"),
            '\'' => escaped.push_str("\\(aq"),
            '`' => escaped.push_str("\\(ga"),
            '.' if starts => escaped.push_str("\\&."),
            plain => escaped.push(plain),
        }
        starts = letter == '\n';
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_of_the_sample_has_its_entry() {
        let page = page();
        let defaults = toml::Table::try_from(Config::default()).unwrap();
        for (section, keys) in &defaults {
            assert!(page.contains(&format!("[{section}]")), "{section}");
            for key in keys.as_table().into_iter().flat_map(toml::Table::keys) {
                let shown = page.contains(&format!("\\fB{}\\fR", escaped(key)));
                let own = page.contains(&format!("[{section}.{key}]"));
                assert!(shown || own, "{section}.{key}");
            }
        }
        for (_, example) in EXAMPLES {
            assert!(page.contains(&escaped(example.trim_end())), "{example}");
        }
    }

    #[test]
    fn nothing_of_the_text_is_taken_for_a_request() {
        for (text, wanted) in [
            ("a-b", "a\\-b"),
            (".x", "\\&.x"),
            ("'x`", "\\(aqx\\(ga"),
            ("a\\n", "a\\en"),
            ("a\n.b", "a\n\\&.b"),
        ] {
            assert_eq!(escaped(text), wanted);
        }
    }
}
