//! How much a running total has risen within a window.

use std::collections::VecDeque;
use std::time::Duration;

use super::moment::Moment;

/// Totals are remembered so far apart at least, in parts of the window: coarser than exact, and bounded.
const PARTS: u32 = 60;

/// The latest totals of one counter.
#[derive(Debug, Clone, Default)]
pub struct Rise {
    totals: VecDeque<(Moment, u64)>,
    latest: Option<(Moment, u64)>,
}

impl Rise {
    /// Takes in a total. One that is less than before was set back, with a driver or a boot: it begins anew. Returns
    /// whether it has risen since the one before.
    pub fn take_in(&mut self, total: u64, window: Duration, now: Moment) -> bool {
        let before = self.latest.replace((now, total));
        if before.is_some_and(|(_, before)| total < before) {
            self.totals.clear();
        }
        let apart = window / PARTS;
        let is_due = |(at, _): &(Moment, u64)| apart <= now - *at;
        if self.totals.back().is_none_or(is_due) {
            self.totals.push_back((now, total));
        }
        // The last one before the window is what the window is compared with.
        while self
            .totals
            .get(1)
            .is_some_and(|(at, _)| window <= now - *at)
        {
            self.totals.pop_front();
        }
        before.is_some_and(|(_, before)| before < total)
    }

    /// By how much it has risen since the window began, and how long ago that was; no longer than it is known.
    #[must_use]
    pub fn within(&self) -> (u64, Duration) {
        let first = self.totals.front().copied();
        let (Some((since, first)), Some((at, last))) = (first, self.latest) else {
            return (0, Duration::ZERO);
        };
        (last.saturating_sub(first), at - since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Totals a minute apart, seen through a window of ten.
    fn check(totals: &[u64], expected: u64) {
        let mut rise = Rise::default();
        for (minute, total) in (0..).zip(totals) {
            let now = Moment::after_boot(Duration::from_secs(60 * minute));
            rise.take_in(*total, Duration::from_secs(600), now);
        }
        assert_eq!(rise.within().0, expected, "{totals:?}");
    }

    #[test]
    fn only_what_rose_within_the_window_counts() {
        check(&[], 0);
        check(&[500], 0);
        check(&[500, 500, 507], 7);
        check(&[0, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9], 9);
        check(&[0, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9], 0);
        check(&[500, 3, 4], 1);
    }

    #[test]
    fn it_is_bounded() {
        let mut rise = Rise::default();
        for second in 0..100_000 {
            let now = Moment::after_boot(Duration::from_secs(second));
            rise.take_in(second, Duration::from_secs(600), now);
        }
        assert!(rise.totals.len() <= 62, "{}", rise.totals.len());
        assert!((600..=610).contains(&rise.within().0));
    }
}
