//! The only clock: machine time → `Moment` and wall time.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use crate::domain::moment::{Moment, Now, milliseconds};

/// Tells the time. Clones share the clock offset.
#[derive(Debug, Clone)]
pub struct Clock {
    started: Instant,
    started_after_boot: Duration,
    offset_ms: Arc<AtomicI64>,
}

impl Clock {
    /// A clock that reads the kernel's monotonic time once; afterwards tokio's, which tests can pause.
    #[must_use]
    pub fn start() -> Self {
        let monotonic = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let since_boot = Duration::new(
            u64::try_from(monotonic.tv_sec).unwrap_or(0),
            u32::try_from(monotonic.tv_nsec).unwrap_or(0),
        );
        Clock {
            started: Instant::now(),
            started_after_boot: since_boot,
            offset_ms: Arc::default(),
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
        let offset = SignedDuration::from_millis(self.offset_ms.load(Ordering::Relaxed));
        let wall = Timestamp::now();
        Now {
            moment: self.moment(),
            wall: milliseconds(wall.checked_add(offset).unwrap_or(wall)),
        }
    }

    /// How far the true time is ahead of this machine's clock, as AWS's answers show.
    pub fn set_offset(&self, offset: SignedDuration) {
        let millis = i64::try_from(offset.as_millis()).unwrap_or(0);
        self.offset_ms.store(millis, Ordering::Relaxed);
    }
}
