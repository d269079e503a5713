//! The agent's side against probes that are shell scripts.

use std::path::Path;

use tokio::task::JoinHandle;

use super::*;
use crate::domain::snapshot::{PciGpu, StuckProcess};

const HELLO: &str = r#"echo '{"hello":{"driver":"550.90.07","nvml":"12"}}'"#;
const CARD: &str =
    r#"echo '{"card":{"place":0,"card":{"id":"GPU-1","state":"ok","temperature_c":50}}}'"#;
const READING: &str = r#"echo '{"card":{"place":0,"card":{"id":"GPU-1","state":"ok","temperature_c":50}}}
{"reading":{"count":1,"driver":"550.90.07"}}'"#;

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
    let stuck = r#"echo '{"at":{"call":"nvmlDeviceGetTemperature"}}'"#;
    let script = format!("{HELLO}; read q; {READING}; read q; {stuck}; exec sleep 1000");
    let mut seen = start(&script, Duration::from_millis(200));
    let before = seen.until(|gpus| gpus.probe == Probe::Answering).await;
    let hung = seen
        .until(|gpus| matches!(gpus.probe, Probe::Hung { .. }))
        .await;
    let Probe::Hung { since, call, card } = hung.probe else {
        panic!("{:?}", hung.probe);
    };
    assert_eq!(call.as_deref(), Some("nvmlDeviceGetTemperature"));
    assert_eq!(card, None, "it was said of no card");
    assert!(before.cards_at.unwrap() < since);
    assert_eq!(
        hung.cards_at, before.cards_at,
        "nothing has been read since"
    );
    let card = hung.cards.first().unwrap();
    assert_eq!((card.id.as_str(), card.state), ("GPU-1", GpuState::Hung));
    assert_eq!(
        card.temperature_c, None,
        "what was read is not known any more"
    );
    let again = seen.until(|gpus| gpus.probe == Probe::Answering).await;
    assert_eq!(again.cards, before.cards);
    seen.stop().await;
}

#[tokio::test]
async fn a_card_that_hangs_costs_the_other_no_reading() {
    let folder = tempfile::tempdir().unwrap();
    let second = folder.path().join("second");
    let other = CARD
        .replace(r#""place":0"#, r#""place":1"#)
        .replace("GPU-1", "GPU-2");
    let at = r#"echo '{"at":{"place":0,"card":"GPU-1","call":"nvmlDeviceGetTemperature"}}'"#;
    let whole = r#"echo '{"reading":{"count":2,"driver":null}}'"#;
    let script = first_or_later(
        &second,
        &format!("read q; {CARD}; {other}; {whole}; read q; {at}; exec sleep 1000"),
        // Tried last, and not always.
        &format!(
            "while read q; do {other}; case $q in *last\\ 0) {at}; exec sleep 1000;; *without\\ 0) {whole};; *) exit 9; esac; done"
        ),
    );
    let mut seen = start(&script, Duration::from_millis(50));
    let whole = seen.until(|gpus| gpus.probe == Probe::Answering).await;
    assert!(whole.took.is_some());
    let mut before = whole.cards_at;
    for _ in 0..5 {
        let hung = |gpus: &Gpus| gpus.probe.card() == Some("GPU-1") && before < gpus.cards_at;
        let gpus = seen.until(hung).await;
        before = gpus.cards_at;
        assert!(matches!(gpus.probe, Probe::Hung { .. }), "{:?}", gpus.probe);
        assert_eq!(gpus.troubles, std::slice::from_ref(&gpus.probe));
        let states: Vec<_> = gpus.cards.iter().map(|card| card.state).collect();
        assert_eq!(states, [GpuState::Hung, GpuState::Ok]);
        let told: Vec<_> = gpus.cards.iter().map(|card| card.temperature_c).collect();
        assert_eq!(told, [None, Some(50.0)]);
        assert_eq!(gpus.took, whole.took, "that was the latest whole answer");
    }
    seen.stop().await;
}

/// No test can make a process that can't be killed; this is what follows.
#[tokio::test]
async fn while_the_probe_sleeps_uninterruptibly_the_other_cards_are_not_known() {
    let (out, reading) = watch::channel(Reading::Pending);
    let mut watch = Watch {
        config: gpu(Duration::from_secs(10)),
        command: sh(""),
        machine: Machine::at("/nonexistent"),
        gpus: Gpus::default(),
        round: Round::default(),
        answered: false,
        suspects: Suspects::new(),
        looked: None,
        stuck: StuckLook::default(),
        out,
        clock: Clock::start(None),
    };
    let card = |id: &str, state| Gpu {
        id: id.into(),
        state,
        temperature_c: Some(50.0),
        ..Gpu::default()
    };
    let states = [GpuState::Ok, GpuState::Ok, GpuState::Lost];
    watch.round.cards = (0..)
        .zip(states)
        .map(|(place, state)| (place, card(&format!("GPU-{place}"), state)))
        .collect();
    watch.answered(3, None, None);
    watch.round.at = At {
        place: Some(0),
        ..At::default()
    };
    let since = watch.clock.moment();
    let _ = watch.hung(since);
    let seen = || reading.borrow().value().unwrap().clone();
    let told = |gpus: Gpus| {
        let cards = gpus.cards.into_iter();
        cards
            .map(|card| (card.state, card.temperature_c.is_some()))
            .collect::<Vec<_>>()
    };
    let (hung, lost) = ((GpuState::Hung, false), (GpuState::Lost, true));
    assert_eq!(told(seen()), [hung, (GpuState::Ok, true), lost]);
    for _ in 0..2 {
        watch.asleep(since);
        assert_eq!(told(seen()), [hung, (GpuState::Unknown, false), lost]);
        assert_eq!(seen().probe.card(), Some("GPU-0"));
    }
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
        r#"read q; echo '{"reading":{"count":0,"driver":"560.1"}}'; read q; exec sleep 1000"#,
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
fn a_reading_can_be_recorded_and_read_again() {
    let at = Moment::after_boot(Duration::from_millis(1500));
    let trouble = Probe::Crashed {
        at,
        how: "exited with status 3".into(),
        count: 2,
        card: Some("GPU-1".into()),
        call: None,
    };
    let gpus = Gpus {
        troubles: vec![trouble.clone()],
        probe: trouble,
        cards: vec![Gpu {
            id: "GPU-1".into(),
            fans_percent: vec![34.0],
            throttle_reasons: Some(u64::MAX - 1),
            margin_c: Some(-2.0),
            ..Gpu::default()
        }],
        cards_at: Some(at),
        took: Some(Duration::from_millis(12)),
        bus: vec![PciGpu {
            pci: "0000:01:00".into(),
            answers: Some(false),
            ..PciGpu::default()
        }],
        stuck: vec![StuckProcess {
            pid: 7,
            name: "ffmpeg".into(),
            since: at,
        }],
        ..Gpus::default()
    };
    let text = serde_json::to_string(&gpus).unwrap();
    assert_eq!(serde_json::from_str::<Gpus>(&text).unwrap(), gpus);
    assert_eq!(serde_json::from_str::<Gpus>("{}").unwrap(), Gpus::default());
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
