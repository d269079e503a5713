//! How long from a line in the kernel log to the broker's subscriber, to CloudWatch and to the drain in ECS:
//! `cargo bench --bench latency`.
//!
//! The agent is the real one with its usual intervals; broker, CloudWatch and ECS are on this machine, so what is measured
//! is the agent, the kernel's inotify and loopback, not a field's uplink. Each time Xid 79 makes the healthy node of an
//! agent that has just started failing. It proves dead hardware, so that the node drains without a hold: a claim, a count
//! of the cluster and the drain.
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

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use aws::Call;
use aws::ecs::Cluster;
use field::Field;
use plan::{Plan, all_is_well, xid};

const REPETITIONS: usize = 100;

/// The cluster's external nodes.
const NODES: usize = 20;

/// The first ones open connections and fill caches.
const WARM_UP: usize = 5;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut plan = Plan::new()
        .set("host.every", "10s")
        .set("gpu.every", "10s")
        .set("cloudwatch.period", "60s")
        .set("failover.mode", "drain");
    plan.gpus = json!({"gpus": [{"preset": "l4"}]});
    let mut field = Field::without_agent(plan).await;
    let cloud = field.cloud().await;
    field.stats(all_is_well());

    let (mut relayed, mut put, mut drained) = (Vec::new(), Vec::new(), Vec::new());
    for repetition in 1..=WARM_UP + REPETITIONS {
        begin(&mut field).await;
        let log = field.aws.log();
        let (told, asked) = (log.requests.len(), log.calls.len());
        let written = Timestamp::now();
        field.kernel_says(&xid(79).replace("0000:02:00", "0000:01:00"));

        let opened =
            |event: &Value| event["kind"] == "finding_opened" && event["code"] == "gpu.xid.79";
        let count = |all: &[mqtt::Message]| all.iter().filter(|one| opened(&one.json())).count();
        let messages = cloud
            .until("the finding", |all| count(all) == repetition)
            .await;
        let message = messages.iter().rev().find(|one| opened(&one.json()));
        let failing = |one: &aws::Datum| one.name == "Health" && one.values == [2.0];
        let tells = |request: &&Arc<aws::Request>| request.data.iter().any(failing);
        let drains = |call: &&Call| call.body["status"] == "DRAINING";
        let log = field
            .aws
            .until(|log| {
                log.requests[told..].iter().any(|one| tells(&one))
                    && log.calls[asked..].iter().any(|one| drains(&one))
            })
            .await;
        let request = log.requests[told..].iter().find(tells);
        let drain = log.calls[asked..].iter().find(drains);
        if repetition > WARM_UP {
            relayed.push(millis(written, message.expect("it was counted").at));
            put.push(millis(written, request.expect("it was found").at));
            drained.push(millis(written, drain.expect("it was found").at));
        }
        assert!(field.stop().await.success());
    }
    println!("{REPETITIONS} times Xid 79, from before the line is written; milliseconds");
    println!("{:<44} {:>7} {:>7} {:>7}", "until", "p50", "p99", "max");
    for (what, mut times) in [
        ("the relay's event is with a subscriber", relayed),
        ("PutMetricData with Health = 2 arrives", put),
        ("UpdateContainerInstancesState arrives", drained),
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

/// A node that remembers nothing starts and is healthy, in a cluster where all is well.
async fn begin(field: &mut Field) {
    let mut yard = Cluster::named("yard");
    let own = yard.register("own");
    for other in 1..NODES {
        yard.register(&other.to_string());
    }
    field.aws.serve_cluster(yard, &own);
    let _ = std::fs::remove_dir_all(field.path("state"));
    field.write("kernel.log", "");
    field.start_agent().await;
    let well = |report: &Value| {
        report["verdict"]["state"] == "healthy" && report["outlets"][3]["last_success"].is_string()
    };
    field.until("health and a place", well).await;
}

fn millis(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64() * 1000.0
}
