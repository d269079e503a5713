//! What findings mean together: power behind a card, a driver behind many, a reset that did not cure.

use std::collections::BTreeSet;
use std::time::Duration;

use super::finding::{Advice, Code, Severity, Subject};
use super::findings::{Found, Lasts, Observed};
use super::memory::Restart;
use super::moment::{Moment, Now};
use super::xid::{self, Class};

/// Faults of several cards that lie so close are one.
const AT_ONCE: Duration = Duration::from_secs(60);

/// A fault so soon after a driver was loaded for the first time is more likely the driver's than the cards'.
const NEW_DRIVER: Duration = Duration::from_secs(600);

/// Unclean restarts so long before a card's fault are near it.
const NEAR_RESTART: Duration = Duration::from_secs(24 * 60 * 60);

/// What the findings are held against.
#[derive(Debug, Clone, Copy)]
pub struct Circumstances<'a> {
    /// Restarts of the machine that nobody asked for.
    pub restarts: &'a [Restart],
    /// Cards that drew nearly all the power they may when they were last read, by id, with the evidence.
    pub at_full_power: &'a [(String, String)],
    /// Whether this driver's version is another than the one before it, and since when.
    pub driver_changed: Option<Moment>,
}

/// Betters the advice and the evidence of what was found.
pub fn apply(around: Circumstances<'_>, now: Now, found: &mut Found) {
    many_cards(around, found);
    power(around, now, found);
}

/// Several cards at once, or right after another driver: the driver or the board, not each card.
fn many_cards(around: Circumstances<'_>, found: &mut Found) {
    let dead: Vec<(Moment, &Subject)> = found
        .observed
        .iter()
        .filter(|seen| is_of_dead_card(seen))
        .filter_map(|seen| Some((first(seen)?, &seen.subject)))
        .collect();
    let companions = |at: Moment| {
        let near = dead
            .iter()
            .filter(|(other, _)| distance(*other, at) <= AT_ONCE);
        near.map(|(_, card)| *card).collect::<BTreeSet<_>>().len()
    };
    let new_driver = |at: Moment| {
        around
            .driver_changed
            .is_some_and(|changed| changed <= at && at - changed <= NEW_DRIVER)
    };
    let verdicts: Vec<Option<(Advice, String)>> = found
        .observed
        .iter()
        .map(|seen| {
            let at = first(seen).filter(|_| is_of_dead_card(seen))?;
            let cards = companions(at);
            if new_driver(at) {
                let words = "right after another driver was loaded: suspect the driver";
                Some((Advice::ContactSupport, words.to_owned()))
            } else if cards > 1 {
                let words =
                    format!("{cards} cards within a minute: suspect driver, board or power");
                Some((Advice::Inspect, words))
            } else {
                None
            }
        })
        .collect();
    better(found, verdicts);
}

/// A card that goes near an unclean restart, or while it draws all it may, points at the power supply.
fn power(around: Circumstances<'_>, now: Now, found: &mut Found) {
    let verdicts: Vec<Option<(Advice, String)>> = found
        .observed
        .iter()
        .map(|seen| {
            if !may_be_power(seen) {
                return None;
            }
            let near = around.restarts.iter().filter(|restart| {
                let since = now.wall.duration_since(restart.began);
                restart.panic.is_none() && since.unsigned_abs() <= NEAR_RESTART
            });
            let card = seen.subject.gpu();
            let full = around
                .at_full_power
                .iter()
                .find(|(id, _)| Some(id.as_str()) == card);
            match (near.count(), full) {
                (0, None) => None,
                (0, Some((_, evidence))) => Some((
                    Advice::PowerCycle,
                    format!("{evidence}: suspect the power supply"),
                )),
                (count, _) => Some((
                    Advice::PowerCycle,
                    format!("{count} unclean restart within a day: suspect the power supply"),
                )),
            }
        })
        .collect();
    better(found, verdicts);
}

fn better(found: &mut Found, verdicts: Vec<Option<(Advice, String)>>) {
    for (seen, verdict) in found.observed.iter_mut().zip(verdicts) {
        if let Some((advice, words)) = verdict {
            seen.advice = advice;
            seen.evidence = format!("{} · {words}", seen.evidence);
        }
    }
}

/// Faults that take one card out. Of links between cards several always tell, and 154 says itself what to do.
fn is_of_dead_card(seen: &Observed) -> bool {
    let of_links = |number| {
        let class = xid::look_up(number).class;
        matches!(class, Class::Decode | Class::FollowText)
    };
    let code = if let Code::GpuXid(number) = seen.code {
        !of_links(number)
    } else {
        matches!(seen.code, Code::GpuLost | Code::GpuDriver)
    };
    code && seen.severity == Severity::Failing && seen.subject.gpu().is_some()
}

/// What a supply that sags looks like: 79 and its kin, 62 (the card's own controller halts), 54 (no power plug).
fn may_be_power(seen: &Observed) -> bool {
    let code = matches!(seen.code, Code::GpuXid(54 | 62 | 79) | Code::GpuLost);
    code && seen.severity == Severity::Failing
}

fn first(seen: &Observed) -> Option<Moment> {
    match seen.lasts {
        Lasts::State => None,
        Lasts::Events { first, .. } | Lasts::Held { first, .. } => Some(first),
    }
}

/// How far apart two moments are.
fn distance(one: Moment, other: Moment) -> Duration {
    (one - other).max(other - one)
}
