//! Files into configurations or into problems, told to the letter.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use sideline::config::effective::Environment;
use sideline::config::layers::{Base, Parameter};
use sideline::config::{Config, SourceKind, decode, parse};

fn told(text: &str) -> String {
    match parse(text) {
        Ok(_) => "ok".into(),
        Err(problems) => problems.lines("f").replace("f:", ""),
    }
}

#[test]
fn problems_are_told_to_the_letter() {
    let table = include_str!("config_problems.txt");
    let mut rows = table.split("### ");
    let mut seen = rows.next().unwrap_or_default().to_owned();
    for row in rows {
        let (title, rest) = row.split_once('\n').unwrap();
        let (file, _) = rest.split_once(">>>\n").unwrap();
        writeln!(seen, "### {title}\n{file}>>>\n{}\n", told(file)).unwrap();
    }
    // One assertion for the table: the difference shows every row that changed.
    assert!(
        table.trim_end() == seen.trim_end(),
        "tests/config_problems.txt says otherwise than:\n{seen}"
    );
}

/// The configuration as the documentation shows it.
#[test]
fn the_documented_file_is_right() {
    let Config {
        node,
        cameras,
        judge,
        ssm,
        ..
    } = parse(DOCUMENTED).unwrap().config;
    assert_eq!(node.slots, Some(18));
    assert_eq!(cameras.source[1].kind, SourceKind::Mqtt);
    assert_eq!(cameras.expect["hole07"].fps, Some(25.0));
    assert_eq!(judge.rules.len(), 1);
    assert_eq!(ssm.parameters.len(), 3);
    // Written out, these are the defaults.
    let plain = Config {
        node,
        cameras,
        judge,
        ssm,
        ..Config::default()
    };
    assert_eq!(parse(DOCUMENTED).unwrap().config, plain);
}

#[test]
fn the_defaults_go_round() {
    let text = toml::to_string(&Config::default()).unwrap();
    assert_eq!(parse(&text).unwrap().config, Config::default());
    assert_eq!(parse("").unwrap().config, Config::default());
}

#[test]
fn lines_of_keys_are_known() {
    let text = "\u{feff}[host]\r\nevery = '2s'\r\n\r\n[judge.rules]\r\n'gpu.xid.79' = 'off'\r\n[[cameras.source]]\r\nkind = 'frigate'\r\nurl = 'mqtt://h'\r\n";
    let lines = parse(text).unwrap().lines;
    for (key, line) in [
        ("host", 1),
        ("host.every", 2),
        ("judge.rules.\"gpu.xid.79\"", 5),
        ("cameras.source[0].url", 8),
    ] {
        assert_eq!(lines.get(key), Some(&line), "{key}");
    }
    assert_eq!(lines.get("gpu.every"), None);
}

#[test]
fn strange_bytes_are_told_in_one_line() {
    for (bytes, wanted) in [
        (
            &b"a = 1\n\xff\xfe"[..],
            "f:2:1: byte 7 is 0xff: no UTF-8 text",
        ),
        (
            b"\xef\xbb\xbf# \xc3",
            "f:1:3: byte 6 is 0xc3: no UTF-8 text",
        ),
        (
            b"[host]\n\0\n",
            "f:2:1: invalid unquoted key, expected letters, numbers, `-`, `_`",
        ),
        (
            b"\xef\xbb\xbfx = 1",
            "f:1:1: unknown key \"x\" above the first section; known: x",
        ),
    ] {
        let told = decode(bytes).and_then(parse).unwrap_err().lines("f");
        let (told, _) = told.split_once("known: ").unwrap_or((&told, ""));
        let (wanted, _) = wanted.split_once("known: ").unwrap_or((wanted, ""));
        assert_eq!(told, wanted);
    }
}

/// Garbage of a mebibyte is told in a page, and soon.
#[test]
fn large_garbage_is_told_in_a_page() {
    let mut keys = String::new();
    let mut cameras = String::from("[cameras.expect]\n");
    for number in 0..60_000 {
        writeln!(keys, "key{number} = 1").unwrap();
        writeln!(cameras, "c{number} = {{ fps = 'x' }}").unwrap();
    }
    let mut files = vec![("keys", keys), ("cameras", cameras)];
    let pieces = [
        "[", "{", "a", "\"\n", "a=1\n", "a={", "= x \n", "\u{1}", "[[a]]\n", "a.", "'''", "é\n",
    ];
    files.extend(pieces.map(|piece| (piece, piece.repeat((1 << 20) / piece.len()))));
    for (name, text) in files {
        let start = Instant::now();
        let told = parse(&text).unwrap_err().lines("f");
        let took = start.elapsed();
        assert!(told.lines().count() <= 51, "{name:?}");
        assert!(told.lines().all(|line| line.len() < 600), "{name:?}");
        // This build is not optimised, and shares the machine.
        assert!(took < Duration::from_secs(10), "{name:?}: {took:?}");
        eprintln!("{name:?}: {took:?} {:.80?}", told.lines().last());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Any text.
    #[test]
    fn no_text_panics(text in ".{0,200}") {
        let _ = parse(&text);
    }

    /// Text that is nearly a configuration; and what the schema lets through, the types take.
    #[test]
    fn no_file_panics(lines in proptest::collection::vec(line(), 0..12)) {
        let text = lines.concat();
        if let Err(problems) = parse(&text) {
            let told = problems.lines("f");
            for words in ["invalid type", "invalid value", "unknown variant", "unknown field", "missing field", "did not match"] {
                prop_assert!(!told.contains(words), "{text}\n{told}");
            }
            prop_assert!(!told.is_empty());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Parameters over files: what is right over a file is a configuration, and what is wrong changes nothing.
    #[test]
    fn no_parameter_panics(file in file(), lines in proptest::collection::vec(line(), 0..8)) {
        let base = Base::of_file("f".into(), file.clone(), Environment::default());
        let base = base.expect("the files are right");
        let value = lines.concat();
        let parameter = Parameter { name: "/a".into(), version: 1, value: value.clone() };
        let laid = base.lay(std::slice::from_ref(&parameter), &[]);
        if laid.refused.is_empty() {
            let again = parse(&laid.effective.toml()).map(|parsed| parsed.config);
            prop_assert_eq!(again, Ok(laid.effective.config), "{}\n{}", file, value);
        } else {
            let told = laid.refused[0].1.lines("f");
            for words in ["invalid type", "invalid value", "unknown variant", "unknown field", "missing field", "did not match"] {
                prop_assert!(!told.contains(words), "{file}\n{value}\n{told}");
            }
            prop_assert!(!told.is_empty());
            prop_assert_eq!(laid.effective.config, base.config);
        }
    }
}

/// Files that are right, and in which parameters can do harm.
fn file() -> impl Strategy<Value = String> {
    let rest = prop::sample::select(vec![
        "",
        "[judge]\ndisk_degraded_percent = 40\ndisk_failing_percent = 50\nrules = { 'gpu.hot' = 'off' }",
        "[[cameras.source]]\nkind = 'mqtt'\nurl = 'mqtt://h'\ntopic = '+'\nfields = { fps = '/a' }",
        "cameras = { expect = { a = { fps = 1 } }, source = [] }\ngpu.expected = 3",
        "[relay]\nurl = 'mqtts://h'\nca = '/c'\n[[check]]\nname = 'a'\ncommand = ['/a']",
    ]);
    let allowed = any::<bool>();
    (rest, allowed).prop_map(|(rest, allowed)| {
        format!("ssm = {{ parameters = ['/a'], allow_commands = {allowed} }}\n{rest}\n")
    })
}

fn line() -> impl Strategy<Value = String> {
    let header = prop::sample::select(vec![
        "[node]",
        "[gpu]",
        "[host]",
        "[cameras]",
        "[[cameras.source]]",
        "[cameras.expect]",
        "[judge]",
        "[judge.rules]",
        "[cloudwatch]",
        "[relay]",
        "[outbox]",
        "[ssm]",
        "[cameras.source]",
        "[failover]",
        "[cameras.expect.a]",
        "[cameras.source.fields]",
    ]);
    let key = prop::sample::select(vec![
        "id",
        "slots",
        "every",
        "expected",
        "enabled",
        "source",
        "expect",
        "max",
        "kind",
        "url",
        "topic",
        "fields",
        "fields.fps",
        "fps",
        "a",
        "gpu_celsius",
        "disk_ignore",
        "rules",
        "period",
        "retain",
        "max_bytes",
        "max_age",
        "parameters",
        "max_unfit_share",
        "detail_budget",
        "state",
    ]);
    let value = prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        any::<f64>().prop_map(|number| format!("{number:?}").replace("NaN", "nan")),
        Just("18446744073709551616".to_owned()),
        Just("0xFF".to_owned()),
        prop::sample::select(vec![
            "true",
            "\"\"",
            "\"10s\"",
            "\"auto\"",
            "\"remember\"",
            "\"frigate\"",
            "\"mqtt\"",
            "\"mqtt://h\"",
            "\"/a\"",
            "[]",
            "[1]",
            "['a']",
            "{}",
            "{ fps = 1 }",
            "{ kind = 'mqtt' }",
            "[{ kind = 1 }]",
            "10:00:00",
            "2020-01-01",
            "oops",
            "'",
            "[",
            "\"off\"",
            "\"1GiB\"",
            "5",
            "0.5",
        ])
        .prop_map(str::to_owned),
    ];
    prop_oneof![
        1 => header.prop_map(|header| format!("{header}\n")),
        3 => (key, value).prop_map(|(key, value)| format!("{key} = {value}\n")),
    ]
}

const DOCUMENTED: &str = r#"
[node]
id = "mi-0123456789abcdef0"
site = "default"
slots = 18

[paths]
state = "/var/lib/sideline"
run = "/run/sideline"    # the socket is status.sock in it

[host]
every = "10s"
[gpu]
enabled = "auto"         # auto | always | never; always makes a missing GPU or driver a failure
every = "10s"
library = ""             # path of libnvidia-ml.so.1; empty: the loader's
deadline = "5s"          # a probe that takes longer is hung
expected = "remember"    # remember | a number
[kernel_log]
path = "/dev/kmsg"

[[cameras.source]]
kind = "frigate"
url = "mqtt://127.0.0.1:1883"
prefix = "frigate"
[[cameras.source]]
kind = "mqtt"            # any program that publishes JSON
url = "mqtt://127.0.0.1:1883"
topic = "cameras/+/status"   # + stands for the camera's name
fields = { state = "/online", fps = "/stream/fps", last_frame = "/last_frame_at" }   # JSON pointers
[cameras.expect]
hole07 = { fps = 25 }
[cameras]
down_after = "20s"
max = 4096

[judge]                  # thresholds; every rule can be set to off | degraded | failing
[judge.rules]
"gpu.xid.79" = "failing"

[aws]
region = ""              # default: the SSM registration's
registration = "/var/lib/amazon/ssm/registration"
credentials = ""         # default: AWS_SHARED_CREDENTIALS_FILE, else /root/.aws/credentials
ecs_agent = "http://127.0.0.1:51678"

[cloudwatch]
enabled = "auto"         # auto: on when a region and credentials are found
namespace = "Sideline"
profile = "essential"    # capacity | essential | full
period = "60s"           # 1s, 5s, 10s, 30s or a multiple of 60s; under 60s is high resolution
detail_budget = 10       # extra metrics that sick GPUs and cameras may use while they are sick

[relay]
url = ""                 # mqtts://broker:8883; empty: off
prefix = "sideline"
# one key a line
ca = ""
certificate = ""
key = ""
retain = true

[outbox]
max_bytes = "256MiB"
max_age = "14d"

[ssm]
parameters = ["/sideline/fleet", "/sideline/site/north", "/sideline/node/mi-0123456789abcdef0"]
every = "5m"
inventory = true
compliance = true

[failover]
mode = "observe"         # observe | drain
hold = "60s"             # failing this long before draining (faults that prove dead hardware skip it)
probation = "15m"        # healthy this long before coming back
max_unfit_share = 0.5    # never drain if more than this share of the cluster's external nodes would be out

[status]
metrics_listen = ""      # "127.0.0.1:9105": Prometheus text over TCP as well
"#;
