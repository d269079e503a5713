//! A large kernel log → the few lines of it that could be an event, at the speed of a search for words.

use std::sync::LazyLock;

use aho_corasick::Span;
use aho_corasick::packed::{Config, MatchKind, Searcher};
use memchr::{memchr, memchr_iter, memmem, memrchr};

use super::kernel_event::needles;

/// `journalctl -o json` writes a message that is not plain text as numbers, in which no word can be found.
const UNREADABLE: [&str; 2] = [r#""MESSAGE":["#, r#""MESSAGE" : ["#];

/// What else a replay has to see: where a boot begins, and the readings of a recording.
const LANDMARKS: [&str; 2] = ["Linux version ", r#"{"at":"#];

/// Looks for the words of all events at once, 16 bytes or more at a time (aho-corasick's Teddy).
#[derive(Debug)]
pub struct Scanner {
    /// `None` on a processor that can't: every line is looked at then.
    words: Option<Searcher>,
    needles: Vec<&'static str>,
}

impl Scanner {
    /// A scanner for the words in the tables of `kernel_event`.
    #[must_use]
    pub fn new() -> Self {
        let needles = needles();
        let words = Config::new()
            .match_kind(MatchKind::LeftmostFirst)
            .heuristic_pattern_limits(false)
            .builder()
            .extend(needles.iter().chain(&UNREADABLE).chain(&LANDMARKS))
            .build();
        Scanner { words, needles }
    }

    /// The one that all share: it never changes.
    #[must_use]
    pub fn shared() -> &'static Scanner {
        static SHARED: LazyLock<Scanner> = LazyLock::new(Scanner::new);
        &SHARED
    }

    /// The lines of a piece of log, in any recording, that could be an event; without their ends. What it passes over
    /// is none. A piece should begin and end with a line, and be a few hundred KiB: it is still in the processor's cache
    /// then when its lines are counted.
    pub fn lines<'a>(&'a self, chunk: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let mut from = 0;
        std::iter::from_fn(move || {
            let rest = Span::from(from..chunk.len());
            let found = match &self.words {
                Some(words) => words.find_in(chunk, rest)?.span(),
                None if rest.is_empty() => return None,
                None => Span::from(from..from),
            };
            let start =
                memrchr(b'\n', &chunk[from..found.start]).map_or(from, |end| from + end + 1);
            let end = memchr(b'\n', &chunk[found.end..]).map_or(chunk.len(), |end| found.end + end);
            from = chunk.len().min(end + 1);
            Some(&chunk[start..end])
        })
    }

    /// The words in a line in its order, each once: a line that repeats one is not worth more time.
    pub(super) fn needles_in<'a>(&'a self, text: &'a [u8]) -> impl Iterator<Item = &'static str> {
        let mut seen = 0_u128;
        let mut is_new = move |number: usize| {
            let is_new = seen & (1 << number) == 0;
            seen |= 1 << number;
            is_new
        };
        let found = self.words.iter().flat_map(|words| words.find_iter(text));
        let found = found.map(|found| found.pattern().as_usize());
        let slowly = (0..self.needles.len())
            .filter(|_| self.words.is_none())
            .filter(|number| memmem::find(text, self.needles[*number].as_bytes()).is_some());
        found
            .chain(slowly)
            .filter_map(move |number| self.needles.get(number).copied().filter(|_| is_new(number)))
    }
}

impl Default for Scanner {
    fn default() -> Self {
        Scanner::new()
    }
}

/// How many lines a piece of log has, with one that has no end.
#[must_use]
pub fn count_lines(chunk: &[u8]) -> usize {
    memchr_iter(b'\n', chunk).count() + usize::from(!matches!(chunk.last(), None | Some(b'\n')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yields_the_lines_that_hold_a_word() {
        let xid = "4,1,2,-;NVRM: Xid (PCI:0000:01:00): 79, x";
        for (log, expected) in [
            ("", vec![]),
            ("usb 1-1: new device\n", vec![]),
            (xid, vec![xid]),
            (
                "NVRM: a\nNVRM: b NVRM: c\n\nx\nNVRM: d",
                vec!["NVRM: a", "NVRM: b NVRM: c", "NVRM: d"],
            ),
            ("x\nNVR\nM: y\n", vec![]),
            (
                r#"{"MESSAGE":[78,86,82,77]}"#,
                vec![r#"{"MESSAGE":[78,86,82,77]}"#],
            ),
        ] {
            let lines: Vec<_> = Scanner::shared().lines(log.as_bytes()).collect();
            let expected: Vec<_> = expected.iter().map(|line| line.as_bytes()).collect();
            assert_eq!(lines, expected, "{log}");
        }
    }

    #[test]
    fn counts_lines() {
        for (log, lines) in [("", 0), ("a", 1), ("a\n", 1), ("a\nb", 2), ("\n\n", 2)] {
            assert_eq!(count_lines(log.as_bytes()), lines, "{log:?}");
        }
    }

    #[test]
    fn the_words_are_few_and_none_hides_another() {
        let needles = needles();
        assert!(needles.len() + UNREADABLE.len() <= 48, "{}", needles.len());
        for needle in &needles {
            assert!(
                needle.len() >= 4 && needle.is_ascii() && !needle.contains(['\n', '\\', '"', '\t'])
            );
            let inside = needles
                .iter()
                .filter(|other| other.contains(needle))
                .count();
            assert_eq!(inside, 1, "{needle} is part of another");
        }
    }
}
