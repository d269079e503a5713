//! The agent's side against probes that are shell scripts.

use std::path::Path;

use tokio::task::JoinHandle;

use super::*;

const HELLO: &str = r#"echo '{"hello":{"driver":"550.90.07","nvml":"12"}}'"#;
const READING: &str = r#"echo '{"reading":{"cards":[{"id":"GPU-1","state":"ok","temperature_c":50}],"driver":"550.90.07"}}'"#;

#[tokio::test]
async fn a_probe_that_answers_is_asked_again_and_again() {
    let script = format!("{HELLO}; while read q; do {READING}; done");
    let mut seen = start(&script, Duration::from_millis(20));
    let first = seen.until(|gpus| gpus.probe == Probe::Answering).await;
    assert_eq!(first.driver.as_deref(), Some("550.90.07"));
    assert_eq!(
        first.cards.first().and_then(|card| card.temperature_c),
        Some(50.0)
    );
    let later = seen.until(|gpus| first.cards_at < gpus.cards_at).await;
    assert_eq!(later.cards, first.cards);
    seen.stop().await;
}

#[tokio::test]
async fn a_probe_that_does_not_answer_is_hung_and_replaced() {
    let stuck = r#"echo '{"stuck":"nvmlDeviceGetTemperature"}'"#;
    let script = format!("{HELLO}; read q; {READING}; read q; {stuck}; exec sleep 1000");
    let mut seen = start(&script, Duration::from_millis(200));
    let before = seen.until(|gpus| gpus.probe == Probe::Answering).await;
    let hung = seen
        .until(|gpus| matches!(gpus.probe, Probe::Hung { .. }))
        .await;
    let Probe::Hung { since, call } = hung.probe else {
        panic!("{:?}", hung.probe);
    };
    assert_eq!(call.as_deref(), Some("nvmlDeviceGetTemperature"));
    assert!(before.cards_at.unwrap() < since);
    assert_eq!(
        hung.cards_at, before.cards_at,
        "cards are kept as they were read"
    );
    assert_eq!(
        hung.cards.first().map(|card| card.state),
        Some(GpuState::Hung)
    );
    let again = seen.until(|gpus| gpus.probe == Probe::Answering).await;
    assert_eq!(again.cards, before.cards);
    seen.stop().await;
}

#[tokio::test]
async fn a_probe_that_dies_is_a_crash() {
    let endless = "while :; do printf xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done";
    for (script, expected) in [
        ("read q; kill -ABRT $$", "killed by signal 6 (SIGABRT)"),
        ("exit 3", "exited with status 3"),
        ("exit 75", "exited with status 75"),
        (
            "read q; echo Segmentation fault; exec sleep 1000",
            "spoke nonsense: \"Segmentation fault\"",
        ),
        (endless, "spoke nonsense: a line over 1048576 bytes"),
        ("exec 1>&-; exec sleep 1000", "killed by signal 9 (SIGKILL)"),
    ] {
        let mut seen = start(script, Duration::from_millis(20));
        let crashed = seen.until(|gpus| gpus.probe != Probe::Answering).await;
        let Probe::Crashed { how, count, .. } = crashed.probe else {
            panic!("{script}: {:?}", crashed.probe);
        };
        assert_eq!((how.as_str(), count), (expected, 1), "{script}");
        seen.stop().await;
    }
}

#[tokio::test]
async fn crashes_are_counted_and_forgotten_at_an_answer() {
    let folder = tempfile::tempdir().unwrap();
    let second = folder.path().join("second");
    let script = first_or_later(
        &second,
        "read q; kill -SEGV $$",
        &format!("while read q; do {READING}; done"),
    );
    let mut seen = start(&script, Duration::from_millis(20));
    let crashed = |gpus: &Gpus| matches!(gpus.probe, Probe::Crashed { count: 1, .. });
    seen.until(crashed).await;
    seen.until(|gpus| gpus.probe == Probe::Answering).await;
    seen.stop().await;
}

#[tokio::test]
async fn a_probe_that_can_not_be_started_is_a_crash() {
    let command = ProbeCommand {
        program: "/nonexistent/sideline".into(),
        args: vec![],
    };
    let mut seen = Seen::of(command, gpu(Duration::from_millis(20)));
    let crashed = seen.until(|gpus| gpus.probe != Probe::Answering).await;
    let Probe::Crashed { how, .. } = crashed.probe else {
        panic!("{:?}", crashed.probe);
    };
    assert!(how.starts_with("could not be started: "), "{how}");
    seen.stop().await;
}

#[tokio::test]
async fn a_driver_that_changes_costs_no_crash() {
    let folder = tempfile::tempdir().unwrap();
    let second = folder.path().join("second");
    let script = first_or_later(
        &second,
        &format!("read q; {READING}; read q; exit 75"),
        r#"read q; echo '{"reading":{"cards":[],"driver":"560.1"}}'; read q; exec sleep 1000"#,
    );
    let mut seen = start(&script, Duration::from_millis(200));
    let driver = |gpus: &Gpus, driver: &str| gpus.driver.as_deref() == Some(driver);
    seen.until(|gpus| driver(gpus, "550.90.07")).await;
    let fresh = seen
        .until(|gpus| gpus.probe != Probe::Answering || driver(gpus, "560.1"))
        .await;
    assert_eq!(fresh.probe, Probe::Answering);
    seen.stop().await;
}

#[tokio::test]
async fn an_xid_is_told_at_once_and_asks_for_a_reading() {
    let xid = |number| format!(r#"echo '{{"xid":{{"gpu":"GPU-1","number":{number}}}}}'"#);
    let script = format!(
        "read q; {READING}; {}; {}; {}; read q; {READING}; read q",
        xid(79),
        xid(79),
        xid(31)
    );
    let mut seen = start(&script, Duration::from_secs(3600));
    let told = seen.until(|gpus| gpus.xids.len() == 2).await;
    let counts: Vec<_> = told
        .xids
        .iter()
        .map(|xid| (xid.number, xid.count))
        .collect();
    assert_eq!(counts, [(79, 2), (31, 1)]);
    let after = seen.until(|gpus| told.cards_at < gpus.cards_at).await;
    assert_eq!(after.xids, told.xids);
    seen.stop().await;
}

#[tokio::test]
async fn what_is_missing_is_told() {
    let failed = |kind| format!(r#"echo '{{"failed":{{"kind":"{kind}","why":"no"}}}}'"#);
    let why = || "no".to_owned();
    for (kind, expected) in [
        ("no_library", Probe::NoLibrary { why: why() }),
        ("driver", Probe::Driver { why: why() }),
    ] {
        let script = format!("read q; {}; read q; {READING}; read q", failed(kind));
        let mut seen = start(&script, Duration::from_millis(50));
        let told = seen.until(|gpus| gpus.probe != Probe::Answering).await;
        assert_eq!(told.probe, expected);
        if kind == "driver" {
            seen.until(|gpus| gpus.probe == Probe::Answering).await;
        }
        seen.stop().await;
    }
}

#[tokio::test]
async fn a_probe_that_ignores_the_end_is_not_waited_for() {
    let script = format!("read q; {READING}; exec 0<&-; exec sleep 1000");
    let mut seen = start(&script, Duration::from_secs(3600));
    seen.until(|gpus| gpus.probe == Probe::Answering).await;
    let asked = std::time::Instant::now();
    seen.stop().await;
    assert!(asked.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn never_is_off() {
    let config = config::Gpu {
        enabled: config::Enabled::Never,
        ..config::Gpu::default()
    };
    let mut seen = Seen::of(sh("exit 1"), config);
    seen.reading
        .wait_for(|reading| *reading == Reading::Off)
        .await
        .unwrap();
    seen.stop().await;
}

#[test]
fn a_card_that_can_not_say_who_it_is_is_known_by_its_place() {
    use GpuState::{Lost, Ok, Unknown};
    let card = |id: &str, pci: &str, state| Gpu {
        id: id.into(),
        pci: (!pci.is_empty()).then(|| pci.to_owned()),
        state,
        ..Gpu::default()
    };
    let a = || card("A", "a", Ok);
    let b = || card("B", "b", Ok);
    let lost = || card("", "", Lost);
    for (now, before, pci, expected) in [
        (vec![a(), lost()], vec![a(), b()], "a b", "A:a B:b"),
        (vec![lost(), b()], vec![a(), b()], "a b", "A:a B:b"),
        (vec![card("", "", Unknown)], vec![a()], "a", "A:a"),
        // Half-told: the rest is remembered.
        (vec![card("A", "", Lost)], vec![a()], "", "A:a"),
        // The first card is gone, and the second moved up to its place.
        (vec![b(), lost()], vec![a(), b()], "a b", "B:b a:a"),
        // Never seen before: the bus tells, where it tells one.
        (vec![a(), lost()], vec![], "a b", "A:a b:b"),
        (vec![lost(), lost()], vec![], "a b", ":- :-"),
        (vec![lost()], vec![], "a b", ":-"),
    ] {
        let pci: Vec<String> = pci.split(' ').map(String::from).collect();
        let told = format!("{now:?}");
        let cards = identified(now, &before, &pci);
        let seen: Vec<String> = cards
            .iter()
            .map(|card| format!("{}:{}", card.id, card.pci.as_deref().unwrap_or("-")))
            .collect();
        assert_eq!(seen.join(" "), expected, "{told}");
    }
}

#[test]
fn xids_are_bounded_and_the_oldest_goes_first() {
    let at = |second: usize| Moment::after_boot(Duration::from_secs(second as u64));
    let mut xids = Vec::new();
    for second in 0..XIDS {
        count_xid(&mut xids, format!("GPU-{second}"), 79, at(second));
    }
    count_xid(&mut xids, "GPU-0".into(), 79, at(XIDS));
    count_xid(&mut xids, "GPU-new".into(), 31, at(XIDS + 1));
    assert_eq!(xids.len(), XIDS);
    let first = xids.first().unwrap();
    assert_eq!((first.gpu.as_str(), first.count), ("GPU-0", 2));
    assert_eq!((first.first, first.last), (at(0), at(XIDS)));
    assert!(!xids.iter().any(|xid| xid.gpu == "GPU-1"));
    assert_eq!(xids.last().unwrap().number, 31);
}

#[test]
fn waits_grow_to_a_minute() {
    let waits: Vec<u64> = backoff().take(8).map(|wait| wait.as_secs()).collect();
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
}

/// A running `run_with` and what it publishes.
struct Seen {
    reading: watch::Receiver<Reading<Gpus>>,
    cancel: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Seen {
    fn of(command: ProbeCommand, config: config::Gpu) -> Self {
        let (out, reading) = watch::channel(Reading::Pending);
        let cancel = CancellationToken::new();
        let task = run_with(
            config,
            command,
            Vec::new(),
            out,
            Clock::start(None),
            cancel.clone(),
        );
        Seen {
            reading,
            cancel,
            task: tokio::spawn(task),
        }
    }

    /// The first reading that is as wanted.
    async fn until(&mut self, wanted: impl Fn(&Gpus) -> bool) -> Gpus {
        let seen = self
            .reading
            .wait_for(|reading| reading.value().is_some_and(&wanted));
        let seen = tokio::time::timeout(Duration::from_secs(20), seen).await;
        seen.expect("the reading never comes")
            .unwrap()
            .value()
            .unwrap()
            .clone()
    }

    async fn stop(self) {
        self.cancel.cancel();
        self.task.await.unwrap().unwrap();
    }
}

/// A script that is asked every so often and has 300 ms to answer.
fn start(script: &str, every: Duration) -> Seen {
    Seen::of(sh(script), gpu(every))
}

fn gpu(every: Duration) -> config::Gpu {
    config::Gpu {
        enabled: config::Enabled::Always,
        every,
        deadline: Duration::from_millis(300),
        ..config::Gpu::default()
    }
}

fn sh(script: &str) -> ProbeCommand {
    ProbeCommand {
        program: "/bin/sh".into(),
        args: vec!["-c".into(), script.into()],
    }
}

fn first_or_later(mark: &Path, first: &str, later: &str) -> String {
    let mark = mark.display();
    format!("if [ -e {mark} ]; then {later}; else touch {mark}; {first}; fi")
}
