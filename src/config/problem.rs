//! What is wrong with a file, and where: every problem at once, in the order of the file.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::ops::Range;

/// So many problems are printed; nobody mends more at once.
const SHOWN: usize = 50;
/// So many are kept in words, the others are counted: garbage has half a million.
const KEPT: usize = 200;
/// So much of a key or a value is quoted, in characters.
const QUOTED: usize = 60;

/// One problem of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong, and what would be right.
    pub message: String,
}

/// The problems of a file, sorted by position.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Problems {
    /// The first of them.
    pub list: Vec<Problem>,
    /// How many more there are.
    pub more: usize,
}

impl Problems {
    /// One line a problem, `FILE:LINE:COLUMN: MESSAGE`, at most 50 of them; the last one without a line break.
    #[must_use]
    pub fn lines(&self, file: &str) -> String {
        let mut text = String::new();
        for problem in self.list.iter().take(SHOWN) {
            let Problem {
                line,
                column,
                message,
            } = problem;
            let _ = writeln!(text, "{file}:{line}:{column}: {message}");
        }
        match self.more + self.list.len().saturating_sub(SHOWN) {
            0 => text.truncate(text.trim_end().len()),
            more => {
                let _ = write!(text, "{file}: … and {more} more");
            }
        }
        text
    }

    /// The first of them as in [`Problems::lines`], for where there is room for one, and how many more there are.
    #[must_use]
    pub fn first(&self, file: &str) -> (String, usize) {
        let all = self.list.len() + self.more;
        let Some(Problem {
            line,
            column,
            message,
        }) = self.list.first()
        else {
            return (format!("{file}: {all} problems"), 0);
        };
        (format!("{file}:{line}:{column}: {message}"), all - 1)
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Problems {
            list: vec![problem],
            more: 0,
        }
    }
}

/// Problems while they are being found, by byte offset.
#[derive(Debug, Default)]
pub(super) struct Found {
    list: Vec<(usize, String)>,
    more: usize,
}

impl Found {
    /// Notes a problem; `message` is put into words only if somebody may read it.
    pub(super) fn add(&mut self, offset: usize, message: impl FnOnce() -> String) {
        if self.is_full() {
            self.more += 1;
        } else {
            self.list.push((offset, message()));
        }
    }

    /// Whether more problems are only counted.
    pub(super) fn is_full(&self) -> bool {
        self.list.len() >= KEPT
    }

    /// The problems with their lines and columns, or `None` if there are none.
    pub(super) fn problems(mut self, lines: &Lines<'_>) -> Option<Problems> {
        if self.list.is_empty() {
            return None;
        }
        self.list.sort_by_key(|(offset, _)| *offset);
        let list = self.list.into_iter().map(|(offset, message)| {
            let (line, column) = lines.position(offset);
            Problem {
                line,
                column,
                message,
            }
        });
        Some(Problems {
            list: list.collect(),
            more: self.more,
        })
    }
}

/// Where the lines of a text begin.
pub(super) struct Lines<'t> {
    text: &'t [u8],
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    pub(super) fn new(text: &'t [u8]) -> Self {
        // A byte order mark is no column.
        let first = if text.starts_with(b"\xEF\xBB\xBF") {
            3
        } else {
            0
        };
        let breaks = text.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
        let starts = std::iter::once(first).chain(breaks.map(|(at, _)| at + 1));
        Lines {
            text,
            starts: starts.collect(),
        }
    }

    /// Line, from 1, of a byte offset.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start <= offset).max(1)
    }

    /// Line and column, both from 1, of a byte offset.
    pub(super) fn position(&self, offset: usize) -> (usize, usize) {
        let line = self.line(offset);
        let before = &self.text[self.starts[line - 1].min(offset)..offset.min(self.text.len())];
        let characters = before.iter().filter(|byte| *byte & 0xC0 != 0x80).count();
        (line, characters + 1)
    }
}

/// A piece of the file as a message quotes it: short, on one line, without escape codes and passwords.
pub(super) fn quote(text: &str) -> String {
    let redacted = super::address::redact(text);
    let mut quoted = String::new();
    for (at, character) in redacted.chars().enumerate() {
        if at == QUOTED {
            quoted.push('…');
            break;
        }
        if character.is_control() {
            let _ = write!(quoted, "{}", character.escape_default());
        } else {
            quoted.push(character);
        }
    }
    quoted
}

/// [`quote`] of a range of the file.
pub(super) fn quote_range(text: &str, range: Range<usize>) -> String {
    quote(text.get(range).unwrap_or_default())
}

/// The path of a key in a table: `host` and `every` are `host.every`; keys that need quotes get them.
pub(super) fn join(path: &str, key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let key: Cow<'_, str> = if !key.is_empty() && key.chars().all(bare) {
        key.into()
    } else {
        in_quotes(key).into()
    };
    if path.is_empty() {
        key.into_owned()
    } else {
        format!("{path}.{key}")
    }
}

/// A key as TOML writes it in quotes.
fn in_quotes(key: &str) -> String {
    let mut quoted = String::from('"');
    for character in key.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            control if control.is_control() => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(control));
            }
            plain => quoted.push(plain),
        }
    }
    quoted.push('"');
    quoted
}

/// `a`, `a or b`, `a, b or c`.
pub(super) fn either<T: AsRef<str>>(words: &[T]) -> String {
    match words {
        [] => String::new(),
        [one] => one.as_ref().to_owned(),
        [first @ .., last] => {
            let first: Vec<_> = first.iter().map(AsRef::as_ref).collect();
            format!("{} or {}", first.join(", "), last.as_ref())
        }
    }
}

/// The known word that was probably meant.
pub fn nearest<'k>(word: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    if word.len() > QUOTED {
        return None;
    }
    let word = word.to_lowercase().replace('-', "_");
    let allowed = (word.chars().count() / 3).max(1);
    known
        .map(|known| (strsim::damerau_levenshtein(&word, known), known))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}
