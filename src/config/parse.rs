//! Reads a file: syntax, then shape, then what its values have to do with one another; every problem at once.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Found, Lines, Problem, Problems, quote_range};
use super::schema::Schema;
use super::shape::Seen;
use super::{Config, address, check};

/// A file that is right.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Parsed {
    /// What it sets, with the defaults for the rest.
    pub config: Config,
    /// The line, from 1, of each key that it sets, by its path: `host.every`, `cameras.source[0].url`,
    /// `judge.rules."gpu.xid.79"`.
    pub lines: BTreeMap<String, usize>,
}

/// The text of a file.
///
/// # Errors
/// Where it is not UTF-8.
pub fn decode(bytes: &[u8]) -> Result<&str, Problems> {
    std::str::from_utf8(bytes).map_err(|error| {
        let offset = error.valid_up_to();
        let (line, column) = Lines::new(bytes).position(offset);
        let byte = bytes.get(offset).copied().unwrap_or_default();
        Problems::from(Problem {
            line,
            column,
            message: format!("byte {} is 0x{byte:02x}: no UTF-8 text", offset + 1),
        })
    })
}

/// Reads a configuration.
///
/// # Errors
/// Every problem of the text, sorted by position.
pub fn parse(text: &str) -> Result<Parsed, Problems> {
    parse_over(&[], text, |_, _| ())
}

/// Reads a configuration that is laid over the texts `below`, which are right together: tables are merged key by key,
/// lists are replaced. `also` notes what else is wrong with it.
///
/// # Errors
/// Every problem that the text brings in, sorted by position.
pub(super) fn parse_over(
    below: &[&str],
    text: &str,
    also: impl FnOnce(&Config, &mut Seen<'_, '_>),
) -> Result<Parsed, Problems> {
    let lines = Lines::new(text.as_bytes());
    let (mut file, errors) = DeTable::parse_recoverable(text);

    let mut found = Found::default();
    let torn = syntax(text, &lines, &errors, &mut found);
    drop(errors);
    // Who names a wrong parameter hands over anything, such as a password alone: what is no TOML is not quoted.
    if !below.is_empty() && !torn.is_empty() {
        return Err(found.problems(&lines).unwrap_or_default());
    }

    let schema = Schema::new();
    let mut seen = Seen::new(text, &schema, torn, found);
    seen.file(file.get_mut());
    let mut whole = Spanned::new(file.span(), DeTable::new());
    for text in below {
        let (table, _) = DeTable::parse_recoverable(text);
        merge(whole.get_mut(), table.into_inner());
    }
    merge(whole.get_mut(), file.into_inner());

    match read(whole) {
        Ok(config) => {
            check::check(&config, &mut seen);
            also(&config, &mut seen);
            match seen.found.problems(&lines) {
                Some(problems) => Err(problems),
                None => Ok(Parsed {
                    config,
                    lines: seen
                        .places
                        .into_iter()
                        .map(|(path, offset)| (path, lines.position(offset).0))
                        .collect(),
                }),
            }
        }
        // The schema let something pass that the types refuse: it is told in the types' words.
        Err(error) => {
            let offset = error.span().map_or(0, |span| span.start);
            seen.found
                .add(offset, || address::redact(error.message()).into_owned());
            Err(seen.found.problems(&lines).unwrap_or(Problems {
                list: Vec::new(),
                more: 1,
            }))
        }
    }
}

/// Lays one table over another.
fn merge<'t>(below: &mut DeTable<'t>, over: DeTable<'t>) {
    for (key, value) in over {
        match (below.get_mut(&key).map(Spanned::get_mut), value.get_ref()) {
            (Some(DeValue::Table(below)), DeValue::Table(_)) => {
                if let DeValue::Table(over) = value.into_inner() {
                    merge(below, over);
                }
            }
            (Some(_) | None, _) => {
                below.insert(key, value);
            }
        }
    }
}

fn read(file: Spanned<DeTable<'_>>) -> Result<Config, toml::de::Error> {
    Config::deserialize(toml::de::Deserializer::from(file))
}

/// Notes the syntax errors, one a line: the others on it are its echo. Returns the offsets of all.
fn syntax(
    text: &str,
    lines: &Lines<'_>,
    errors: &[toml::de::Error],
    found: &mut Found,
) -> Vec<usize> {
    let mut errors: Vec<_> = errors
        .iter()
        .map(|error| (error.span().unwrap_or_default(), error.message()))
        .collect();
    errors.sort_by_key(|(span, _)| span.start);
    let mut last = 0;
    for (span, message) in &errors {
        let line = lines.line(span.start);
        if line == last {
            continue;
        }
        last = line;
        found.add(span.start, || match *message {
            "duplicate key" => format!("duplicate key \"{}\"", quote_range(text, span.clone())),
            "invalid boolean, expected `true`" | "invalid boolean, expected `false`" => {
                "texts must be quoted, all but true and false".into()
            }
            message => message.replace(", expected literal string", ""),
        });
    }
    errors.into_iter().map(|(span, _)| span.start).collect()
}
