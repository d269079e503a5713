//! From a line of the kernel's to everybody who has to know.

use serde_json::json;

use crate::cloud;
use crate::field::Field;
use crate::plan::{CARDS, Plan, all_is_well, xid};

#[tokio::test]
async fn an_xid_79_is_told_to_everybody_at_once() {
    let field = Field::start(Plan::new()).await;
    let cloud = field.cloud().await;
    field.stats(all_is_well());
    field.until_state("healthy").await;
    let full = |slots: f64| {
        move |log: &crate::aws::Log| {
            let told = cloud::capacities(log);
            told.values().next_back() == Some(&slots)
        }
    };
    field.aws.until(full(18.0)).await;
    for (command, status) in [("status", 0), ("fit", 0)] {
        let answer = field.sideline(&[command]).await;
        assert_eq!(answer.status, Some(status), "{command}: {answer:?}");
    }

    field.kernel_says(&xid(79));
    let report = field.until_state("failing").await;
    assert_eq!(report["verdict"]["reasons"], json!(["gpu.xid.79"]));
    assert_eq!(
        report["capacity"],
        json!({"slots": 18, "available": 9, "because": "verdict"}),
        "one card of two is well"
    );
    let finding = &report["findings"][0];
    assert_eq!(finding["code"], "gpu.xid.79");
    assert_eq!(finding["subject"], format!("gpu:{}", CARDS[1]));
    assert_eq!(finding["severity"], "failing");
    assert_eq!(finding["count"], 1);
    assert_eq!(finding["evidence"], xid(79));

    let status = field.sideline(&["status"]).await;
    assert_eq!(status.status, Some(2), "{status:?}");
    assert!(status.out.contains("gpu.xid.79"), "{}", status.out);
    // Half of the node is well, yet nobody can promise that new work lands there.
    let fit = field.sideline(&["fit"]).await;
    assert_eq!(fit.status, Some(1), "{fit:?}");

    let opened = cloud
        .message("the finding", "/event", |event| {
            event["kind"] == "finding_opened"
        })
        .await;
    assert_eq!(opened["code"], "gpu.xid.79");
    assert_eq!(opened["evidence"], xid(79));
    let verdict =
        |event: &serde_json::Value| event["kind"] == "verdict" && event["state"] == "failing";
    let verdict = cloud.message("the verdict", "/event", verdict).await;
    assert_eq!(verdict["was"], "healthy");
    assert_eq!(
        (&verdict["slots"], &verdict["available"]),
        (&json!(18), &json!(9))
    );
    assert_eq!(
        verdict["seq"].as_u64(),
        opened["seq"].as_u64().map(|seq| seq + 1)
    );
    let failing = |health: &serde_json::Value| health["state"] == "failing";
    let health = cloud.message("health", "/health", failing).await;
    assert_eq!(
        (&health["available"], &health["reasons"]),
        (&json!(9), &json!(["gpu.xid.79"]))
    );

    // Health by itself, without waiting for the period's end; Capacity only with the period.
    let alone = |log: &crate::aws::Log| {
        let alone = |one: &&std::sync::Arc<crate::aws::Request>| one.data.len() == 1;
        let mut alone = log.requests.iter().filter(alone);
        alone.any(|one| one.data[0].name == "Health" && one.data[0].values == [2.0])
    };
    field.aws.until(alone).await;
    let log = field.aws.until(full(9.0)).await;
    cloud::assert_no_gap(&log);
}

#[tokio::test]
async fn lines_of_user_programs_and_of_harmless_xids_take_nothing_out_of_service() {
    let field = Field::start(Plan::new()).await;
    field.stats(all_is_well());
    field.until_state("healthy").await;
    // /dev/kmsg's own format; facility 1 is a user's program that wrote into it.
    field.kernel_says("12,1,1,-;NVRM: Xid (PCI:0000:02:00): 79, GPU has fallen off the bus.");
    field.kernel_says("\u{1b}[31m \0 \u{fffd} not a line of anybody's");
    field.kernel_says(&"x".repeat(100_000));
    field.kernel_says(&xid(13));
    let last = |report: &serde_json::Value| report["findings"][0]["code"] == "gpu.xid.13";
    let report = field.until("the last line", last).await;
    assert_eq!(report["findings"].as_array().map(Vec::len), Some(1));
    assert_eq!(report["findings"][0]["severity"], "info");
    assert_eq!(report["verdict"]["state"], "healthy");
    assert_eq!(report["capacity"]["available"], 18);
    assert_eq!(field.sideline(&["fit"]).await.status, Some(0));
}
