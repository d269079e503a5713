//! A length of time that began once and ends by itself, over restarts of the agent and of the machine.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::domain::moment::{Moment, Now};

/// From an order to its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Span {
    /// Its end in this boot; `None` until it was looked at in this boot.
    end: Option<Moment>,
    /// Its end by the wall's clock, the only one that goes on over a reboot.
    until: Timestamp,
    /// How long it was at first. No clock that is wrong after a reboot makes it longer.
    length: Duration,
}

impl Span {
    /// Begins now.
    #[must_use]
    pub(super) fn of(length: Duration, now: Now) -> Self {
        Span {
            end: Some(now.moment + length),
            until: now.wall_at(now.moment + length),
            length,
        }
    }

    /// Moments are others from now on.
    pub(super) fn begin_boot(&mut self) {
        self.end = None;
    }

    /// Whether it has ended.
    pub(super) fn is_over(&mut self, now: Now) -> bool {
        let end = *self.end.get_or_insert_with(|| {
            let left = self.until.duration_since(now.wall);
            let left = left.max(SignedDuration::ZERO).unsigned_abs();
            now.moment + left.min(self.length)
        });
        now.moment >= end
    }

    /// When it ends; `None` before it was looked at in this boot.
    #[must_use]
    pub(super) fn end(&self) -> Option<Moment> {
        self.end
    }

    /// The same, for people.
    #[must_use]
    pub(super) fn until(&self) -> Timestamp {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64, wall: i64) -> Now {
        Now {
            moment: Moment::after_boot(Duration::from_secs(second)),
            wall: Timestamp::from_second(wall).unwrap(),
            sure: true,
        }
    }

    #[test]
    fn ends_by_itself_whatever_the_clock_does() {
        let hour = Duration::from_secs(3_600);
        let fresh = Span::of(hour, at(100, 1_000_000));
        // Whether the machine was booted since, the moment, the wall's clock, and whether it is over then.
        for (booted, second, wall, over) in [
            (false, 3_699, 1_003_599, false),
            (false, 3_700, 1_003_600, true),
            // A clock that jumps within a boot changes nothing.
            (false, 200, 9_000_000, false),
            (false, 3_700, 0, true),
            // After a reboot the wall's clock counts.
            (true, 10, 1_003_599, false),
            (true, 10, 1_003_600, true),
            // One that is far behind makes it no longer than it was.
            (true, 10, 0, false),
        ] {
            let mut span = fresh.clone();
            if booted {
                span.begin_boot();
            }
            assert_eq!(
                span.is_over(at(second, wall)),
                over,
                "{booted} {second} {wall}"
            );
        }
        let mut behind = fresh;
        behind.begin_boot();
        assert!(!behind.is_over(at(10, 0)));
        assert!(behind.is_over(at(3_610, 1)), "no longer than it was");
    }
}
