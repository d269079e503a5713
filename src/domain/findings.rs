//! From what the rules observe now to findings that open and close: holds, counts and the operator's levels.

use std::collections::BTreeMap;
use std::time::Duration;

use super::finding::{Advice, Code, Finding, Severity, Subject};
use super::moment::{Moment, Now};
use crate::config::{Judge as Thresholds, RuleLevel};

/// What a rule holds to be true at this moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Observed {
    /// What kind of trouble.
    pub code: Code,
    /// With what.
    pub subject: Subject,
    /// How bad.
    pub severity: Severity,
    /// What to do.
    pub advice: Advice,
    /// What was seen.
    pub evidence: String,
    /// Events so far; 1 for a state.
    pub count: u64,
    /// When it began and was last seen, for events; a state began when it was first observed.
    pub span: Option<(Moment, Moment)>,
    /// A state has to last this long before it counts.
    pub raise_after: Duration,
}

impl Observed {
    /// A state that holds now and counts at once.
    pub fn state(
        code: Code,
        subject: Subject,
        severity: Severity,
        advice: Advice,
        evidence: String,
    ) -> Self {
        Observed {
            code,
            subject,
            severity,
            advice,
            evidence,
            count: 1,
            span: None,
            raise_after: Duration::ZERO,
        }
    }

    /// The same, counting only after it has lasted `hold`.
    #[must_use]
    pub fn after(mut self, hold: Duration) -> Self {
        self.raise_after = hold;
        self
    }

    /// The same, as `count` events between two moments.
    #[must_use]
    pub fn events(mut self, count: u64, first: Moment, last: Moment) -> Self {
        self.count = count;
        self.span = Some((first, last));
        self
    }
}

/// What changed with one look.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Opened, or got worse or better while open.
    Opened(Finding),
    /// Closed.
    Closed(Finding),
}

/// The findings that are open, and those that wait for their hold.
#[derive(Debug, Clone, Default)]
pub struct Findings {
    tracks: BTreeMap<(Code, Subject), Track>,
}

#[derive(Debug, Clone)]
struct Track {
    finding: Finding,
    first_observed: Moment,
    last_observed: Moment,
    open: bool,
}

impl Findings {
    /// Takes in everything that the rules observe now and says what changed.
    pub fn update(
        &mut self,
        observed: Vec<Observed>,
        thresholds: &Thresholds,
        now: Now,
    ) -> Vec<Change> {
        let mut changes = Vec::new();
        for mut seen in observed {
            match level(&thresholds.rules, seen.code) {
                Some(RuleLevel::Off) => continue,
                Some(RuleLevel::Degraded) => seen.severity = Severity::Degraded,
                Some(RuleLevel::Failing) => seen.severity = Severity::Failing,
                None => {}
            }
            changes.extend(self.observe(seen, now));
        }
        self.tracks.retain(|_, track| {
            let still_there = track.last_observed == now.moment;
            if !still_there && track.open {
                changes.push(Change::Closed(track.finding.clone()));
            }
            still_there
        });
        changes
    }

    /// The open findings, by code and subject.
    pub fn open(&self) -> impl Iterator<Item = &Finding> {
        self.tracks
            .values()
            .filter(|track| track.open)
            .map(|track| &track.finding)
    }

    fn observe(&mut self, seen: Observed, now: Now) -> Option<Change> {
        let (first, last) = seen.span.unwrap_or((now.moment, now.moment));
        let track = self
            .tracks
            .entry((seen.code, seen.subject.clone()))
            .or_insert_with(|| Track {
                finding: Finding {
                    code: seen.code,
                    subject: seen.subject,
                    severity: seen.severity,
                    since: now.wall_at(first),
                    last_seen: now.wall_at(last),
                    count: seen.count,
                    evidence: String::new(),
                    advice: seen.advice,
                },
                first_observed: now.moment,
                last_observed: now.moment,
                open: false,
            });
        let finding = &mut track.finding;
        let was = finding.severity;
        finding.severity = seen.severity;
        finding.advice = seen.advice;
        finding.evidence = seen.evidence;
        // The wall time of an event must not wander with every look.
        if seen.span.is_none() || seen.count != finding.count {
            finding.last_seen = now.wall_at(last);
        }
        finding.count = seen.count;
        track.last_observed = now.moment;
        let ripe = now.moment - track.first_observed >= seen.raise_after;
        let news = ripe && (!track.open || was != finding.severity);
        track.open |= ripe;
        news.then(|| Change::Opened(finding.clone()))
    }
}

/// The operator's level of a code: its own name first, then the longest family (`gpu.xid.*`, `gpu.*`).
fn level(rules: &BTreeMap<String, RuleLevel>, code: Code) -> Option<RuleLevel> {
    if rules.is_empty() {
        return None;
    }
    let name = code.to_string();
    rules.get(&name).copied().or_else(|| {
        rules
            .iter()
            .filter(|(key, _)| {
                key.strip_suffix('*')
                    .is_some_and(|family| name.starts_with(family))
            })
            .max_by_key(|(key, _)| key.len())
            .map(|(_, level)| *level)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    fn at(seconds: u64) -> Now {
        Now {
            moment: Moment::after_boot(Duration::from_secs(seconds)),
            wall: Timestamp::from_second(1_000_000 + i64::try_from(seconds).unwrap()).unwrap(),
            sure: true,
        }
    }

    fn hot(hold: u64) -> Observed {
        let subject = Subject::Gpu("GPU-1".into());
        Observed::state(
            Code::GpuHot,
            subject,
            Severity::Degraded,
            Advice::Inspect,
            "91 °C".into(),
        )
        .after(Duration::from_secs(hold))
    }

    /// `#` observed, `.` not, a character a second; below, whether the finding is open.
    fn check(hold: u64, seen: &str, open: &str) {
        let (thresholds, mut findings) = (Thresholds::default(), Findings::default());
        let shown: String = seen
            .chars()
            .zip(0..)
            .map(|(mark, second)| {
                let observed = if mark == '#' { vec![hot(hold)] } else { vec![] };
                findings.update(observed, &thresholds, at(second));
                if findings.open().count() == 1 {
                    '!'
                } else {
                    ' '
                }
            })
            .collect();
        assert_eq!(shown, open, "hold {hold}, seen {seen}");
    }

    #[test]
    fn a_state_counts_after_its_hold_and_closes_when_it_ends() {
        check(0, ".##..#.", " !!  ! ");
        check(3, ".####..", "    !  ");
        check(3, "##.####", "      !");
    }

    #[test]
    fn the_operators_level_wins_and_the_longest_family_too() {
        let rules = |pairs: &[(&str, RuleLevel)]| {
            pairs
                .iter()
                .map(|(key, level)| ((*key).to_owned(), *level))
                .collect::<BTreeMap<_, _>>()
        };
        let both = rules(&[
            ("gpu.*", RuleLevel::Off),
            ("gpu.xid.*", RuleLevel::Degraded),
        ]);
        let exact = rules(&[
            ("gpu.xid.*", RuleLevel::Off),
            ("gpu.xid.79", RuleLevel::Failing),
        ]);
        for (rules, code, expected) in [
            (&both, Code::GpuXid(79), Some(RuleLevel::Degraded)),
            (&both, Code::GpuHot, Some(RuleLevel::Off)),
            (&both, Code::HostOom, None),
            (&exact, Code::GpuXid(79), Some(RuleLevel::Failing)),
            (&exact, Code::GpuXid(48), Some(RuleLevel::Off)),
        ] {
            assert_eq!(level(rules, code), expected, "{code}");
        }
    }

    #[test]
    fn an_event_keeps_its_own_times() {
        let (thresholds, mut findings) = (Thresholds::default(), Findings::default());
        let event = |count, last| hot(0).events(count, at(1).moment, at(last).moment);
        findings.update(vec![event(1, 1)], &thresholds, at(5));
        findings.update(vec![event(2, 7)], &thresholds, at(9));
        let finding = findings.open().next().unwrap();
        assert_eq!(
            (finding.since, finding.last_seen, finding.count),
            (at(1).wall, at(7).wall, 2)
        );
    }
}
