//! What a field server is to be like: its configuration, its cards, its environment.

use serde_json::{Value, json};
use toml::Table;

/// Everything quick, so that a test takes seconds. `{…}` is filled in when the folder and the servers exist.
const QUICK: &str = r#"
[node]
id = "mi-0field"
site = "north"
slots = 18
[paths]
state = "{folder}/state"
run = "{folder}/run"
[host]
every = "1s"
[gpu]
every = "1s"
deadline = "1s"
library = "{library}"
[kernel_log]
path = "{folder}/kernel.log"
[[cameras.source]]
kind = "frigate"
url = "mqtt://127.0.0.1:{port}"
[cameras]
down_after = "1s"
[judge]
recover_after = "1s"
# How full the disks of the machine that runs the tests are is not the matter here.
rules = { "host.*" = "off" }
[aws]
region = "eu-west-1"
registration = "{folder}/registration"
credentials = "{folder}/credentials"
ecs_agent = "{aws}"
[cloudwatch]
period = "1s"
[relay]
url = "mqtt://127.0.0.1:{port}"
"#;

/// What a field server is to be like.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) config: Table,
    /// The fake library's state file.
    pub(crate) gpus: Value,
    pub(crate) environment: Vec<(String, String)>,
}

impl Plan {
    /// 18 slots, two cards, a Frigate, every outlet on.
    pub(crate) fn new() -> Self {
        Plan {
            config: QUICK.parse().expect("it is TOML"),
            gpus: cards(&json!({})),
            environment: [
                ("AWS_ACCESS_KEY_ID", "AKIAFIELD"),
                ("AWS_SECRET_ACCESS_KEY", "secret-key-of-the-field"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        }
    }

    /// With this key, such as `cloudwatch.period`, set.
    pub(crate) fn set(mut self, key: &str, value: impl Into<toml::Value>) -> Self {
        let mut table = &mut self.config;
        let mut names: Vec<&str> = key.split('.').collect();
        let last = names.pop().expect("a key has a name");
        for name in names {
            let below = table.entry(name).or_insert_with(|| Table::new().into());
            table = below.as_table_mut().expect("a section");
        }
        table.insert(last.to_owned(), value.into());
        self
    }

    /// With 18 cameras configured, `hole01` to `hole18`, which should deliver 5 frames a second.
    pub(crate) fn expecting_cameras(self) -> Self {
        let expect: Table = holes()
            .map(|hole| (hole, toml::toml! { fps = 5.0 }.into()))
            .collect();
        self.set("cameras.expect", expect)
    }

    /// With these findings of the server, and no others: what else the machine that runs the tests has is not the matter.
    pub(crate) fn judging(self, codes: &[&str]) -> Self {
        let mut others: Vec<&str> = sideline::config::codes::CODES.into();
        others.retain(|code| code.starts_with("host.") && !codes.contains(code));
        let rules = others
            .into_iter()
            .map(|code| (code.to_owned(), "off".into()));
        self.set("judge.rules", rules.collect::<Table>())
    }

    /// With its credentials in the file of `aws.credentials` alone.
    pub(crate) fn without_keys_in_the_environment(mut self) -> Self {
        self.environment.clear();
        self
    }
}

/// The cameras' names.
pub(crate) fn holes() -> impl Iterator<Item = String> {
    (1..=18).map(|hole| format!("hole{hole:02}"))
}

/// What a Frigate publishes of 18 cameras that deliver `fps`, but for one.
pub(crate) fn stats(fps: f64, other: (&str, f64)) -> String {
    let cameras: serde_json::Map<_, _> = holes()
        .map(|hole| {
            let fps = if hole == other.0 { other.1 } else { fps };
            let seen = json!({"camera_fps": fps, "process_fps": fps, "skipped_fps": 0.0});
            (hole, seen)
        })
        .collect();
    json!({"cameras": cameras, "service": {"version": "0.17.2"}}).to_string()
}

/// 18 cameras that all deliver.
pub(crate) fn all_is_well() -> String {
    stats(5.0, ("", 0.0))
}

/// Two cards of different kinds; `second` changes the second one.
pub(crate) fn cards(second: &Value) -> Value {
    let mut card = json!({"preset": "rtx4090"});
    if let (Some(card), Some(changes)) = (card.as_object_mut(), second.as_object()) {
        card.extend(changes.clone());
    }
    json!({"gpus": [{"preset": "l4"}, card]})
}

/// The identities that the fake library gives its cards.
pub(crate) const CARDS: [&str; 2] = [
    "GPU-00000001-5ced-4e11-8e5c-000000000001",
    "GPU-00000002-5ced-4e11-8e5c-000000000002",
];

/// A kernel line of the second card's.
pub(crate) fn xid(number: u32) -> String {
    format!(
        "NVRM: Xid (PCI:0000:02:00): {number}, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."
    )
}
