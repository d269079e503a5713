//! Folders that can't be used and disks that are full: nothing stops the watching, and what is lost is told.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use jiff::Timestamp;
use serde_json::Value;

use crate::backlog::{self, Backlog};
use crate::cloud;
use crate::field::Field;
use crate::mosquitto::Mosquitto;
use crate::mqtt::Client;
use crate::plan::{Plan, all_is_well, stats, xid};
use crate::proxy::{Fault, Proxy};
use crate::receiver::{Receiver, Summary};

/// What the agent logs, once, when it can't write.
const IN_MEMORY: &str = "the outbox is kept in memory";

/// Whether the report says why records are kept in memory.
fn is_in_memory(report: &Value) -> bool {
    let finding = |finding: &Value| {
        let evidence = finding["evidence"].as_str().unwrap_or_default();
        finding["code"] == "agent.outbox_loss"
            && finding["severity"] == "degraded"
            && evidence.starts_with("what waits is kept in memory, where a restart loses it: ")
    };
    let findings = report["findings"].as_array();
    report["verdict"]["state"] == "degraded"
        && findings.is_some_and(|findings| findings.iter().any(finding))
}

fn assert_told_once(field: &Field) {
    let told = field.log().matches(IN_MEMORY).count();
    assert_eq!(told, 1, "it is told once:\n{}", field.log());
}

#[tokio::test]
async fn a_state_folder_that_can_not_be_written_costs_no_watching() {
    // Root may write everywhere, but not into a file.
    let mut field = Field::without_agent(Plan::new()).await;
    field.write("state", "a file in the place of the folder");
    field.start_agent().await;
    field.until("memory has to do", is_in_memory).await;
    let eighteen =
        |log: &crate::aws::Log| cloud::capacities(log).values().any(|slots| *slots == 18.0);
    field.aws.until(eighteen).await;
    assert_told_once(&field);
    assert!(field.stop().await.success());

    let mut field = Field::without_agent(Plan::new()).await;
    let Some(disk) = Disk::mount(&field, "1m") else {
        return skipped("a read-only disk");
    };
    disk.remount("ro");
    field.start_agent().await;
    field.until("memory has to do", is_in_memory).await;
    field.kernel_says(&xid(79));
    field.until_state("failing").await;
    assert_told_once(&field);
    assert!(field.stop().await.success());
}

#[tokio::test]
async fn a_run_folder_that_can_not_be_made_is_told() {
    let field = Field::without_agent(Plan::new()).await;
    field.write("run", "a file in the place of the folder");
    let answer = field.sideline(&["run"]).await;
    assert_eq!(answer.status, Some(3), "{answer:?}");
    let expected = format!("can't make {}", field.path("run").display());
    assert!(answer.err.contains(&expected), "{}", answer.err);
}

#[tokio::test]
async fn garbage_is_set_aside_and_the_numbers_go_on() {
    let mut field = Field::without_agent(Plan::new()).await;
    let cloud = field.cloud().await;
    field.start_agent().await;
    field.until_state("healthy").await;
    field.kernel_says(&xid(13));
    field
        .until("an event more", |report| report["seq"].as_u64() >= Some(3))
        .await;
    assert!(field.stop().await.success());

    let garbage = b"this is no database, whatever its name says".repeat(100);
    field.write("state/sideline.db", &garbage);
    // Else what is in the log is still whole.
    let _ = fs::remove_file(field.path("state/sideline.db-wal"));
    field.start_agent().await;
    field.until_state("healthy").await;
    let mut files = fs::read_dir(field.path("state"))
        .expect("a folder")
        .flatten();
    let aside = files.find(|file| {
        let name = file.file_name();
        let name = name.to_string_lossy();
        name.starts_with("sideline.db.corrupt-") && name.ends_with('Z')
    });
    let aside = aside.expect("it was set aside").path();
    assert_eq!(fs::read(aside).expect("a file"), garbage, "as it was found");
    assert!(field.stop().await.success());
    let received = receive(&cloud).await;
    assert_eq!((received.first, received.lost), (1, 0), "{received:?}");
}

#[tokio::test]
async fn a_disk_that_is_full_from_the_start() {
    let mut field = Field::without_agent(Plan::new()).await;
    let Some(disk) = Disk::mount(&field, "3m") else {
        return skipped("a full disk");
    };
    disk.fill();
    field.start_agent().await;
    field.until("memory has to do", is_in_memory).await;
    field.kernel_says(&xid(79));
    field.until_state("failing").await;
    let nine = |log: &crate::aws::Log| cloud::capacities(log).values().any(|slots| *slots == 9.0);
    field.aws.until(nine).await;
    assert_told_once(&field);
    assert!(field.stop().await.success());

    disk.make_room();
    field.start_agent().await;
    field.until_state("failing").await;
    assert!(!field.log().contains(IN_MEMORY), "{}", field.log());
}

#[tokio::test]
async fn a_disk_that_is_full_in_an_outage_costs_the_oldest_metrics_alone() {
    let mut uplink = Uplink::down(|plan| plan).await;
    let Some(disk) = Disk::mount(&uplink.field, "4m") else {
        return skipped("a disk that is full in an outage");
    };
    let waiting = uplink.backlog(3_000, 20, 0).await;
    let field = &mut uplink.field;
    field.start_agent().await;
    field.stats(all_is_well());
    field.until_state("healthy").await;
    disk.fill();
    let begun = Timestamp::now();
    // 18 cameras that all go and all come back are 72 events.
    for round in 0.. {
        field.stats(stats(0.0, ("", 0.0)));
        let all_down = |report: &Value| report["cameras"][17]["state"] == "down";
        field.until("cameras that are gone", all_down).await;
        field.kernel_says(&xid(100 + round % 10));
        field.stats(all_is_well());
        let report = field
            .until("cameras that are back", |report| {
                report["cameras"][17]["state"] == "up"
            })
            .await;
        let dropped = report["outlets"][0]["dropped"].as_u64();
        if round >= 4 && dropped > Some(0) {
            break;
        }
        assert!(round < 40, "nothing was dropped: {report:#}");
    }
    assert!(!field.log().contains(IN_MEMORY), "{}", field.log());

    disk.make_room();
    uplink.up().await;
    let dropped = uplink.drained().await;
    assert_eq!(dropped[1], 0, "no event is lost");
    assert!(uplink.field.stop().await.success());
    let received = receive(&uplink.cloud).await;
    assert_eq!((received.first, received.lost), (1, 0), "{received:?}");
    assert!(received.last > 20 + 4 * 72, "{received:?}");
    uplink.assert_oldest_are_missing(&waiting, dropped[0], begun);
    assert_eq!(uplink.ledger("cloudwatch", "full"), dropped[0]);
}

#[tokio::test]
async fn an_outbox_of_a_mebibyte_keeps_the_newest_events() {
    let mut uplink = Uplink::down(|plan| plan.set("outbox.max_bytes", "1MiB")).await;
    // More events alone than it may hold.
    let waiting = uplink.backlog(600, 300, 4_000).await;
    uplink.field.start_agent().await;
    uplink.field.stats(all_is_well());
    uplink.field.until_state("healthy").await;
    let lost = |report: &Value| report["outlets"][1]["dropped"].as_u64() > Some(0);
    uplink.field.until("losses", lost).await;
    uplink.up().await;
    let dropped = uplink.drained().await;
    assert!(dropped[1] < 200, "half of them fit: {dropped:?}");
    assert!(uplink.field.stop().await.success());
    let received = receive(&uplink.cloud).await;
    assert_eq!(
        (received.first, received.lost),
        (1, dropped[1]),
        "{received:?}"
    );
    assert!(received.ranges > 0, "{received:?}");
    let told = cloud::capacities(&uplink.field.aws.log());
    let old = (0..waiting.periods).filter(|at| told.contains_key(&waiting.start(*at).as_second()));
    // What is on its way is not thrown away: a request's worth.
    assert!(old.count() <= 80, "metrics go before any event");
    assert_eq!(uplink.ledger("relay", "full"), dropped[1]);
    assert!(backlog::size(&uplink.field.path("state")) < 4 << 20);
}

/// A field server whose uplink is down: neither CloudWatch nor the broker upstream can be reached.
struct Uplink {
    field: Field,
    door: Proxy,
    /// Hears what comes through the door.
    cloud: Client,
    _upstream: Mosquitto,
}

impl Uplink {
    async fn down(change: impl FnOnce(Plan) -> Plan) -> Uplink {
        let upstream = Mosquitto::start();
        let port = upstream
            .url()
            .rsplit(':')
            .next()
            .and_then(|port| port.parse().ok());
        let door = Proxy::start(port.expect("a port"));
        door.fault(Fault::Refuse);
        let plan = Plan::new().set("relay.url", format!("mqtt://127.0.0.1:{}", door.port()));
        let mut field = Field::without_agent(change(plan)).await;
        field.aws.go_offline().await;
        let port = upstream
            .url()
            .rsplit(':')
            .next()
            .and_then(|port| port.parse().ok());
        Uplink {
            field,
            door,
            cloud: Client::subscribed(port.expect("a port"), "cloud", "sideline/#").await,
            _upstream: upstream,
        }
    }

    /// What an earlier life has left, up to ten minutes ago.
    async fn backlog(&self, periods: u64, events: u64, padding: usize) -> Backlog {
        let minute = Timestamp::now().as_second().div_euclid(60) - 10;
        let first = minute - i64::try_from(periods).expect("it is small");
        let backlog = Backlog {
            first: Timestamp::from_second(first * 60).expect("a time"),
            periods,
            events,
            padding,
        };
        backlog.fill(&self.field.path("state")).await;
        backlog
    }

    async fn up(&mut self) {
        self.door.clear();
        self.field.aws.go_online().await;
    }

    /// Waits until nothing waits; returns what was lost of each outlet's.
    async fn drained(&self) -> [u64; 2] {
        let mut report = Value::Null;
        // The relay tells 20 events a second. What has just happened may always wait.
        for left in [800, 400, 1] {
            let drained = |report: &Value| {
                let mut outlets = [0, 1].iter().map(|outlet| &report["outlets"][outlet]);
                outlets.all(|outlet| {
                    outlet["state"] == "ok" && outlet["pending"].as_u64() <= Some(left)
                })
            };
            report = self.field.until("nothing to wait", drained).await;
        }
        [0, 1].map(|outlet| {
            report["outlets"][outlet]["dropped"]
                .as_u64()
                .expect("a number")
        })
    }

    /// Checks that of `waiting` the first `dropped` periods are missing alone, and none since `begun`.
    fn assert_oldest_are_missing(&self, waiting: &Backlog, dropped: u64, begun: Timestamp) {
        let told = cloud::capacities(&self.field.aws.log());
        let is_told = |period: &u64| told.contains_key(&waiting.start(*period).as_second());
        let missing: Vec<u64> = (0..waiting.periods)
            .filter(|period| !is_told(period))
            .collect();
        assert!((1..waiting.periods).contains(&dropped), "{dropped}");
        assert_eq!(missing, (0..dropped).collect::<Vec<_>>());
        let mut since = told
            .into_keys()
            .filter(|second| *second > begun.as_second());
        let first = since.next().expect("the periods of this life");
        let since: Vec<i64> = since.collect();
        let all: Vec<i64> = (first + 1..).take(since.len()).collect();
        assert_eq!(since, all, "no period of this life is missing");
    }

    /// How many records of a journal have met this fate, by the ledger in the file.
    fn ledger(&self, journal: &str, fate: &str) -> u64 {
        let file = self.field.path("state/sideline.db");
        let sql = rusqlite::Connection::open(file).expect("the store");
        let journal = i64::from(journal == "relay");
        let sum = sql.query_row(
            "SELECT sum(last - first + 1) FROM ledger WHERE journal = ?1 AND fate = ?2",
            rusqlite::params![journal, fate],
            |row| row.get::<_, Option<i64>>(0),
        );
        let sum = sum.expect("the ledger").unwrap_or(0);
        u64::try_from(sum).expect("a number")
    }
}

/// Waits for the agent's last word, and proves that no event is missing unsaid.
async fn receive(cloud: &Client) -> Summary {
    cloud
        .message("the farewell", "/status", |json| {
            json["status"] == "stopped"
        })
        .await;
    let mut receiver = Receiver::default();
    for message in cloud.messages() {
        receiver.take_in(&message.topic, &message.payload);
    }
    receiver.proof().unwrap_or_else(|violations| {
        let violations: Vec<String> = violations.iter().map(ToString::to_string).collect();
        panic!("{violations:#?}")
    })
}

fn skipped(what: &str) {
    eprintln!("SKIPPED: {what} needs root and the right to mount a tmpfs");
}

/// A small file system in the place of the state folder; unmounted when it is dropped.
struct Disk {
    mount: PathBuf,
}

impl Disk {
    /// `None` where that is not allowed.
    fn mount(field: &Field, size: &str) -> Option<Self> {
        let mount = field.path("state");
        fs::create_dir(&mount).expect("made");
        mounted(&format!("size={size}"), &mount).then_some(Disk { mount })
    }

    fn remount(&self, how: &str) {
        assert!(mounted(&format!("remount,{how}"), &self.mount));
    }

    /// To the last byte.
    fn fill(&self) {
        use std::io::Write;
        let mut file = fs::File::create(self.mount.join("ballast")).expect("some room");
        while file.write_all(&[0; 512]).is_ok() {}
    }

    fn make_room(&self) {
        fs::remove_file(self.mount.join("ballast")).expect("it is there");
    }
}

fn mounted(options: &str, mount: &Path) -> bool {
    let mount = Command::new("mount")
        .args(["-t", "tmpfs", "-o", options, "none"])
        .arg(mount)
        .output();
    mount.is_ok_and(|done| done.status.success())
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: the agent may still have a file open in it.
        let unmounted = Command::new("umount")
            .arg("--lazy")
            .arg(&self.mount)
            .status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("{} could not be unmounted", self.mount.display());
        }
    }
}
