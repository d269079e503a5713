//! `sideline explain`: what a finding code means, who is at fault, what to do, by which source.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;

use super::print;
use crate::domain::explain::{self, Explanation};

/// Shown below the help.
pub const ABOUT: &str = "\
Examples:
  sideline explain gpu.xid.79
  sideline explain gpu.xid       the family
  sideline explain host.disk_io --json
  sideline explain               all codes, a line each

An unknown code exits with 3.";

/// What to explain.
#[derive(Debug, Args)]
pub struct Options {
    /// A finding code, such as gpu.lost or gpu.xid.79; none: all of them, a line each
    code: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// No line is longer, in characters.
const WIDTH: usize = 80;

/// Where the text of a heading begins.
const INDENT: usize = 10;

/// Explains one code or lists all.
///
/// # Errors
/// A code that does not exist; an output that can't be written.
pub fn main(options: &Options) -> anyhow::Result<ExitCode> {
    let text = match (&options.code, options.json) {
        (Some(code), true) => {
            let told = serde_json::to_string_pretty(&explain::explain(code)?)?;
            told + "\n"
        }
        (Some(code), false) => page(&explain::explain(code)?),
        (None, true) => {
            let codes = explain::list().map(|(code, title)| (code.to_owned(), title.into()));
            let codes: serde_json::Map<String, serde_json::Value> = codes.collect();
            serde_json::to_string_pretty(&codes)? + "\n"
        }
        (None, false) => explain::list().fold(String::new(), |mut text, (code, title)| {
            let _ = writeln!(text, "{code:<24} {title}");
            text
        }),
    };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// An explanation for a terminal.
fn page(told: &Explanation) -> String {
    let mut text = format!("{}: {}\n", told.code, told.title);
    if !told.raised {
        text.push_str("This version does not raise it yet.\n");
    }
    text.push('\n');
    let fault: Vec<String> = told.fault.iter().map(ToString::to_string).collect();
    for (heading, said) in [
        ("means", told.meaning.as_str()),
        ("fault", &fault.join(", or ")),
        ("here", &told.severity),
        ("opens", &told.opens),
        ("clears", &told.clears),
        ("do", &told.todo),
    ] {
        if !said.is_empty() {
            paragraph(&mut text, heading, said);
        }
    }
    let mut heading = "others";
    for (who, what) in told.known_others() {
        paragraph(&mut text, heading, &format!("{who}: {what}"));
        heading = "";
    }
    let mut heading = "sources";
    for source in &told.sources {
        paragraph(&mut text, heading, source);
        heading = "";
    }
    text
}

/// Words after a heading, broken into lines. A word that fits nowhere, as an address, stands alone.
fn paragraph(text: &mut String, heading: &str, said: &str) {
    let mut line = format!("{heading:<INDENT$}");
    let mut empty = true;
    for word in said.split_whitespace() {
        if !empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            let _ = writeln!(text, "{line}");
            line = " ".repeat(INDENT);
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    let _ = writeln!(text, "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_is_too_wide_but_an_address() {
        let codes = explain::list().map(|(code, _)| code.replace("<N>", "79"));
        for code in codes.chain((1..=175).map(|number| format!("gpu.xid.{number}"))) {
            let page = page(&explain::explain(&code).unwrap());
            for line in page.lines() {
                let words = line.split_whitespace().count();
                assert!(
                    line.chars().count() <= WIDTH || words <= 2,
                    "{code}: {line}"
                );
            }
        }
    }
}
