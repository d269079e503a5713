//! Records on their way: which data go into which request, and what became of each record. Sends nothing.

use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;

use crate::domain::moment::Now;
use crate::domain::outbox::{Fate, Number};
use crate::ship::datum::{CAPACITY, Datum, Fault, MAX_DATA, decode, fault};
use crate::store::Record;

/// What one request may take, in bytes; AWS allows 1 MB, and what is counted here is an estimate.
const MAX_BYTES: usize = 900_000;

/// What a datum takes beside its values and names, and what each value takes, at most, in bytes.
const DATUM_BYTES: (usize, usize) = (400, 18);

/// A datum of a record.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Item {
    /// The record.
    pub(super) number: Number,
    /// End of its period, or the time of the change.
    pub(super) at: Timestamp,
    /// The datum.
    pub(super) datum: Datum,
}

/// How a record does.
#[derive(Debug)]
struct Tally {
    left: usize,
    fate: Fate,
}

/// A batch of records on its way, in requests of a size that CloudWatch takes.
#[derive(Debug)]
pub(super) struct Delivery {
    requests: VecDeque<Vec<Item>>,
    records: BTreeMap<Number, Tally>,
}

/// What a delivery that is given up leaves behind.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Leftovers {
    /// Records that have met their fate all the same.
    pub(super) settled: Vec<(Number, Fate)>,
    /// Periods, and records that certainly have not counted for them.
    pub(super) not_counted: Vec<(Timestamp, Number)>,
}

impl Delivery {
    /// Puts records into requests, in their order; leaves out what CloudWatch would refuse.
    pub(super) fn of(records: Vec<Record>, now: Now) -> Delivery {
        let mut delivery = Delivery {
            requests: VecDeque::new(),
            records: BTreeMap::new(),
        };
        let (mut request, mut bytes) = (Vec::new(), 0);
        for record in records {
            let items = delivery.admit(&record, now);
            for item in items {
                let size = DATUM_BYTES.0 + DATUM_BYTES.1 * item.datum.values.len();
                if request.len() >= MAX_DATA || bytes + size > MAX_BYTES {
                    delivery.requests.push_back(std::mem::take(&mut request));
                    bytes = 0;
                }
                bytes += size;
                request.push(item);
            }
        }
        delivery
            .requests
            .extend((!request.is_empty()).then_some(request));
        delivery
    }

    /// The data of a record that can be sent.
    fn admit(&mut self, record: &Record, now: Now) -> Vec<Item> {
        let (number, at) = (record.number, record.at);
        let Some(data) = decode(&record.payload) else {
            let tally = Tally {
                left: 0,
                fate: Fate::Corrupt,
            };
            self.records.insert(number, tally);
            return Vec::new();
        };
        let mut fate = Fate::Sent;
        let mut items = Vec::with_capacity(data.len());
        for datum in data {
            // A clock that nobody vouches for calls nothing too old; then CloudWatch says what it thinks.
            let fault = fault(&datum, at, if now.sure { now.wall } else { at });
            let is_new = match fault {
                None if datum.name == CAPACITY && !record.counts => Fate::Unsure,
                None => {
                    items.push(Item { number, at, datum });
                    Fate::Sent
                }
                Some(Fault::TooOld) => Fate::Expired,
                Some(Fault::Malformed | Fault::TooNew) => Fate::Refused,
            };
            fate = fate.max(is_new);
        }
        let left = items.len();
        self.records.insert(number, Tally { left, fate });
        items
    }

    /// The next request.
    pub(super) fn next(&self) -> Option<&[Item]> {
        self.requests.front().map(Vec::as_slice)
    }

    /// CloudWatch has the next request.
    pub(super) fn taken(&mut self) {
        for item in self.requests.pop_front().unwrap_or_default() {
            self.done(item.number, Fate::Sent);
        }
    }

    /// CloudWatch does not like something in the next request: it is halved, until a single datum is to blame.
    pub(super) fn refused(&mut self) {
        let Some(mut whole) = self.requests.pop_front() else {
            return;
        };
        if let [culprit] = whole.as_slice() {
            let number = culprit.number;
            return self.done(number, Fate::Refused);
        }
        let second = whole.split_off(whole.len() / 2);
        self.requests.push_front(second);
        self.requests.push_front(whole);
    }

    /// The records that have met their fate since this was asked last.
    pub(super) fn settled(&mut self) -> Vec<(Number, Fate)> {
        let settled = self.records.extract_if(.., |_, tally| tally.left == 0);
        settled
            .map(|(number, tally)| (number, tally.fate))
            .collect()
    }

    /// The next request did not arrive, or (`perhaps`) nobody knows; what is left goes back to where it came from.
    pub(super) fn give_up(mut self, perhaps: bool) -> Leftovers {
        let settled = self.settled();
        let certain = self.requests.iter().skip(usize::from(perhaps)).flatten();
        let counting = certain.filter(|item| item.datum.name == CAPACITY);
        Leftovers {
            settled,
            not_counted: counting.map(|item| (item.at, item.number)).collect(),
        }
    }

    fn done(&mut self, number: Number, fate: Fate) {
        if let Some(tally) = self.records.get_mut(&number) {
            tally.left -= 1;
            tally.fate = tally.fate.max(fate);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::moment::Moment;
    use crate::domain::outbox::Rank;
    use crate::ship::datum::{HEALTH, Scope, encode};

    fn now() -> Now {
        Now {
            moment: Moment::after_boot(Duration::from_secs(1000)),
            wall: "2026-11-22T12:00:00Z".parse().unwrap(),
            sure: true,
        }
    }

    fn record(number: Number, counts: bool, names: &[&'static str]) -> Record {
        let data: Vec<_> = names
            .iter()
            .map(|name| Datum::single(name, Scope::Node, 1.0))
            .collect();
        Record {
            number,
            rank: Rank::Metric,
            at: now().wall,
            age: Duration::ZERO,
            counts,
            payload: encode(&data),
        }
    }

    fn sizes(delivery: &Delivery) -> Vec<usize> {
        delivery.requests.iter().map(Vec::len).collect()
    }

    #[test]
    fn requests_are_as_large_as_they_may_be() {
        let names = [HEALTH; 12];
        let records = (1..=100).map(|number| record(number, true, &names));
        assert_eq!(sizes(&Delivery::of(records.collect(), now())), [1000, 200]);

        let wide = Datum {
            name: HEALTH,
            scope: Scope::Node,
            values: (0..150).map(|value| (value, 1)).collect(),
        };
        let wide = Record {
            payload: encode(&vec![wide; 400]),
            ..record(1, true, &[])
        };
        assert_eq!(sizes(&Delivery::of(vec![wide], now())), [290, 110]);
    }

    #[test]
    fn one_bad_datum_costs_only_itself() {
        let records = vec![
            record(1, true, &[CAPACITY, HEALTH]),
            record(2, true, &[HEALTH; 5]),
        ];
        let mut delivery = Delivery::of(records, now());
        // CloudWatch refuses whatever holds the first datum.
        let is_bad = |items: &[Item]| items[0].datum.name == CAPACITY;
        let mut requests = 0;
        while let Some(items) = delivery.next() {
            requests += 1;
            if is_bad(items) {
                delivery.refused();
            } else {
                delivery.taken();
            }
        }
        assert_eq!(delivery.settled(), [(1, Fate::Refused), (2, Fate::Sent)]);
        assert_eq!(requests, 5);
        assert_eq!(delivery.settled(), []);
    }

    #[test]
    fn a_count_that_may_have_arrived_is_left_out() {
        let mut delivery = Delivery::of(vec![record(1, false, &[CAPACITY, HEALTH])], now());
        assert_eq!(sizes(&delivery), [1]);
        delivery.taken();
        assert_eq!(delivery.settled(), [(1, Fate::Unsure)]);
    }

    #[test]
    fn what_is_given_up_says_what_has_not_counted() {
        let records: Vec<_> = (1..=1001)
            .map(|number| record(number, true, &[CAPACITY]))
            .collect();
        for (taken, perhaps, settled, not_counted) in
            [(0, false, 0, 1001), (0, true, 0, 1), (1, true, 1000, 0)]
        {
            let mut delivery = Delivery::of(records.clone(), now());
            (0..taken).for_each(|_| delivery.taken());
            let left = delivery.give_up(perhaps);
            assert_eq!(
                (left.settled.len(), left.not_counted.len()),
                (settled, not_counted)
            );
        }
    }

    #[test]
    fn what_can_not_be_sent_has_a_fate_at_once() {
        let unreadable = Record {
            payload: b"?".to_vec(),
            ..record(1, true, &[])
        };
        let old = Record {
            at: "2026-11-01T00:00:00Z".parse().unwrap(),
            ..record(2, true, &[HEALTH])
        };
        let mut delivery = Delivery::of(vec![unreadable, old.clone()], now());
        assert_eq!(delivery.next(), None);
        assert_eq!(delivery.settled(), [(1, Fate::Corrupt), (2, Fate::Expired)]);
        let unsure = Now {
            sure: false,
            ..now()
        };
        assert_eq!(sizes(&Delivery::of(vec![old], unsure)), [1]);
    }
}
