//! `sideline record`: what it writes beside a running agent, what it leaves out, how it ends, and what it refuses.

use std::io::Read;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use flate2::read::MultiGzDecoder;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use sideline::domain::record::{Record, Said};
use tokio::process::{Child, Command};

use crate::field::{Field, PATIENCE};
use crate::plan::{CARDS, Plan, all_is_well, cards, xid};

/// The readings in a file, which is whole.
fn readings(path: &Path) -> Vec<Record> {
    let text = unpacked(path);
    assert!(text.ends_with('\n'), "the last line is whole");
    let lines = text.lines().map(Record::parse);
    lines.collect::<Result<_, _>>().expect("a reading a line")
}

fn unpacked(path: &Path) -> String {
    let file = std::fs::File::open(path).expect("it was written");
    let mut text = String::new();
    let read = MultiGzDecoder::new(file).read_to_string(&mut text);
    read.expect("whole, and gzip");
    text
}

/// Starts a recording, and waits until it writes: from then on it can be ended.
async fn begin(field: &Field, name: &str) -> Child {
    let path = field.path(name);
    let mut command = field.command(&["record", "--for", "1h"]);
    let recorder = command.arg(&path).stderr(Stdio::piped()).spawn();
    let begun = async {
        let mut looks = tokio::time::interval(Duration::from_millis(10));
        while std::fs::metadata(&path).map_or(0, |file| file.len()) == 0 {
            looks.tick().await;
        }
    };
    let begun = tokio::time::timeout(PATIENCE, begun).await;
    begun.expect("it writes");
    recorder.expect("the program starts")
}

/// Ends a recording as Ctrl-C does; returns its exit status and what it says.
async fn interrupt(recorder: Child) -> (Option<i32>, String) {
    let id = recorder.id().and_then(|id| i32::try_from(id).ok());
    let pid = id.and_then(Pid::from_raw).expect("it runs");
    kill_process(pid, Signal::INT).expect("our own child");
    let ended = tokio::time::timeout(PATIENCE, recorder.wait_with_output()).await;
    let output = ended.expect("it ends").expect("our own child");
    let says = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), says)
}

/// `code subject severity` of each finding of the cards.
fn of_cards(findings: &Value) -> Vec<String> {
    let findings = findings.as_array().expect("a list").iter();
    let words = |finding: &Value| {
        ["code", "subject", "severity"].map(|key| finding[key].as_str().unwrap_or("-").to_owned())
    };
    let lines = findings
        .map(words)
        .filter(|words| words[0].starts_with("gpu."));
    let mut lines: Vec<String> = lines.map(|words| words.join(" ")).collect();
    lines.sort();
    lines
}

#[tokio::test]
async fn a_card_that_dies_is_found_again_in_the_recording() {
    let mut plan = Plan::new();
    plan.config["cameras"]["source"][0]["url"] =
        "mqtt://viewer:br0ker-s3cret@127.0.0.1:{port}".into();
    let field = Field::start(plan).await;
    field.stats(include_str!("../fixtures/frigate/stats-0.13.json"));
    let recorder = begin(&field, "night.rec.gz").await;
    field
        .until("cards", |report| report["gpus"][1]["state"] == "ok")
        .await;
    field.stats(all_is_well());
    field.until_state("healthy").await;
    field.kernel_says(&xid(79));
    let dead = |temperature| {
        let mut state = cards(&json!({"lost": true}));
        state["gpus"][0]["temperature"] = json!(temperature);
        state
    };
    // The recorder looks at its own pace: when the agent has looked three times more, it has looked too.
    for temperature in [60, 61, 62, 63] {
        field.gpus(&dead(temperature));
        let is_seen = |report: &Value| {
            report["gpus"][0]["temperature_c"] == f64::from(temperature)
                && of_cards(&report["findings"]).len() == 2
        };
        field.until("a dead card", is_seen).await;
    }
    let live = of_cards(&field.report().await["findings"]);
    let path = field.path("night.rec.gz");
    let (status, says) = interrupt(recorder).await;

    let readings = readings(&path);
    let expected = format!("{}: {} readings\n", path.display(), readings.len());
    assert_eq!((status, says), (Some(0), expected));
    assert!(readings.is_sorted_by_key(|reading| (reading.at, reading.began() < reading.at)));
    let boots = readings
        .iter()
        .all(|one| one.boot == readings[0].boot && !one.boot.is_empty());
    assert!(boots, "one boot");
    let said = |is: fn(&Said) -> bool| readings.iter().filter(|one| is(&one.said)).count();
    assert!(said(|said| matches!(said, Said::Host(_))) >= 2);
    assert!(said(|said| matches!(said, Said::Gpus(_))) >= 4);
    assert!(said(|said| matches!(said, Said::Kernel(_))) >= 1);
    assert!(said(|said| matches!(said, Said::Cameras(_))) >= 2);
    let text = unpacked(&path);
    assert!(text.contains("hole07"), "cameras were recorded");
    for secret in ["br0ker-s3cret", "fixture-s3cret", "secret-key-of-the-field"] {
        assert!(!text.contains(secret), "{secret} is recorded");
    }

    let file = path.display().to_string();
    let answer = field.sideline(&["replay", "--json", &file]).await;
    let last = answer.out.lines().last().expect("a summary");
    let last: Value = serde_json::from_str(last).expect("it is JSON");
    let replayed = of_cards(&last["summary"]["findings"]);
    assert_eq!(replayed, live);
    let card = format!("gpu:{}", CARDS[1]);
    assert_eq!(
        replayed,
        ["gpu.lost", "gpu.xid.79"].map(|code| format!("{code} {card} failing"))
    );
    assert_eq!((answer.status, answer.err.as_str()), (Some(2), ""));
    assert_eq!(last["summary"]["lines"], readings.len());
    // The agent beside it was not disturbed.
    assert_eq!(field.report().await["verdict"]["state"], "failing");
}

#[tokio::test]
async fn it_ends_by_itself_when_its_time_is_over() {
    let field = Field::without_agent(Plan::new()).await;
    field.kernel_says(&xid(79));
    let path = field.path("short.rec.gz");
    let file = path.display().to_string();
    let answer = field.sideline(&["record", "--for", "3s", &file]).await;
    assert_eq!(
        (answer.status, answer.out.as_str()),
        (Some(0), ""),
        "{answer:?}"
    );
    let readings = readings(&path);
    assert_eq!(answer.err, format!("{file}: {} readings\n", readings.len()));
    let (first, last) = (&readings[0], &readings[readings.len() - 1]);
    assert!(last.up - first.up <= 5.0, "{first:?} {last:?}");
    let answer = field.sideline(&["replay", &file]).await;
    assert!(answer.out.contains("+ gpu.xid.79 of "), "{answer:?}");
    assert!(!field.path("state").exists(), "nothing else is written");

    // A recording is never written over.
    let before = std::fs::read(&path).expect("it is there");
    let answer = field.sideline(&["record", "--for", "3s", &file]).await;
    let expected = format!("sideline: can't write {file}: File exists (os error 17)\n");
    assert_eq!((answer.status, answer.err), (Some(3), expected));
    assert_eq!(std::fs::read(&path).expect("it is there"), before);
}

#[tokio::test]
async fn what_can_not_be_written_is_told() {
    let field = Field::without_agent(Plan::new()).await;
    let file = field.path("absent/x.rec.gz").display().to_string();
    let answer = field.sideline(&["record", "--for", "3s", &file]).await;
    let expected =
        format!("sideline: can't write {file}: No such file or directory (os error 2)\n");
    assert_eq!((answer.status, answer.err), (Some(3), expected));

    // A disk that takes no more than a block: the limit is on how large a file may get.
    let file = field.path("full.rec.gz").display().to_string();
    let sideline = field.command(&["record", "--for", "3s", &file]);
    let sideline = sideline.as_std();
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", "trap '' XFSZ; ulimit -f 1; exec \"$0\" \"$@\""])
        .arg(sideline.get_program())
        .args(sideline.get_args())
        .env_clear()
        .envs(
            sideline
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let run = tokio::time::timeout(PATIENCE, command.output()).await;
    let output = run.expect("it ends").expect("the shell starts");
    let expected =
        format!("sideline: {file}: the recording can't be written: File too large (os error 27)\n");
    assert_eq!(String::from_utf8_lossy(&output.stderr), expected);
    assert_eq!(output.status.code(), Some(3));
}

#[tokio::test]
async fn wrong_lengths_are_refused_before_anything_is_written() {
    let field = Field::without_agent(Plan::new()).await;
    let path = field.path("x.rec.gz");
    let file = path.display().to_string();
    for (arguments, says) in [
        (&["--for", "0s"][..], "must be longer than nothing"),
        (
            &["--for", "nonsense"],
            "invalid value 'nonsense' for '--for <DURATION>'",
        ),
        (&["--for", "-1s"], "unexpected argument '-1' found"),
        (&[], "--for <DURATION>"),
    ] {
        let answer = field
            .sideline(&[&["record", &file], arguments].concat())
            .await;
        assert_eq!(answer.status, Some(3), "{answer:?}");
        assert!(
            answer.err.starts_with("error: ") && answer.err.contains(says),
            "{answer:?}"
        );
        assert!(!path.exists());
    }
}
