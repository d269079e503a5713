//! Every record that waits as a line of JSON.

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use serde_json::{Map, Value, json};

use crate::domain::outbox::Rank;
use crate::ship::datum::{self, Datum, Scope};
use crate::store::Destination;
use crate::store::inspect::{Outboxes, Waiting};

/// Whether a payload can be sent.
pub(super) fn makes_sense(of: Destination, payload: &[u8]) -> bool {
    content(of, payload).is_some()
}

/// Prints them; one that is damaged is told on standard error.
///
/// # Errors
/// The output cannot be written. A reader that goes early, as `head` does, is no error.
pub(super) fn run(outboxes: &Outboxes) -> anyhow::Result<ExitCode> {
    match write(outboxes, &mut BufWriter::new(io::stdout().lock())) {
        Ok(0) => Ok(ExitCode::SUCCESS),
        Ok(_) => Ok(ExitCode::FAILURE),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        Err(error) => Err(error.into()),
    }
}

/// Returns how many could not be written for damage.
fn write(outboxes: &Outboxes, out: &mut impl Write) -> io::Result<u64> {
    let mut damaged = 0;
    for of in Destination::ALL {
        for record in outboxes.waiting(of) {
            match record.and_then(|record| line(of, &record)) {
                Ok(line) => writeln!(out, "{line}")?,
                Err(flaw) => {
                    damaged += 1;
                    eprintln!("sideline: {} {flaw}", of.name());
                }
            }
        }
    }
    out.flush()?;
    Ok(damaged)
}

fn line(of: Destination, record: &Waiting) -> Result<Value, String> {
    let number = record.number;
    let content = content(of, &record.payload)
        .ok_or_else(|| format!("{number}: what is kept makes no sense"))?;
    let rank = match record.rank {
        Rank::Metric => "metric",
        Rank::Transition => "transition",
    };
    let mut line = Map::new();
    for (key, value) in [
        ("outlet", json!(of.name())),
        ("number", json!(number)),
        ("rank", json!(rank)),
        ("at", json!(record.at)),
    ] {
        line.insert(key.to_owned(), value);
    }
    if of == Destination::CloudWatch {
        let period_s = record.period.map(|period| period.as_secs());
        line.insert("period_s".to_owned(), json!(period_s));
    }
    line.extend(content);
    Ok(Value::Object(line))
}

/// What a payload says; `None` where it can't be sent.
fn content(of: Destination, payload: &[u8]) -> Option<Map<String, Value>> {
    let content = match of {
        Destination::CloudWatch => {
            let data = datum::decode(payload)?;
            let mut metrics: Vec<&str> = Vec::new();
            for datum in &data {
                if !metrics.contains(&datum.name) {
                    metrics.push(datum.name);
                }
            }
            let data: Vec<Value> = data.iter().map(values).collect();
            json!({"metrics": metrics, "data": data})
        }
        Destination::Relay => {
            let event: Map<String, Value> = serde_json::from_slice(payload).ok()?;
            event.get("kind")?;
            json!({"event": event})
        }
    };
    match content {
        Value::Object(content) => Some(content),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            None
        }
    }
}

fn values(datum: &Datum) -> Value {
    let scope = match &datum.scope {
        Scope::Site => "site".to_owned(),
        Scope::Node => "node".to_owned(),
        Scope::Gpu(id) => format!("gpu:{id}"),
        Scope::Camera(id) => format!("camera:{id}"),
    };
    #[expect(clippy::cast_precision_loss, reason = "values are small")]
    let value = |(hundredths, count): &(i64, u32)| json!([*hundredths as f64 / 100.0, count]);
    let values: Vec<Value> = datum.values.iter().map(value).collect();
    json!({"name": datum.name, "scope": scope, "values": values})
}
