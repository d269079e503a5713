//! The judge against scripted worlds: what it is shown, and what it must say.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use sideline::config::{Config, Enabled, Expected, RuleLevel};
use sideline::domain::judge::{Judge, Judgement, Surroundings};
use sideline::domain::kernel_line::parse_line;
use sideline::domain::memory::Memory;
use sideline::domain::moment::{Moment, Now};
use sideline::domain::reading::Reading;
use sideline::domain::report::{EventKind, Node};
use sideline::domain::snapshot::{
    CameraSource, Gpu, GpuState, Gpus, Host, Ingest, KernelLog, Probe, Snapshot, XidTotal,
};

/// A world that a test changes between looks.
struct World {
    judge: Judge,
    host: Reading<Host>,
    gpus: Gpus,
    kernel: KernelLog,
    cameras: Vec<Reading<CameraSource>>,
    clock_offset: Option<SignedDuration>,
    second: u64,
}

fn config() -> Config {
    let mut config = Config::default();
    config.node.slots = Some(18);
    config.judge.recover_after = Duration::ZERO;
    config
}

fn card(number: u8) -> Gpu {
    Gpu {
        id: format!("GPU-{number}"),
        name: Some("NVIDIA L4".into()),
        pci: Some(format!("0000:0{number}:00")),
        state: GpuState::Ok,
        temperature_c: Some(50.0),
        slowdown_c: Some(90.0),
        ..Gpu::default()
    }
}

fn now(second: u64) -> Now {
    let since_1970 = Duration::from_secs(1_700_000_000 + second);
    let wall = Timestamp::UNIX_EPOCH + since_1970;
    Now {
        moment: Moment::after_boot(Duration::from_secs(second)),
        wall,
        sure: true,
    }
}

impl World {
    fn new(config: Config) -> Self {
        World::remembering(config, &Memory::default())
    }

    fn remembering(config: Config, memory: &Memory) -> Self {
        let start = now(1000);
        World {
            judge: Judge::new(config, Node::default(), memory, start.moment),
            host: Reading::ok(Host::default(), start.moment),
            gpus: Gpus {
                cards: vec![card(1), card(2)],
                cards_at: Some(start.moment),
                ..Gpus::default()
            },
            kernel: KernelLog::default(),
            cameras: Vec::new(),
            clock_offset: None,
            second: 1000,
        }
    }

    /// A second later: fresh readings, one look.
    fn look(&mut self) -> Judgement {
        self.second += 1;
        let now = now(self.second);
        if let Reading::Ok { at, .. } = &mut self.host {
            *at = now.moment;
        }
        if self.gpus.probe == Probe::Answering {
            self.gpus.cards_at = Some(now.moment);
        }
        let gpus = Reading::ok(self.gpus.clone(), now.moment);
        let kernel = Reading::ok(self.kernel.clone(), now.moment);
        let cameras: Vec<_> = self.cameras.iter().collect();
        let seen = Snapshot {
            host: &self.host,
            gpus: &gpus,
            kernel: &kernel,
            drives: &Reading::Off,
            ups: &Reading::Off,
            checks: &Reading::Off,
            cameras: &cameras,
        };
        let around = Surroundings {
            clock_offset: self.clock_offset,
            ..Surroundings::default()
        };
        self.judge.judge(seen, around, now)
    }

    fn hear(&mut self, line: &str) {
        let now = now(self.second);
        self.kernel
            .note(&parse_line(line, now.wall).expect("a kernel line"), now);
    }

    /// The probe hangs at a card, or has crashed there so often.
    fn trouble(&mut self, number: usize, crashes: Option<u64>) {
        let card = &mut self.gpus.cards[number - 1];
        card.state = match crashes {
            None => GpuState::Hung,
            Some(_) => GpuState::Unknown,
        };
        let card = Some(card.id.clone());
        let trouble = match crashes {
            None => Probe::Hung {
                since: Moment::BOOT,
                call: None,
                card,
            },
            Some(count) => Probe::Crashed {
                at: Moment::BOOT,
                how: "was killed".into(),
                count,
                card,
                call: None,
            },
        };
        self.gpus.troubles.push(trouble.clone());
        self.gpus.probe = trouble;
    }

    /// The probe has crashed so often, at no card.
    fn crash(&mut self, count: u64) {
        self.gpus.probe = Probe::Crashed {
            at: Moment::BOOT,
            how: "was killed".into(),
            count,
            card: None,
            call: None,
        };
    }

    /// `STATE AVAILABLE codes with their subjects`.
    fn verdict(&mut self) -> String {
        let report = self.look().report;
        let findings: Vec<String> = report
            .findings
            .iter()
            .map(|finding| format!("{}@{}", finding.code, finding.subject))
            .collect();
        format!(
            "{} {} {}",
            report.verdict.state.name(),
            report.capacity.available,
            findings.join(" ")
        )
        .trim_end()
        .to_owned()
    }
}

const XID_79: &str = "NVRM: Xid (PCI:0000:02:00): 79, GPU has fallen off the bus.";

#[test]
fn each_fault_of_a_gpu_has_its_code_and_its_price() {
    type Fault = fn(&mut World);
    let faults: Vec<(&str, Fault, &str)> = vec![
        ("none", |_| {}, "healthy 18"),
        (
            "Xid 79",
            |world| world.hear(XID_79),
            "failing 9 gpu.xid.79@gpu:GPU-2",
        ),
        (
            "Xid 79 of an unknown card",
            |world| world.hear("NVRM: Xid (PCI:0000:09:00): 79, GPU has fallen off the bus."),
            "failing 9 gpu.xid.79@gpu:0000:09:00",
        ),
        (
            "an Xid of a program",
            |world| world.hear("NVRM: Xid (PCI:0000:02:00): 31, pid=7, name=x, MMU Fault"),
            "healthy 18 gpu.xid.31@gpu:GPU-2",
        ),
        (
            "an Xid that only NVML tells",
            |world| {
                let at = now(world.second).moment;
                world.gpus.xids.push(XidTotal {
                    gpu: "GPU-1".into(),
                    number: 79,
                    count: 1,
                    first: at,
                    last: at,
                });
            },
            "failing 9 gpu.xid.79@gpu:GPU-1",
        ),
        (
            "lost",
            |world| world.gpus.cards[1].state = GpuState::Lost,
            "failing 9 gpu.lost@gpu:GPU-2",
        ),
        (
            "missing",
            |world| world.gpus.cards.truncate(1),
            "failing 9 gpu.missing@gpu:GPU-2",
        ),
        (
            "both missing",
            |world| world.gpus.cards.clear(),
            "failing 0 gpu.missing@gpu:GPU-1 gpu.missing@gpu:GPU-2",
        ),
        (
            "hung",
            |world| {
                world.gpus.probe = Probe::Hung {
                    since: Moment::BOOT,
                    call: None,
                    card: None,
                }
            },
            "failing 0 gpu.hung@gpus",
        ),
        (
            "hung at a card",
            |world| world.trouble(2, None),
            "failing 9 gpu.hung@gpu:GPU-2",
        ),
        (
            "hung at a card, and not known any more of the other",
            |world| {
                world.trouble(2, None);
                world.gpus.cards[0].state = GpuState::Unknown;
            },
            "failing 9 gpu.hung@gpu:GPU-2",
        ),
        (
            "hung at both",
            |world| {
                world.trouble(1, None);
                world.trouble(2, None);
            },
            "failing 0 gpu.hung@gpu:GPU-1 gpu.hung@gpu:GPU-2",
        ),
        (
            "crashed at a card",
            |world| world.trouble(2, Some(2)),
            "degraded 18 gpu.probe_crashed@gpu:GPU-2",
        ),
        (
            "crashed at a card thrice",
            |world| world.trouble(2, Some(3)),
            "failing 9 gpu.probe_crashed@gpu:GPU-2",
        ),
        (
            "hung, then crashed at a card",
            |world| {
                world.trouble(2, None);
                world.trouble(2, Some(1));
            },
            "failing 9 gpu.hung@gpu:GPU-2 gpu.probe_crashed@gpu:GPU-2",
        ),
        (
            "crashed at one card, then at the other",
            |world| {
                world.trouble(1, Some(2));
                world.trouble(2, Some(1));
            },
            "failing 0 gpu.probe_crashed@gpus",
        ),
        (
            "crashed",
            |world| world.crash(1),
            "degraded 18 gpu.probe_crashed@gpus",
        ),
        (
            "crashed thrice, but the cards answer",
            |world| world.crash(3),
            "degraded 18 gpu.probe_crashed@gpus",
        ),
        (
            "crashed thrice, and no card can be read",
            |world| {
                world.crash(3);
                for card in &mut world.gpus.cards {
                    card.state = GpuState::Unknown;
                }
            },
            "failing 0 gpu.probe_crashed@gpus",
        ),
        (
            "driver",
            |world| {
                world.gpus.probe = Probe::Driver {
                    why: "mismatch".into(),
                }
            },
            "failing 0 gpu.driver@gpus",
        ),
        (
            "no library any more",
            |world| world.gpus.probe = Probe::NoLibrary { why: "gone".into() },
            "failing 0 gpu.driver@gpus",
        ),
    ];
    for (name, fault, expected) in faults {
        let mut world = World::new(config());
        assert_eq!(world.verdict(), "healthy 18", "{name}");
        fault(&mut world);
        assert_eq!(world.verdict(), expected, "{name}");
    }
}

#[test]
fn a_node_that_never_had_a_gpu_is_not_blamed_for_having_none() {
    for (enabled, expected) in [
        (Enabled::Auto, "healthy 18"),
        (Enabled::Always, "failing 0 gpu.driver@gpus"),
    ] {
        let mut config = config();
        config.gpu.enabled = enabled;
        let mut world = World::new(config);
        world.gpus = Gpus {
            probe: Probe::NoLibrary {
                why: "no such file".into(),
            },
            ..Gpus::default()
        };
        assert_eq!(world.verdict(), expected, "{enabled:?}");
    }
}

#[test]
fn expected_as_a_number_counts() {
    let mut config = config();
    config.gpu.expected = Expected::Count(3);
    assert_eq!(World::new(config).verdict(), "failing 0 gpu.missing@gpus");
}

#[test]
fn a_fault_that_needs_a_reset_stays_until_the_card_has_been_away() {
    let mut world = World::new(config());
    world.look();
    world.hear(XID_79);
    for _ in 0..1000 {
        world.look();
    }
    assert_eq!(world.verdict(), "failing 9 gpu.xid.79@gpu:GPU-2");
    world.gpus.cards[1].state = GpuState::Lost;
    assert_eq!(
        world.verdict(),
        "failing 9 gpu.xid.79@gpu:GPU-2 gpu.lost@gpu:GPU-2"
    );
    world.gpus.cards[1].state = GpuState::Ok;
    assert_eq!(world.verdict(), "healthy 18");
}

#[test]
fn a_programs_xid_is_forgotten_and_three_programs_blame_the_card() {
    let mut world = World::new(config());
    world.look();
    for pid in 1..=3 {
        world.hear(&format!(
            "NVRM: Xid (PCI:0000:02:00): 31, pid={pid}, name=x, MMU Fault"
        ));
    }
    assert_eq!(world.verdict(), "degraded 18 gpu.xid.31@gpu:GPU-2");
    world.second += 600;
    assert_eq!(world.verdict(), "healthy 18");
}

#[test]
fn the_start_is_unknown_until_every_source_has_spoken_and_offers_what_was_offered_last() {
    for (last, offered) in [(None, 0), (Some(9), 9)] {
        let memory = Memory {
            available: last,
            ..Memory::default()
        };
        let mut world = World::remembering(config(), &memory);
        world.host = Reading::Pending;
        assert_eq!(world.verdict(), format!("unknown {offered}"));
        let source = CameraSource {
            ingest: Ingest::Unknown,
            ..CameraSource::default()
        };
        world.host = Reading::ok(Host::default(), Moment::BOOT);
        world.cameras.push(Reading::ok(source, Moment::BOOT));
        assert_eq!(world.verdict(), format!("unknown {offered}"));
        world.cameras[0] = Reading::ok(
            CameraSource {
                ingest: Ingest::Online,
                ..CameraSource::default()
            },
            Moment::BOOT,
        );
        assert_eq!(world.verdict(), "healthy 18");
    }
}

#[test]
fn a_fault_is_told_even_before_every_source_has_spoken() {
    let mut world = World::new(config());
    world.host = Reading::Pending;
    world.hear(XID_79);
    assert_eq!(world.verdict(), "failing 9 gpu.xid.79@gpu:GPU-2");
}

#[test]
fn a_host_that_falls_silent_is_unknown() {
    let mut world = World::new(config());
    assert_eq!(world.verdict(), "healthy 18");
    world.host = Reading::Failed {
        why: "no /proc".into(),
        at: Moment::BOOT,
    };
    assert_eq!(world.verdict(), "unknown 18");
}

#[test]
fn the_operator_decides_what_a_finding_is_worth() {
    for (rules, expected) in [
        (vec![("gpu.xid.79", RuleLevel::Off)], "healthy 18"),
        (
            vec![("gpu.xid.*", RuleLevel::Degraded)],
            "degraded 18 gpu.xid.79@gpu:GPU-2",
        ),
        (
            vec![
                ("gpu.*", RuleLevel::Off),
                ("gpu.xid.79", RuleLevel::Failing),
            ],
            "failing 9 gpu.xid.79@gpu:GPU-2",
        ),
    ] {
        let mut config = config();
        config.judge.rules = rules
            .into_iter()
            .map(|(code, level)| (code.to_owned(), level))
            .collect();
        let mut world = World::new(config);
        world.look();
        world.hear(XID_79);
        assert_eq!(world.verdict(), expected);
    }
}

#[test]
fn heat_counts_after_a_minute_and_by_the_cards_own_limit() {
    let mut world = World::new(config());
    world.look();
    world.gpus.cards[0].temperature_c = Some(86.0);
    assert_eq!(world.verdict(), "healthy 18");
    world.second += 60;
    assert_eq!(world.verdict(), "degraded 18 gpu.hot@gpu:GPU-1");
    world.gpus.cards[0].temperature_c = Some(84.0);
    assert_eq!(
        world.verdict(),
        "degraded 18 gpu.hot@gpu:GPU-1",
        "proof has to last"
    );
    world.second += 30;
    assert_eq!(world.verdict(), "healthy 18");
}

#[test]
fn a_clock_that_stays_off_is_told_by_how_far_and_which_way() {
    for (ahead_s, expected) in [
        (None, None),
        (Some(0), None),
        (Some(4), None),
        (Some(-4), None),
        (Some(5), Some("healthy 18: 5 s behind")),
        (Some(-59), Some("healthy 18: 59 s ahead of")),
        (Some(60), Some("degraded 18: 1 min 0 s behind")),
        (Some(-11_520), Some("degraded 18: 3 h 12 min ahead of")),
        (Some(1_800_000_000), Some("degraded 18: 20833 d 8 h behind")),
    ] {
        let mut world = World::new(config());
        world.look();
        world.clock_offset = ahead_s.map(SignedDuration::from_secs);
        assert_eq!(world.verdict(), "healthy 18", "{ahead_s:?}, at first");
        world.second += 10;
        let report = world.look().report;
        let told: Vec<String> = report
            .findings
            .iter()
            .map(|finding| {
                assert_eq!(finding.code.to_string(), "host.clock");
                let (state, slots) = (report.verdict.state.name(), report.capacity.available);
                format!("{state} {slots}: {}", finding.evidence)
            })
            .collect();
        let expected = expected.map(|told| {
            let (price, off) = told.split_once(": ").unwrap();
            format!("{price}: this machine's clock is {off} AWS's")
        });
        assert_eq!(told, Vec::from_iter(expected), "{ahead_s:?}");
        world.clock_offset = Some(SignedDuration::ZERO);
        assert_eq!(world.verdict(), "healthy 18", "{ahead_s:?}, set right");
    }
}

#[test]
fn the_journal_numbers_every_event_once_across_restarts() {
    let mut memory = Memory::default();
    let mut seen = Vec::new();
    for _ in 0..3 {
        let mut world = World::remembering(config(), &memory);
        seen.extend(world.look().events.into_iter().map(|event| event.seq));
        world.hear(XID_79);
        seen.extend(world.look().events.into_iter().map(|event| event.seq));
        world.judge.remember(&mut memory);
    }
    // A start is judged healthy, then the fault opens and changes the verdict.
    assert_eq!(seen, (1..=9).collect::<Vec<u64>>());
}

#[test]
fn a_verdict_comes_with_the_findings_that_decide_it() {
    let mut world = World::new(config());
    world.look();
    world.hear(XID_79);
    let judgement = world.look();
    let kinds: Vec<_> = judgement
        .events
        .iter()
        .map(|event| event.kind.to_string())
        .collect();
    assert_eq!(kinds.len(), 2, "{kinds:?}");
    let EventKind::Verdict {
        reasons, available, ..
    } = &judgement.events[1].kind
    else {
        panic!("{kinds:?}")
    };
    assert_eq!(
        (reasons[0].to_string(), *available),
        ("gpu.xid.79".to_owned(), 9)
    );
    assert!(!judgement.report.is_fit());
}
