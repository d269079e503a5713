//! `sideline outbox`: what it says of stores that are whole, damaged, somebody else's or not there.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::Connection;
use serde_json::{Value, json};
use sideline::domain::moment::{Moment, Now};
use sideline::domain::outbox::{Fate, Rank, Want};
use sideline::ship::datum::{self, Datum, Scope};
use sideline::store::inspect::Outboxes;
use sideline::store::{Destination, Draft, FILE, Limits, Store, Turn};

const LIMITS: Limits = Limits {
    bytes: 64 << 20,
    age: Duration::from_secs(14 * 24 * 3600),
};

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

/// A node's store, and the command that looks into it.
struct Node {
    folder: tempfile::TempDir,
    now: Now,
}

impl Node {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let node = Node {
            now: Now {
                moment: Moment::after_boot(Duration::from_secs(10_000)),
                wall: at("2026-11-22T20:00:00Z"),
                sure: true,
            },
            folder,
        };
        let config = format!("[paths]\nstate = {:?}\n", node.folder.path().join("state"));
        std::fs::write(node.folder.path().join("sideline.toml"), config)
            .expect("a file can be written");
        node
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn file(&self) -> PathBuf {
        self.state().join(FILE)
    }

    /// Opens the file itself, to do to it what no agent would.
    fn sql(&self) -> Connection {
        Connection::open(self.file()).expect("a database")
    }

    /// Ends the store, and waits until its thread has let go of the file: then all is in it, and there is no log.
    async fn close(&self, store: Store) {
        drop(store);
        let mark = File::open(self.state().join("sideline.mark")).expect("a mark");
        let free = tokio::task::spawn_blocking(move || mark.lock_shared());
        let free = tokio::time::timeout(Duration::from_secs(30), free).await;
        let free = free.expect("the store has ended").expect("no panic");
        free.expect("a lock");
    }

    async fn store(&self) -> Store {
        let (store, _) = Store::open(&self.state(), LIMITS, "boot", self.now)
            .await
            .expect("a store");
        store
    }

    fn draft(&self, of: Destination, minute: i64, payload: Vec<u8>) -> Draft {
        let wall = at("2026-11-22T19:30:00Z") + jiff::SignedDuration::from_mins(minute);
        let (number, rank, period) = match of {
            Destination::CloudWatch => (None, Rank::Metric, Some(Duration::from_secs(60))),
            Destination::Relay => (Some(minute as u64), Rank::Transition, None),
        };
        Draft {
            number,
            rank,
            moment: self.now.moment_at(wall).expect("after the boot"),
            wall,
            period,
            payload,
        }
    }

    async fn turn(&self, store: &Store, of: Destination, change: impl FnOnce(&mut Turn)) {
        let mut turn = Turn::new(of, self.now);
        change(&mut turn);
        store.turn(turn).await.expect("the store lives");
    }

    /// Keeps six periods (1 and 2 sent, 3 unsure, 4 refused) and four events (1 sent).
    async fn fill(&self) -> Store {
        let store = self.store().await;
        for (of, last, settled) in [
            (
                Destination::CloudWatch,
                6,
                vec![
                    (1, Fate::Sent),
                    (2, Fate::Sent),
                    (3, Fate::Unsure),
                    (4, Fate::Refused),
                ],
            ),
            (Destination::Relay, 4, vec![(1, Fate::Sent)]),
        ] {
            self.turn(&store, of, |turn| {
                turn.put = (1..=last)
                    .map(|minute| self.draft(of, minute, payload(of, minute)))
                    .collect();
                turn.take = Some(Want {
                    records: settled.len(),
                    bytes: u64::MAX,
                    newest: 0,
                });
            })
            .await;
            self.turn(&store, of, |turn| turn.settled = settled).await;
        }
        store.flush().await;
        store
    }

    fn sideline(&self, arguments: &[&str]) -> Answer {
        let output = self.command(arguments).output().expect("sideline starts");
        Answer::of(&output)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sideline"));
        command
            .arg("--config")
            .arg(self.folder.path().join("sideline.toml"))
            .arg("outbox")
            .args(arguments);
        command
    }
}

fn payload(of: Destination, number: i64) -> Vec<u8> {
    match of {
        Destination::CloudWatch => datum::encode(&[
            Datum::single("Capacity", Scope::Site, 18.0),
            Datum {
                name: "GpuTemperature",
                scope: Scope::Gpu("GPU-1".to_owned()),
                values: vec![(6150, 2), (6200, 1)],
            },
        ]),
        Destination::Relay => {
            let event = json!({"boot": "b", "kind": "agent", "what": format!("event {number}")});
            event.to_string().into_bytes()
        }
    }
}

struct Answer {
    status: Option<i32>,
    out: String,
    err: String,
}

impl Answer {
    fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Answer {
            status: output.status.code(),
            out: text(&output.stdout),
            err: text(&output.stderr),
        }
    }

    #[track_caller]
    fn out(self, status: i32) -> String {
        assert_eq!(self.status, Some(status), "{}{}", self.out, self.err);
        self.out
    }

    #[track_caller]
    fn json(self) -> Value {
        serde_json::from_str(&self.out(0)).expect("JSON")
    }
}

/// The files of a folder, but for SQLite's index of the log, in which readers write, too.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let files = entries.flatten().filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let bytes = std::fs::read(entry.path()).ok()?;
        (!name.ends_with("-shm")).then_some((name, bytes))
    });
    files.collect()
}

#[tokio::test]
async fn the_list_tells_what_waits_and_what_is_gone() {
    let node = Node::new();
    // Looked at while the store is open, as it is while an agent runs, and when it has ended.
    let store = node.fill().await;
    let before = contents(&node.state());
    let list = node.sideline(&["list", "--json"]).json();
    assert_eq!(before, contents(&node.state()));
    let cloudwatch = &list["outlets"][0];
    assert!(cloudwatch["bytes"].as_u64().unwrap() > 0);
    let range = |first: u64, last: u64, fate: &str, since: &str, until: &str| {
        let day = |time: &str| format!("2026-11-22T{time}Z");
        json!({"first": first, "last": last, "fate": fate, "since": day(since), "until": day(until), "announced": null})
    };
    assert_eq!(
        list,
        json!({
            "version": 1,
            "path": node.file(),
            "outlets": [
                {
                    "name": "cloudwatch", "pending": 2, "bytes": cloudwatch["bytes"],
                    "oldest": "2026-11-22T19:35:00Z", "newest": "2026-11-22T19:36:00Z",
                    "ranges": [
                        range(1, 2, "sent", "19:31:00", "19:32:00"),
                        range(3, 3, "unsure", "19:33:00", "19:33:00"),
                        range(4, 4, "refused", "19:34:00", "19:34:00"),
                    ],
                },
                {
                    "name": "relay", "pending": 3, "bytes": list["outlets"][1]["bytes"],
                    "oldest": "2026-11-22T19:32:00Z", "newest": "2026-11-22T19:34:00Z",
                    "ranges": [range(1, 1, "sent", "19:31:00", "19:31:00")],
                },
            ],
        })
    );
    node.close(store).await;
    assert_eq!(node.sideline(&["list", "--json"]).json(), list);
    let text = node.sideline(&["list"]).out(0);
    let text = text.replace(&node.file().display().to_string(), "FILE");
    insta::assert_snapshot!(text, @r"
    outbox      FILE

    cloudwatch  2 records wait, 186 B
                2026-11-22 19:35:00Z to 19:36:00Z
                1 record LOST
      numbers             what became of them
      1 to 2              sent          2026-11-22 19:31:00Z to 19:32:00Z
      3                   unsure        2026-11-22 19:33:00Z
      4                   LOST refused  2026-11-22 19:34:00Z

    relay       3 records wait, 276 B
                2026-11-22 19:32:00Z to 19:34:00Z
      numbers             what became of them
      1                   sent          2026-11-22 19:31:00Z

    unsure: sent, but without Capacity, which may have arrived before
    ");
}

#[tokio::test]
async fn what_waits_is_exported_line_by_line() {
    let node = Node::new();
    let _store = node.fill().await;
    let lines = node.sideline(&["export", "--json"]).out(0);
    assert_eq!(lines, node.sideline(&["export"]).out(0));
    let lines: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let told: Vec<_> = lines
        .iter()
        .map(|line| {
            (
                line["outlet"].as_str().unwrap(),
                line["number"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("cloudwatch", 5),
            ("cloudwatch", 6),
            ("relay", 2),
            ("relay", 3),
            ("relay", 4)
        ]
    );
    assert_eq!(
        lines[0],
        json!({
            "outlet": "cloudwatch", "number": 5, "rank": "metric",
            "at": "2026-11-22T19:35:00Z", "period_s": 60,
            "metrics": ["Capacity", "GpuTemperature"],
            "data": [
                {"name": "Capacity", "scope": "site", "values": [[18.0, 1]]},
                {"name": "GpuTemperature", "scope": "gpu:GPU-1", "values": [[61.5, 2], [62.0, 1]]},
            ],
        })
    );
    assert_eq!(
        lines[2],
        json!({
            "outlet": "relay", "number": 2, "rank": "transition", "at": "2026-11-22T19:32:00Z",
            "event": {"boot": "b", "kind": "agent", "what": "event 2"},
        })
    );
}

#[tokio::test]
async fn a_reader_that_goes_early_is_no_error() {
    let node = Node::new();
    let store = node.store().await;
    // More than a pipe holds, and more than is read at once.
    node.turn(&store, Destination::CloudWatch, |turn| {
        let draft = |minute| {
            node.draft(
                Destination::CloudWatch,
                minute % 30,
                payload(Destination::CloudWatch, minute),
            )
        };
        turn.put = (0..3_000).map(draft).collect();
    })
    .await;
    assert_eq!(node.sideline(&["export"]).out(0).lines().count(), 3_000);
    let mut child = node
        .command(&["export"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    let answer = Answer::of(&output);
    assert_eq!((answer.status, answer.err.as_str()), (Some(0), ""));
}

#[tokio::test]
async fn a_slow_reader_does_not_hold_the_log() {
    let node = Node::new();
    let _store = node.fill().await;
    let outboxes = Outboxes::open(&node.state()).unwrap();
    let mut waiting = outboxes.waiting(Destination::CloudWatch);
    assert_eq!(waiting.next().unwrap().unwrap().number, 5);
    let is_held: bool = node
        .sql()
        .query_row("PRAGMA wal_checkpoint(RESTART)", [], |row| row.get(0))
        .unwrap();
    assert!(!is_held);
    assert_eq!(waiting.next().unwrap().unwrap().number, 6);
}

#[tokio::test]
async fn a_disk_that_takes_nothing_more_can_be_read() {
    let node = Node::new();
    node.close(node.fill().await).await;
    // In its place SQLite can't make its index of the log, as on a read-only disk.
    std::fs::create_dir(node.state().join(format!("{FILE}-shm"))).unwrap();
    let list = node.sideline(&["list", "--json"]).json();
    assert_eq!(list["outlets"][1]["pending"], 3);
    assert_eq!(node.sideline(&["export"]).out(0).lines().count(), 5);
}

#[tokio::test]
async fn a_whole_store_is_whole_also_while_it_is_written() {
    let node = Node::new();
    let store = node.fill().await;
    let found = json!({"whole": true, "problems": [], "waiting": 5, "gone": 5});
    assert_eq!(node.sideline(&["verify", "--json"]).json(), found);
    node.close(store).await;
    let text = node.sideline(&["verify"]).out(0);
    assert_eq!(
        text,
        format!("{}: whole; 5 wait, 5 are gone\n", node.file().display())
    );
}

/// Lists numbers of a journal as dropped, with the right checksum.
fn entry(journal: u64, first: u64, last: u64) -> String {
    let checksum = crc32fast::hash(format!("{journal} {first} {last} full").as_bytes());
    format!(
        "INSERT INTO ledger VALUES ({journal}, {first}, {last}, 'full', NULL, NULL, 0, {checksum})"
    )
}

#[tokio::test]
async fn each_kind_of_damage_is_named() {
    for (damage, problem) in [
        (
            "UPDATE cloudwatch SET wall = wall + 1 WHERE number = 5",
            "cloudwatch 5: damaged, its checksum is wrong",
        ),
        (
            "UPDATE relay SET payload = 'text' WHERE number = 3",
            "relay 3: damaged, its checksum is wrong",
        ),
        (
            "DELETE FROM relay WHERE number IN (2, 3)",
            "relay 2 to 3: neither waiting nor listed as gone",
        ),
        (
            "DELETE FROM ledger WHERE first = 3",
            "cloudwatch 3: neither waiting nor listed as gone",
        ),
        (
            "UPDATE ledger SET fate = 'sent' WHERE first = 3",
            "1 ranges of the ledger are damaged",
        ),
        (&entry(1, 3, 4), "relay 3 to 4: waiting, and listed as full"),
        (&entry(0, 2, 2), "cloudwatch 2: listed as sent and as full"),
        (
            "INSERT INTO memory VALUES ('other', '9', 9)",
            "1 things remembered are damaged",
        ),
        (
            "DROP TABLE relay",
            "relay can't be read: no such table: relay",
        ),
    ] {
        let node = Node::new();
        node.close(node.fill().await).await;
        node.sql().execute_batch(damage).unwrap();
        let answer = node.sideline(&["verify"]);
        assert_eq!(answer.status, Some(1), "{damage}");
        assert!(
            answer.err.lines().any(|line| line.starts_with(problem)),
            "{damage}: {}",
            answer.err
        );
        let json: Value =
            serde_json::from_str(&node.sideline(&["verify", "--json"]).out(1)).unwrap();
        assert_eq!(json["whole"], false);
        let mut told = json["problems"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(Value::as_str);
        assert!(told.any(|line| line.starts_with(problem)), "{json}");
    }
}

#[tokio::test]
async fn what_makes_no_sense_is_named_and_left_out() {
    let node = Node::new();
    let store = node.store().await;
    for (of, bad) in [
        (Destination::CloudWatch, "what?"),
        (Destination::Relay, r#"{"boot": "b"}"#),
    ] {
        node.turn(&store, of, |turn| {
            turn.put = vec![
                node.draft(of, 1, bad.as_bytes().to_vec()),
                node.draft(of, 2, payload(of, 2)),
            ];
        })
        .await;
    }
    let answer = node.sideline(&["verify"]);
    for name in ["cloudwatch", "relay"] {
        let problem = format!("{name} 1: what is kept makes no sense\n");
        assert!(answer.err.contains(&problem), "{}", answer.err);
    }
    let answer = node.sideline(&["export"]);
    assert_eq!(
        answer.err,
        "sideline: cloudwatch 1: what is kept makes no sense\n\
         sideline: relay 1: what is kept makes no sense\n"
    );
    assert_eq!(answer.out(1).lines().count(), 2);
}

#[tokio::test]
async fn what_stands_before_a_broken_page_is_exported() {
    let node = Node::new();
    let of = Destination::CloudWatch;
    let store = node.store().await;
    node.turn(&store, of, |turn| {
        turn.put = (1..=1_000)
            .map(|minute| node.draft(of, minute % 30, payload(of, minute)))
            .collect();
    })
    .await;
    node.close(store).await;
    let mut bytes = std::fs::read(node.file()).unwrap();
    // A page of records begins with 13.
    let pages: Vec<usize> = (0..bytes.len())
        .step_by(1024)
        .filter(|page| bytes[*page] == 13)
        .collect();
    let middle = pages[pages.len() / 2];
    bytes[middle..middle + 1024].fill(0);
    std::fs::write(node.file(), bytes).unwrap();

    let answer = node.sideline(&["export"]);
    let flaw = "from here on nothing can be read: database disk image is malformed";
    assert!(answer.err.contains(flaw), "{}", answer.err);
    let whole = answer.out(1).lines().count();
    assert!((100..900).contains(&whole), "{whole}");
    let answer = node.sideline(&["verify"]);
    assert_eq!(answer.status, Some(1));
    assert!(answer.err.starts_with("the file: "), "{}", answer.err);
    let answer = node.sideline(&["list"]);
    let told = format!("sideline: {} is damaged: ", node.file().display());
    assert!(answer.err.starts_with(&told), "{}", answer.err);
    assert_eq!(answer.out(1), "");
}

#[test]
fn where_nothing_was_kept_nothing_waits() {
    for with_file in [false, true] {
        let node = Node::new();
        if with_file {
            // An agent that was killed while it made the file.
            std::fs::create_dir(node.state()).unwrap();
            std::fs::write(node.file(), "").unwrap();
        }
        let file = node.file().display().to_string();
        let list = node.sideline(&["list", "--json"]).json();
        let outlet = |name: &str| json!({"name": name, "pending": 0, "bytes": 0, "oldest": null, "newest": null, "ranges": []});
        let outlets = [outlet("cloudwatch"), outlet("relay")];
        assert_eq!(
            list,
            json!({"version": 1, "path": file, "outlets": outlets})
        );
        let text = node.sideline(&["list"]).out(0);
        assert!(text.starts_with("outbox      none yet: /"), "{text}");
        let found = json!({"whole": true, "problems": [], "waiting": 0, "gone": 0});
        assert_eq!(node.sideline(&["verify", "--json"]).json(), found);
        let text = node.sideline(&["verify"]).out(0);
        assert_eq!(text, format!("{file}: none yet, so nothing waits\n"));
        assert_eq!(node.sideline(&["export"]).out(0), "");
        assert_eq!(node.state().exists(), with_file, "to look makes nothing");
    }
}

#[tokio::test]
async fn what_is_not_ours_is_told_with_the_mend() {
    type Break = fn(&Node);
    let cases: [(Break, &str); 4] = [
        (
            |node| std::fs::write(node.file(), "no database".repeat(1_000)).unwrap(),
            "is damaged: file is not a database; the agent sets it aside",
        ),
        (
            |node| {
                std::fs::remove_file(node.file()).unwrap();
                node.sql().execute_batch("CREATE TABLE theirs (n)").unwrap();
            },
            "is another program's database; move it away, or set paths.state to another folder",
        ),
        (
            |node| node.sql().pragma_update(None, "user_version", 99).unwrap(),
            "was made by a later sideline; look at it with that one",
        ),
        (
            |node| {
                std::fs::remove_file(node.file()).unwrap();
                std::fs::create_dir(node.file()).unwrap();
            },
            "is no file; check paths.state",
        ),
    ];
    for (change, told) in cases {
        let node = Node::new();
        std::fs::create_dir(node.state()).unwrap();
        node.close(node.fill().await).await;
        change(&node);
        for command in ["list", "verify", "export"] {
            let answer = node.sideline(&[command]);
            let told = format!("sideline: {} {told}", node.file().display());
            assert!(answer.err.starts_with(&told), "{command}: {}", answer.err);
            assert_eq!(answer.out(1), "", "{command}");
        }
    }
}

#[test]
fn a_wrong_command_line_is_told() {
    let node = Node::new();
    for arguments in [&[][..], &["lst"], &["list", "--jsn"], &["export", "all"]] {
        let answer = node.sideline(arguments);
        assert_eq!(answer.status, Some(3), "{arguments:?}");
        assert!(answer.err.contains("Usage: sideline"), "{}", answer.err);
    }
}
