//! Kills the agent again and again while broker and CloudWatch fail, and proves that nothing was lost untold.
//!
//! `tests/bench/crash [ROUNDS [SEED]]`. Two nodes run side by side, each with a broker and a CloudWatch of its own. What
//! is proven, and from what, is in proof.rs. The seed makes the same choices; when the machine gets to them is its own
//! affair, so that a violation comes back with the same seed often, not always.
#![expect(clippy::print_stdout, reason = "it tells what it found")]

#[path = "../../tests/servers/aws.rs"]
mod aws;
mod chaos;
#[path = "../../tests/servers/fake_nvml.rs"]
mod fake_nvml;
#[path = "../../tests/agent/field.rs"]
mod field;
#[allow(dead_code, reason = "here nothing restarts the broker")]
#[path = "../../tests/servers/mosquitto.rs"]
mod mosquitto;
#[allow(dead_code, reason = "a benchmark listens to little")]
#[path = "../../tests/agent/mqtt.rs"]
mod mqtt;
mod node;
#[allow(dead_code, reason = "a benchmark needs one plan")]
#[path = "../../tests/agent/plan.rs"]
mod plan;
mod proof;
#[path = "../../tests/servers/proxy.rs"]
mod proxy;
#[path = "../../tests/servers/receiver.rs"]
mod receiver;
mod tally;
mod witness;

use std::process::ExitCode;
use std::time::Instant;

use proof::Proof;
use tally::Section;

/// One a core of a small machine.
const NODES: u64 = 2;

const ROUNDS: u64 = 500;

fn main() -> ExitCode {
    // cargo says --bench.
    let numbers = std::env::args().skip(1).filter(|one| one != "--bench");
    let numbers: Result<Vec<u64>, _> = numbers.map(|one| one.parse()).collect();
    let (rounds, seed) = match numbers.as_deref() {
        Ok([]) => (ROUNDS, fastrand::u64(..)),
        Ok([rounds]) => (*rounds, fastrand::u64(..)),
        Ok([rounds, seed]) => (*rounds, *seed),
        Ok(_) | Err(_) => {
            println!("usage: tests/bench/crash [ROUNDS [SEED]], both whole numbers");
            return ExitCode::from(2);
        }
    };
    println!("{rounds} rounds on {NODES} nodes, seed {seed}");
    let started = Instant::now();
    let mut proof = prove(rounds, seed);
    let tally = &mut proof.tally;
    tally.add(Section::Rounds, "seconds", started.elapsed().as_secs());
    print!("{tally}");
    if proof.violations.is_empty() {
        println!("nothing was lost untold");
        return ExitCode::SUCCESS;
    }
    println!("\nviolations, seed {seed}:");
    for violation in &proof.violations {
        println!("  {violation}");
    }
    ExitCode::FAILURE
}

/// Runs the nodes side by side and adds up what they proved.
fn prove(rounds: u64, seed: u64) -> Proof {
    let nodes: Vec<_> = (0..NODES)
        .map(|node| {
            let rounds = rounds / NODES + u64::from(node < rounds % NODES);
            let run = move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build();
                let runtime = runtime.expect("a runtime");
                runtime.block_on(node::run(rounds, seed.wrapping_add(node)))
            };
            std::thread::spawn(run)
        })
        .collect();
    let mut whole = Proof::default();
    for (number, node) in (1..).zip(nodes) {
        match node.join() {
            Ok(proof) => whole.add(proof, number),
            Err(_) => whole
                .violations
                .push(format!("node {number} broke off; why stands above")),
        }
    }
    whole
}
