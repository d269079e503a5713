//! An examination for a person on an 80-column terminal.

use super::Examination;
use super::check::{Check, State, UNUSED};
use crate::status::page::{Page, WIDTH};

/// Where what was seen begins: behind `warn  identity.registration  `.
const SAYS: usize = 29;

/// Where a mend begins, and where it goes on.
const MEND: &str = "      mend: ";
const GOES_ON: &str = "            ";

/// Lines of one check's words.
const MOST_LINES: usize = 12;

/// Between a command and what is to be said of it.
const REMARK: &str = "   # ";

const GREEN: &str = "32";
const YELLOW: &str = "33";
const RED: &str = "31";
const GREY: &str = "90";

/// Draws it: a line a check, the mend below, and at the end what it comes to.
#[must_use]
pub fn draw(examination: &Examination, colour: bool) -> String {
    let mut page = Page::new(colour);
    let mut topic = "";
    for check in &examination.checks {
        let own = check.name.split('.').next().unwrap_or_default();
        let inside = own == "inside" && topic != "inside";
        topic = own;
        if inside {
            page.line("");
        }
        draw_check(&mut page, check);
    }
    page.line("");
    summary(&mut page, examination);
    page.text()
}

fn draw_check(page: &mut Page, check: &Check) {
    let paint = match is_unused(check) {
        true => GREY,
        false => paint(check.state),
    };
    page.start(paint, &format!("{:<4}", check.state.name()));
    let name = format!("  {:<width$}", check.name, width = SAYS - 7);
    let mut lines = wrapped(&check.says, WIDTH - SAYS)
        .into_iter()
        .take(MOST_LINES);
    page.line(&format!("{name} {}", lines.next().unwrap_or_default()));
    for line in lines {
        page.line(&format!("{:SAYS$}{line}", ""));
    }
    if let Some(mend) = &check.mend {
        let mut before = MEND;
        for line in mend.lines() {
            draw_mend(page, line, before);
            before = GOES_ON;
        }
    }
}

/// A command, broken only where a shell goes on reading: it is to be copied. What stands behind `   # ` is for people.
fn draw_mend(page: &mut Page, mend: &str, before: &str) {
    let clean = mend.replace(|letter: char| letter.is_control(), " ");
    let (command, remark) = clean.split_once(REMARK).unwrap_or((&clean, ""));
    let mut line = before.to_owned();
    for piece in pieces(command) {
        let width = line.chars().count() + piece.trim_end().chars().count();
        if WIDTH < width && line.len() > GOES_ON.len() {
            page.piece(&format!("{}\n", line.trim_end()));
            line = GOES_ON.to_owned();
        }
        line.push_str(piece);
    }
    let line = line.trim_end();
    let length = [line, REMARK, remark]
        .iter()
        .map(|part| part.chars().count())
        .sum::<usize>();
    if !remark.is_empty() && length <= WIDTH {
        return page.piece(&format!("{line}{REMARK}{remark}\n"));
    }
    page.piece(&format!("{line}\n"));
    for line in wrapped(remark, WIDTH - GOES_ON.len() - 2) {
        page.line(&format!("{GOES_ON}# {line}"));
    }
}

/// A command in pieces, each but the last with the operator that it ends in.
fn pieces(command: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = command;
    let next = |rest: &str| {
        let ends = ["&& ", "| ", "; "].iter();
        ends.filter_map(|end| Some(rest.find(end)? + end.len()))
            .min()
    };
    while let Some(end) = next(rest) {
        let (piece, after) = rest.split_at(end);
        pieces.push(piece);
        rest = after;
    }
    pieces.push(rest);
    pieces
}

fn summary(page: &mut Page, examination: &Examination) {
    let unused = examination.checks.iter().filter(|check| is_unused(check));
    let unused = unused.count();
    let [ok, warn, fail] =
        [State::Ok, State::Warn, State::Fail].map(|state| examination.count(state));
    let words = match examination.worst {
        State::Ok => "all is well",
        State::Warn => "it works, but will bite",
        State::Fail => "something does not work",
    };
    page.start(paint(examination.worst), words);
    page.line(&format!(
        ": {fail} fail, {warn} warn, {} ok, {unused} not used",
        ok - unused
    ));
}

fn is_unused(check: &Check) -> bool {
    check.says.starts_with(UNUSED)
}

fn paint(state: State) -> &'static str {
    match state {
        State::Ok => GREEN,
        State::Warn => YELLOW,
        State::Fail => RED,
    }
}

/// A text broken between words, and within one that is longer than a line. Its own line breaks stay.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in text.lines() {
        let mut line = String::new();
        for word in paragraph.split_whitespace() {
            let mut word = word;
            loop {
                let begun = line.chars().count();
                let gap = usize::from(begun > 0);
                let length = word.chars().count();
                if begun + gap + length <= width {
                    line.push_str(if gap == 1 { " " } else { "" });
                    line.push_str(word);
                    break;
                }
                if begun == 0 {
                    let cut = word
                        .char_indices()
                        .nth(width)
                        .map_or(word.len(), |(at, _)| at);
                    lines.push(word[..cut].to_owned());
                    word = &word[cut..];
                } else {
                    lines.push(std::mem::take(&mut line));
                }
            }
        }
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::check::Found;

    #[test]
    fn a_mend_breaks_where_a_shell_goes_on() {
        let mut page = Page::new(false);
        let mend = "sudo systemctl restart amazon-ssm-agent && journalctl -u amazon-ssm-agent -n 20 | tail; ls   # and \
                    then look at what it says of its fingerprint, for hardware may have changed\nls -l   # that too";
        draw_mend(&mut page, mend.lines().next().unwrap_or_default(), MEND);
        draw_mend(&mut page, mend.lines().nth(1).unwrap_or_default(), GOES_ON);
        let expected = "      mend: sudo systemctl restart amazon-ssm-agent &&
            journalctl -u amazon-ssm-agent -n 20 | tail; ls
            # and then look at what it says of its fingerprint, for hardware may
            # have changed
            ls -l   # that too\n";
        assert_eq!(page.text(), expected);
    }

    #[test]
    fn a_page_is_80_columns_wide_but_for_the_mends() {
        let long = "a word and another ".repeat(12);
        let checks = vec![
            Found::ok("fine").named("config"),
            Found::unused("no UPS").named("ups"),
            Found::warn(long.clone(), format!("sudo {long}")).named("identity.registration"),
            Found::fail("x".repeat(200), "do\x1b[31m it").named("inside.identity.credentials"),
        ];
        let examination = Examination::of(jiff::Timestamp::UNIX_EPOCH, checks);
        let drawn = draw(&examination, false);
        let wide = drawn.lines().filter(|line| line.chars().count() > WIDTH);
        let wide: Vec<&str> = wide.collect();
        assert!(
            matches!(wide.as_slice(), [one] if one.starts_with(MEND)),
            "{drawn}"
        );
        assert!(drawn.contains("      mend: do [31m it\n"), "{drawn}");
        let last = drawn.lines().last();
        assert_eq!(
            last,
            Some("something does not work: 1 fail, 1 warn, 1 ok, 1 not used")
        );
        assert!(!drawn.contains('\x1b') && draw(&examination, true).contains("\x1b[1;31mfail"));
    }
}
