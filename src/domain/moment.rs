//! Time as the judge sees it: `Moment` is time since the agent started, made without a clock.

use std::ops::{Add, Sub};
use std::time::Duration;

use jiff::Timestamp;

/// A point on the monotonic time line that starts with the agent. Only differences mean anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment(Duration);

impl Moment {
    /// The start of the agent.
    pub const START: Moment = Moment(Duration::ZERO);

    /// The moment `elapsed` after the start.
    #[must_use]
    pub const fn after_start(elapsed: Duration) -> Self {
        Moment(elapsed)
    }

    /// How long the agent had been running at this moment.
    #[must_use]
    pub const fn since_start(self) -> Duration {
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
    /// The wall time of an earlier (or later) moment, by the clock of now.
    #[must_use]
    pub fn wall_at(self, moment: Moment) -> Timestamp {
        let shifted = if moment <= self.moment {
            self.wall.checked_sub(self.moment - moment)
        } else {
            self.wall.checked_add(moment - self.moment)
        };
        shifted.unwrap_or(self.wall)
    }
}
