//! What a quiet node writes to its disk: `tests/bench/writes [SECONDS]`.
//!
//! The real agent with its usual intervals, 18 cameras that all deliver, two cards, CloudWatch once a minute and the
//! relay. Bytes are those that the kernel charges to the process (`write_bytes` of `/proc/<pid>/io`: whole pages of the
//! file system); fsyncs are counted by strace, which watches no other call. Exit status 1: a bound is broken.
#![expect(clippy::print_stdout, reason = "it tells what it measured")]

#[path = "../tests/servers/aws.rs"]
mod aws;
#[path = "../tests/servers/fake_nvml.rs"]
mod fake_nvml;
#[path = "../tests/agent/field.rs"]
mod field;
#[allow(dead_code, reason = "here nothing restarts the broker")]
#[path = "../tests/servers/mosquitto.rs"]
mod mosquitto;
#[allow(dead_code, reason = "a benchmark listens to little")]
#[path = "../tests/agent/mqtt.rs"]
mod mqtt;
#[allow(dead_code, reason = "a benchmark needs one plan")]
#[path = "../tests/agent/plan.rs"]
mod plan;

use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::sleep;

use field::Field;
use plan::{Plan, all_is_well};

/// What the start writes is over by then.
const WARM_UP: Duration = Duration::from_secs(75);

const MOST_FSYNCS_A_PERIOD: f64 = 2.0;
const MOST_MB_A_DAY: f64 = 50.0;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    // Cargo adds an option of its own.
    let seconds = std::env::args().skip(1).find_map(|word| word.parse().ok());
    let length = Duration::from_secs(seconds.unwrap_or(300));
    let plan = Plan::new()
        .expecting_cameras()
        .set("host.every", "10s")
        .set("gpu.every", "10s")
        .set("cameras.down_after", "60s")
        .set("judge.recover_after", "30s")
        .set("cloudwatch.period", "60s");
    let field = Field::start(plan).await;
    field.stats(all_is_well());
    field.until_state("healthy").await;
    sleep(WARM_UP).await;

    let counts = field.path("fsyncs");
    let strace = Strace::attach(field.pid(), &counts);
    let told = field.aws.requests().len();
    let seq = field.report().await["seq"].as_u64().expect("a number");
    let before = Written::by(field.pid());
    let begun = Instant::now();
    sleep(length).await;
    let lasted = begun.elapsed().as_secs_f64();
    let after = Written::by(field.pid());
    let events = field.report().await["seq"].as_u64().expect("a number") - seq;
    let periods = field.aws.requests().len() - told;
    strace.detach();
    let fsyncs = fsyncs(&counts);

    let periods = f64::from(u32::try_from(periods).expect("few"));
    let events = f64::from(u32::try_from(events).expect("few"));
    let a_period = (fsyncs - events) / periods;
    let bytes = after.bytes - before.bytes;
    let a_day = bytes * 86_400.0 / lasted / 1e6;
    println!(
        "in {lasted:.0} s: {periods} periods, {events} events, {fsyncs} fsyncs, {bytes} bytes written,"
    );
    println!(
        "{} writing calls (files and sockets)",
        after.calls - before.calls
    );
    let rows = [
        (
            "fsyncs a period, without one an event",
            a_period,
            MOST_FSYNCS_A_PERIOD,
        ),
        ("MB a day", a_day, MOST_MB_A_DAY),
    ];
    let mut broken = periods < 1.0;
    for (what, value, most) in rows {
        let word = if value > most { "BROKEN" } else { "holds" };
        broken |= value > most;
        println!("{what:<40} {value:>8.2}  at most {most}: {word}");
    }
    if broken {
        return ExitCode::FAILURE;
    }
    println!("all bounds hold");
    ExitCode::SUCCESS
}

/// What a process has written since its start.
struct Written {
    bytes: f64,
    calls: u64,
}

impl Written {
    fn by(pid: u32) -> Written {
        let text = std::fs::read_to_string(format!("/proc/{pid}/io")).expect("our own child");
        let field = |name: &str| -> u64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|value| value.trim().parse().ok())
                .expect("a number")
        };
        #[expect(clippy::cast_precision_loss, reason = "megabytes")]
        let bytes = field("write_bytes:") as f64;
        Written {
            bytes,
            calls: field("syscw:"),
        }
    }
}

/// Counts the fsyncs of a process and of all its threads.
struct Strace {
    process: Child,
}

impl Strace {
    fn attach(pid: u32, counts: &Path) -> Strace {
        let process = Command::new("strace")
            .args(["-f", "-qq", "-e", "trace=fsync,fdatasync", "-o"])
            .arg(counts)
            .args(["-p", &pid.to_string()])
            .stdin(Stdio::null())
            .spawn()
            .expect("strace is installed");
        Strace { process }
    }

    fn detach(mut self) {
        let pid = i32::try_from(self.process.id())
            .ok()
            .and_then(Pid::from_raw);
        kill_process(pid.expect("a process"), Signal::INT).expect("our own child");
        self.process.wait().expect("our own child");
    }
}

/// A line each; one that was interrupted has two.
fn fsyncs(counts: &Path) -> f64 {
    let text = std::fs::read_to_string(counts).expect("strace has written it");
    let calls = text.lines().filter(|line| line.contains("sync(")).count();
    f64::from(u32::try_from(calls).expect("few"))
}
