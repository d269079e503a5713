//! When the machine started, each time, as far as it is known: a record's moment then tells when it happened, also where
//! the clock was not set yet when it was made.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::domain::moment::{CLOCK_TOLERANCE, Now};

/// Starts that are remembered: a record is never older than that.
const MOST: usize = 100;

/// The starts whose time somebody has vouched for: milliseconds since 1970, by the boot.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Boots(BTreeMap<i64, i64>);

impl Boots {
    /// Learns from a time that is sure. False: it knew.
    pub(super) fn learn(&mut self, boot: i64, now: Now) -> bool {
        if !now.sure {
            return false;
        }
        let since = i64::try_from(now.moment.since_boot().as_millis()).unwrap_or(0);
        let start = now.wall.as_millisecond() - since;
        let known = self.0.get(&boot).copied();
        let off = |known: i64| SignedDuration::from_millis(known - start).abs();
        if known.is_some_and(|known| off(known) <= CLOCK_TOLERANCE) {
            return false;
        }
        self.0.insert(boot, start);
        while self.0.len() > MOST {
            let oldest = self.0.iter().min_by_key(|(_, start)| **start);
            let Some(oldest) = oldest.map(|(boot, _)| *boot) else {
                break;
            };
            self.0.remove(&oldest);
        }
        true
    }

    /// When something happened that its clock put at `kept`: the same, unless that is known to be wrong.
    pub(super) fn time(&self, boot: i64, moment_ms: i64, kept: Timestamp) -> Timestamp {
        let known = self
            .0
            .get(&boot)
            .map(|start| start.saturating_add(moment_ms));
        let known = known.and_then(|known| Timestamp::from_millisecond(known).ok());
        known
            .filter(|known| known.duration_since(kept).abs() > CLOCK_TOLERANCE)
            .unwrap_or(kept)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::moment::Moment;

    fn now(start: i64, since: u64, sure: bool) -> Now {
        let wall = Timestamp::from_second(start).unwrap() + Duration::from_secs(since);
        let moment = Moment::after_boot(Duration::from_secs(since));
        Now { moment, wall, sure }
    }

    #[test]
    fn only_what_is_sure_is_learnt_and_only_what_is_wrong_is_put_right() {
        let mut boots = Boots::default();
        let at = |second| Timestamp::from_second(second).unwrap();
        assert!(!boots.learn(7, now(1000, 10, false)));
        assert_eq!(boots.time(7, 5_000, at(1)), at(1));
        assert!(boots.learn(7, now(1000, 10, true)));
        assert!(!boots.learn(7, now(1001, 20, true)), "within the tolerance");
        for (boot, kept, time) in [
            (7, at(1), at(1005)),
            (7, at(1006), at(1006)),
            (8, at(1), at(1)),
        ] {
            assert_eq!(boots.time(boot, 5_000, kept), time);
        }
        assert!(
            boots.learn(7, now(2000, 30, true)),
            "it was put right again"
        );
        assert_eq!(boots.time(7, 5_000, at(1)), at(2005));
    }

    #[test]
    fn the_oldest_start_is_forgotten() {
        let mut boots = Boots::default();
        for boot in 0..=i64::try_from(MOST).unwrap() {
            boots.learn(boot, now(1_000_000 - boot * 1000, 0, true));
        }
        assert_eq!(boots.0.len(), MOST);
        assert!(!boots.0.contains_key(&100) && boots.0.contains_key(&0));
    }
}
