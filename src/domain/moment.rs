//! Time as the judge sees it: `Moment` is time since the machine started, made without a clock.

use std::ops::{Add, Sub};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// Two clocks agree that differ by no more than this: AWS's `Date` has whole seconds, and answers take time.
pub const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_secs(2);

/// A point on the monotonic time line that starts with the machine (`CLOCK_MONOTONIC`), the one that the
/// kernel stamps its log with: moments of one boot stay comparable when the agent restarts.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(into = "f64", from = "Written")]
pub struct Moment(Duration);

/// How a moment is written: in seconds since the machine started. Memories of the first version have both parts.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Seconds(f64),
    Parts(Duration),
}

impl From<Written> for Moment {
    fn from(written: Written) -> Self {
        Moment(match written {
            Written::Seconds(seconds) => Duration::try_from_secs_f64(seconds).unwrap_or_default(),
            Written::Parts(since_boot) => since_boot,
        })
    }
}

impl From<Moment> for f64 {
    fn from(moment: Moment) -> Self {
        moment.0.as_secs_f64()
    }
}

impl Moment {
    /// The start of the machine.
    pub const BOOT: Moment = Moment(Duration::ZERO);

    /// The moment `elapsed` after the start of the machine.
    #[must_use]
    pub const fn after_boot(elapsed: Duration) -> Self {
        Moment(elapsed)
    }

    /// How long the machine had been running at this moment.
    #[must_use]
    pub const fn since_boot(self) -> Duration {
        self.0
    }
}

impl Add<Duration> for Moment {
    type Output = Moment;

    fn add(self, later: Duration) -> Moment {
        Moment(self.0.saturating_add(later))
    }
}

/// A difference is never negative: asked the wrong way round it is zero.
impl Sub for Moment {
    type Output = Duration;

    fn sub(self, earlier: Moment) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// The two faces of "now": the moment decisions are made with, and the wall time that labels them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// For comparing.
    pub moment: Moment,
    /// For labelling; this machine's clock as long as it agrees with what AWS last said.
    pub wall: Timestamp,
    /// Whether AWS has confirmed `wall` since the machine started. Only then is it fit to call anything too old.
    pub sure: bool,
}

impl Now {
    /// Now, where this machine's clock says `local`: believed as long as it agrees with what AWS last said, so that a
    /// clock that jumps stamps nothing wrong. Before AWS has said anything there is nothing better.
    #[must_use]
    pub fn believing(verified: Option<Verified>, moment: Moment, local: Timestamp) -> Now {
        let ahead = verified.map_or(SignedDuration::ZERO, |verified| {
            verified.ahead_of(local, moment)
        });
        Now {
            moment,
            wall: milliseconds(local.checked_add(ahead).unwrap_or(local)),
            sure: verified.is_some(),
        }
    }

    /// The moment of a wall time, by the clock of now; `None` before the machine started.
    #[must_use]
    pub fn moment_at(self, wall: Timestamp) -> Option<Moment> {
        let ahead = wall.duration_since(self.wall);
        let shift = ahead.unsigned_abs();
        if ahead.is_negative() {
            self.moment.0.checked_sub(shift).map(Moment)
        } else {
            Some(self.moment + shift)
        }
    }

    /// The wall time of an earlier (or later) moment, by the clock of now.
    #[must_use]
    pub fn wall_at(self, moment: Moment) -> Timestamp {
        milliseconds(carried(self.wall, self.moment, moment))
    }
}

/// The true time at a moment of this boot, as AWS confirmed it. Moments stand still while a machine sleeps: after
/// that it takes AWS's next answer to be right again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// When AWS answered.
    pub moment: Moment,
    /// The true time then.
    pub wall: Timestamp,
}

impl Verified {
    /// What an answer with this `date` proves, where this machine's clock says `local`. The header is coarse, so a
    /// finer clock counts that agrees with it: the machine's, else the one that has gone on since the `last` answer.
    #[must_use]
    pub fn by(
        date: Timestamp,
        local: Timestamp,
        moment: Moment,
        last: Option<Verified>,
    ) -> Verified {
        let finer = [Some(local), last.map(|last| last.at(moment))];
        let wall = finer.into_iter().flatten().find(|wall| agree(*wall, date));
        Verified {
            moment,
            wall: wall.unwrap_or(date),
        }
    }

    /// The true time at another moment.
    #[must_use]
    pub fn at(self, moment: Moment) -> Timestamp {
        carried(self.wall, self.moment, moment)
    }

    /// How far the true time is ahead of a clock that says `local` at `moment`; zero where the two agree.
    #[must_use]
    pub fn ahead_of(self, local: Timestamp, moment: Moment) -> SignedDuration {
        let truth = self.at(moment);
        if agree(truth, local) {
            SignedDuration::ZERO
        } else {
            truth.duration_since(local)
        }
    }

    /// Whether both tell the same time, each in its way.
    #[must_use]
    pub fn agrees(self, other: Verified) -> bool {
        agree(self.at(other.moment), other.wall)
    }
}

fn agree(one: Timestamp, other: Timestamp) -> bool {
    one.duration_since(other).abs() <= CLOCK_TOLERANCE
}

/// What a clock says at the moment `to` that said `wall` at the moment `from`.
fn carried(wall: Timestamp, from: Moment, to: Moment) -> Timestamp {
    let carried = if from <= to {
        wall.checked_add(to - from)
    } else {
        wall.checked_sub(from - to)
    };
    carried.unwrap_or(wall)
}

/// A label for people and databases: finer than this no two machines agree.
#[must_use]
pub fn milliseconds(wall: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(wall.as_millisecond()).unwrap_or(wall)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// AWS's last answer came an hour after the start of the machine.
    const ANSWERED: Moment = Moment::after_boot(Duration::from_secs(3600));

    fn wall(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_clock_that_jumps_is_not_believed() {
        let answered = Verified {
            moment: ANSWERED,
            wall: wall("2026-11-22T12:00:00Z"),
        };
        let cases = [
            ("in step", "2026-11-22T12:00:10Z", "2026-11-22T12:00:10Z", 0),
            (
                "1.9 s of drift",
                "2026-11-22T12:00:11.9Z",
                "2026-11-22T12:00:11.9Z",
                0,
            ),
            (
                "as much back",
                "2026-11-22T12:00:08.1Z",
                "2026-11-22T12:00:08.1Z",
                0,
            ),
            (
                "2.1 s of drift",
                "2026-11-22T12:00:12.1Z",
                "2026-11-22T12:00:10Z",
                -2_100,
            ),
            (
                "an hour back",
                "2026-11-22T11:00:10Z",
                "2026-11-22T12:00:10Z",
                3_600_000,
            ),
            (
                "a year ahead",
                "2027-11-22T12:00:10Z",
                "2026-11-22T12:00:10Z",
                -31_536_000_000,
            ),
            (
                "back to 1970",
                "1970-01-01T00:00:10Z",
                "2026-11-22T12:00:10Z",
                1_795_348_800_000,
            ),
        ];
        let moment = ANSWERED + Duration::from_secs(10);
        for (what, local, expected, ahead_ms) in cases {
            let (local, expected) = (wall(local), wall(expected));
            let now = Now::believing(Some(answered), moment, local);
            assert_eq!(
                (now.moment, now.wall, now.sure),
                (moment, expected, true),
                "{what}"
            );
            let ahead = answered.ahead_of(local, moment);
            assert_eq!(ahead, SignedDuration::from_millis(ahead_ms), "{what}");
        }
    }

    #[test]
    fn a_clock_that_was_never_verified_is_all_there_is() {
        for local in [
            "1970-01-01T00:00:10Z",
            "2026-11-22T12:00:00Z",
            "2027-11-22T12:00:00Z",
        ] {
            let now = Now::believing(None, ANSWERED, wall(local));
            assert_eq!((now.wall, now.sure), (wall(local), false), "{local}");
        }
    }

    #[test]
    fn an_answer_proves_the_finest_clock_that_agrees_with_it() {
        let went_on = Some("2026-11-22T12:00:01.25Z");
        for (what, local, last, date, expected) in [
            (
                "the machine's",
                "2026-11-22T12:00:00.7Z",
                None,
                "2026-11-22T12:00:00Z",
                "2026-11-22T12:00:00.7Z",
            ),
            (
                "even beside another",
                "2026-11-22T12:00:00.7Z",
                went_on,
                "2026-11-22T12:00:00Z",
                "2026-11-22T12:00:00.7Z",
            ),
            (
                "even if it is late",
                "2026-11-22T12:00:02Z",
                went_on,
                "2026-11-22T12:00:00Z",
                "2026-11-22T12:00:02Z",
            ),
            (
                "the one that went on",
                "2026-11-22T11:00:00Z",
                went_on,
                "2026-11-22T12:00:00Z",
                "2026-11-22T12:00:01.25Z",
            ),
            (
                "none",
                "2026-11-22T11:00:00Z",
                went_on,
                "2026-11-22T12:00:04Z",
                "2026-11-22T12:00:04Z",
            ),
            (
                "none before NTP",
                "1970-01-01T00:01:00Z",
                None,
                "2026-11-22T12:00:00Z",
                "2026-11-22T12:00:00Z",
            ),
        ] {
            // What went on was confirmed a minute before.
            let moment = ANSWERED + Duration::from_secs(60);
            let last = last.map(|last| Verified {
                moment: ANSWERED,
                wall: wall(last) - Duration::from_secs(60),
            });
            let verified = Verified::by(wall(date), wall(local), moment, last);
            assert_eq!(
                (verified.moment, verified.wall),
                (moment, wall(expected)),
                "{what}"
            );
        }
    }

    #[test]
    fn what_was_confirmed_goes_on_both_ways_and_agrees_with_itself() {
        let noon = Verified {
            moment: ANSWERED,
            wall: wall("2026-11-22T12:00:00Z"),
        };
        for (seconds, there, agrees) in [
            (3600, "2026-11-22T12:00:00Z", true),
            (7200, "2026-11-22T13:00:00Z", true),
            (0, "2026-11-22T11:00:00Z", true),
            (7200, "2026-11-22T13:00:02Z", true),
            (7200, "2026-11-22T13:00:02.1Z", false),
            (7200, "2026-11-22T12:00:00Z", false),
        ] {
            let there = Verified {
                moment: Moment::after_boot(Duration::from_secs(seconds)),
                wall: wall(there),
            };
            assert_eq!(noon.agrees(there), agrees, "{there:?}");
            assert_eq!(there.agrees(noon), agrees, "{there:?}");
        }
    }
}
