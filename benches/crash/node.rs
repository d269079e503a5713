//! One node: its lives, each ended by a kill, and the last one, which may tell all that is left.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rustix::process::Signal;
use serde_json::Value;
use tokio::time::{Instant, sleep, sleep_until};

use crate::chaos::Chaos;
use crate::field::Field;
use crate::mqtt::{Client, Message};
use crate::plan::{Plan, all_is_well};
use crate::proof::{Evidence, Proof};
use crate::proxy::Proxy;
use crate::tally::Section;
use crate::witness::Witness;

/// Every so many rounds the node may tell all that it has to tell before it is killed.
const BREATHER: u64 = 25;

/// A backlog is told at 20 events a second.
const BACKLOG: Duration = Duration::from_secs(180);

/// Without an event for so long, what is still to come comes one by one.
const QUIET: SignedDuration = SignedDuration::from_secs(1);

/// How long the agent's last word may be under way when the agent has ended.
const FAREWELL: Duration = Duration::from_secs(5);

/// Runs a node through its rounds, and proves that nothing was lost untold.
pub(crate) async fn run(rounds: u64, seed: u64) -> Proof {
    let mut node = Node::start(seed).await;
    for round in 1..=rounds {
        node.round(round).await;
    }
    node.prove().await
}

struct Node {
    field: Field,
    /// Stands between the agent and the broker.
    way: Proxy,
    /// Hears the broker itself.
    listener: Client,
    chaos: Chaos,
    witness: Witness,
}

impl Node {
    async fn start(seed: u64) -> Self {
        let plan = Plan::new()
            .expecting_cameras()
            .set("judge.recover_after", "0s");
        let mut field = Field::without_agent(plan).await;
        let way = Proxy::start(field.port());
        let url = format!("mqtt://127.0.0.1:{}", way.port());
        field.plan = field.plan.clone().set("relay.url", url);
        field.configure(&field.plan);
        field.stats(all_is_well());
        Node {
            listener: field.cloud().await,
            field,
            way,
            chaos: Chaos::new(seed),
            witness: Witness::default(),
        }
    }

    /// A life from its start to the kill, and a look at what it left behind.
    async fn round(&mut self, round: u64) {
        let breathes = round.is_multiple_of(BREATHER);
        // Faults outlive some lives, and some begin without.
        if breathes || self.chaos.percent(50) {
            self.chaos.heal(&mut self.field, &self.way).await;
        }
        let phase = if breathes {
            self.field.start_agent().await;
            self.until_all_is_told().await;
            "when all was told"
        } else {
            self.field.launch_agent();
            self.live().await
        };
        self.field.kill().await;
        self.chaos.tally.add(Section::Kills, phase, 1);
        self.witness.look(&self.field).await;
    }

    /// Lives for a random time, in which random things happen; returns the phase in which that ends.
    async fn live(&mut self) -> &'static str {
        let early = self.chaos.percent(20);
        let life = self.chaos.millis(if early { 0..120 } else { 200..1_500 });
        let end = Instant::now() + life;
        loop {
            let next = Instant::now() + self.chaos.millis(5..200);
            sleep_until(next.min(end)).await;
            if next >= end {
                break;
            }
            self.chaos.strike(&mut self.field, &self.way).await;
        }
        if !self.field.log().contains(" started") {
            return "while it started";
        }
        if self.chaos.percent(10) {
            self.field.signal(Signal::TERM);
            sleep(self.chaos.millis(0..300)).await;
            return "while it stopped";
        }
        match (self.chaos.cloudwatch, self.chaos.relay) {
            (false, false) => "with both ways open",
            (true, false) => "with faults on the way to CloudWatch",
            (false, true) => "with faults on the way to the broker",
            (true, true) => "with faults on both ways",
        }
    }

    /// Waits until nothing waits, and nothing has happened for a while: an outlet hears of it a moment later.
    async fn until_all_is_told(&self) {
        let begun = Timestamp::now();
        let time = |of: &Value| of.as_str().and_then(|at| at.parse::<Timestamp>().ok());
        // One that has told nothing yet may not know what it has to tell.
        let idle = |outlet: &Value| {
            outlet["state"] == "ok"
                && outlet["pending"] == 0
                && time(&outlet["last_success"]) >= Some(begun)
        };
        let heard = |camera: &Value| camera["state"] != "unknown";
        let mut latest = (Value::Null, begun);
        let told = |report: &Value| {
            let at = time(&report["at"]).unwrap_or(begun);
            if latest.0 != report["seq"] {
                latest = (report["seq"].clone(), at);
            }
            at.duration_since(latest.1) >= QUIET
                && idle(&report["outlets"][0])
                && idle(&report["outlets"][1])
                && report["cameras"]
                    .as_array()
                    .is_some_and(|all| all.iter().all(heard))
        };
        self.field
            .until_within(BACKLOG, "an empty outbox", told)
            .await;
    }

    /// A last life without faults that ends in order; then the proof.
    async fn prove(mut self) -> Proof {
        self.chaos.heal(&mut self.field, &self.way).await;
        self.field.stats(all_is_well());
        self.field.gpus(&self.field.plan.gpus);
        self.field.start_agent().await;
        self.until_all_is_told().await;
        let heard = self.listener.messages().len();
        let ended = self.field.stop().await;
        let stopped = |message: &Message| {
            message.topic.ends_with("/status") && message.json()["status"] == "stopped"
        };
        let farewell = |all: &[Message]| all[heard..].iter().any(stopped);
        let farewell = self.listener.until("the farewell", farewell);
        let farewell = tokio::time::timeout(FAREWELL, farewell).await.is_ok();
        let evidence = Evidence {
            ended,
            farewell,
            log: self.field.log(),
            messages: self.listener.messages(),
            cloudwatch: self.field.aws.log(),
            list: self.field.sideline(&["outbox", "list", "--json"]).await,
            verify: self.field.sideline(&["outbox", "verify"]).await,
            witness: self.witness,
        };
        let mut proof = evidence.weigh();
        proof.tally.add_all(self.chaos.tally);
        proof
    }
}
