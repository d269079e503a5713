//! Accepting a change: tables of what is remembered, what is seen, and what stays.

use super::*;
use crate::domain::memory::{Link, Memory};
use crate::domain::snapshot::{Drive, Network};

const GIB: u64 = 1 << 30;

fn at(second: u64) -> Moment {
    Moment::after_boot(Duration::from_secs(second))
}

/// `A` in slot `a` and so on.
fn card(id: char, slot: char) -> Gpu {
    Gpu {
        id: id.to_string(),
        pci: Some(slot.to_string()),
        state: GpuState::Ok,
        ..Gpu::default()
    }
}

fn part(id: &str) -> Part {
    Part {
        id: id.to_owned(),
        name: format!("name of {id}"),
        model: None,
    }
}

/// Cards A and B in slots a and b, two disks, two network interfaces, 64 GiB.
fn memory() -> Memory {
    let inventory = ['a', 'b'].map(|slot| RememberedGpu {
        id: slot.to_uppercase().to_string(),
        pci: Some(slot.to_string()),
        ..RememberedGpu::default()
    });
    let link = Link {
        generation: 4,
        width: 16,
    };
    Memory {
        inventory: inventory.to_vec(),
        links: ['a', 'b'].map(|slot| (slot.to_string(), link)).into(),
        usual_answer_s: Some(0.01),
        machine: Machine {
            drives: vec![part("d1"), part("d2")],
            nics: vec![part("n1"), part("n2")],
            memory_bytes: Some(64 * GIB),
        },
        ..Memory::default()
    }
}

fn host() -> Host {
    let drive = |id: &str| Drive {
        name: "sda".into(),
        id: Some(id.to_owned()),
        ..Drive::default()
    };
    let nic = |mac: &str| Network {
        mac: Some(mac.to_owned()),
        ..Network::default()
    };
    Host {
        drives: vec![drive("d1"), drive("d2")],
        networks: vec![nic("n1"), nic("n2")],
        memory_total_bytes: Some(64 * GIB),
        ..Host::default()
    }
}

/// Cards that were read a second before the 1000th.
fn gpus(cards: Vec<Gpu>) -> Gpus {
    Gpus {
        cards,
        cards_at: Some(at(999)),
        ..Gpus::default()
    }
}

struct After {
    gpus: GpuMemory,
    machine: Machine,
    accepted: Accepted,
}

impl After {
    fn forgotten(&self) -> String {
        let told = self.accepted.forgotten.iter().map(|one| {
            let kind = serde_json::to_value(one.kind).unwrap();
            format!("{} {}", kind.as_str().unwrap(), one.id)
        });
        told.collect::<Vec<_>>().join(", ")
    }
}

fn accepted(seen: &Reading<Gpus>, host: &Reading<Host>, config: &Config) -> After {
    let memory = memory();
    let mut gpus = GpuMemory::new(&memory);
    let mut machine = memory.machine;
    let seen = Snapshot {
        host,
        gpus: seen,
        kernel: &Reading::Pending,
        drives: &Reading::Off,
        ups: &Reading::Off,
        checks: &Reading::Off,
        cameras: &[],
    };
    let accepted = accept(&mut gpus, &mut machine, seen, config, at(1000));
    After {
        gpus,
        machine,
        accepted,
    }
}

#[test]
fn cards_that_are_gone_are_forgotten_with_the_links_of_their_slots() {
    let lost = Gpu {
        state: GpuState::Lost,
        pci: None,
        ..card('B', 'b')
    };
    for (seen, forgotten, kept, links) in [
        (vec![card('A', 'a'), card('B', 'b')], "", "A:a B:b", "a b"),
        (vec![card('A', 'a'), lost], "", "A:a B:b", "a b"),
        (vec![card('A', 'a')], "gpu B, link b", "A:a", "a"),
        (vec![], "gpu A, gpu B, link a, link b", "", ""),
        // Another card in its slot, which the next reading remembers.
        (
            vec![card('A', 'a'), card('C', 'b')],
            "gpu B, link b",
            "A:a",
            "a",
        ),
        // Both are there, each in the other's slot.
        (
            vec![card('A', 'b'), card('B', 'a')],
            "link a, link b",
            "A:b B:a",
            "",
        ),
    ] {
        let told = format!("{seen:?}");
        let seen = Reading::ok(gpus(seen), at(999));
        let after = accepted(&seen, &Reading::ok(host(), at(999)), &Config::default());
        assert_eq!(after.forgotten(), forgotten, "{told}");
        assert_eq!(after.accepted.problems, [""; 0], "{told}");
        let inventory: Vec<String> = after
            .gpus
            .inventory
            .iter()
            .map(|card| format!("{}:{}", card.id, card.pci.as_deref().unwrap_or("-")))
            .collect();
        assert_eq!(inventory.join(" "), kept, "{told}");
        let slots: Vec<&str> = after.gpus.levels.links.keys().map(String::as_str).collect();
        assert_eq!(slots.join(" "), links, "{told}");
        assert_eq!(after.gpus.usual_answer_s, None, "{told}");
        // What had happened to a card that is gone is no fault of this node's any more, under neither name.
        let gone: Vec<&str> = after.gpus.recovered.keys().map(String::as_str).collect();
        let names = forgotten.matches("gpu").count() * 2;
        assert_eq!(gone.len(), names, "{told}: {gone:?}");
    }
}

#[test]
fn nothing_is_forgotten_of_what_can_not_be_seen() {
    let whole = || gpus(vec![card('A', 'a')]);
    let with = |probe| {
        let seen = Gpus { probe, ..whole() };
        Reading::ok(seen, at(999))
    };
    let old_list = Gpus {
        cards_at: Some(at(900)),
        ..whole()
    };
    let mut stranger = whole();
    stranger.cards.push(Gpu {
        state: GpuState::Lost,
        ..card('?', 'b')
    });
    let hung = Probe::Hung {
        since: at(900),
        call: None,
        card: Some("A".into()),
    };
    let driver = Probe::Driver {
        why: "no driver".into(),
    };
    let failed = Reading::Failed {
        why: "broken".into(),
        at: at(990),
    };
    for (seen, problem) in [
        (Reading::Pending, "the GPUs have not been read yet"),
        (
            Reading::Off,
            "the GPUs are not read, as the configuration has it",
        ),
        (failed, "the GPUs can't be read now (broken)"),
        (
            Reading::ok(whole(), at(900)),
            "the GPUs were last read 1m40s ago",
        ),
        (
            Reading::ok(old_list, at(999)),
            "the GPUs were not read lately",
        ),
        (
            with(hung),
            "the GPUs can't be read now (NVML does not answer)",
        ),
        (with(driver), "the GPUs can't be read now (no driver)"),
        (
            Reading::ok(stranger, at(999)),
            "the card in b can't say which of the GPUs it is",
        ),
    ] {
        let after = accepted(&seen, &Reading::Pending, &Config::default());
        let problems = [
            format!("{problem}; nothing of them was forgotten"),
            "disks, network and memory have not been read yet; nothing of them was forgotten"
                .to_owned(),
        ];
        assert_eq!(after.accepted.problems, problems);
        assert_eq!(after.forgotten(), "", "{problem}");
        assert_eq!(after.gpus.inventory.len(), 2, "{problem}");
        assert_eq!(after.gpus.levels.links.len(), 2, "{problem}");
        assert_eq!(after.gpus.usual_answer_s, Some(0.01), "{problem}");
        assert_eq!(after.machine, memory().machine, "{problem}");
    }
}

#[test]
fn parts_of_the_server_are_forgotten_each_for_itself() {
    let seen = Reading::ok(gpus(vec![card('A', 'a'), card('B', 'b')]), at(999));
    type Change = fn(&mut Host);
    let cases: [(Change, &str); 6] = [
        (|_| {}, ""),
        (
            |host| {
                host.drives.remove(0);
            },
            "disk d1",
        ),
        (
            |host| {
                host.networks.remove(1);
            },
            "nic n2",
        ),
        (
            |host| host.memory_total_bytes = Some(32 * GIB),
            "memory memory",
        ),
        // What the firmware keeps for itself.
        (|host| host.memory_total_bytes = Some(63 * GIB), ""),
        (|host| host.memory_total_bytes = None, ""),
    ];
    for (change, forgotten) in cases {
        let mut there = host();
        change(&mut there);
        let host = Reading::ok(there, at(999));
        let after = accepted(&seen, &host, &Config::default());
        assert_eq!(after.forgotten(), forgotten);
        assert_eq!(after.accepted.problems, [""; 0]);
        let again = accept_host(&mut after.machine.clone(), host.value().unwrap());
        assert_eq!(again, [], "what was forgotten is not missed again");
    }
}

#[test]
fn a_number_in_the_configuration_stays_what_it_is() {
    let mut config = Config::default();
    config.gpu.expected = Expected::Count(2);
    let seen = Reading::ok(gpus(vec![card('A', 'a')]), at(999));
    let after = accepted(&seen, &Reading::ok(host(), at(999)), &config);
    let problem = "gpu.expected is 2 and 1 are listed; change it, or gpu.missing stays";
    assert_eq!(after.accepted.problems, [problem]);
    assert_eq!(after.forgotten(), "gpu B, link b");
}

#[test]
fn a_report_tells_what_is_there_and_what_it_can_not_tell() {
    use Presence::{Gone, Here, Unknown};
    let with = |state| Gpu {
        state,
        ..card('B', 'b')
    };
    for (gpus, missing, expected) in [
        (vec![card('A', 'a'), card('B', 'b')], "", Here),
        (vec![card('A', 'a'), with(GpuState::Lost)], "", Here),
        (vec![card('A', 'a'), with(GpuState::Hung)], "", Unknown),
        (vec![card('A', 'a'), with(GpuState::Unknown)], "", Unknown),
        (vec![card('A', 'a')], "", Gone),
        // The last card is gone: an empty list may also be one that was not read yet.
        (vec![], "B", Gone),
        (vec![], "", Unknown),
    ] {
        let told = format!("{gpus:?} {missing}");
        let reported = Reported {
            gpus,
            missing: vec![missing.to_owned()],
            host: None,
        };
        let card = &memory().inventory[1];
        assert_eq!(reported.gpu(card), expected, "{told}");
    }
    let machine = memory().machine;
    let parts = |reported: &Reported| {
        let (drive, nic) = (&machine.drives[0], &machine.nics[0]);
        [
            reported.drive(drive),
            reported.nic(nic),
            reported.memory(&machine),
        ]
    };
    let empty = Host {
        memory_total_bytes: Some(GIB),
        ..Host::default()
    };
    for (host, expected) in [(None, Unknown), (Some(host()), Here), (Some(empty), Gone)] {
        let reported = Reported {
            host,
            ..Reported::default()
        };
        assert_eq!(parts(&reported), [expected; 3]);
    }
}
