//! What a quiet node writes to its disk: `tests/bench/writes [SECONDS]`.
//!
//! The real agent with its usual intervals, 18 cameras that all deliver, two cards, CloudWatch once a minute and the
//! relay. Bytes are those that the kernel charges to the process (`write_bytes` of `/proc/<pid>/io`: whole pages, those
//! of SQLite's index of its log too, which is a mapped file); strace watches fsyncs and writes into files alone. Exit
//! status 1: a bound is broken.
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

/// What is looked at.
const CALLS: &str = "trace=fsync,fdatasync,pwrite64";

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
    let before = written(field.pid());
    let begun = Instant::now();
    sleep(length).await;
    let lasted = begun.elapsed().as_secs_f64();
    let after = written(field.pid());
    let events = field.report().await["seq"].as_u64().expect("a number") - seq;
    let periods = field.aws.requests().len() - told;
    strace.detach();
    let trace = std::fs::read_to_string(&counts).expect("strace has written it");
    let fsyncs = lines(&trace, "sync(").count();
    let fsyncs = f64::from(u32::try_from(fsyncs).expect("few"));

    let periods = f64::from(u32::try_from(periods).expect("few"));
    let events = f64::from(u32::try_from(events).expect("few"));
    let a_period = (fsyncs - events) / periods;
    let bytes = after - before;
    let a_day = bytes * 86_400.0 / lasted / 1e6;
    println!(
        "in {lasted:.0} s: {periods} periods, {events} events, {fsyncs} fsyncs, {bytes} bytes written,"
    );
    for file in ["sideline.db-wal", "sideline.db", "sideline.mark"] {
        let into = format!("/{file}>");
        let writes = lines(&trace, "write64(").filter(|line| line.contains(&into));
        let bytes: Vec<u64> = writes.filter_map(returned).collect();
        let (calls, sum) = (bytes.len(), bytes.iter().sum::<u64>());
        println!("  into {file:<16} {sum:>8} bytes by {calls:>4} calls");
    }
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

/// What a process has written since its start, in bytes.
fn written(pid: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/io")).expect("our own child");
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes:"));
    line.and_then(|value| value.trim().parse().ok())
        .expect("a number")
}

/// Looks on while a process and all its threads write.
struct Strace {
    process: Child,
}

impl Strace {
    fn attach(pid: u32, counts: &Path) -> Strace {
        let process = Command::new("strace")
            .args(["-f", "-qq", "-y", "-s", "0", "-e", CALLS, "-o"])
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

/// The lines of these calls; of one that was interrupted, the second half tells no name.
fn lines<'a>(trace: &'a str, call: &'a str) -> impl Iterator<Item = &'a str> {
    trace.lines().filter(move |line| line.contains(call))
}

/// What a call has returned.
fn returned(line: &str) -> Option<u64> {
    line.rsplit_once("= ")?.1.trim().parse().ok()
}
