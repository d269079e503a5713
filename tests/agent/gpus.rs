//! Everything that NVIDIA's library can do to an agent, and the way back.

use std::time::Instant;

use serde_json::{Map, Value, json};

use crate::field::Field;
use crate::plan::{CARDS, Plan, all_is_well, cards, stats};

/// One card's trouble costs the other's work nothing. The timeline is printed (`--nocapture`).
#[tokio::test]
#[expect(clippy::print_stdout, reason = "the timeline is what it shows")]
async fn a_card_that_hangs_then_crashes_the_library_then_recovers() {
    let mut field = healthy().await;
    let began = Instant::now();
    let mut lines = Vec::new();
    let fault = |kind: &str, call| Map::from_iter([(kind.to_owned(), json!([call]))]);
    let steps: [(&str, Map<String, Value>, Step); 3] = [
        (
            "card 0 hangs",
            fault("hang", "nvmlDeviceGetTemperature"),
            |report| subjects(report, "gpu.hung") == [CARDS[0]],
        ),
        (
            "card 0 crashes the library",
            fault("crash", "nvmlDeviceGetPowerUsage"),
            |report| {
                finding(report, "gpu.probe_crashed")
                    .is_some_and(|found| found["severity"] == "failing")
            },
        ),
        ("card 0 recovers", Map::new(), |report| {
            report["verdict"]["state"] == "healthy"
        }),
    ];
    for (step, (what, fault, reached)) in (1..).zip(steps) {
        let at = began.elapsed().as_secs_f64();
        lines.push(format!("{at:6.1} s  --- {what}"));
        // The healthy card's temperature tells that it is read on.
        let fresh = 60.0 + f64::from(step);
        let mut state = cards(&json!({"temperature": 60 + step}));
        if let Some(card) = state["gpus"][0].as_object_mut() {
            card.extend(fault);
        }
        field.gpus(&state);
        let mut last = String::new();
        let report = field
            .until(what, |report| {
                let line = told(report);
                if line != last {
                    let at = began.elapsed().as_secs_f64();
                    lines.push(format!("{at:6.1} s  {line}"));
                    last = line;
                }
                let available = report["capacity"]["available"].as_u64();
                assert!(available >= Some(9), "{what}: {report:#}");
                for code in ["gpu.hung", "gpu.probe_crashed"] {
                    let others = subjects(report, code);
                    assert!(others.iter().all(|card| card == CARDS[0]), "{report:#}");
                }
                reached(report) && report["gpus"][1]["temperature_c"] == fresh
            })
            .await;
        assert_eq!(report["gpus"][1]["state"], "ok", "{what}");
    }
    println!("{}", lines.join("\n"));
    let report = field.report().await;
    assert_eq!(report["capacity"]["available"], 18);
    assert_eq!(report["findings"], json!([]));
    assert!(field.stop().await.success(), "{}", field.log());
}

type Step = fn(&Value) -> bool;

/// A report in a line.
fn told(report: &Value) -> String {
    let findings: Vec<String> = report["findings"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|found| {
            let word = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
            let card = word("subject").replace(CARDS[0], "card 0");
            format!("{} {} ({})", word("code"), card, word("severity"))
        })
        .collect();
    let state = |card: usize| report["gpus"][card]["state"].as_str().unwrap_or("?");
    format!(
        "{:<9} {:>2} of 18  card 0 {:<8} card 1 {:<4} {}",
        report["verdict"]["state"].as_str().unwrap_or("?"),
        report["capacity"]["available"],
        state(0),
        state(1),
        findings.join(", ")
    )
}

/// The cards that have a finding.
fn subjects(report: &Value, code: &str) -> Vec<String> {
    let findings = report["findings"].as_array().into_iter().flatten();
    findings
        .filter(|finding| finding["code"] == code)
        .map(|finding| {
            let subject = finding["subject"].as_str().unwrap_or_default();
            subject.trim_start_matches("gpu:").to_owned()
        })
        .collect()
}

#[tokio::test]
async fn a_call_that_hangs_for_every_card() {
    let mut hung = cards(&json!({}));
    hung["hang"] = json!(["nvmlDeviceGetTemperature"]);
    there_and_back(&hung, "gpu.hung", CARDS[0], 0).await;
}

#[tokio::test]
async fn a_driver_that_hangs() {
    let mut hung = cards(&json!({}));
    hung["hang"] = json!(["nvmlDeviceGetCount"]);
    there_and_back(&hung, "gpu.hung", "gpus", 0).await;
}

#[tokio::test]
async fn a_library_that_crashes_for_every_card() {
    let mut crashing = cards(&json!({}));
    crashing["crash"] = json!(["nvmlDeviceGetPowerUsage"]);
    there_and_back(&crashing, "gpu.probe_crashed", "gpus", 0).await;
}

#[tokio::test]
async fn a_card_that_falls_off_the_bus() {
    let lost = cards(&json!({"lost": true}));
    there_and_back(&lost, "gpu.lost", CARDS[1], 9).await;
}

#[tokio::test]
async fn a_card_that_is_no_longer_listed() {
    let missing = cards(&json!({"missing": true}));
    there_and_back(&missing, "gpu.missing", CARDS[1], 9).await;
}

#[tokio::test]
async fn a_driver_that_was_upgraded_under_its_library() {
    // A library that has been started once goes on until it crashes; a new process does not come up.
    let mut upgrade = cards(&json!({}));
    upgrade["init"] = json!("lib_rm_version_mismatch");
    upgrade["crash"] = json!(["nvmlDeviceGetCount"]);
    there_and_back(&upgrade, "gpu.driver", "gpus", 0).await;
}

/// A node that carries 18 cameras, with its cards and cameras in the report.
async fn healthy() -> Field {
    let field = Field::start(Plan::new()).await;
    field.stats(all_is_well());
    let well = |report: &Value| {
        report["verdict"]["state"] == "healthy"
            && report["cameras"][17]["fps"] == 5.0
            && report["gpus"][1]["state"] == "ok"
    };
    field.until("health", well).await;
    field
}

async fn there_and_back(fault: &Value, code: &str, subject: &str, available: u32) {
    let mut field = healthy().await;
    field.gpus(fault);
    fails_and_recovers(&mut field, code, subject, available).await;
}

/// Waits for the finding, checks that the rest of the node is watched as before, and that all is well in the end.
async fn fails_and_recovers(field: &mut Field, code: &str, subject: &str, available: u32) {
    let reached = |report: &Value| {
        let found = finding(report, code);
        found.is_some_and(|found| found["severity"] == "failing")
            && report["capacity"]["available"] == available
    };
    let report = field.until(code, reached).await;
    let found = finding(&report, code).expect("it was just there");
    assert_eq!(found["severity"], "failing", "{found}");
    let subject = subject.replace("GPU-", "gpu:GPU-");
    assert_eq!(found["subject"], subject);
    assert_eq!(report["verdict"]["state"], "failing");
    assert_eq!(report["capacity"]["available"], available);
    let status = field.sideline(&["status"]).await;
    assert_eq!(status.status, Some(2), "{status:?}");
    assert!(status.out.contains(code), "{}", status.out);
    assert_eq!(field.sideline(&["fit"]).await.status, Some(1));

    // The host and the cameras are read on.
    let before = report["host"]["uptime_s"].as_u64().expect("it is known");
    field.stats(stats(4.5, ("", 0.0)));
    let goes_on = |report: &Value| {
        report["host"]["uptime_s"].as_u64() >= Some(before + 2)
            && report["cameras"][17]["fps"] == 4.5
            && report["cameras"][17]["state"] == "up"
    };
    let report = field.until("readings that go on", goes_on).await;
    assert_eq!(report["verdict"]["state"], "failing", "and the fault stays");
    assert!(finding(&report, code).is_some(), "{}", report["findings"]);
    // Nothing is known of a card that does not answer: null, and never the last value.
    let silent = report["gpus"].as_array().into_iter().flatten();
    for card in silent.filter(|card| card["state"] != "ok") {
        for value in ["temperature_c", "utilization_percent", "power_w"] {
            assert_eq!(card[value], Value::Null, "{card}");
        }
    }

    field.gpus(&cards(&json!({})));
    let well = |report: &Value| {
        report["verdict"]["state"] == "healthy"
            && report["capacity"]["available"] == 18
            && report["gpus"][1]["temperature_c"] == 54.0
    };
    let report = field.until("recovery", well).await;
    assert_eq!(report["findings"], json!([]));
    assert_eq!(field.sideline(&["status"]).await.status, Some(0));
    assert_eq!(field.sideline(&["fit"]).await.status, Some(0));
    assert!(field.stop().await.success(), "{}", field.log());
}

fn finding<'a>(report: &'a Value, code: &str) -> Option<&'a Value> {
    let findings = report["findings"].as_array()?;
    findings.iter().find(|finding| finding["code"] == code)
}

#[tokio::test]
async fn a_probe_that_hangs_holds_up_no_farewell() {
    let mut field = healthy().await;
    let mut hung = cards(&json!({}));
    hung["hang"] = json!(["*"]);
    field.gpus(&hung);
    field.until_state("failing").await;
    assert!(field.stop().await.success(), "{}", field.log());
}

#[tokio::test]
async fn a_card_that_is_lost_before_the_agent_starts_is_one_card() {
    let mut field = healthy().await;
    assert!(field.stop().await.success());
    field.gpus(&cards(&json!({"lost": true})));
    field.start_agent().await;
    let report = field
        .until("the loss", |report| finding(report, "gpu.lost").is_some())
        .await;
    assert_eq!(
        report["findings"].as_array().map(Vec::len),
        Some(1),
        "{}",
        report["findings"]
    );
    assert_eq!(
        report["findings"][0]["subject"],
        format!("gpu:{}", CARDS[1])
    );
    assert_eq!(report["capacity"]["available"], 9);
}

#[tokio::test]
async fn a_card_that_was_never_seen_well_has_no_name_and_spoils_no_request() {
    let mut field = Field::without_agent(Plan::new()).await;
    field.gpus(&cards(&json!({"lost": true})));
    field.start_agent().await;
    let report = field
        .until("the loss", |report| finding(report, "gpu.lost").is_some())
        .await;
    assert_eq!(report["capacity"]["available"], 9);
    let two = |log: &crate::aws::Log| crate::cloud::periods(log).len() >= 2;
    let log = field.aws.until(two).await;
    assert!(log.refused.is_empty(), "{:?}", log.refused);

    field.gpus(&cards(&json!({})));
    let report = field.until_state("healthy").await;
    assert_eq!(report["capacity"]["available"], 18);
    assert_eq!(report["gpus"][1]["id"], CARDS[1]);
    assert_eq!(
        report["findings"],
        json!([]),
        "nobody misses a card without a name"
    );
}

#[tokio::test]
async fn values_that_mean_not_known_are_null_and_no_fault() {
    let field = healthy().await;
    field.gpus(&cards(&json!({
        "sentinels": [
            "nvmlDeviceGetTemperature", "nvmlDeviceGetUtilizationRates", "nvmlDeviceGetMemoryInfo",
            "nvmlDeviceGetPowerUsage", "nvmlDeviceGetClockInfo", "nvmlDeviceGetPerformanceState",
            "nvmlDeviceGetDecoderUtilization", "nvmlDeviceGetFanSpeed", "nvmlDeviceGetCurrPcieLinkWidth",
            "nvmlDeviceGetFieldValues", "nvmlDeviceGetCurrentClocksThrottleReasons",
        ],
    })));
    let garbage = [
        "temperature_c",
        "utilization_percent",
        "memory_used_bytes",
        "memory_utilization_percent",
        "power_w",
        "clock_graphics_mhz",
        "clock_video_mhz",
        "performance_state",
        "decoder_percent",
        "fan_percent",
        "pcie_width",
        "recovery_action",
        "throttle_reasons",
    ];
    let unknown = |report: &Value| report["gpus"][1]["temperature_c"] == Value::Null;
    let report = field.until("values that are not known", unknown).await;
    for value in garbage {
        assert_eq!(report["gpus"][1][value], Value::Null, "{value}");
        let other = value == "fan_percent";
        assert_eq!(
            report["gpus"][0][value].is_null(),
            other,
            "{value} of the L4"
        );
    }
    assert_eq!(report["gpus"][1]["state"], "ok", "it answers");
    // And it stays so.
    let before = report["host"]["uptime_s"].as_u64().expect("it is known");
    let later = |report: &Value| report["host"]["uptime_s"].as_u64() >= Some(before + 2);
    let report = field.until("2 seconds later", later).await;
    assert_eq!(report["findings"], json!([]));
    assert_eq!(report["verdict"]["state"], "healthy");
}

#[tokio::test]
async fn what_a_card_offers_is_told_and_what_it_does_not_is_null() {
    let field = healthy().await;
    let mut state = cards(&json!({
        "throttle_reasons": 1_u64 << 40 | 0x88, "fans": [34, 71], "fan_rpm": 1810, "margin_temperature": -3,
        "processes": [{"pid": 4711}, {"pid": 12}], "graphics_processes": [{"pid": 4711}],
        "pcie": {"gen": 1, "max_gen": 4, "width": 8, "max_width": 16, "replays": 7},
        "recovery_action": 2, "temperature": 77,
    }));
    state["gpus"][0]["ecc"] = json!({
        "uncorrected_volatile": 5, "uncorrected_sram": 2, "corrected_volatile": 9, "uncorrected_aggregate": 6,
    });
    state["gpus"][0]["remapped_rows"] = json!({"uncorrected": 1, "pending": true, "failure": true});
    // As of a driver that does not know these calls.
    let unknown = ["nvmlDeviceGetMarginTemperature", "nvmlDeviceGetFanSpeedRPM"];
    state["gpus"][0]["errors"] = unknown
        .map(|call| (call, json!("function_not_found")))
        .into_iter()
        .collect();
    field.gpus(&state);
    let report = field
        .until("the values", |report| {
            report["gpus"][1]["temperature_c"] == 77.0
        })
        .await;
    for (card, value, expected) in [
        (1, "throttle_reasons", json!(1_u64 << 40 | 0x88)),
        (1, "fans_percent", json!([34.0, 71.0])),
        (1, "fan_percent", json!(71.0)),
        (1, "fan_rpm", json!(1810)),
        (1, "margin_c", json!(-3.0)),
        (1, "slowdown_margin_c", json!(-2.0)),
        (1, "processes", json!(2)),
        (1, "pids", json!([12, 4711])),
        (1, "pcie_generation", json!(1)),
        (1, "pcie_generation_max", json!(4)),
        (1, "pcie_width", json!(8)),
        (1, "pcie_width_max", json!(16)),
        (1, "pcie_replays", json!(7)),
        (1, "recovery_action", json!(2)),
        (1, "power_limit_w", json!(450.0)),
        (1, "clock_graphics_mhz", json!(2520)),
        (1, "clock_graphics_max_mhz", json!(3105)),
        (1, "clock_sm_max_mhz", json!(3105)),
        (1, "clock_memory_mhz", json!(10501)),
        (1, "clock_memory_max_mhz", json!(10501)),
        (1, "clock_video_max_mhz", json!(2415)),
        // Its ECC is off, and NVML lists remapped rows all the same.
        (1, "ecc_enabled", json!(false)),
        (1, "ecc_uncorrected", Value::Null),
        (1, "ecc_uncorrected_sram", Value::Null),
        (1, "remapped_rows", Value::Null),
        (1, "retired_pages", Value::Null),
        (0, "ecc_corrected", json!(9)),
        (0, "ecc_uncorrected", json!(5)),
        (0, "ecc_uncorrected_dram", json!(3)),
        (0, "ecc_uncorrected_sram", json!(2)),
        (0, "ecc_uncorrected_lifetime", json!(6)),
        (0, "remapped_rows", json!(1)),
        (0, "remap_pending", json!(true)),
        (0, "remap_failed", json!(true)),
        (0, "retired_pages", Value::Null),
        (0, "margin_c", Value::Null),
        (0, "slowdown_margin_c", json!(-2.0)),
        (0, "fans_percent", Value::Null),
        (0, "fan_rpm", Value::Null),
    ] {
        assert_eq!(report["gpus"][card][value], expected, "{value} of {card}");
    }
    assert_eq!(report["gpus"][0].get("problems"), None);
}
