//! The outbox for a person on an 80-column terminal: what waits, then what was lost, then the rest.

use std::collections::BTreeSet;

use bytesize::ByteSize;
use jiff::Timestamp;

use crate::domain::outbox::Fate;
use crate::status::page::Page;
use crate::store::Destination;
use crate::store::inspect::{Gone, Journal, Outboxes};

/// Ranges of an outlet that are shown: lost ones before others, the newest before older ones.
const SHOWN: usize = 8;

const RED: &str = "31";

/// Draws both outlets.
pub(super) fn draw(
    outboxes: &Outboxes,
    journals: &[(Destination, Journal)],
    colour: bool,
) -> String {
    let mut page = Page::new(colour);
    let path = outboxes.path().display();
    page.line(&if outboxes.exist() {
        format!("outbox      {path}")
    } else {
        format!("outbox      none yet: {path}")
    });
    let mut fates = BTreeSet::new();
    for (of, journal) in journals {
        page.line("");
        draw_journal(&mut page, *of, journal);
        fates.extend(journal.gone.iter().map(|gone| gone.fate));
    }
    if fates.contains(&Fate::Unsure) {
        page.line("");
        page.line("unsure: sent, but without Capacity, which may have arrived before");
    }
    page.text()
}

fn draw_journal(page: &mut Page, of: Destination, journal: &Journal) {
    let name = of.name();
    match journal.span {
        None => page.line(&format!("{name:<10}  nothing waits")),
        Some((oldest, newest)) => {
            let records = if journal.pending == 1 {
                "record waits"
            } else {
                "records wait"
            };
            let size = ByteSize::b(journal.bytes);
            page.line(&format!(
                "{name:<10}  {} {records}, {size}",
                journal.pending
            ));
            page.line(&format!("            {}", span(oldest, newest)));
        }
    }
    draw_losses(page, of, journal);
    let shown = pick(&journal.gone);
    if !shown.is_empty() {
        page.line("  numbers             what became of them");
    }
    for gone in &shown {
        draw_range(page, gone);
    }
    let hidden = journal.gone.len() - shown.len();
    if hidden > 0 {
        page.line(&format!("  and {hidden} more: sideline outbox list --json"));
    }
}

fn draw_losses(page: &mut Page, of: Destination, journal: &Journal) {
    let count = |of_interest: &dyn Fn(&Gone) -> bool| -> u64 {
        let gone = journal.gone.iter().filter(|gone| of_interest(gone));
        gone.map(Gone::count).sum()
    };
    let lost = count(&|gone| gone.fate.is_loss());
    if lost == 0 {
        return;
    }
    page.piece("            ");
    let records = if lost == 1 { "record" } else { "records" };
    page.start(RED, &format!("{lost} {records} LOST"));
    let untold = count(&|gone| gone.fate.is_loss() && !gone.announced);
    page.line(match (of, untold) {
        // CloudWatch has no place to tell of it.
        (Destination::CloudWatch, _) => "",
        (Destination::Relay, 0) => ", as its readers were told",
        (Destination::Relay, _) => ", of which its readers will be told",
    });
}

fn draw_range(page: &mut Page, gone: &Gone) {
    let (first, last) = (gone.range.start(), gone.range.end());
    let numbers = if first == last {
        first.to_string()
    } else {
        format!("{first} to {last}")
    };
    page.piece(&format!("  {numbers:<18}  "));
    let fate = gone.fate.name();
    if gone.fate.is_loss() {
        page.start(RED, &format!("{:<12}", format!("LOST {fate}")));
    } else {
        page.piece(&format!("{fate:<12}"));
    }
    let times = gone.times.map(|(since, until)| span(since, until));
    page.line(&format!("  {}", times.unwrap_or_default()));
}

/// The ranges to show, in their order.
fn pick(gone: &[Gone]) -> Vec<&Gone> {
    let mut shown: Vec<&Gone> = gone.iter().collect();
    shown
        .sort_unstable_by_key(|gone| std::cmp::Reverse((gone.fate.is_loss(), *gone.range.start())));
    shown.truncate(SHOWN);
    shown.sort_unstable_by_key(|gone| *gone.range.start());
    shown
}

/// `2026-11-22 19:36:12Z to 23:00:00Z`; the day stands twice only where there are two.
fn span(since: Timestamp, until: Timestamp) -> String {
    let [from, to] = [since, until].map(|at| at.strftime("%Y-%m-%d %H:%M:%SZ").to_string());
    match from.split_once(' ').zip(to.split_once(' ')) {
        _ if from == to => from,
        Some(((day, _), (same, time))) if day == same => format!("{from} to {time}"),
        Some(_) | None => format!("{from} to {to}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn gone(first: u64, last: u64, fate: Fate) -> Gone {
        Gone {
            range: first..=last,
            fate,
            times: Some((at("2026-11-20T10:00:00Z"), at("2026-11-21T10:00:00.5Z"))),
            announced: false,
        }
    }

    #[test]
    fn a_day_stands_twice_only_where_there_are_two() {
        for (since, until, text) in [
            (
                "2026-11-22T19:36:12Z",
                "2026-11-22T19:36:12.9Z",
                "2026-11-22 19:36:12Z",
            ),
            (
                "2026-11-22T19:36:12Z",
                "2026-11-22T23:00:00Z",
                "2026-11-22 19:36:12Z to 23:00:00Z",
            ),
            (
                "2026-11-22T19:36:12Z",
                "2026-11-23T19:36:12Z",
                "2026-11-22 19:36:12Z to 2026-11-23 19:36:12Z",
            ),
        ] {
            assert_eq!(span(at(since), at(until)), text);
        }
    }

    #[test]
    fn what_is_lost_is_shown_before_what_is_newer() {
        let mut all = vec![gone(1, 1, Fate::Full), gone(2, 2, Fate::Expired)];
        all.extend((3..20).map(|number| gone(number, number, Fate::Sent)));
        let shown: Vec<u64> = pick(&all).iter().map(|gone| *gone.range.start()).collect();
        assert_eq!(shown, [1, 2, 14, 15, 16, 17, 18, 19]);
    }

    #[test]
    fn the_widest_range_fits() {
        for fate in Fate::ALL {
            let mut page = Page::new(false);
            draw_range(&mut page, &gone(1_234_567, 1_234_589, fate));
            let text = page.text();
            assert_eq!(text.chars().count(), 81, "{text}");
            assert!(
                text.ends_with("2026-11-20 10:00:00Z to 2026-11-21 10:00:00Z\n"),
                "{text}"
            );
        }
    }
}
