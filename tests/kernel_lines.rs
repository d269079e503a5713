//! Public kernel lines with their sources: what each means, or that it is passed over.

#![expect(
    clippy::print_stdout,
    reason = "the table of what was understood is the point"
)]

use std::collections::BTreeMap;

use jiff::Timestamp;
use sideline::domain::kernel_event::{KernelEvent, event};
use sideline::domain::kernel_line::parse_line;
use sideline::domain::kernel_scan::Scanner;

/// The line, where it is from, and what it means.
const LINES: &str = include_str!("fixtures/kernel_lines.tsv");

const PASSED_OVER: &str = "passed over";

#[test]
fn every_public_line_is_understood_or_passed_over_on_purpose() {
    let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut wrong = Vec::new();
    for row in LINES.lines() {
        let fields: Vec<_> = row.split('\t').collect();
        let [raw, source, expected] = fields[..] else {
            panic!("three columns, not {}: {row}", fields.len());
        };
        let heard = parse_line(raw, now).and_then(|line| event(&line.text));
        let found = Scanner::shared().lines(raw.as_bytes()).next().is_some();
        assert!(found || heard.is_none(), "the scanner passes over {raw}");
        let meaning = heard
            .as_ref()
            .map_or(PASSED_OVER.to_owned(), |heard| heard.event.to_string());
        if meaning != expected {
            wrong.push(format!("{meaning}, not {expected}: {raw}\n  ({source})"));
        }
        println!(
            "{meaning:<28} {}",
            raw.chars().take(120).collect::<String>()
        );
        *counts
            .entry(class(heard.map(|heard| heard.event)))
            .or_default() += 1;
    }
    println!("{counts:#?}");
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    let passed_over = counts[PASSED_OVER];
    let understood = counts.values().sum::<usize>() - passed_over;
    assert_eq!((understood, passed_over), (67, 6));
}

/// What a line is about, whatever it happened to.
fn class(event: Option<KernelEvent>) -> String {
    let Some(event) = event else {
        return PASSED_OVER.to_owned();
    };
    let written = serde_json::to_value(event).expect("an event can be written");
    let name = written.as_str().map(str::to_owned);
    name.or_else(|| written.as_object()?.keys().next().cloned())
        .expect("an event is written by its name")
}
