//! How long from a line in the kernel log to the broker's subscriber, and to CloudWatch: `cargo bench --bench latency`.
//!
//! The agent is the real one with its usual intervals; broker and CloudWatch are on this machine, so what is measured is
//! the agent, the kernel's inotify and loopback, not a field's uplink. Each time Xid 79 makes a healthy node failing,
//! and a driver that is loaded afresh makes it healthy again.
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

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use tokio::time::{MissedTickBehavior, interval};

use field::Field;
use plan::{Plan, all_is_well, xid};

const REPETITIONS: usize = 100;

/// The first ones open connections and fill caches.
const WARM_UP: usize = 5;

/// Four journal entries a repetition: below the relay's 20 a second, and no multiple of the agent's own rhythms.
const PAUSE: Duration = Duration::from_millis(310);

/// Forgets what was said of the GPUs.
const FRESH_DRIVER: &str = "NVRM: loading NVIDIA UNIX x86_64 Kernel Module  535.161.07";

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let plan = Plan::new()
        .set("host.every", "10s")
        .set("gpu.every", "10s")
        .set("judge.recover_after", "0s")
        .set("cloudwatch.period", "60s");
    let field = Field::start(plan).await;
    let cloud = field.cloud().await;
    field.stats(all_is_well());
    field.until_state("healthy").await;

    let (mut relayed, mut put) = (Vec::new(), Vec::new());
    let mut beat = interval(PAUSE);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for repetition in 1..=WARM_UP + REPETITIONS {
        beat.tick().await;
        let told = field.aws.log().requests.len();
        let written = Timestamp::now();
        field.kernel_says(&xid(79));

        let opened =
            |event: &Value| event["kind"] == "finding_opened" && event["code"] == "gpu.xid.79";
        let count = |all: &[mqtt::Message]| all.iter().filter(|one| opened(&one.json())).count();
        let messages = cloud
            .until("the finding", |all| count(all) == repetition)
            .await;
        let message = messages.iter().rev().find(|one| opened(&one.json()));
        let failing = |one: &aws::Datum| one.name == "Health" && one.values == [2.0];
        let log = field
            .aws
            .until(|log| {
                log.requests
                    .iter()
                    .skip(told)
                    .any(|one| one.data.iter().any(failing))
            })
            .await;
        let request = log
            .requests
            .iter()
            .skip(told)
            .find(|one| one.data.iter().any(failing));
        if repetition > WARM_UP {
            relayed.push(millis(written, message.expect("it was counted").at));
            put.push(millis(written, request.expect("it was found").at));
        }

        field.kernel_says(FRESH_DRIVER);
        let healthy = |event: &Value| event["kind"] == "verdict" && event["state"] == "healthy";
        let count = |all: &[mqtt::Message]| all.iter().filter(|one| healthy(&one.json())).count();
        cloud
            .until("health", |all| count(all) == repetition + 1)
            .await;
        let well = |one: &aws::Datum| one.name == "Health" && one.values == [0.0];
        field
            .aws
            .until(|log| {
                log.requests
                    .iter()
                    .skip(told)
                    .any(|one| one.data.iter().any(well))
            })
            .await;
    }
    println!("{REPETITIONS} times Xid 79, from before the line is written; milliseconds");
    println!("{:<44} {:>7} {:>7} {:>7}", "until", "p50", "p99", "max");
    for (what, mut times) in [
        ("the relay's event is with a subscriber", relayed),
        ("PutMetricData with Health = 2 arrives", put),
    ] {
        times.sort_by(f64::total_cmp);
        let rank = |percent: usize| times[(times.len() * percent).div_ceil(100) - 1];
        println!(
            "{what:<44} {:>7.1} {:>7.1} {:>7.1}",
            rank(50),
            rank(99),
            rank(100)
        );
    }
}

fn millis(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64() * 1000.0
}
