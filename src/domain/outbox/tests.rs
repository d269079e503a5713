//! The journal against tables, and against a model that keeps every record by itself.

use proptest::prelude::*;

use super::*;

const LONGEST: Duration = Duration::from_secs(100);

fn at(seconds: u64) -> Now {
    let wall = Timestamp::from_second(1_800_000_000).unwrap() + Duration::from_secs(seconds);
    Now {
        moment: Moment::after_boot(Duration::from_secs(seconds)),
        wall,
        sure: true,
    }
}

fn entry(rank: Rank, bytes: u64, seconds: u64) -> Entry {
    Entry {
        rank,
        bytes,
        since: Since::Here(at(seconds).moment),
    }
}

/// A journal of metrics (`m`) and transitions (`t`), one byte large, one a second, numbered from 1.
fn journal(records: &str) -> Outbox {
    let mut outbox = Outbox::new(LONGEST);
    for (number, rank) in (1..).zip(records.chars()) {
        let rank = if rank == 'm' {
            Rank::Metric
        } else {
            Rank::Transition
        };
        outbox.put(number, entry(rank, 1, number));
    }
    outbox
}

fn all(newest: usize) -> Want {
    Want {
        records: usize::MAX,
        bytes: u64::MAX,
        newest,
    }
}

#[test]
fn the_newest_goes_first_then_the_oldest_in_order_and_nothing_twice() {
    let mut outbox = journal("mmtmm");
    let few = |records, bytes| Want {
        records,
        bytes,
        newest: 1,
    };
    assert_eq!(outbox.take(few(3, 99)), [5, 1, 2]);
    assert_eq!(outbox.take(few(3, 1)), [4]);
    assert_eq!(outbox.take(all(0)), [3]);
    assert!(outbox.take(all(1)).is_empty());
    assert_eq!(
        (outbox.pending(), outbox.bytes(), outbox.has_waiting()),
        (5, 5, false)
    );
}

#[test]
fn what_is_handed_back_goes_to_its_old_place() {
    let mut outbox = journal("mmmmm");
    let two = Want {
        records: 2,
        bytes: 99,
        newest: 1,
    };
    assert_eq!(outbox.take(two), [5, 1]);
    outbox.put(6, entry(Rank::Metric, 1, 6));
    assert!(outbox.settle(1, Fate::Sent));
    outbox.hand_back();
    assert!(!outbox.settle(5, Fate::Sent), "it does not fly any more");
    assert_eq!(outbox.take(all(0)), [2, 3, 4, 5, 6]);
}

#[test]
fn losses_are_counted_and_deliveries_are_not() {
    for fate in Fate::ALL {
        let mut outbox = journal("m");
        outbox.take(all(0));
        outbox.settle(1, fate);
        assert_eq!(
            outbox.dropped(),
            u64::from(fate.is_loss()),
            "{}",
            fate.name()
        );
        assert_eq!(outbox.pending(), 0);
    }
}

#[test]
fn the_oldest_metrics_go_before_any_transition() {
    for (bytes, limit, gone, left) in [
        (1, 9, "", "tmmtmttt"),
        (1, 8, "2-2", "tmtmttt"),
        (2, 8, "2-3", "ttmttt"),
        (3, 8, "2-3 5-5", "ttttt"),
        (5, 8, "2-3 5-5 1-1 4-4", "ttt"),
        (9, 8, "2-3 5-5 1-1 4-4 6-8", ""),
    ] {
        let mut outboxes = [journal("tmmtmttt")];
        let ranges = make_room(&mut outboxes, bytes, limit);
        let told: Vec<String> = ranges
            .iter()
            .map(|(_, range)| format!("{}-{}", range.start(), range.end()))
            .collect();
        assert_eq!(told.join(" "), gone, "{bytes} more of {limit}");
        assert_eq!(outboxes[0].pending(), left.len() as u64);
        assert_eq!(outboxes[0].dropped(), 8 - left.len() as u64);
    }
}

#[test]
fn one_journal_that_is_stuck_costs_the_metrics_of_the_other_then_its_own() {
    let mut outboxes = [journal("mm"), journal("tttttt")];
    let gone = make_room(&mut outboxes, 4, 8);
    assert_eq!(gone, [(0, 1..=2), (1, 1..=2)]);
}

#[test]
fn what_flies_is_not_evicted() {
    let mut outbox = journal("mm");
    outbox.take(Want {
        records: 1,
        bytes: 1,
        newest: 0,
    });
    assert_eq!(outbox.evict(Rank::Metric, 99), [2..=2]);
    assert!(outbox.settle(1, Fate::Sent));
}

#[test]
fn what_waits_too_long_expires_and_an_unsure_clock_expires_nothing() {
    let mut outbox = journal("m");
    assert_eq!(outbox.expire(at(101)), []);
    assert_eq!(outbox.expire(at(102)), [1..=1]);

    let mut outbox = Outbox::new(LONGEST);
    let since = Since::Earlier(at(0).wall);
    outbox.put(
        7,
        Entry {
            since,
            ..entry(Rank::Metric, 1, 0)
        },
    );
    assert_eq!(outbox.oldest(at(60)), Duration::from_secs(60));
    assert_eq!(
        outbox.expire(Now {
            sure: false,
            ..at(9_999)
        }),
        []
    );
    assert_eq!(outbox.expire(at(100)), []);
    assert_eq!(outbox.expire(at(101)), [7..=7]);
    assert_eq!((outbox.pending(), outbox.dropped()), (0, 1));
}

#[test]
fn a_backlog_of_a_million_takes_kilobytes() {
    let mut outbox = Outbox::new(LONGEST);
    for number in 1..=1_000_000 {
        outbox.put(number, entry(Rank::Transition, 250, number));
    }
    assert!(outbox.waiting.size() <= 2 << 20);
    assert_eq!(outbox.oldest(at(1_000_001)), Duration::from_secs(1_000_000));
}

/// Every record by itself: slow, and easy to see through.
#[derive(Default)]
struct Model {
    waiting: BTreeMap<Number, Rank>,
    flying: BTreeMap<Number, Rank>,
    lost: u64,
}

proptest! {
    /// The same decisions as the model's, and every record is waiting, flying, settled or counted as lost.
    #[test]
    fn decides_as_the_model_does(steps in prop::collection::vec((0..7u8, 0..4u64), 0..300)) {
        let (mut outbox, mut model) = (Outbox::new(LONGEST), Model::default());
        let (mut put, mut settled) = (0, 0);
        for (step, n) in steps {
            match step {
                0 | 1 => {
                    put += 1;
                    let rank = if step == 0 { Rank::Metric } else { Rank::Transition };
                    outbox.put(put, entry(rank, 1, put));
                    model.waiting.insert(put, rank);
                }
                2 => {
                    let want = Want { records: n as usize, bytes: 3, newest: 1 };
                    let newest = model.waiting.keys().next_back().copied().filter(|_| n > 0);
                    let oldest = model.waiting.keys().copied().filter(|one| Some(*one) != newest);
                    let expected: Vec<Number> =
                        newest.into_iter().chain(oldest).take(n.min(3) as usize).collect();
                    for number in &expected {
                        let rank = model.waiting.remove(number).unwrap();
                        model.flying.insert(*number, rank);
                    }
                    prop_assert_eq!(outbox.take(want), expected);
                }
                3 => if let Some((number, _)) = model.flying.pop_first() {
                    prop_assert!(outbox.settle(number, Fate::Sent));
                    settled += 1;
                },
                4 => if let Some((number, _)) = model.flying.pop_last() {
                    prop_assert!(outbox.settle(number, Fate::Refused));
                    model.lost += 1;
                },
                5 => {
                    outbox.hand_back();
                    model.waiting.append(&mut model.flying);
                }
                _ => {
                    let of_rank = model.waiting.iter().filter(|(_, rank)| **rank == Rank::Metric);
                    let expected: Vec<Number> =
                        of_rank.map(|(number, _)| *number).take(n as usize).collect();
                    let gone = outbox.evict(Rank::Metric, n);
                    prop_assert_eq!(gone.into_iter().flatten().collect::<Vec<_>>(), expected.clone());
                    expected.iter().for_each(|number| { model.waiting.remove(number); });
                    model.lost += expected.len() as u64;
                }
            }
            prop_assert_eq!(outbox.pending(), (model.waiting.len() + model.flying.len()) as u64);
            prop_assert_eq!(outbox.bytes(), outbox.pending());
            prop_assert_eq!(outbox.dropped(), model.lost);
            prop_assert_eq!(put, settled + model.lost + outbox.pending());
        }
    }
}
