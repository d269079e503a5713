//! The operator's own checks and the power supply: what they say moves work away, and back.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::field::Field;
use crate::nut::Nut;
use crate::plan::{Plan, all_is_well};

/// One says what a file says, by the real `check_dummy`, or hangs.
const CHECK: &str = r#"
name = "raid"
command = ["/bin/sh", "-c", "read state < {folder}/says; [ $state != hang ] || exec sleep 600; exec /usr/lib/nagios/plugins/check_dummy $state 'slot 4|used=7'"]
every = "1s"
timeout = "500ms"
"#;

/// Power that is back has to stay for half a minute.
const POWER_HOLDS: Duration = Duration::from_secs(90);

fn finding(report: &Value, code: &str) -> Option<Value> {
    let findings = report["findings"].as_array()?;
    findings.iter().find(|one| one["code"] == code).cloned()
}

/// Waits until a finding says this of itself, and the node carries so much.
async fn until(field: &Field, code: &str, severity: &str, evidence: &str, slots: u64) -> Value {
    let what = format!("{code}: {severity}, {evidence:?}, {slots} slots");
    let is_so = |report: &Value| {
        let found = finding(report, code).unwrap_or_default();
        found["severity"] == severity
            && found["evidence"] == evidence
            && report["capacity"]["available"] == slots
    };
    let report = field.until(&what, is_so).await;
    finding(&report, code).expect("it was just seen")
}

/// What the check will say next.
fn says(field: &Field, state: &str) {
    field.write("says.new", format!("{state}\n"));
    std::fs::rename(field.path("says.new"), field.path("says")).expect("renamed");
}

#[tokio::test]
async fn a_check_that_is_critical_sends_the_work_away_and_gives_it_back() {
    let plugin = Path::new("/usr/lib/nagios/plugins/check_dummy");
    assert!(
        plugin.exists(),
        "install monitoring-plugins-basic, as `tests/run` does"
    );
    let check: toml::Table = CHECK.parse().expect("it is TOML");
    let plan = Plan::new()
        .set("check", vec![toml::Value::from(check)])
        .judging(&["host.check"]);
    let mut field = Field::without_agent(plan).await;
    // The check runs as nobody, who may not look into others' folders.
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(field.path(""), open).expect("our own folder");
    says(&field, "0");
    field.stats(all_is_well());
    field.launch_agent();
    field.says_in_log("check raid is ok: OK: slot 4").await;
    field.until_state("healthy").await;
    for (state, severity, evidence, slots) in [
        ("1", "degraded", "warning: WARNING: slot 4", 18),
        ("2", "failing", "critical: CRITICAL: slot 4", 0),
        ("3", "degraded", "unknown: UNKNOWN: slot 4", 18),
        ("2", "failing", "critical: CRITICAL: slot 4", 0),
        ("hang", "degraded", "unknown: did not end in 500ms", 18),
        ("2", "failing", "critical: CRITICAL: slot 4", 0),
    ] {
        says(&field, state);
        let found = until(&field, "host.check", severity, evidence, slots).await;
        assert_eq!(found["subject"], "check:raid");
    }
    assert_eq!(field.sideline(&["fit"]).await.status, Some(1));
    assert_eq!(field.sideline(&["status"]).await.status, Some(2));
    says(&field, "0");
    let report = field.until_state("healthy").await;
    assert_eq!(
        (&report["findings"], &report["capacity"]["available"]),
        (&json!([]), &json!(18))
    );
    assert_eq!(field.sideline(&["fit"]).await.status, Some(0));
    assert!(field.stop().await.success(), "{}", field.log());
}

#[tokio::test]
async fn work_leaves_before_the_lights_go_out() {
    let mut nut = Nut::new();
    nut.start_driver();
    nut.start_daemon();
    let plan = Plan::new()
        .set("ups.enabled", "always")
        .set("ups.every", "1s");
    let plan = plan
        .set("ups.address", nut.address())
        .judging(&["host.power"]);
    let mut field = Field::start(plan).await;
    let cloud = field.cloud().await;
    field.stats(all_is_well());
    field.until_state("healthy").await;
    for (status, charge, severity, evidence, slots) in [
        (
            "OB DISCHRG",
            60,
            "degraded",
            "on battery: 60 % charge, 12 min left",
            18,
        ),
        (
            "OB DISCHRG",
            55,
            "degraded",
            "on battery: 55 % charge, 11 min left",
            18,
        ),
        (
            "OB DISCHRG LB",
            10,
            "failing",
            "on battery, and the battery is nearly empty: 10 % charge, 2 min left",
            0,
        ),
    ] {
        nut.says(status, charge);
        let found = until(&field, "host.power", severity, evidence, slots).await;
        assert_eq!(found["subject"], "ups:office");
    }
    assert_eq!(field.sideline(&["fit"]).await.status, Some(1));
    // The cloud hears of it while there is still power.
    let leaves = |event: &Value| event["kind"] == "verdict" && event["state"] == "failing";
    cloud.message("the verdict", "/event", leaves).await;
    let zero =
        |log: &crate::aws::Log| crate::cloud::capacities(log).values().next_back() == Some(&0.0);
    field.aws.until(zero).await;
    // A upsd that goes proves nothing.
    nut.kill_first();
    nut.kill_first();
    field.says_in_log("the UPS is unknown: upsd at ").await;
    let report = field.report().await;
    assert_eq!(
        finding(&report, "host.power").expect("it stays")["severity"],
        "failing"
    );
    nut.says("OL CHRG", 12);
    nut.start_driver();
    nut.start_daemon();
    let back = |report: &Value| {
        report["verdict"]["state"] == "healthy" && report["capacity"]["available"] == 18
    };
    let report = field.until_within(POWER_HOLDS, "power", back).await;
    assert_eq!(finding(&report, "host.power"), None);
    assert!(field.stop().await.success(), "{}", field.log());
}
