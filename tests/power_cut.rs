//! Power cuts that tear the database: it starts every time, keeps what SQLite can still read, and announces the rest.
//!
//! The files are copied while the store is at work, which is what a power cut leaves; then one of them is cut off or a
//! bit of it is flipped, at 200 places each. What SQLite can read is found out by SQLite itself, on a copy.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::Connection;
use rusqlite::types::Value;
use sideline::domain::moment::{Moment, Now};
use sideline::domain::outbox::{Fate, Number, Rank, Want};
use sideline::store::{Destination, Draft, Keeping, Limits, Store, Turn};

/// Damages of each kind.
const PLACES: usize = 200;

/// Records that were put in, and those that were sent again already.
const PUT: Number = 400;
const SENT: Number = 60;

const LIMITS: Limits = Limits {
    bytes: 64 << 20,
    age: Duration::from_secs(14 * 24 * 3600),
};

const ALL: Want = Want {
    records: usize::MAX,
    bytes: u64::MAX,
    newest: 0,
};

fn at(seconds: u64) -> Now {
    let noon: Timestamp = "2026-11-22T12:00:00Z".parse().expect("a time");
    Now {
        moment: Moment::after_boot(Duration::from_secs(seconds)),
        wall: noon + Duration::from_secs(seconds),
        sure: true,
    }
}

fn payload(number: Number) -> Vec<u8> {
    let length = 40 + usize::try_from(number * 37 % 900).expect("small");
    let text = format!("record {number} ").repeat(length / 10);
    text.into_bytes()
}

/// The files as a power cut finds them, with a log that is not yet copied into the database.
async fn files() -> BTreeMap<&'static str, Vec<u8>> {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, _) = Store::open(folder.path(), LIMITS, "boot", at(0))
        .await
        .expect("it opens");
    for number in 1..=PUT {
        let mut turn = Turn::new(Destination::Relay, at(number));
        turn.put = vec![Draft {
            number: Some(number),
            rank: Rank::Transition,
            moment: at(number).moment,
            wall: at(number).wall,
            period: None,
            payload: payload(number),
        }];
        if number == SENT {
            turn.take = Some(ALL);
        }
        if number == SENT + 1 {
            turn.settled = (1..=SENT).map(|number| (number, Fate::Sent)).collect();
        }
        store.turn(turn).await.expect("it lives");
    }
    let names = ["sideline.db", "sideline.db-wal", "sideline.mark"];
    let read = |name| {
        (
            name,
            fs::read(folder.path().join(name)).expect("it is there"),
        )
    };
    names.map(read).into_iter().collect()
}

/// A record with all its columns.
type Columns = Vec<Value>;

/// The records that SQLite itself still reads.
fn readable(folder: &Path) -> BTreeMap<Number, Columns> {
    let mut found = BTreeMap::new();
    let Ok(sql) = Connection::open(folder.join("sideline.db")) else {
        return found;
    };
    for number in 1..=PUT {
        let number_there = i64::try_from(number).expect("small");
        let columns = sql.query_row(
            "SELECT * FROM relay WHERE number = ?1",
            [number_there],
            |row| (0..8).map(|column| row.get(column)).collect(),
        );
        found.extend(columns.ok().map(|columns| (number, columns)));
    }
    found
}

/// Returns how many records wait afterwards.
async fn check(
    files: &BTreeMap<&'static str, Vec<u8>>,
    undamaged: &BTreeMap<Number, Columns>,
    what: &str,
) -> usize {
    let folder = tempfile::tempdir().expect("a folder");
    let copy = tempfile::tempdir().expect("a folder");
    for (name, content) in files {
        fs::write(folder.path().join(name), content).expect("written");
        fs::write(copy.path().join(name), content).expect("written");
    }
    let readable = readable(copy.path());
    let (store, memory) = Store::open(folder.path(), LIMITS, "boot", at(PUT))
        .await
        .expect("it starts every time");
    assert_eq!(store.keeping(), Keeping::OnDisk, "{what}");
    assert!(
        memory.seq >= PUT,
        "{what}: {} would be given out again",
        memory.seq
    );
    let (mut waits, mut more, mut lost) = (BTreeSet::new(), true, Vec::new());
    while more {
        // Where the damage shows only now, nothing is handed out this time, and what was saved the next time.
        let mut turn = Turn::new(Destination::Relay, at(PUT + 1));
        turn.take = Some(ALL);
        let batch = store.turn(turn).await.expect("it lives");
        for record in &batch.records {
            let same = record.payload == payload(record.number);
            assert!(same, "{what}: {} has another content", record.number);
            let is_new = waits.insert(record.number);
            assert!(is_new, "{what}: {} is handed out twice", record.number);
        }
        (more, lost) = (batch.standing.more, batch.lost);
    }
    let announced = |number| lost.iter().any(|lost| lost.range.contains(&number));
    for number in 1..=PUT {
        let known = waits.contains(&number) || announced(number) || number <= SENT;
        assert!(known, "{what}: nobody knows of {number}");
        // A record of which anything has changed, its time for one, is none.
        let whole = readable
            .get(&number)
            .is_some_and(|it| it == &undamaged[&number]);
        let kept = !whole || waits.contains(&number);
        assert!(kept, "{what}: SQLite can read {number}");
    }
    // It goes on as if nothing had been.
    let mut turn = Turn::new(Destination::Relay, at(PUT + 2));
    turn.put = vec![Draft {
        number: Some(memory.seq + 1),
        rank: Rank::Transition,
        moment: at(PUT + 2).moment,
        wall: at(PUT + 2).wall,
        period: None,
        payload: payload(memory.seq + 1),
    }];
    turn.take = Some(ALL);
    let batch = store.turn(turn).await.expect("it lives");
    assert_eq!(batch.records.len(), 1, "{what}");
    waits.len()
}

fn undamaged(files: &BTreeMap<&'static str, Vec<u8>>) -> BTreeMap<Number, Columns> {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, content) in files {
        fs::write(folder.path().join(name), content).expect("written");
    }
    readable(folder.path())
}

async fn damage(file: &'static str, tear: impl Fn(&mut Vec<u8>, &mut fastrand::Rng)) {
    let whole = files().await;
    let records = undamaged(&whole);
    assert!(whole[file].len() > 10_000, "{file} is worth tearing");
    let mut rng = fastrand::Rng::with_seed(7);
    let mut least = usize::MAX;
    for place in 0..PLACES {
        let mut torn = whole.clone();
        let content = torn.get_mut(file).expect("it is there");
        tear(content, &mut rng);
        let waits = check(&torn, &records, &format!("{file}, place {place}")).await;
        least = least.min(waits);
    }
    let all = usize::try_from(PUT - SENT).expect("small");
    assert!(least < all, "some damage was seen");
}

fn cut(content: &mut Vec<u8>, rng: &mut fastrand::Rng) {
    content.truncate(rng.usize(..content.len()));
}

#[expect(clippy::ptr_arg, reason = "of one shape with the other damage")]
fn flip(content: &mut Vec<u8>, rng: &mut fastrand::Rng) {
    let place = rng.usize(..content.len());
    content[place] ^= 1 << rng.u8(..8);
}

#[tokio::test]
async fn an_undamaged_file_loses_nothing() {
    let files = files().await;
    let records = undamaged(&files);
    let all = usize::try_from(PUT - SENT).expect("small");
    assert_eq!(records.len(), all);
    assert_eq!(check(&files, &records, "undamaged").await, all);
}

#[tokio::test]
async fn a_database_that_is_cut_off() {
    damage("sideline.db", cut).await;
}

#[tokio::test]
async fn a_database_with_a_flipped_bit() {
    damage("sideline.db", flip).await;
}

#[tokio::test]
async fn a_log_that_is_cut_off() {
    damage("sideline.db-wal", cut).await;
}

#[tokio::test]
async fn a_log_with_a_flipped_bit() {
    damage("sideline.db-wal", flip).await;
}
