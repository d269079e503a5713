//! The screen of the demo: the agent's own status, and below it what the cloud has been told.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use rumqttc::{Event, EventLoop, Packet};
use serde_json::Value;

use crate::aws::Log;

/// Messages that stay on the screen.
const SHOWN: usize = 6;

pub(crate) struct Screen {
    relay: EventLoop,
    messages: Vec<String>,
    terminal: bool,
    last: String,
}

impl Screen {
    pub(crate) fn new(relay: EventLoop) -> Self {
        let terminal = std::io::stdout().is_terminal();
        Screen {
            relay,
            messages: Vec::new(),
            terminal,
            last: String::new(),
        }
    }

    /// Takes in the next message that the agent relays.
    pub(crate) async fn listen(&mut self) {
        match self.relay.poll().await {
            Ok(Event::Incoming(Packet::Publish(message))) if message.topic.ends_with("/event") => {
                let event: Value = serde_json::from_slice(&message.payload).unwrap_or_default();
                self.note(&event);
            }
            Ok(_) => {}
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }

    fn note(&mut self, event: &Value) {
        let kind = event["kind"].as_str().unwrap_or("?");
        let what = ["code", "cam", "what"]
            .iter()
            .find_map(|key| event[key].as_str())
            .unwrap_or("");
        let state = ["state", "severity"]
            .iter()
            .find_map(|key| event[key].as_str())
            .unwrap_or("");
        let carries = event["available"]
            .as_u64()
            .map_or_else(String::new, |slots| format!(", carries {slots}"));
        self.messages.push(format!(
            "seq {:<4} {kind} {what} {state}{carries}",
            event["seq"]
        ));
    }

    pub(crate) fn draw(
        &mut self,
        act: &str,
        elapsed: Duration,
        report: Option<&Value>,
        told: &Log,
    ) {
        let mut page = format!("── {:>2} s  {act}\n\n", elapsed.as_secs());
        match report {
            Some(report) => page += &sideline::status::text::draw(report, self.terminal),
            None => page += "the agent is starting\n",
        }
        page += "\nCloudWatch was told (a Capacity a period; Health at once when it changes)\n";
        page += &format!(
            "  Capacity {}\n  Health   {}\n",
            series(told, "Capacity"),
            series(told, "Health")
        );
        page += "MQTT upstream was told\n";
        for message in self.messages.iter().rev().take(SHOWN).rev() {
            page += &format!("  {message}\n");
        }
        let mut out = std::io::stdout().lock();
        // A closed pipe ends nothing here: the agent has to be stopped in order.
        let _ = if self.terminal {
            write!(out, "\x1b[H\x1b[J{page}")
        } else if act != self.last {
            act.clone_into(&mut self.last);
            writeln!(out, "{page}")
        } else {
            Ok(())
        };
        let _ = out.flush();
    }

    pub(crate) fn goodbye(&self, told: &Log) {
        let periods = told.data().filter(|datum| datum.name == "Capacity").count();
        let _ = writeln!(
            std::io::stdout(),
            "\nThe agent has stopped in order.\nCloudWatch has {} data of {periods} periods, the relay {} events.",
            told.data().count(),
            self.messages.len(),
        );
    }
}

/// The last values of a metric, oldest first.
fn series(told: &Log, name: &str) -> String {
    let values: Vec<String> = told
        .data()
        .filter(|datum| datum.name == name)
        .flat_map(|datum| &datum.values)
        .map(|value| format!("{value:.0}"))
        .collect();
    values[values.len().saturating_sub(16)..].join(" ")
}
