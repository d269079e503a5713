//! Cards at which the probe hung or crashed: which, how often, and when they are tried again.
//!
//! A suspect is read after all other cards, and between two trials not at all, so that the others' readings stay
//! fresh while it ends one probe after another.

use std::collections::VecDeque;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

use super::wire::Question;
use crate::domain::moment::Moment;
use crate::domain::snapshot::Probe;

/// Crashes are counted over so long.
const COUNTED: Duration = Duration::from_secs(600);

/// Crashes that are remembered; many more than the waits between them leave room for.
const CRASHES: usize = 64;

/// The longest wait of the backoff.
const LONGEST: Duration = Duration::from_secs(60);

/// While a suspect waits for its trial the others need a probe, and soon.
const SOON: Duration = Duration::from_secs(1);

/// The cards in suspicion, and the pace at which trouble is met.
pub(super) struct Suspects {
    /// The latest last; a card may have hung and crashed.
    list: Vec<Suspect>,
    /// When, and at which card's place.
    crashes: VecDeque<(Moment, Option<u32>)>,
    backoff: ExponentialBackoff,
    /// From when on the suspects are read again.
    trial: Moment,
}

struct Suspect {
    place: u32,
    trouble: Probe,
}

impl Suspects {
    pub(super) fn new() -> Self {
        Suspects {
            list: Vec::new(),
            crashes: VecDeque::new(),
            backoff: backoff(),
            trial: Moment::BOOT,
        }
    }

    /// What to ask now.
    pub(super) fn question(&self, patience: Duration, now: Moment) -> Question {
        let mut places: Vec<u32> = Vec::new();
        for suspect in &self.list {
            places.retain(|place| *place != suspect.place);
            places.push(suspect.place);
        }
        Question {
            patience,
            suspects: places,
            tries_suspects: self.trial <= now,
        }
    }

    /// The troubles that have not ended, the latest last.
    pub(super) fn troubles(&self) -> impl Iterator<Item = &Probe> {
        self.list.iter().map(|suspect| &suspect.trouble)
    }

    /// The hang of the card at `place`, where it has not answered since.
    pub(super) fn hang_at(&self, place: u32) -> Option<&Probe> {
        let mut here = self.list.iter().filter(|suspect| suspect.place == place);
        let hang = here.find(|suspect| matches!(suspect.trouble, Probe::Hung { .. }));
        hang.map(|suspect| &suspect.trouble)
    }

    /// Whether the card at `place` has not answered since it made trouble.
    pub(super) fn holds(&self, place: usize) -> bool {
        self.list
            .iter()
            .any(|suspect| suspect.place as usize == place)
    }

    /// Whether no card is suspected.
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The card at `place` is to blame for a hang or a crash.
    pub(super) fn accuse(&mut self, place: u32, trouble: Probe) {
        let kind = std::mem::discriminant(&trouble);
        self.list.retain(|suspect| {
            suspect.place != place || std::mem::discriminant(&suspect.trouble) != kind
        });
        self.list.push(Suspect { place, trouble });
    }

    /// The card at `place` has answered.
    pub(super) fn acquit(&mut self, place: u32) {
        self.list.retain(|suspect| suspect.place != place);
    }

    /// NVML lists `count` cards: what was beyond is gone.
    pub(super) fn shrink(&mut self, count: u32) {
        self.list.retain(|suspect| suspect.place < count);
    }

    /// Takes in a crash; returns how many there were within ten minutes at the same place.
    pub(super) fn crashed(&mut self, place: Option<u32>, now: Moment) -> u64 {
        self.crashes.retain(|(at, _)| now - *at < COUNTED);
        if CRASHES <= self.crashes.len() {
            self.crashes.pop_front();
        }
        self.crashes.push_back((now, place));
        let same = self.crashes.iter().filter(|(_, other)| *other == place);
        same.count() as u64
    }

    /// How long to wait before the next probe. `again`: this is not the first time.
    pub(super) fn setback(&mut self, place: Option<u32>, again: bool, now: Moment) -> Duration {
        let wait = match again {
            true => self.backoff.next().unwrap_or(LONGEST),
            // A crash may be chance: what matters is whether it happens again.
            false => Duration::ZERO,
        };
        self.trial = now + wait;
        match place {
            Some(_) => wait.min(SOON),
            None => wait,
        }
    }

    /// All has been well for long: trouble is new again.
    pub(super) fn rested(&mut self) {
        self.backoff = backoff();
    }
}

/// 1 s, 2 s, 4 s … 60 s.
fn backoff() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_max_delay(LONGEST)
        .without_max_times()
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> Moment {
        Moment::after_boot(Duration::from_secs(second))
    }

    fn hung() -> Probe {
        Probe::Hung {
            since: at(0),
            call: None,
            card: Some("GPU-1".into()),
        }
    }

    fn crashed() -> Probe {
        Probe::Crashed {
            at: at(0),
            how: "exited with status 3".into(),
            count: 1,
            card: Some("GPU-1".into()),
            call: None,
        }
    }

    #[test]
    fn waits_grow_to_a_minute() {
        let mut suspects = Suspects::new();
        let waits: Vec<u64> = (0..8)
            .map(|_| suspects.setback(None, true, at(0)).as_secs())
            .collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        suspects.rested();
        assert_eq!(suspects.setback(None, true, at(0)).as_secs(), 1);
    }

    #[test]
    fn suspects_are_tried_last_and_not_before_their_time() {
        let mut suspects = Suspects::new();
        let ask = |suspects: &Suspects, second| {
            let question = suspects.question(Duration::from_millis(9), at(second));
            question.encode()
        };
        assert_eq!(ask(&suspects, 10), "read 9\n");
        suspects.accuse(0, hung());
        // The first crash is tried again at once; the others' probe waits for no trial.
        assert_eq!(suspects.setback(Some(0), false, at(10)), Duration::ZERO);
        assert_eq!(ask(&suspects, 10), "read 9 last 0\n");
        for wait in [1, 2, 4] {
            let pause = suspects.setback(Some(0), true, at(10));
            assert_eq!(pause, SOON, "{wait}");
            assert_eq!(ask(&suspects, 10 + wait - 1), "read 9 without 0\n");
            assert_eq!(ask(&suspects, 10 + wait), "read 9 last 0\n");
        }
        // The one that made trouble last is read last, however often it is listed.
        suspects.accuse(1, hung());
        assert_eq!(ask(&suspects, 100), "read 9 last 0,1\n");
        suspects.accuse(0, crashed());
        assert_eq!(ask(&suspects, 100), "read 9 last 1,0\n");
        assert_eq!(suspects.troubles().count(), 3);
        assert_eq!(suspects.hang_at(0), Some(&hung()));
        suspects.acquit(0);
        assert_eq!(suspects.hang_at(0), None);
        assert_eq!(ask(&suspects, 100), "read 9 last 1\n");
        suspects.shrink(1);
        assert!(suspects.is_empty());
    }

    #[test]
    fn crashes_count_for_ten_minutes_and_at_their_place() {
        let mut suspects = Suspects::new();
        for (second, place, count) in [
            (0, Some(0), 1),
            (60, Some(0), 2),
            (61, Some(1), 1),
            (62, None, 1),
            (599, Some(0), 3),
            (600, Some(0), 3),
            (1300, Some(0), 1),
        ] {
            assert_eq!(suspects.crashed(place, at(second)), count, "{second}");
        }
        for _ in 0..10 * CRASHES {
            suspects.crashed(None, at(1300));
        }
        assert_eq!(suspects.crashed(None, at(1300)), CRASHES as u64);
    }
}
