//! The AWS of the tests as a program of its own, for agents that run elsewhere on this machine, as in a container.
//!
//! It prints JSON, a line each: first its URL, then what it was sent. On standard input it takes `accept KEY …`: only
//! these access keys are good from now on. It ends with its standard input.
#![expect(clippy::print_stdout, reason = "its output is what it is for")]

#[path = "../tests/servers/aws.rs"]
mod aws;

use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

use aws::{Aws, Log};

/// How often it looks for what is new.
const LOOK: Duration = Duration::from_millis(50);

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let aws = Aws::start().await;
    println!("{}", json!({"url": aws.url()}));
    let mut orders = BufReader::new(standard_input()?).lines();
    let mut look = tokio::time::interval(LOOK);
    let mut told = Told::default();
    loop {
        tokio::select! {
            _ = look.tick() => told.tell(&aws.log()),
            order = orders.next_line() => match order? {
                Some(order) => obey(&aws, &order)?,
                None => return Ok(()),
            },
        }
    }
}

/// Standard input as tokio reads it; its own needs a thread that never ends.
fn standard_input() -> anyhow::Result<tokio::net::unix::pipe::Receiver> {
    use std::os::fd::AsFd;
    let pipe = std::io::stdin().as_fd().try_clone_to_owned()?;
    Ok(tokio::net::unix::pipe::Receiver::from_owned_fd(pipe)?)
}

fn obey(aws: &Aws, order: &str) -> anyhow::Result<()> {
    match order.split_whitespace().collect::<Vec<_>>().as_slice() {
        ["accept", keys @ ..] => aws.accept_keys(keys.iter().copied()),
        _ => anyhow::bail!("an order is `accept KEY …`, not {order:?}"),
    }
    println!("{}", json!({"done": order}));
    Ok(())
}

/// How much of the log has been printed.
#[derive(Default)]
struct Told {
    requests: usize,
    calls: usize,
    refused: usize,
}

impl Told {
    fn tell(&mut self, log: &Log) {
        for request in &log.requests[self.requests..] {
            let data: Map<String, Value> = request
                .data
                .iter()
                .filter_map(|datum| {
                    let value = datum.value.or(datum.values.last().copied())?;
                    Some((datum.name.clone(), value.into()))
                })
                .collect();
            let (at, key) = (request.at.to_string(), &request.access_key);
            println!("{}", json!({"at": at, "key": key, "data": data}));
        }
        for call in &log.calls[self.calls..] {
            let (at, key) = (call.at.to_string(), &call.access_key);
            println!(
                "{}",
                json!({"at": at, "key": key, "call": call.target, "body": call.body})
            );
        }
        for refused in &log.refused[self.refused..] {
            let at = refused.at.to_string();
            println!(
                "{}",
                json!({"at": at, "refused": refused.reason, "status": refused.status})
            );
        }
        *self = Told {
            requests: log.requests.len(),
            calls: log.calls.len(),
            refused: log.refused.len(),
        };
    }
}
