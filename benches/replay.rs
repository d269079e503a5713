//! How fast `sideline replay` judges 1 GB of kernel log with 1 % matching lines, beside `grep` on the same file, and how
//! much of that is the search for the lines; at most twice grep's time.

use std::fs::{self, File};
use std::hint::black_box;
use std::io::{BufWriter, Read, Write};
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use divan::Bencher;
use divan::counter::BytesCount;
use sideline::domain::kernel_scan::{Scanner, count_lines};
use tempfile::NamedTempFile;

const SIZE: u64 = 1_000_000_000;
const PIECE: usize = 256 * 1024;

/// What a camera server's log is full of.
const NOISE: [&str; 6] = [
    "br-4f1c: port 3(veth8c1f2aa) entered blocking state",
    "IPv6: ADDRCONF(NETDEV_CHANGE): veth8c1f2aa: link becomes ready",
    "usb 1-4: new high-speed USB device number 7 using xhci_hcd",
    "audit: type=1400 audit(1700000000.123:456): apparmor=\"ALLOWED\" operation=\"open\" profile=\"x\"",
    "[UFW BLOCK] IN=eno1 OUT= MAC=01:00:5e:00:00:01 SRC=10.0.0.1 DST=224.0.0.1 LEN=32 TOS=0x00 TTL=1 PROTO=2",
    "perf: interrupt took too long (2510 > 2500), lowering kernel.perf_event_max_sample_rate to 79000",
];

/// One of them a hundred lines.
const EVENTS: [&str; 4] = [
    "NVRM: Xid (PCI:0000:01:00): 31, pid=2079991, name=ffmpeg, Ch 00000007, intr 00000000.",
    "I/O error, dev nvme0n1, sector 128 op 0x1:(WRITE) flags 0x800 phys_seg 1 prio class 2",
    "EDAC MC0: 1 CE memory read error on CPU_SrcID#0_Ha#0_Chan#1_DIMM#0 (channel:1 slot:0 page:0x1)",
    "mce: [Hardware Error]: Machine check events logged",
];

static LOG: OnceLock<NamedTempFile> = OnceLock::new();

fn main() {
    divan::main();
    // What is static is never dropped.
    if let Some(log) = LOG.get() {
        fs::remove_file(log.path()).expect("it is ours");
    }
}

/// The log, written when it is first asked for.
fn log() -> &'static Path {
    LOG.get_or_init(write_log).path()
}

fn write_log() -> NamedTempFile {
    let file = NamedTempFile::new().expect("the folder for temporary files takes 1 GB");
    let mut out = BufWriter::new(file.reopen().expect("it was just made"));
    let (mut written, mut line) = (0, 0_usize);
    while written < SIZE {
        let text = match line % 100 {
            99 => EVENTS[line / 100 % EVENTS.len()],
            _ => NOISE[line % NOISE.len()],
        };
        let stamp = line as f64 / 1_000.0;
        let text = format!("[{stamp:>12.6}] {text}\n");
        written += text.len() as u64;
        line += 1;
        out.write_all(text.as_bytes()).expect("the disk takes 1 GB");
    }
    out.flush().expect("the disk takes 1 GB");
    file
}

#[divan::bench(sample_count = 3, sample_size = 1)]
fn grep(bencher: Bencher<'_, '_>) {
    let log = log();
    bencher.counter(BytesCount::new(SIZE)).bench_local(|| {
        let found = Command::new("grep")
            .args(["-cE", "Xid|NVRM|I/O error|EDAC|mce"])
            .arg(log)
            .output();
        found.expect("grep is installed").stdout
    });
}

/// Finding the lines, and counting all.
#[divan::bench(sample_count = 3, sample_size = 1)]
fn scan(bencher: Bencher<'_, '_>) {
    let log = log();
    let scanner = Scanner::shared();
    bencher.counter(BytesCount::new(SIZE)).bench_local(|| {
        pieces(log, |piece| {
            black_box((scanner.lines(piece).count(), count_lines(piece)));
        });
    });
}

/// `sideline replay` itself: the lines found, understood and judged, in at most 128 MiB of address space.
#[divan::bench(sample_count = 3, sample_size = 1)]
fn replay(bencher: Bencher<'_, '_>) {
    let log = log();
    let config = NamedTempFile::new().expect("the folder for temporary files takes an empty one");
    bencher.counter(BytesCount::new(SIZE)).bench_local(|| {
        let replayed = Command::new("sh")
            .args([
                "-c",
                r#"ulimit -v 131072; exec "$0" --config "$1" replay "$2" --json"#,
            ])
            .arg(env!("CARGO_BIN_EXE_sideline"))
            .args([config.path(), log])
            .output()
            .expect("sh is there");
        let told = String::from_utf8_lossy(&replayed.stdout).into_owned();
        let summary = told.lines().last().unwrap_or_default();
        assert!(
            summary.starts_with(r#"{"summary":{"final":"degraded""#),
            "{replayed:?}"
        );
        told.len()
    });
}

/// The file in pieces of whole lines.
fn pieces(log: &Path, mut each: impl FnMut(&[u8])) {
    let mut file = File::open(log).expect("it was just written");
    let (mut buffer, mut held) = (vec![0; PIECE], 0);
    loop {
        let read = file.read(&mut buffer[held..]).expect("it can be read");
        if read == 0 {
            break;
        }
        let end = held + read;
        let whole = memchr::memrchr(b'\n', &buffer[..end]).map_or(0, |last| last + 1);
        each(&buffer[..whole]);
        buffer.copy_within(whole..end, 0);
        held = end - whole;
    }
}
