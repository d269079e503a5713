//! The inventory for a person on an 80-column terminal: a line a thing, and what it is known by.

use std::fmt::Write as _;

use bytesize::ByteSize;
use serde_json::Value;

use super::Inventory;
use crate::domain::inventory::{Presence, Reported};
use crate::domain::memory::{Memory, Part, RememberedGpu};
use crate::status::page::{Page, short};

const RED: &str = "31";

/// Draws what is remembered.
pub(super) fn draw(inventory: &Inventory, colour: bool) -> String {
    let mut page = Page::new(colour);
    let path = inventory.path.display();
    let Some(memory) = &inventory.memory else {
        page.line(&format!("inventory   none yet: {path}"));
        return page.text();
    };
    page.line(&format!("inventory   {path}"));
    if inventory.reported.is_none() {
        page.line("            no agent answers: what is there now is not known");
    }
    let unknown = Reported::default();
    let now = inventory.reported.as_ref().unwrap_or(&unknown);
    if let Some(driver) = &memory.driver {
        page.line(&format!("driver      {driver}"));
    }
    if let Some(usual) = memory.usual_answer_s {
        page.line(&format!("NVML        answers in {:.0} ms", usual * 1000.0));
    }
    for card in &memory.inventory {
        let name = card.name.as_deref().unwrap_or("of unknown make");
        thing(&mut page, "GPU", now.gpu(card), name);
        page.line(&format!("                  {}", known_by(card, memory)));
    }
    let machine = &memory.machine;
    for drive in &machine.drives {
        named(&mut page, "disk", now.drive(drive), drive);
    }
    for nic in &machine.nics {
        named(&mut page, "network", now.nic(nic), nic);
    }
    if let Some(bytes) = machine.memory_bytes {
        let size = ByteSize(bytes).display().iec().to_string();
        thing(&mut page, "memory", now.memory(machine), &size);
    }
    page.text()
}

fn thing(page: &mut Page, kind: &str, now: Presence, name: &str) {
    page.piece(&format!("{kind:<12}"));
    match now {
        Presence::Here => page.piece("here  "),
        Presence::Gone => page.start(RED, "gone  "),
        Presence::Unknown => page.piece("?     "),
    }
    page.line(name);
}

fn named(page: &mut Page, kind: &str, now: Presence, part: &Part) {
    let mut name = format!("{:<10}", part.name);
    if let Some(model) = &part.model {
        let _ = write!(name, " {model}");
    }
    if part.id != part.name {
        let _ = write!(name, "  {}", part.id);
    }
    thing(page, kind, now, &name);
}

fn known_by(card: &RememberedGpu, memory: &Memory) -> String {
    let mut known = card.id.clone();
    if let Some(pci) = &card.pci {
        let _ = write!(known, " in {pci}");
        if let Some(link) = memory.links.get(pci) {
            let _ = write!(known, ", {link}");
        }
    }
    if let Some(serial) = &card.serial {
        let _ = write!(known, ", serial {serial}");
    }
    known
}

/// Draws what came of accepting, but for the problems.
pub(super) fn accepted(accepted: &Value) -> String {
    let forgotten = accepted["forgotten"].as_array();
    let forgotten = forgotten.map(Vec::as_slice).unwrap_or_default();
    let mut text = String::new();
    for thing in forgotten {
        let word = |key: &str| short(thing[key].as_str().unwrap_or_default(), usize::MAX);
        let line = format!(
            "forgotten: {} {} {}",
            word("kind"),
            word("id"),
            word("name")
        );
        let _ = writeln!(text, "{}", line.trim_end());
    }
    if forgotten.is_empty() {
        text.push_str("nothing was forgotten\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::memory::{Link, Machine};
    use crate::domain::snapshot::{Drive, Gpu, GpuState, Host};

    #[test]
    fn each_thing_has_its_line() {
        let card = RememberedGpu {
            id: "GPU-1f0e".into(),
            name: Some("NVIDIA L4".into()),
            pci: Some("0000:01:00".into()),
            serial: Some("1320".into()),
        };
        let part = |id: &str, name: &str, model: Option<&str>| Part {
            id: id.into(),
            name: name.into(),
            model: model.map(str::to_owned),
        };
        let link = Link {
            generation: 4,
            width: 16,
        };
        let memory = Memory {
            inventory: vec![card],
            links: [("0000:01:00".to_owned(), link)].into(),
            driver: Some("580.95.05".into()),
            usual_answer_s: Some(0.0124),
            machine: Machine {
                drives: vec![part("eui.01", "nvme0n1", Some("Samsung 990"))],
                nics: vec![part("eno1", "eno1", None)],
                memory_bytes: Some(64 << 30),
            },
            ..Memory::default()
        };
        let here = Gpu {
            id: "GPU-1f0e".into(),
            state: GpuState::Ok,
            ..Gpu::default()
        };
        let host = Host {
            drives: vec![Drive {
                id: Some("eui.02".into()),
                ..Drive::default()
            }],
            ..Host::default()
        };
        let mut inventory = Inventory {
            path: "sideline.db".into(),
            memory: Some(memory),
            reported: Some(Reported {
                gpus: vec![here],
                missing: Vec::new(),
                host: Some(host),
            }),
        };
        let rest = "\
driver      580.95.05
NVML        answers in 12 ms
GPU         here  NVIDIA L4
                  GPU-1f0e in 0000:01:00, gen 4 x16, serial 1320
disk        gone  nvme0n1    Samsung 990  eui.01
network     gone  eno1
memory      ?     64.0 GiB
";
        let drawn = draw(&inventory, false);
        assert_eq!(drawn, format!("inventory   sideline.db\n{rest}"));
        inventory.reported = None;
        let rest = rest.replace("here", "?   ").replace("gone", "?   ");
        let note = "            no agent answers: what is there now is not known\n";
        let drawn = draw(&inventory, false);
        assert_eq!(drawn, format!("inventory   sideline.db\n{note}{rest}"));
        inventory.memory = None;
        let drawn = draw(&inventory, false);
        assert_eq!(drawn, "inventory   none yet: sideline.db\n");
    }

    #[test]
    fn what_was_forgotten_is_a_line_each() {
        for (forgotten, expected) in [
            (json!([]), "nothing was forgotten\n"),
            (
                json!([{"kind": "gpu", "id": "GPU-1", "name": "NVIDIA L4"}, {"kind": "disk", "id": "d\x1b[2J", "name": null}]),
                "forgotten: gpu GPU-1 NVIDIA L4\nforgotten: disk d·[2J\n",
            ),
        ] {
            assert_eq!(accepted(&json!({"forgotten": forgotten})), expected);
        }
    }
}
