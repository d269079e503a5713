//! What SSM Inventory is told of this node: three documents, in the form that the SSM agent takes.
//!
//! Its limits, as its source has them: names of types that begin with `Custom:`, 50 attributes an entry, names of 64
//! bytes and values of 4,096, and every value a string, empty where nothing is known.

use serde_json::{Map, Value, json};

use super::finding::Finding;
use super::report::{Report, State};
use super::snapshot::{Drive, Gpu, GpuState};
use crate::config::Config;
use crate::config::address::redact;

/// Of texts that come from hardware and configuration so much is told, in characters.
const LONGEST_VALUE: usize = 256;

/// SSM takes 1 MB of a node's inventory in all.
const MOST_ENTRIES: usize = 256;

/// A document, and the name of the file that it goes into.
pub type Document = (&'static str, String);

/// The files' names; the SSM agent takes each that ends in `.json`.
pub const FILES: [&str; 3] = [
    "sideline-node.json",
    "sideline-gpus.json",
    "sideline-disks.json",
];

/// What is known of the hardware; a card that falls silent keeps what it said of itself.
#[derive(Debug, Clone, Default)]
pub struct Assets {
    cards: Vec<Gpu>,
}

impl Assets {
    /// The documents that a report is enough for: nothing is said of what could not be read.
    pub fn documents(&mut self, report: &Report) -> Vec<Document> {
        let [node_file, gpus_file, disks_file] = FILES;
        let mut documents = Vec::with_capacity(FILES.len());
        if knows_gpus(report) {
            self.take_in(&report.gpus);
            let cards = self.cards.iter().take(MOST_ENTRIES).map(card);
            documents.push((
                gpus_file,
                document("Custom:SidelineGpu", &cards.collect::<Vec<_>>()),
            ));
        }
        if let Some(host) = &report.host {
            let fixed = host.drives.iter().filter(|drive| !drive.removable);
            let disks: Vec<Value> = fixed.take(MOST_ENTRIES).map(disk).collect();
            documents.push((disks_file, document("Custom:SidelineDisk", &disks)));
            documents.push((node_file, document("Custom:SidelineNode", &[node(report)])));
        }
        documents
    }

    fn take_in(&mut self, cards: &[Gpu]) {
        let before = std::mem::take(&mut self.cards);
        let known = |card: &Gpu| {
            let said = before.iter().find(|known| known.id == card.id);
            said.filter(|_| card.state != GpuState::Ok)
                .unwrap_or(card)
                .clone()
        };
        self.cards = cards.iter().map(known).collect();
    }
}

/// Whether the list of cards was read, or there are none to read of.
fn knows_gpus(report: &Report) -> bool {
    let of_gpus = |finding: &Finding| finding.code.to_string().starts_with("gpu.");
    let nothing_is_wrong =
        report.verdict.state != State::Unknown && !report.findings.iter().any(of_gpus);
    report.measured.gpus.is_some() || (report.gpus.is_empty() && nothing_is_wrong)
}

/// Checksum of a configuration without its passwords: it is shown where they must not be guessed from it.
#[must_use]
pub fn config_checksum(config: &Config) -> u32 {
    fn hide(value: &mut Value) {
        match value {
            Value::String(text) => *text = redact(text).into_owned(),
            Value::Array(values) => values.iter_mut().for_each(hide),
            Value::Object(values) => values.values_mut().for_each(hide),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    let mut written = serde_json::to_value(config).unwrap_or_default();
    hide(&mut written);
    crc32fast::hash(written.to_string().as_bytes())
}

fn node(report: &Report) -> Value {
    let node = &report.node;
    entry([
        ("Agent", node.agent.clone()),
        ("Cameras", report.cameras.len().to_string()),
        ("Config", node.config.clone()),
        ("Driver", node.driver.clone().unwrap_or_default()),
        ("Gpus", report.gpus.len().to_string()),
        ("Hostname", node.hostname.clone()),
        ("Node", node.id.clone()),
        ("Site", node.site.clone()),
        ("Slots", report.capacity.slots.to_string()),
    ])
}

fn card(card: &Gpu) -> Value {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    entry([
        ("Model", text(&card.name)),
        ("Pci", text(&card.pci)),
        ("Serial", text(&card.serial)),
        ("Uuid", card.id.clone()),
        ("Vbios", text(&card.vbios)),
    ])
}

fn disk(drive: &Drive) -> Value {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    entry([
        ("Model", text(&drive.model)),
        ("Name", drive.name.clone()),
        ("Serial", text(&drive.serial)),
        (
            "SizeBytes",
            drive
                .size_bytes
                .map_or(String::new(), |size| size.to_string()),
        ),
    ])
}

fn entry<const N: usize>(attributes: [(&str, String); N]) -> Value {
    let attributes = attributes.map(|(name, value)| {
        let value: String = value.trim().chars().take(LONGEST_VALUE).collect();
        (name.to_owned(), Value::String(value))
    });
    Value::Object(Map::from_iter(attributes))
}

fn document(of_type: &str, content: &[Value]) -> String {
    let document = json!({"SchemaVersion": "1.0", "TypeName": of_type, "Content": content});
    format!("{document:#}\n")
}

#[cfg(test)]
mod tests {
    use super::super::moment::Moment;
    use super::super::report::test_report;
    use super::super::snapshot::Host;
    use super::*;

    fn content(documents: &[Document], file: &str) -> Option<Value> {
        let (_, text) = documents.iter().find(|(name, _)| *name == file)?;
        let mut document: Value = serde_json::from_str(text).unwrap();
        assert_eq!(document["SchemaVersion"], "1.0");
        assert!(
            document["TypeName"]
                .as_str()
                .unwrap()
                .starts_with("Custom:Sideline")
        );
        Some(document["Content"].take())
    }

    fn card(state: GpuState, serial: Option<&str>) -> Gpu {
        Gpu {
            id: "GPU-1".to_owned(),
            name: Some("NVIDIA L4".to_owned()),
            serial: serial.map(str::to_owned),
            state,
            ..Gpu::default()
        }
    }

    #[test]
    fn nothing_is_said_of_what_could_not_be_read() {
        let nothing = test_report(State::Unknown, vec![]);
        assert_eq!(Assets::default().documents(&nothing), []);
        // A server without cards has none, which is something else than not to know.
        let without = test_report(State::Healthy, vec![]);
        let documents = Assets::default().documents(&without);
        assert_eq!(content(&documents, FILES[1]), Some(json!([])));
    }

    #[test]
    fn every_value_is_a_string_within_the_limits() {
        let mut report = test_report(State::Healthy, vec![]);
        report.host = Some(Host {
            drives: vec![Drive {
                name: "sda".to_owned(),
                model: Some("m".repeat(9_000)),
                size_bytes: Some(7),
                ..Drive::default()
            }],
            ..Host::default()
        });
        let documents = Assets::default().documents(&report);
        for file in FILES {
            for entry in content(&documents, file).unwrap().as_array().unwrap() {
                let attributes = entry.as_object().unwrap();
                assert!(attributes.len() <= 50);
                let fits = |value: &Value| value.as_str().is_some_and(|text| text.len() <= 4_096);
                assert!(attributes.values().all(fits), "{entry}");
            }
        }
        let disks = content(&documents, FILES[2]).unwrap();
        assert_eq!(disks[0]["SizeBytes"], "7");
        assert_eq!(disks[0]["Serial"], "");
    }

    #[test]
    fn no_password_is_in_the_checksum() {
        let with = |url: &str| {
            let mut config = Config::default();
            config.relay.url = url.to_owned();
            config_checksum(&config)
        };
        let one = with("mqtts://field:hunter2@broker:8883");
        assert_eq!(one, with("mqtts://field:tr0ub4dor@broker:8883"));
        assert_ne!(one, with("mqtts://field:hunter2@elsewhere:8883"));
        assert_ne!(one, config_checksum(&Config::default()));
    }

    #[test]
    fn a_card_that_is_lost_keeps_its_serial_number() {
        let mut assets = Assets::default();
        for (state, says, serial) in [
            (GpuState::Ok, Some("123"), "123"),
            (GpuState::Lost, None, "123"),
            (GpuState::Ok, Some("456"), "456"),
        ] {
            let mut report = test_report(State::Failing, vec![]);
            report.measured.gpus = Some(Moment::BOOT);
            report.gpus = vec![card(state, says)];
            let documents = assets.documents(&report);
            let cards = content(&documents, FILES[1]).unwrap();
            assert_eq!(cards[0]["Serial"], serial);
        }
    }
}
