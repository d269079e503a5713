//! How long to wait before the next try: from a second, doubled each time, with jitter.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// The waiting between tries.
#[derive(Debug)]
pub struct Backoff {
    schedule: ExponentialBuilder,
    delays: ExponentialBackoff,
    longest: Duration,
}

impl Backoff {
    /// Waits that grow up to `longest`.
    #[must_use]
    pub fn up_to(longest: Duration) -> Self {
        // Jitter at most doubles a delay.
        let schedule = ExponentialBuilder::new()
            .with_jitter()
            .without_max_times()
            .with_max_delay(longest / 2);
        Backoff {
            delays: schedule.build(),
            schedule,
            longest,
        }
    }

    /// How long to wait after one more failure.
    pub fn pause(&mut self) -> Duration {
        // Without a number of times the schedule never ends.
        self.delays.next().unwrap_or(self.longest)
    }

    /// It worked: the next failure is the first.
    pub fn reset(&mut self) {
        self.delays = self.schedule.build();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_grows_up_to_its_limit_and_starts_anew() {
        for longest in [15, 300] {
            let mut backoff = Backoff::up_to(Duration::from_secs(longest));
            for _ in 0..2 {
                let mut floor = 1.0;
                for _ in 0..20 {
                    let waits = backoff.pause().as_secs_f64();
                    assert!(
                        (floor..=2.0 * floor).contains(&waits),
                        "{waits} after {floor}"
                    );
                    floor = f64::min(
                        floor * 2.0,
                        f64::from(u32::try_from(longest).unwrap()) / 2.0,
                    );
                }
                backoff.reset();
            }
        }
    }
}
