//! Tests of the kernel log's reader: real files and FIFOs, nothing waits but for what it asks.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::*;
use crate::domain::kernel_event::KernelEvent;

const XID_13: &str = "NVRM: Xid (PCI:0000:01:00): 13, pid=7, name=x, Graphics Exception\n";
const XID_79: &str = "NVRM: Xid (PCI:0000:01:00): 79, GPU has fallen off the bus.\n";

struct Bench {
    folder: TempDir,
    readings: watch::Receiver<Reading<KernelLog>>,
    cancel: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Bench {
    /// A reader of `kern.log` in a folder that `prepare` has filled.
    fn start(memory: KernelLog, prepare: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        prepare(&folder.path().join("kern.log"));
        Self::start_in(folder, memory)
    }

    fn start_in(folder: TempDir, memory: KernelLog) -> Self {
        let (out, readings) = watch::channel(Reading::Pending);
        let cancel = CancellationToken::new();
        let path = folder.path().join("kern.log");
        let task = tokio::spawn(run(path, memory, out, Clock::start(None), cancel.clone()));
        Bench {
            folder,
            readings,
            cancel,
            task,
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("kern.log")
    }

    fn append(&self, bytes: impl AsRef<[u8]>) {
        append(&self.path(), bytes);
    }

    async fn until(&mut self, done: impl FnMut(&Reading<KernelLog>) -> bool) -> Reading<KernelLog> {
        let reading = tokio::time::timeout(Duration::from_secs(20), self.readings.wait_for(done));
        reading.await.expect("in time").unwrap().clone()
    }

    /// Waits until the Xid has been seen so often.
    async fn xid(&mut self, xid: u32, count: u64) {
        self.until(|reading| reading.value().is_some_and(|log| seen(log, xid) == count))
            .await;
    }

    async fn ready(&mut self) {
        self.until(|reading| reading.value().is_some()).await;
    }

    async fn stop(mut self) -> (TempDir, KernelLog) {
        self.cancel.cancel();
        (&mut self.task).await.unwrap().unwrap();
        let log = self.readings.borrow().value().unwrap().clone();
        (self.folder, log)
    }
}

fn append(path: &Path, bytes: impl AsRef<[u8]>) {
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .unwrap();
    file.write_all(bytes.as_ref()).unwrap();
}

fn seen(log: &KernelLog, xid: u32) -> u64 {
    log.facts
        .iter()
        .filter(|fact| matches!(fact.event, KernelEvent::Xid { number, .. } if number == xid))
        .map(|fact| fact.count)
        .sum()
}

fn fifo(path: &Path) -> File {
    rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap()
}

#[tokio::test]
async fn a_file_is_read_and_followed() {
    let mut bench = Bench::start(KernelLog::default(), |path| append(path, XID_13));
    bench.xid(13, 1).await;
    bench.append(XID_13);
    bench.xid(13, 2).await;
    // A line is one when its end is there.
    bench.append(&XID_79[..20]);
    bench.append(b"");
    bench.append(&XID_79[20..]);
    bench.xid(79, 1).await;
}

#[tokio::test]
async fn an_empty_file_is_a_reading() {
    let mut bench = Bench::start(KernelLog::default(), |path| append(path, ""));
    bench.ready().await;
}

#[tokio::test]
async fn a_rotated_file_is_read_to_its_end() {
    let mut bench = Bench::start(KernelLog::default(), |path| append(path, ""));
    bench.ready().await;
    let old = bench.folder.path().join("kern.log.1");
    bench.append(XID_13);
    fs::rename(bench.path(), &old).unwrap();
    append(&old, XID_13);
    bench.xid(13, 2).await;
    append(&old, XID_13);
    bench.append(XID_79);
    bench.xid(79, 1).await;
    bench.xid(13, 3).await;
    bench.append(XID_79);
    bench.xid(79, 2).await;
}

#[tokio::test]
async fn a_truncated_file_starts_anew() {
    let mut bench = Bench::start(KernelLog::default(), |path| append(path, XID_13));
    bench.xid(13, 1).await;
    bench.append("NVRM: half a li");
    fs::write(bench.path(), "").unwrap();
    bench.append(XID_79);
    bench.xid(79, 1).await;
}

#[tokio::test]
async fn an_absent_file_is_trouble_until_it_comes() {
    let mut bench = Bench::start(KernelLog::default(), |_| {});
    let reading = bench
        .until(|reading| matches!(reading, Reading::Failed { .. }))
        .await;
    let Reading::Failed { why, .. } = reading else {
        panic!("{reading:?}");
    };
    assert!(why.contains("kern.log does not exist"), "{why}");
    bench.append("[99999999.000000] ");
    bench.append(XID_79);
    bench.xid(79, 1).await;
    fs::remove_file(bench.path()).unwrap();
    bench
        .until(|reading| matches!(reading, Reading::Failed { .. }))
        .await;
    bench.append(XID_79);
    bench.xid(79, 2).await;
}

#[tokio::test]
async fn a_restart_goes_on_where_it_was() {
    let mut bench = Bench::start(KernelLog::default(), |path| append(path, XID_13));
    bench.xid(13, 1).await;
    bench.append("a line without meaning\nhalf a");
    bench.append(" line\n");
    let size = fs::metadata(bench.path()).unwrap().len();
    let offset = |log: &KernelLog| match log.position {
        Some(Position::File { offset, .. }) => Some(offset),
        Some(Position::Kmsg(_)) | None => None,
    };
    // Nobody is woken for it.
    while bench.readings.borrow().value().and_then(offset) != Some(size) {
        tokio::task::yield_now().await;
    }
    let (folder, log) = bench.stop().await;
    append(&folder.path().join("kern.log"), XID_79);
    let mut bench = Bench::start_in(folder, log);
    bench.xid(79, 1).await;
    bench.xid(13, 1).await;
}

#[tokio::test]
async fn what_another_boot_left_in_a_file_does_not_count() {
    let mut bench = Bench::start(KernelLog::default(), |path| {
        append(path, format!("[Sun Feb 23 16:24:18 2025] {XID_13}"));
        append(path, format!("[99999999.000000] {XID_13}"));
    });
    bench.ready().await;
    bench.append(format!("[Sun Feb 23 16:24:18 2025] {XID_79}"));
    bench.xid(79, 1).await;
    bench.xid(13, 0).await;
}

#[tokio::test]
async fn a_fifo_outlives_its_writers() {
    let mut bench = Bench::start(KernelLog::default(), |path| drop(fifo(path)));
    bench.ready().await;
    for count in 1..=3 {
        bench.append(XID_13);
        bench.xid(13, count).await;
    }
    // Another FIFO in its place.
    fs::remove_file(bench.path()).unwrap();
    let mut next = fifo(&bench.path());
    next.write_all(XID_79.as_bytes()).unwrap();
    bench.xid(79, 1).await;
    bench.xid(13, 3).await;
}

#[tokio::test]
async fn hostile_lines_do_no_harm() {
    let mut bench = Bench::start(KernelLog::default(), |path| drop(fifo(path)));
    bench.ready().await;
    let writer = OpenOptions::new().write(true).open(bench.path()).unwrap();
    let writer = Arc::new(writer);
    let long = "x".repeat(1 << 20) + "\n";
    for bytes in [
        b"\xff\xfe\x00\x01\n\n".to_vec(),
        long.into_bytes(),
        format!("12,7,5,-;{XID_79}").into_bytes(),
        format!("user  :warn  : {XID_79}").into_bytes(),
        [
            b"NVRM: Xid (PCI:0000:01:00): 13, \xff\x1b[2J".as_slice(),
            b"\n",
        ]
        .concat(),
    ] {
        let writer = writer.clone();
        tokio::task::spawn_blocking(move || (&*writer).write_all(&bytes))
            .await
            .unwrap()
            .unwrap();
    }
    bench.xid(13, 1).await;
    bench.xid(79, 0).await;
    let log = bench.readings.borrow().value().unwrap().clone();
    assert_eq!(
        log.facts[0].evidence,
        "NVRM: Xid (PCI:0000:01:00): 13, \u{fffd} [2J"
    );
}

#[tokio::test]
async fn a_burst_is_published_once() {
    let mut bench = Bench::start(KernelLog::default(), |path| append(path, ""));
    bench.ready().await;
    bench.readings.mark_unchanged();
    bench.append(XID_13.repeat(10_000));
    bench.readings.changed().await.unwrap();
    let log = bench.readings.borrow_and_update().value().unwrap().clone();
    assert_eq!(seen(&log, 13), 10_000);
    bench.append(XID_79);
    bench.readings.changed().await.unwrap();
    assert_eq!(seen(bench.readings.borrow().value().unwrap(), 79), 1);
}

#[tokio::test]
async fn what_is_no_log_is_trouble() {
    let mut bench = Bench::start(KernelLog::default(), |path| fs::create_dir(path).unwrap());
    bench
        .until(
            |reading| matches!(reading, Reading::Failed { why, .. } if why.contains("must name")),
        )
        .await;
}

#[test]
fn trouble_says_what_would_help() {
    let path = Path::new("/dev/kmsg");
    for (errno, expected) in [
        (Errno::ACCESS, "CAP_SYSLOG"),
        (Errno::PERM, "CAP_SYSLOG"),
        (Errno::NOENT, "does not exist"),
        (Errno::IO, "can't be followed"),
    ] {
        let why = why(path, &errno.into());
        assert!(
            why.starts_with("/dev/kmsg ") && why.contains(expected),
            "{why}"
        );
    }
}

fn tail(position: Option<Position>) -> Tail {
    let memory = KernelLog {
        position,
        ..KernelLog::default()
    };
    let (out, _) = watch::channel(Reading::Pending);
    Tail::new("/dev/kmsg".into(), memory, out, Clock::start(None))
}

#[tokio::test]
async fn records_are_read_once_and_lost_ones_counted() {
    for (position, sequences, gaps, count) in [
        (None, &[7, 8, 9][..], 0, 3),
        (Some(Position::Kmsg(8)), &[7, 8, 9], 0, 2),
        (Some(Position::Kmsg(7)), &[7, 8, 9], 0, 3),
        (Some(Position::Kmsg(5)), &[7, 8, 9], 1, 3),
    ] {
        let mut tail = tail(position);
        let now = tail.clock.now();
        for sequence in sequences {
            tail.record(format!("4,{sequence},1,-;{XID_13}").as_bytes(), now);
        }
        assert_eq!((tail.log.gaps, seen(&tail.log, 13)), (gaps, count));
        assert_eq!(tail.log.position, Some(Position::Kmsg(10)));
    }
    let mut tail = tail(None);
    let now = tail.clock.now();
    tail.record(format!("12,7,1,-;{XID_13}").as_bytes(), now);
    assert_eq!(tail.log.facts, []);
}
