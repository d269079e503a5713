//! The only clock: machine time → `Moment` and wall time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use crate::domain::moment::{Moment, Now, Verified};

/// Tells the time. Clones share what AWS has confirmed of it.
#[derive(Debug, Clone)]
pub struct Clock {
    started: Instant,
    started_after_boot: Duration,
    verified: Arc<Mutex<Option<Verified>>>,
}

impl Clock {
    /// A clock that reads the kernel's monotonic time once; afterwards tokio's, which tests can pause. `remembered` is
    /// what AWS confirmed to an earlier life of the agent in this boot.
    #[must_use]
    pub fn start(remembered: Option<Verified>) -> Self {
        let monotonic = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let since_boot = Duration::new(
            u64::try_from(monotonic.tv_sec).unwrap_or(0),
            u32::try_from(monotonic.tv_nsec).unwrap_or(0),
        );
        Clock {
            started: Instant::now(),
            started_after_boot: since_boot,
            verified: Arc::new(Mutex::new(remembered)),
        }
    }

    /// The moment of now.
    #[must_use]
    pub fn moment(&self) -> Moment {
        Moment::after_boot(self.started_after_boot + self.started.elapsed())
    }

    /// The timer's instant of a moment, to wait until it.
    #[must_use]
    pub fn instant(&self, moment: Moment) -> Instant {
        self.started + moment.since_boot().saturating_sub(self.started_after_boot)
    }

    /// Both faces of now.
    #[must_use]
    pub fn now(&self) -> Now {
        Now::believing(self.verified(), self.moment(), Timestamp::now())
    }

    /// Takes in the `Date` of an answer that AWS has given just now.
    pub fn verify(&self, date: Timestamp) {
        let mut verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = Verified::by(date, Timestamp::now(), self.moment(), *verified);
        *verified = Some(answer);
    }

    /// What AWS has confirmed last in this boot.
    #[must_use]
    pub fn verified(&self) -> Option<Verified> {
        *self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether AWS has confirmed the time in this boot.
    #[must_use]
    pub fn is_verified(&self) -> bool {
        self.verified().is_some()
    }

    /// How far the true time is ahead of this machine's clock now: zero where the two agree, `None` where AWS has
    /// confirmed nothing in this boot.
    #[must_use]
    pub fn offset(&self) -> Option<SignedDuration> {
        let verified = self.verified()?;
        Some(verified.ahead_of(Timestamp::now(), self.moment()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_shared_and_outlives_the_agent() {
        let clock = Clock::start(None);
        assert_eq!(
            (clock.offset(), clock.is_verified(), clock.now().sure),
            (None, false, false)
        );
        clock.clone().verify(Timestamp::now());
        assert_eq!(clock.offset(), Some(SignedDuration::ZERO));
        assert!(clock.is_verified() && clock.now().sure);

        let tomorrow = Timestamp::now() + Duration::from_secs(86_400);
        clock.clone().verify(tomorrow);
        let next_life = Clock::start(clock.verified());
        for clock in [clock, next_life] {
            let off = tomorrow.duration_since(clock.now().wall).abs();
            assert!(off < SignedDuration::from_mins(1), "{off}");
            let ahead = clock.offset().unwrap_or_default();
            assert!(ahead > SignedDuration::from_hours(23), "{ahead}");
        }
    }
}
