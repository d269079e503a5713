//! The keeper against restarts, clocks, want of room and a disk that can't be written.

use std::path::PathBuf;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tempfile::TempDir;
use tokio::sync::watch;

use super::*;

const MINUTE: u64 = 60;

const LIMITS: Limits = Limits {
    bytes: 64 << 20,
    age: Duration::from_secs(14 * 24 * 3600),
};

const ALL: Want = Want {
    records: usize::MAX,
    bytes: u64::MAX,
    newest: 0,
};

/// So long after the machine's start, which was at noon.
fn at(seconds: u64) -> Now {
    let noon: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
    Now {
        moment: Moment::after_boot(Duration::from_secs(seconds)),
        wall: noon + Duration::from_secs(seconds),
        sure: true,
    }
}

/// A keeper and the folder that outlives it.
struct Life {
    folder: TempDir,
    keeper: Keeper,
}

impl Life {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let keeper = open(folder.path().to_owned(), LIMITS, "boot");
        Life { folder, keeper }
    }

    /// Ends without a word, as a power cut does, and starts again.
    fn again(self, boot: &str) -> Self {
        let Life { folder, keeper } = self;
        drop(keeper);
        let keeper = open(folder.path().to_owned(), LIMITS, boot);
        Life { folder, keeper }
    }

    fn turn(&mut self, of: Destination, now: Now, change: impl FnOnce(&mut Turn)) -> Batch {
        let mut turn = Turn::new(of, now);
        change(&mut turn);
        self.keeper.turn(turn)
    }

    fn put(&mut self, of: Destination, now: Now, number: Option<Number>, rank: Rank) {
        self.turn(of, now, |turn| turn.put.push(draft(now, number, rank)));
    }

    fn take(&mut self, of: Destination, now: Now) -> Vec<Record> {
        self.turn(of, now, |turn| turn.take = Some(ALL)).records
    }
}

fn open(folder: PathBuf, limits: Limits, boot: &str) -> Keeper {
    let keeping = watch::Sender::new(Keeping::OnDisk);
    Keeper::open(folder, limits, boot, at(0), keeping).unwrap()
}

fn draft(now: Now, number: Option<Number>, rank: Rank) -> Draft {
    Draft {
        number,
        rank,
        moment: now.moment,
        wall: now.wall,
        period: (rank == Rank::Metric).then_some(Duration::from_secs(MINUTE)),
        payload: format!("{:?} at {}", number, now.wall).into_bytes(),
    }
}

fn numbers(records: &[Record]) -> Vec<Number> {
    records.iter().map(|record| record.number).collect()
}

#[test]
fn what_is_answered_outlives_a_power_cut_and_what_is_settled_is_gone() {
    let mut life = Life::start();
    for number in 1..=4 {
        life.put(
            Destination::Relay,
            at(number),
            Some(number),
            Rank::Transition,
        );
    }
    let taken = life.take(Destination::Relay, at(5));
    assert_eq!(numbers(&taken), [1, 2, 3, 4]);
    life.turn(Destination::Relay, at(6), |turn| {
        turn.settled = vec![(1, Fate::Sent), (3, Fate::Refused)];
    });
    life.keeper.flush(at(6));

    let mut life = life.again("boot");
    assert_eq!(life.keeper.memory().seq, 4);
    let batch = life.turn(Destination::Relay, at(7), |turn| turn.take = Some(ALL));
    assert_eq!(numbers(&batch.records), [2, 4]);
    assert_eq!(
        batch.records[0],
        Record {
            age: Duration::from_secs(5),
            ..taken[1].clone()
        }
    );
    let lost = Lost {
        range: 3..=3,
        fate: Fate::Refused,
    };
    assert_eq!(batch.lost, [lost]);

    // What the receiver has been told is not told again.
    life.turn(Destination::Relay, at(8), |turn| {
        turn.announced = vec![3..=3];
    });
    life.keeper.flush(at(8));
    let mut life = life.again("boot");
    assert_eq!(life.turn(Destination::Relay, at(9), |_| {}).lost, []);
}

#[test]
fn deletions_wait_for_the_next_commit() {
    let mut life = Life::start();
    life.put(Destination::Relay, at(1), Some(1), Rank::Transition);
    life.take(Destination::Relay, at(2));
    life.turn(Destination::Relay, at(3), |turn| {
        turn.settled = vec![(1, Fate::Sent)];
    });
    assert!(life.keeper.is_dirty());
    life.put(Destination::CloudWatch, at(4), None, Rank::Metric);
    assert!(!life.keeper.is_dirty());
    let mut life = life.again("boot");
    assert!(life.take(Destination::Relay, at(5)).is_empty());
}

#[test]
fn a_period_counts_once() {
    let counts = |records: &[Record]| {
        records
            .iter()
            .map(|record| record.counts)
            .collect::<Vec<_>>()
    };
    let mut life = Life::start();
    life.put(Destination::CloudWatch, at(0), None, Rank::Metric);
    // The clock was put back: the same period once more.
    let again = Draft {
        wall: at(0).wall,
        ..draft(at(20), None, Rank::Metric)
    };
    life.turn(Destination::CloudWatch, at(20), |turn| turn.put.push(again));
    life.put(Destination::CloudWatch, at(60), None, Rank::Metric);
    let taken = life.take(Destination::CloudWatch, at(70));
    assert_eq!(counts(&taken), [true, false, true]);

    // Nobody knows whether it arrived.
    let mut life = life.again("boot");
    let taken = life.take(Destination::CloudWatch, at(80));
    assert_eq!(counts(&taken), [false, false, false]);

    // It certainly did not.
    life.turn(Destination::CloudWatch, at(90), |turn| {
        turn.not_counted = vec![(taken[0].at, 1), (taken[2].at, 2)];
        turn.hand_back = true;
    });
    let taken = life.take(Destination::CloudWatch, at(100));
    assert_eq!(
        counts(&taken),
        [true, false, false],
        "only who counted can say that it did not"
    );
}

#[test]
fn a_period_keeps_the_nodes_own_time() {
    // This node's minutes end at the 13th second.
    let mut life = Life::start();
    for second in [13, 73, 133] {
        life.put(Destination::CloudWatch, at(second), None, Rank::Metric);
    }
    // By then the clock is known to have been 25 s slow.
    let now = Now {
        wall: at(225).wall,
        ..at(200)
    };
    let taken = life.take(Destination::CloudWatch, now);
    let ends: Vec<Timestamp> = taken.iter().map(|record| record.at).collect();
    assert_eq!(ends, [at(13).wall, at(73).wall, at(133).wall]);
    assert!(taken.iter().all(|record| record.counts));
}

#[test]
fn times_follow_what_is_known_of_the_clock() {
    // Before the time was set it was 1970.
    let early = |seconds: u64| Now {
        wall: Timestamp::UNIX_EPOCH + Duration::from_secs(seconds),
        sure: false,
        ..at(seconds)
    };
    let mut life = Life::start();
    life.put(Destination::CloudWatch, early(60), None, Rank::Metric);
    life.put(Destination::Relay, early(61), Some(1), Rank::Transition);
    life.put(Destination::Relay, early(62), Some(2), Rank::Transition);
    let first = Want { records: 1, ..ALL };
    let told = life.turn(Destination::Relay, early(63), |turn| {
        turn.take = Some(first);
    });
    assert_eq!(told.records[0].at, early(61).wall);
    life.turn(Destination::Relay, early(64), |turn| turn.hand_back = true);

    // Now it is set: a period moves with it, and an event that nobody has heard of; one that was told keeps its time.
    let metric = &life.take(Destination::CloudWatch, at(120))[0];
    assert_eq!(
        (metric.at, metric.age),
        (at(60).wall, Duration::from_secs(60))
    );
    let events = life.take(Destination::Relay, at(120));
    assert_eq!((events[0].at, events[1].at), (early(61).wall, at(62).wall));

    // The same after the next boot.
    let mut life = life.again("another");
    let metric = &life.take(Destination::CloudWatch, at(120))[0];
    assert_eq!((metric.at, metric.age), (at(60).wall, Duration::MAX));
    let events = life.take(Destination::Relay, at(120));
    assert_eq!((events[0].at, events[1].at), (early(61).wall, at(62).wall));
}

#[test]
fn a_clock_a_year_ahead_expires_nothing_until_somebody_vouches_for_it() {
    let mut life = Life::start();
    life.put(Destination::CloudWatch, at(60), None, Rank::Metric);
    let mut life = life.again("another");
    let year = SignedDuration::from_hours(24 * 365);
    let ahead = |sure| Now {
        wall: at(120).wall + year,
        sure,
        ..at(120)
    };
    let pending = |batch: Batch| (batch.standing.pending, batch.standing.dropped);
    assert_eq!(
        pending(life.turn(Destination::CloudWatch, ahead(false), |_| {})),
        (1, 0)
    );
    assert_eq!(
        pending(life.turn(Destination::CloudWatch, ahead(true), |_| {})),
        (0, 1)
    );
}

#[test]
fn where_there_is_no_room_the_oldest_metrics_go_first() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits {
        bytes: 512 << 10,
        ..LIMITS
    };
    let keeper = open(folder.path().to_owned(), limits, "boot");
    let mut life = Life { folder, keeper };
    for number in 1..=2000 {
        let now = at(number * MINUTE);
        let mut metric = draft(now, None, Rank::Metric);
        metric.payload = vec![7; 900];
        life.turn(Destination::CloudWatch, now, |turn| turn.put.push(metric));
        if number % 10 == 0 {
            life.put(Destination::Relay, now, Some(number / 10), Rank::Transition);
        }
    }
    let size = std::fs::metadata(life.folder.path().join(FILE))
        .unwrap()
        .len();
    assert!(size <= 512 << 10, "{size}");
    let batch = life.turn(Destination::CloudWatch, at(2001 * MINUTE), |turn| {
        turn.take = Some(ALL);
    });
    let kept = numbers(&batch.records);
    assert!((200..=500).contains(&kept.len()), "{}", kept.len());
    assert_eq!(kept.last(), Some(&2000));
    assert_eq!(kept.len() as u64 + batch.standing.dropped, 2000);
    let gone = Lost {
        range: 1..=batch.standing.dropped,
        fate: Fate::Full,
    };
    assert_eq!(batch.lost, [gone]);
    assert_eq!(life.take(Destination::Relay, at(2001 * MINUTE)).len(), 200);
}

#[test]
fn memory_has_to_do_until_the_disk_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    std::fs::write(&state, "a file in the place of the folder").unwrap();
    let keeper = open(state.clone(), LIMITS, "boot");
    let mut life = Life { folder, keeper };
    assert!(!life.keeper.is_on_disk());
    for number in 1..=3 {
        life.put(
            Destination::Relay,
            at(number),
            Some(number),
            Rank::Transition,
        );
    }
    let first = Want { records: 1, ..ALL };
    life.turn(Destination::Relay, at(4), |turn| turn.take = Some(first));
    life.turn(Destination::Relay, at(5), |turn| {
        turn.settled = vec![(1, Fate::Sent)];
    });
    assert!(life.keeper.move_to_disk(at(6)).is_err());

    std::fs::remove_file(&state).unwrap();
    life.keeper.move_to_disk(at(7)).unwrap();
    assert!(life.keeper.is_on_disk());
    drop(life.keeper);
    life.keeper = open(state, LIMITS, "boot");
    assert_eq!(life.keeper.memory().seq, 3);
    assert_eq!(numbers(&life.take(Destination::Relay, at(8))), [2, 3]);
}

#[test]
fn what_memory_has_sent_is_not_sent_again_by_the_disk() {
    let mut life = Life::start();
    for number in 1..=3 {
        life.put(
            Destination::Relay,
            at(number),
            Some(number),
            Rank::Transition,
        );
    }
    life.keeper.stay_in_memory("a test says so");
    life.put(Destination::Relay, at(4), Some(4), Rank::Transition);
    assert_eq!(
        numbers(&life.take(Destination::Relay, at(5))),
        [4],
        "the others are on the disk"
    );
    life.turn(Destination::Relay, at(6), |turn| {
        turn.settled = vec![(4, Fate::Sent)];
    });
    life.put(Destination::Relay, at(7), Some(5), Rank::Transition);
    life.keeper.move_to_disk(at(8)).unwrap();
    let batch = life.turn(Destination::Relay, at(9), |turn| turn.take = Some(ALL));
    assert_eq!(
        (numbers(&batch.records), batch.lost),
        (vec![1, 2, 3, 5], vec![])
    );
}

#[test]
fn a_file_that_is_not_ours_is_set_aside() {
    for content in [
        &b"no database at all, but long enough to be taken for one"[..],
        b"",
    ] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE), content).unwrap();
        let keeper = open(folder.path().to_owned(), LIMITS, "boot");
        assert!(keeper.is_on_disk());
        let names = std::fs::read_dir(folder.path()).unwrap().flatten();
        let aside = names.filter(|file| file.file_name().to_string_lossy().contains(".corrupt-"));
        assert_eq!(aside.count(), usize::from(!content.is_empty()));
    }
    // A later version's is set aside as well, with what it holds taken over as far as it can be read.
    let mut life = Life::start();
    life.put(Destination::Relay, at(1), Some(1), Rank::Transition);
    let path = life.folder.path().join(FILE);
    let sql = rusqlite::Connection::open(&path).unwrap();
    sql.pragma_update(None, "user_version", 99).unwrap();
    drop(sql);
    let mut life = life.again("boot");
    assert_eq!(numbers(&life.take(Destination::Relay, at(2))), [1]);
}

#[test]
fn events_that_were_not_kept_while_there_was_no_relay_are_announced() {
    let mut life = Life::start();
    life.put(Destination::Relay, at(1), Some(500), Rank::Transition);
    life.put(Destination::Relay, at(2), Some(510), Rank::Transition);
    let batch = life.turn(Destination::Relay, at(3), |turn| turn.take = Some(ALL));
    let lost = Lost {
        range: 501..=509,
        fate: Fate::Corrupt,
    };
    assert_eq!(
        (numbers(&batch.records), batch.lost),
        (vec![500, 510], vec![lost])
    );
}
