//! A page of text for a person on an 80-column terminal.

use std::fmt::Write;

/// Widest line.
pub const WIDTH: usize = 80;

/// Before what explains the line above.
const INDENT: &str = "         ";

/// Lines of one explanation.
const MOST_LINES: usize = 4;

/// What is written so far; no line is wider than the terminal.
#[derive(Debug)]
pub struct Page {
    text: String,
    colour: bool,
}

impl Page {
    /// An empty page; without colour no escape sequence is ever in it.
    #[must_use]
    pub fn new(colour: bool) -> Self {
        Page {
            text: String::new(),
            colour,
        }
    }

    /// All of it.
    #[must_use]
    pub fn text(self) -> String {
        self.text
    }

    /// The rest of a line; cut where the terminal ends.
    pub fn line(&mut self, rest: &str) {
        let begun = self.text.rsplit('\n').next().map_or(0, visible);
        let rest = short(rest.trim_end(), WIDTH.saturating_sub(begun));
        self.text.push_str(&rest);
        self.text.push('\n');
    }

    /// Indented, broken between words, at most four lines.
    pub fn wrapped(&mut self, text: &str) {
        let mut lines = vec![String::new()];
        for word in text.split_whitespace() {
            let current = lines.last_mut().expect("starts with one");
            let width = INDENT.len() + current.chars().count() + 1 + word.chars().count();
            if current.is_empty() || width <= WIDTH {
                current.push_str(if current.is_empty() { "" } else { " " });
                current.push_str(word);
            } else {
                lines.push(word.to_owned());
            }
        }
        for line in lines.iter().take(MOST_LINES) {
            self.line(&format!("{INDENT}{line}"));
        }
    }

    /// A piece of a line, as it is.
    pub fn piece(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// A piece of a line in bold and in an ANSI colour.
    pub fn start(&mut self, paint: &str, text: &str) {
        // Writing to a string can't fail.
        let _ = if self.colour {
            write!(self.text, "\x1b[1;{paint}m{text}\x1b[0m")
        } else {
            write!(self.text, "{text}")
        };
    }
}

/// Characters of a begun line that the terminal shows.
pub(super) fn visible(line: &str) -> usize {
    let mut inside = false;
    let shown = line.chars().filter(|character| {
        let escape = *character == '\x1b';
        let end = inside && *character == 'm';
        let show = !inside && !escape;
        inside = (inside || escape) && !end;
        show
    });
    shown.count()
}

/// A text in at most so many characters, none of which moves the cursor.
#[must_use]
pub fn short(text: &str, width: usize) -> String {
    // Whatever a camera, a kernel line or a broker said must not move the cursor.
    let clean: String = text
        .chars()
        .map(|c| if c.is_control() { '·' } else { c })
        .collect();
    if clean.chars().count() <= width {
        return clean;
    }
    let cut: String = clean.chars().take(width.saturating_sub(1)).collect();
    cut + "…"
}
