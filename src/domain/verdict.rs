//! Findings → verdict: worse at once, better only after a while; unknown is never healthy.

use std::time::Duration;

use jiff::Timestamp;

use super::finding::{Code, Finding, Severity};
use super::moment::{Moment, Now};
use super::report::{State, VerdictReport};

/// The verdict and what its hysteresis remembers.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    state: State,
    since: Option<Timestamp>,
    reasons: Vec<Code>,
    better_since: Option<Moment>,
}

impl Verdict {
    /// Weighs the open findings. `known` is false while a source is unheard or its last word is too old.
    pub fn weigh<'a>(
        &mut self,
        open: impl Iterator<Item = &'a Finding>,
        known: bool,
        recover_after: Duration,
        now: Now,
    ) -> State {
        let mut worst = Severity::Info;
        let mut reasons = Vec::new();
        for finding in open {
            if finding.severity > worst {
                worst = finding.severity;
                reasons.clear();
            }
            if finding.severity == worst
                && worst != Severity::Info
                && !reasons.contains(&finding.code)
            {
                reasons.push(finding.code);
            }
        }
        let seen = match worst {
            Severity::Failing => State::Failing,
            Severity::Info | Severity::Degraded if !known => State::Unknown,
            Severity::Degraded => State::Degraded,
            Severity::Info => State::Healthy,
        };
        if is_better(seen, self.state) {
            let better_since = *self.better_since.get_or_insert(now.moment);
            if now.moment - better_since < recover_after {
                return self.state;
            }
        }
        self.better_since = None;
        if seen != self.state || self.since.is_none() {
            self.since = Some(now.wall);
        }
        self.state = seen;
        self.reasons = reasons;
        seen
    }

    /// When it will be better though nothing new is seen.
    #[must_use]
    pub fn due(&self, recover_after: Duration) -> Option<Moment> {
        self.better_since.map(|since| since + recover_after)
    }

    /// The state in force.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// The verdict for the report.
    #[must_use]
    pub fn report(&self, now: Now) -> VerdictReport {
        VerdictReport {
            state: self.state,
            since: self.since.unwrap_or(now.wall),
            reasons: self.reasons.clone(),
        }
    }
}

/// Whether going from `was` to `seen` is a recovery, which has to prove itself. Not knowing is no recovery
/// from degraded, but it is one from failing: silence must not hide a proven fault.
fn is_better(seen: State, was: State) -> bool {
    match was {
        State::Failing => seen != State::Failing,
        State::Degraded => seen == State::Healthy,
        State::Healthy | State::Unknown => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::finding::Subject;

    fn finding(severity: Severity) -> Finding {
        Finding::seen_once(Code::GpuHot, Subject::Host, severity)
    }

    /// A character a second. Seen: `?` not known, `.` nothing, `i` info, `d` degraded, `f` failing.
    fn check(recover_after: u64, seen: &str, expected: &str) {
        let mut verdict = Verdict::default();
        let shown: String = seen
            .chars()
            .zip(0..)
            .map(|(mark, second)| {
                let findings: Vec<Finding> = match mark {
                    'i' => vec![finding(Severity::Info)],
                    'd' => vec![finding(Severity::Degraded)],
                    'f' => vec![finding(Severity::Info), finding(Severity::Failing)],
                    _ => vec![],
                };
                let now = Now {
                    moment: Moment::after_boot(Duration::from_secs(second)),
                    wall: Timestamp::UNIX_EPOCH,
                    sure: true,
                };
                match verdict.weigh(
                    findings.iter(),
                    mark != '?',
                    Duration::from_secs(recover_after),
                    now,
                ) {
                    State::Healthy => 'H',
                    State::Degraded => 'D',
                    State::Failing => 'F',
                    State::Unknown => '?',
                }
            })
            .collect();
        assert_eq!(
            shown, expected,
            "recover after {recover_after}, seen {seen}"
        );
    }

    #[test]
    fn worse_at_once_better_after_a_while() {
        check(3, "???...d..dd....", "???HHHDDDDDDDDH");
        check(3, "..f.....", "HHFFFFHH");
        check(3, "f..f....", "FFFFFFFH");
        check(3, "fdddd", "FFFFD");
        check(0, "f.d.", "FHDH");
    }

    #[test]
    fn not_knowing_is_never_healthy_and_never_hides_a_fault() {
        check(3, "?.?d?", "?H?D?");
        check(3, "f??????", "FFFF???");
        check(3, "i", "H");
    }
}
