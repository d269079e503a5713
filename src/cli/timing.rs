//! The table of hysteresis, for `sideline config show`: when findings open and close.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::config::{Config, units};
use crate::domain::finding::Code;
use crate::domain::timing::{Hold, Timing};

/// One row a code, in the order of the contract; Xids are two families.
fn rows() -> impl Iterator<Item = (String, Timing)> {
    const OF_PROGRAM: u32 = 31;
    const OF_CARD: u32 = 79;
    let xids = [
        ("gpu.xid.* (the card's)", Code::GpuXid(OF_CARD)),
        ("gpu.xid.* (others)", Code::GpuXid(OF_PROGRAM)),
    ];
    let xids = xids.map(|(name, code)| (name.to_owned(), Timing::of(code)));
    let plain = Code::PLAIN.map(|code| (code.to_string(), Timing::of(code)));
    xids.into_iter().chain(plain)
}

/// The table as comments of a TOML file.
pub fn comments(config: &Config) -> String {
    let mut text = String::from(
        "\n# When findings open and close. A state opens after it has lasted, an event at once; both close after proof that
# lasts. What opens a third time within an hour of its close takes twice as long to close, and so on, up to 30m.
# A source that is silent proves nothing.
",
    );
    let mut line = |code: &str, opens: &str, closes: &str, rest: &str| {
        let row = format!("# {code:<24} {opens:<9} {closes:<9} {rest}");
        let _ = writeln!(text, "{}", row.trim_end());
    };
    line("finding", "opens", "closes", "proof");
    for (code, timing) in rows() {
        let more = timing.repeats.map_or(String::new(), |repeats| {
            let within = units::format_duration(repeats.within);
            format!(
                "; counts: {} {} within {within}",
                repeats.count, repeats.what
            )
        });
        let varies = match timing.opens {
            Hold::Varies(words) => format!("; opens after {words}"),
            Hold::Now | Hold::For(_) | Hold::Set { .. } => String::new(),
        };
        let rest = format!("{}{more}{varies}", timing.proof);
        line(
            &code,
            &length(timing.opens, config),
            &length(timing.closes, config),
            &rest,
        );
    }
    text
}

/// The same for programs.
pub fn json(config: &Config) -> Value {
    let row = |(code, timing): (String, Timing)| {
        json!({
            "finding": code,
            "opens_after_s": seconds(timing.opens, config),
            "closes_after_s": seconds(timing.closes, config),
            "proof": timing.proof,
            "repeats": timing.repeats.map(|repeats| json!({
                "count": repeats.count,
                "what": repeats.what,
                "within_s": repeats.within.as_secs(),
            })),
        })
    };
    rows().map(row).collect()
}

fn length(hold: Hold, config: &Config) -> String {
    match hold {
        Hold::Now => "at once".to_owned(),
        Hold::Varies(_) => "varies".to_owned(),
        Hold::For(_) | Hold::Set { .. } => units::format_duration(hold.length(config)),
    }
}

/// `null` where the rule knows better.
fn seconds(hold: Hold, config: &Config) -> Option<f64> {
    match hold {
        Hold::Varies(_) => None,
        Hold::Now | Hold::For(_) | Hold::Set { .. } => Some(hold.length(config).as_secs_f64()),
    }
}
