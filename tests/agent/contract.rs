//! The names that users, scripts and the cloud rely on, to the letter.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::field::Field;
use crate::mqtt::Message;
use crate::plan::{Plan, all_is_well, stats, xid};

fn keys(of: &Value) -> Vec<&str> {
    of.as_object()
        .map_or(Vec::new(), |of| of.keys().map(String::as_str).collect())
}

/// All that is promised is there; more may be.
fn assert_has(of: &Value, promised: &str) {
    let has = keys(of);
    let missing: Vec<&str> = promised
        .split(' ')
        .filter(|key| !has.contains(key))
        .collect();
    assert!(missing.is_empty(), "no {missing:?} in {of:#}");
}

fn assert_time(of: &Value) {
    let time = of
        .as_str()
        .and_then(|text| text.parse::<jiff::Timestamp>().ok());
    assert!(time.is_some(), "{of} is no time");
}

#[tokio::test]
async fn the_report() {
    let field = Field::start(Plan::new().expecting_cameras()).await;
    field.stats(stats(5.0, ("hole07", 0.0)));
    field.kernel_says(&xid(79));
    let rich = |report: &Value| {
        report["findings"]
            .as_array()
            .is_some_and(|all| all.len() >= 2)
            && report["host"]["cpu_percent"].is_number()
            && report["gpus"].as_array().is_some_and(|all| all.len() == 2)
            && report["failover"]["cluster"].is_string()
            && report["outlets"][0]["last_success"].is_string()
            && report["outlets"][1]["last_success"].is_string()
    };
    let streamed = field.until("a report with everything", rich).await;
    let json = field.sideline(&["status", "--json"]).await;
    let status: Value = serde_json::from_str(&json.out).expect("JSON");
    let served: Value = serde_json::from_str(&field.get("/v1/report").await.1).expect("JSON");
    let checked = field.sideline(&["check", "--json"]).await;
    let checked: Value = serde_json::from_str(&checked.out).expect("JSON");

    for report in [&streamed, &status, &served, &checked] {
        let sections = "version at seq node verdict capacity findings host drives ups checks gpus \
                        cameras outlets identity failover";
        assert_eq!(keys(report).join(" "), sections);
        assert_eq!(report["version"], 1);
        assert_time(&report["at"]);
        assert!(report["seq"].is_u64());
        assert_eq!(
            keys(&report["node"]).join(" "),
            "id site hostname agent boot uptime_s config driver"
        );
        assert_eq!(keys(&report["verdict"]).join(" "), "state since reasons");
        assert_eq!(
            keys(&report["capacity"]).join(" "),
            "slots available because"
        );
        assert_eq!(
            keys(&report["failover"]).join(" "),
            "mode state cluster container_instance since until reason held_back drill"
        );
        assert_eq!(
            keys(&report["identity"]).join(" "),
            "managed_instance region credentials ssm_agent"
        );
        assert_eq!(
            keys(&report["identity"]["credentials"]).join(" "),
            "source file expires_at expires_in_s long_lived"
        );
        assert_has(&report["host"], "cpu_percent memory_used_percent disks");
        let outlets = report["outlets"].as_array().expect("outlets");
        let names: Vec<&str> = outlets
            .iter()
            .filter_map(|one| one["name"].as_str())
            .collect();
        assert_eq!(names, ["cloudwatch", "relay", "ssm", "ecs"]);
        for outlet in outlets {
            let promised = "name state last_success pending oldest_pending_s dropped error";
            assert_eq!(keys(outlet).join(" "), promised);
        }
        for gpu in report["gpus"].as_array().expect("cards") {
            assert_has(
                gpu,
                "id name pci state temperature_c utilization_percent memory_used_bytes power_w",
            );
        }
    }
    assert_eq!(
        checked["verdict"]["state"], "failing",
        "check needs no running agent, and sees the same"
    );
    for report in [&streamed, &status, &served] {
        for finding in report["findings"].as_array().expect("findings") {
            let promised = "code subject severity since last_seen count evidence advice";
            assert_eq!(keys(finding).join(" "), promised);
            assert_time(&finding["since"]);
            assert_time(&finding["last_seen"]);
        }
        for camera in report["cameras"].as_array().expect("cameras") {
            let promised = "id source state fps expected_fps last_frame_age_s since reason";
            assert_eq!(keys(camera).join(" "), promised);
            assert_eq!(camera["source"], "frigate");
        }
        let down = &report["cameras"][6];
        let seen = (
            &down["state"],
            &down["reason"],
            &down["fps"],
            &down["expected_fps"],
        );
        let expected = (
            &json!("down"),
            &json!("no_frames"),
            &json!(0.0),
            &json!(5.0),
        );
        let unknown = (
            &json!("unknown"),
            &json!("not_heard"),
            &json!(0.0),
            &json!(5.0),
        );
        assert!(seen == expected || seen == unknown, "{down}");
        assert_eq!(report["failover"]["mode"], "observe");
        assert_eq!(report["failover"]["state"], "in_service");
        assert_eq!(report["failover"]["cluster"], "field");
    }
}

#[tokio::test]
async fn the_topics() {
    let mut field = Field::start(Plan::new().expecting_cameras()).await;
    let cloud = field.cloud().await;
    field.stats(all_is_well());
    field.until_state("healthy").await;
    field.kernel_says(&xid(79));
    field.until_state("failing").await;
    field.stats(stats(5.0, ("hole07", 0.0)));
    field
        .until("hole07 down", |report| {
            report["cameras"][6]["state"] == "down"
        })
        .await;
    field.gpus(&crate::plan::cards(&json!({"lost": true})));
    field
        .until("the loss", |report| report["gpus"][1]["state"] == "lost")
        .await;
    field.gpus(&crate::plan::cards(&json!({})));
    field.until_state("degraded").await;
    assert!(field.stop().await.success());
    let stopped = |json: &Value| json["status"] == "stopped";
    cloud.message("the farewell", "/status", stopped).await;

    let base = "sideline/1/north/mi-0field/";
    let head = "v ts seq boot";
    let finding = "code subject severity since last_seen count evidence advice";
    let mut kinds = BTreeSet::new();
    for message in cloud.messages() {
        let Message { topic, .. } = &message;
        let json = message.json();
        let rest = topic
            .strip_prefix(base)
            .unwrap_or_else(|| panic!("{topic}"));
        assert!(topic.matches('/').count() <= 6, "{topic}");
        assert_eq!(json["v"], 1, "{topic} {json}");
        let expected = match rest {
            "status" if json["status"] == "online" => "v status boot session agent".to_owned(),
            "status" => "v status boot session".to_owned(),
            "health" => format!("{head} state since reasons slots available because failover"),
            "event" => {
                let kind = json["kind"].as_str().expect("a kind").to_owned();
                let more = match kind.as_str() {
                    "finding_opened" | "finding_closed" => finding,
                    "verdict" => "state was reasons slots available",
                    "camera" => "cam state was reason",
                    "failover" => "what mode state was reason until slots",
                    "agent" => "what agent",
                    other => panic!("{other}"),
                };
                kinds.insert(kind);
                format!("{head} kind {more}")
            }
            camera => {
                let cam = camera
                    .strip_prefix("cam/")
                    .and_then(|cam| cam.strip_suffix("/state"));
                assert_eq!(json["cam"].as_str(), cam, "{topic}");
                format!("{head} cam state since reason src fps exp_fps age_s")
            }
        };
        assert_eq!(keys(&json).join(" "), expected, "{topic}");
        if rest != "status" {
            assert_time(&json["ts"]);
            assert!(json["seq"].is_u64() && json["boot"].is_string(), "{json}");
        }
    }
    let all = [
        "agent",
        "camera",
        "finding_closed",
        "finding_opened",
        "verdict",
    ];
    assert_eq!(kinds, all.map(str::to_owned).into());
}

#[tokio::test]
async fn fit_metrics_and_the_stream() {
    let field = Field::start(Plan::new().expecting_cameras()).await;
    field.stats(all_is_well());
    field.until_state("healthy").await;
    let (head, body) = field.get("/v1/fit").await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert_eq!(body, "fit\n");
    let (head, page) = field.get("/metrics").await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(
        head.to_lowercase()
            .contains("content-type: text/plain; version=0.0.4"),
        "{head}"
    );
    assert_prometheus(&page);
    for sample in [
        "sideline_health 0",
        "sideline_slots 18",
        "sideline_capacity 18",
    ] {
        assert!(
            page.lines().any(|line| line == sample),
            "no {sample} in {page}"
        );
    }

    field.kernel_says(&xid(79));
    field.until_state("failing").await;
    let (head, body) = field.get("/v1/fit").await;
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert_eq!(body, "not fit\n");
    let page = field.get("/metrics").await.1;
    assert_prometheus(&page);
    for sample in ["sideline_health 2", "sideline_capacity 9"] {
        assert!(
            page.lines().any(|line| line == sample),
            "no {sample} in {page}"
        );
    }
    assert!(page.contains(r#"code="gpu.xid.79""#), "{page}");
    assert!(
        field
            .get("/v1/nothing")
            .await
            .0
            .starts_with("HTTP/1.1 404 ")
    );

    // The stream shows what holds now first, then each look.
    let mut seen: Vec<Value> = Vec::new();
    field
        .until("three reports", |report| {
            seen.push(report.clone());
            seen.len() == 3
        })
        .await;
    let times: Vec<&str> = seen
        .iter()
        .filter_map(|report| report["at"].as_str())
        .collect();
    assert!(times.is_sorted() && times[0] < times[2], "{times:?}");
    assert_eq!(seen[0]["verdict"]["state"], "failing");
}

/// Checks a page against the exposition format 0.0.4: families, their samples together, numbers.
fn assert_prometheus(page: &str) {
    let mut families = BTreeSet::new();
    let mut family = "";
    let mut series = BTreeSet::new();
    assert!(page.ends_with('\n'));
    for line in page.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            family = help.split(' ').next().expect("a name");
            assert!(families.insert(family), "{family} twice");
            continue;
        }
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let kind = kind
                .strip_prefix(family)
                .unwrap_or_else(|| panic!("{line}"));
            assert!([" gauge", " counter"].contains(&kind), "{line}");
            continue;
        }
        let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
        assert!(value.parse::<f64>().is_ok(), "{line}");
        assert!(series.insert(name), "{name} twice");
        let (metric, labels) = name.split_once('{').unwrap_or((name, "}"));
        assert_eq!(metric, family, "{line}");
        assert!(
            metric
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '_'),
            "{line}"
        );
        let labels = labels.strip_suffix('}').unwrap_or_else(|| panic!("{line}"));
        for label in labels.split("\",").filter(|label| !label.is_empty()) {
            let (key, value) = label.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
            assert!(
                key.chars().all(|c| c.is_ascii_lowercase() || c == '_'),
                "{line}"
            );
            assert!(!value.trim_end_matches('"').contains('"'), "{line}");
        }
    }
    assert!(families.len() >= 10, "{families:?}");
}
