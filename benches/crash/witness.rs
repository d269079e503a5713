//! What still waits in the outbox after a kill, as `sideline outbox export` tells it; all of it must arrive one day.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::Value;

use crate::field::{Answer, Field};

/// Complaints that are kept: a command that is missing is missing every time.
const KEPT: usize = 3;

/// All that was ever seen waiting.
#[derive(Debug, Default)]
pub(crate) struct Witness {
    /// CloudWatch's rows by their numbers.
    pub(crate) rows: BTreeMap<u64, Row>,
    /// Numbers of the relay's events.
    pub(crate) events: BTreeSet<u64>,
    pub(crate) looks: u64,
    pub(crate) complaints: Vec<String>,
}

/// A request to CloudWatch, as it was last seen waiting.
#[derive(Debug)]
pub(crate) struct Row {
    /// The time that its data carry.
    pub(crate) at: Timestamp,
    pub(crate) metrics: BTreeSet<String>,
}

impl Witness {
    /// Looks at the outbox of an agent that does not run.
    pub(crate) async fn look(&mut self, field: &Field) {
        self.read(&field.sideline(&["outbox", "export", "--json"]).await);
    }

    /// Takes in what the command answered.
    pub(crate) fn read(&mut self, answer: &Answer) {
        self.looks += 1;
        if answer.status != Some(0) {
            let why = answer.err.trim().lines().next().unwrap_or_default();
            self.complain(format!(
                "sideline outbox export --json ended with {:?}: {why}",
                answer.status
            ));
            return;
        }
        for line in answer.out.lines() {
            if let Err(why) = self.note(line) {
                self.complain(format!("sideline outbox export --json: {why}: {line}"));
            }
        }
    }

    fn note(&mut self, line: &str) -> Result<(), String> {
        let row: Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
        let number = row["number"].as_u64().ok_or("no number")?;
        match row["outlet"].as_str() {
            Some("relay") => {
                self.events.insert(number);
            }
            Some("cloudwatch") => {
                let at = row["at"].as_str().and_then(|at| at.parse().ok());
                let at = at.ok_or("no time")?;
                let metrics = row["metrics"].as_array().ok_or("no metrics")?;
                let metrics = metrics.iter().filter_map(Value::as_str);
                let metrics = metrics.map(str::to_owned).collect();
                let before = self.rows.insert(number, Row { at, metrics });
                if before.is_some_and(|before| before.at != at) {
                    return Err("the number was another row's before".to_owned());
                }
            }
            other => return Err(format!("no such outlet is promised: {other:?}")),
        }
        Ok(())
    }

    fn complain(&mut self, complaint: String) {
        if self.complaints.len() < KEPT {
            self.complaints.push(complaint);
        }
    }
}
