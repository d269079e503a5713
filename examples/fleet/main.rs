//! A fleet on paper: sideline's own judges and control plans in thousands of simulated nodes, through a week of trouble.
//!
//! `cargo run --release --example fleet -- --nodes 10000 --days 7` lets the same faults, power cuts, uplink failures, a
//! bad driver and a wrong threshold happen three times: with nobody acting, with sideline but without its guards, and
//! with sideline as it comes. It prints what was lost, what was drained wrongly, what AWS was asked, and what it costs.
#![expect(clippy::print_stdout, reason = "it prints a table")]

mod calls;
mod cloud;
mod control;
mod ecs;
mod losses;
mod node;
mod plan;
mod run;
mod table;

use std::time::{Duration, Instant};

use clap::Parser;

use cloud::Stack;
use plan::Plan;

/// A fleet on paper.
#[derive(Debug, Parser)]
struct Arguments {
    /// Nodes.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    nodes: u32,
    /// How long they are watched.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u64).range(1..=366))]
    days: u64,
    /// Where all chance comes from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Nodes of a site.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    site: u32,
    /// Nodes of an ECS cluster.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=5_000))]
    cluster: u32,
    /// Slots of a node.
    #[arg(long, default_value_t = 18, value_parser = clap::value_parser!(u32).range(2..=1_000))]
    slots: u32,
    /// Slots of a task in the cloud.
    #[arg(long, default_value_t = 18, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    slots_per_task: u32,
    /// The most tasks in the cloud for one site.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(0..=20))]
    max_cloud_tasks: u32,
    /// JSON instead of a table.
    #[arg(long)]
    json: bool,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let plan = Plan {
        nodes: arguments.nodes,
        lasts: Duration::from_secs(arguments.days * 86_400),
        settles: Duration::ZERO,
        seed: arguments.seed,
        site: arguments.site,
        cluster: arguments.cluster,
        slots: arguments.slots,
    };
    let stack = Stack {
        required: 0,
        slots_per_task: arguments.slots_per_task,
        most_tasks: arguments.max_cloud_tasks,
    };
    let started = Instant::now();
    let events = plan::draw(plan);
    let runs = [None, Some(node::unguarded()), Some(node::guarded())]
        .map(|failover| run::run(plan, stack, &events, failover));
    let table = table::Table::of(plan, &runs, started.elapsed());
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&table)?);
    } else {
        print!("{table}");
    }
    Ok(())
}
