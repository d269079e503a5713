//! Xids of one card that mean something else together than each alone.

use std::time::Duration;

use crate::domain::finding::{Advice, Severity};
use crate::domain::moment::Moment;

/// One number of one card, as [`super::judge`] judged it by itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Seen<'a> {
    /// The Xid.
    pub number: u32,
    /// The line that reported it; empty where there is none.
    pub text: &'a str,
    /// When the card last reported it.
    pub last: Moment,
    /// How bad it is by itself.
    pub severity: Severity,
    /// What to do about it by itself.
    pub advice: Advice,
}

/// What becomes of one Xid when another is there.
struct Rule {
    number: u32,
    /// One of these, no further away than `within`, before or after: lines of one fault come in any order.
    with: &'static [u32],
    within: Duration,
    becomes: (Severity, Advice),
}

const FAULT: Duration = Duration::from_secs(10 * 60);
const DETAIL: Duration = Duration::from_secs(60);
const NOTHING_MORE: (Severity, Advice) = (Severity::Info, Advice::None);

/// The first rule that fits counts.
static RULES: [Rule; 5] = [
    // NVIDIA's RMA policy: a row that can't be remapped is a reason to replace the card.
    // https://docs.nvidia.com/deploy/a100-gpu-mem-error-mgmt/index.html
    Rule {
        number: 48,
        with: &[64],
        within: FAULT,
        becomes: (Severity::Failing, Advice::Replace),
    },
    // NVIDIA's catalog: "with 63 or 64: drain and reset". The repair is recorded; a reset makes it.
    Rule {
        number: 48,
        with: &[63],
        within: FAULT,
        becomes: (Severity::Failing, Advice::ResetGpu),
    },
    Rule {
        number: 64,
        with: &[48],
        within: FAULT,
        becomes: (Severity::Failing, Advice::Replace),
    },
    // Where the error was: a detail of the 48, which is judged.
    Rule {
        number: 171,
        with: &[48],
        within: DETAIL,
        becomes: NOTHING_MORE,
    },
    Rule {
        number: 172,
        with: &[48],
        within: DETAIL,
        becomes: NOTHING_MORE,
    },
];

/// What all Xids of one card come to together: one judgement each, in the order given.
#[must_use]
pub fn combine(seen: &[Seen<'_>]) -> Vec<(Severity, Advice)> {
    let judge = |xid: &Seen<'_>| {
        let fits = |rule: &&Rule| {
            rule.number == meant(xid)
                && seen.iter().any(|other| {
                    rule.with.contains(&meant(other)) && apart(xid.last, other.last) <= rule.within
                })
        };
        RULES
            .iter()
            .find(fits)
            .map_or((xid.severity, xid.advice), |rule| rule.becomes)
    };
    seen.iter().map(judge).collect()
}

/// The driver calls it a failure, 64, too when a row is hit that waits to be remapped already; the reset that
/// it asks for will do it, as after a 63 (open-gpu-kernel-modules: ras_events.c).
fn meant(xid: &Seen<'_>) -> u32 {
    match xid.number {
        64 if xid.text.contains("already pending remapping") => 63,
        number => number,
    }
}

fn apart(one: Moment, other: Moment) -> Duration {
    one.max(other) - one.min(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::xid::judge;

    /// Xids and their seconds, and what each is judged as.
    fn check(seen: &[(u32, u64)], expected: &[(Severity, Advice)]) {
        let seen: Vec<Seen<'_>> = seen
            .iter()
            .map(|(number, second)| {
                let (severity, advice) = judge(*number, "");
                Seen {
                    number: *number,
                    text: "",
                    last: Moment::after_boot(Duration::from_secs(*second)),
                    severity,
                    advice,
                }
            })
            .collect();
        assert_eq!(combine(&seen), expected, "{seen:?}");
    }

    #[test]
    fn memory_errors_are_read_together() {
        use Advice::{Inspect, None, Replace, ResetGpu, RestartApp};
        use Severity::{Degraded, Failing, Info};
        check(&[(48, 5)], &[(Failing, ResetGpu)]);
        check(&[(63, 5)], &[(Info, None)]);
        check(&[(48, 5), (63, 6)], &[(Failing, ResetGpu), (Info, None)]);
        check(
            &[(48, 5), (63, 6), (94, 6)],
            &[(Failing, ResetGpu), (Info, None), (Info, RestartApp)],
        );
        check(
            &[(48, 5), (64, 6)],
            &[(Failing, Replace), (Failing, Replace)],
        );
        check(
            &[(48, 5), (63, 6), (64, 7)],
            &[(Failing, Replace), (Info, None), (Failing, Replace)],
        );
        check(
            &[(48, 5), (64, 606)],
            &[(Failing, ResetGpu), (Failing, ResetGpu)],
        );
        check(&[(64, 5)], &[(Failing, ResetGpu)]);
        check(&[(171, 4), (48, 5)], &[(Info, None), (Failing, ResetGpu)]);
        check(
            &[(172, 66), (48, 5)],
            &[(Degraded, Inspect), (Failing, ResetGpu)],
        );
        check(&[], &[]);
    }
    #[test]
    fn a_row_that_waits_already_is_no_failure() {
        let seen = [48, 64].map(|number| Seen {
            number,
            text: "Row Remapper: (0x0) - Attempting to remap a row that is already pending remapping.",
            last: Moment::BOOT,
            severity: Severity::Failing,
            advice: Advice::ResetGpu,
        });
        let expected = (Severity::Failing, Advice::ResetGpu);
        assert_eq!(combine(&seen), [expected, expected]);
    }
}
