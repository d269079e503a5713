//! Everything that NVIDIA's library can do to an agent, and the way back.

use serde_json::{Value, json};

use crate::field::Field;
use crate::plan::{CARDS, Plan, all_is_well, cards, stats};

#[tokio::test]
async fn a_call_that_hangs() {
    let mut hung = cards(&json!({}));
    hung["hang"] = json!(["nvmlDeviceGetTemperature"]);
    there_and_back(&hung, "gpu.hung", "gpus", 0).await;
}

#[tokio::test]
async fn a_library_that_crashes() {
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
    let mut mismatch = cards(&json!({}));
    mismatch["init"] = json!("lib_rm_version_mismatch");
    // A library that has been started once goes on; a new process does not come up.
    let mut upgrade = mismatch.clone();
    upgrade["crash"] = json!(["nvmlDeviceGetCount"]);
    let mut field = healthy().await;
    field.gpus(&upgrade);
    field
        .until("the crash", |report| {
            finding(report, "gpu.probe_crashed").is_some()
        })
        .await;
    field.gpus(&mismatch);
    fails_and_recovers(&mut field, "gpu.driver", "gpus", 0).await;
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
    let report = field
        .until(code, |report| finding(report, code).is_some())
        .await;
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
