//! Time as the judge sees it: `Moment` is time since the machine started, made without a clock.

use std::ops::{Add, Sub};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A point on the monotonic time line that starts with the machine (`CLOCK_MONOTONIC`), the one that the
/// kernel stamps its log with: moments of one boot stay comparable when the agent restarts.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Moment(Duration);

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
    /// For labelling; corrected for the clock offset seen in AWS's answers.
    pub wall: Timestamp,
}

impl Now {
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
        let shifted = if moment <= self.moment {
            self.wall.checked_sub(self.moment - moment)
        } else {
            self.wall.checked_add(moment - self.moment)
        };
        milliseconds(shifted.unwrap_or(self.wall))
    }
}

/// A label for people and databases: finer than this no two machines agree.
#[must_use]
pub fn milliseconds(wall: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(wall.as_millisecond()).unwrap_or(wall)
}
