//! Cameras from Frigate to the cloud, and the shape of what CloudWatch gets of them.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;
use sideline::domain::phase;

use crate::aws::{Datum, Log};
use crate::cloud::{self, ESSENTIAL};
use crate::field::Field;
use crate::mqtt::Client;
use crate::plan::{CARDS, Plan, all_is_well, cards, holes, stats, xid};

const STATS: [(&str, &str); 5] = [
    ("0.8", include_str!("../fixtures/frigate/stats-0.8.json")),
    ("0.12", include_str!("../fixtures/frigate/stats-0.12.json")),
    ("0.13", include_str!("../fixtures/frigate/stats-0.13.json")),
    ("0.17", include_str!("../fixtures/frigate/stats-0.17.json")),
    ("0.18", include_str!("../fixtures/frigate/stats-0.18.json")),
];

fn up(report: &Value) -> usize {
    let cameras = report["cameras"].as_array();
    let up = |camera: &&Value| camera["state"] == "up";
    cameras.map_or(0, |cameras| cameras.iter().filter(up).count())
}

#[tokio::test]
async fn eighteen_cameras_of_every_frigate_reach_the_cloud() {
    for (version, stats) in STATS {
        let field = Field::start(Plan::new().expecting_cameras()).await;
        field.stats(stats);
        let settled = |report: &Value| {
            let judged = report["verdict"]["state"] == "degraded";
            judged && up(report) == 17 && report["cameras"][6]["state"] == "down"
        };
        field.until("17 cameras up", settled).await;

        let status = field.sideline(&["status", "--json"]).await;
        let report: Value = serde_json::from_str(&status.out).expect("JSON");
        let cameras = report["cameras"].as_array().expect("cameras");
        let names: Vec<&str> = cameras
            .iter()
            .filter_map(|one| one["id"].as_str())
            .collect();
        assert_eq!(names, holes().collect::<Vec<_>>(), "{version}");
        for camera in cameras {
            // Hole 7 has no frames though its process_fps says 15.1.
            let expected = if camera["id"] == "hole07" {
                "down"
            } else {
                "up"
            };
            assert_eq!(camera["state"], expected, "{version} {camera}");
        }
        assert_eq!(status.status, Some(1), "{version}: a camera is down");

        // Whoever subscribes now gets them all: they are retained.
        let filter = "sideline/1/north/mi-0field/cam/+/state";
        let late = Client::subscribed(field.port(), "late", filter).await;
        let all = late.until("18 cameras", |all| all.len() >= 18).await;
        let topics: BTreeSet<&str> = all.iter().map(|one| one.topic.as_str()).collect();
        let expected = holes().map(|hole| filter.replace('+', &hole));
        assert_eq!(
            topics,
            expected
                .collect::<Vec<_>>()
                .iter()
                .map(String::as_str)
                .collect()
        );
        for message in all.iter().take(18) {
            let json = message.json();
            assert!(message.retained, "{version}: {json}");
            let expected = if json["cam"] == "hole07" {
                "down"
            } else {
                "up"
            };
            assert_eq!(json["state"], expected, "{version}: {json}");
        }

        let up = |log: &Log| {
            let last = log.requests.iter().rev().flat_map(|one| &one.data);
            let mut up = last.filter(|one| one.name == "CamerasUp" && one.dimensions.len() == 2);
            up.next().is_some_and(|one| one.values == [17.0])
        };
        field.aws.until(up).await;
    }
}

#[tokio::test]
async fn a_period_is_one_zipped_request_with_the_contract_s_metrics_of_each_profile() {
    let node = |names: &[(&str, &[&str])]| -> BTreeSet<(String, Vec<String>)> {
        let own = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        names
            .iter()
            .map(|(name, of)| ((*name).to_owned(), own(of)))
            .collect()
    };
    let mut full = node(&ESSENTIAL);
    full.extend(node(&[
        ("GpuUtilization", &["Gpu", "Node", "Site"]),
        ("GpuMemoryUsed", &["Gpu", "Node", "Site"]),
        ("GpuTemperature", &["Gpu", "Node", "Site"]),
        ("GpuFaults", &["Gpu", "Node", "Site"]),
        ("CamerasUp", &["Camera", "Node", "Site"]),
        ("CameraFpsRatio", &["Camera", "Node", "Site"]),
    ]));
    for (profile, shapes, data) in [
        ("capacity", node(&ESSENTIAL[..2]), 2),
        ("essential", node(&ESSENTIAL), 12),
        ("full", full, 12 + 4 * 2 + 2 * 18),
    ] {
        let plan = Plan::new().expecting_cameras();
        let field = Field::start(plan.set("cloudwatch.profile", profile)).await;
        field.stats(all_is_well());
        let well = |report: &Value| report["verdict"]["state"] == "healthy" && up(report) == 18;
        field.until("18 cameras", well).await;
        field
            .aws
            .until(|log| log.data().any(|one| one.name == "Capacity"))
            .await;
        // The period in which all this became so is over with the next one.
        field.aws.clear();
        field.aws.until(|log| !cloud::periods(log).is_empty()).await;
        field.aws.clear();
        let log = field.aws.until(|log| cloud::periods(log).len() >= 4).await;

        assert_eq!(log.refused.len(), 0, "{:?}", log.refused);
        cloud::assert_no_gap(&log);
        for request in &log.requests {
            assert!(request.gzip, "{profile}");
            assert_eq!(request.namespace, "Sideline");
            assert_eq!(request.access_key, "AKIAFIELD");
        }
        let mut starts = BTreeSet::new();
        for request in cloud::periods(&log) {
            let told: BTreeSet<_> = request.data.iter().map(cloud::shape).collect();
            assert_eq!(told, shapes, "{profile}");
            assert_eq!(request.data.len(), data, "{profile}: {:#?}", request.data);
            let mut series: Vec<_> = request
                .data
                .iter()
                .map(|one| (&one.name, &one.dimensions))
                .collect();
            series.sort();
            series.dedup();
            assert_eq!(series.len(), data, "{profile}: one datum a series");
            let second = Duration::from_secs(1);
            let phase = phase::of("mi-0field", second).as_millis();
            let within = request.data[0].timestamp.as_millisecond().rem_euclid(1_000);
            assert_eq!(u128::try_from(within), Ok(phase), "the node's own time");
            for datum in &request.data {
                assert_eq!(datum.timestamp, request.data[0].timestamp, "{profile}");
                assert_eq!(datum.storage_resolution, Some(1), "{profile}");
                assert_eq!(datum.dimensions["Site"], "north");
                assert!(
                    datum
                        .dimensions
                        .get("Node")
                        .is_none_or(|node| node == "mi-0field")
                );
            }
            assert!(
                starts.insert(request.data[0].timestamp),
                "two requests a period"
            );
        }
        // Anything else is a change of health, alone.
        for request in &log.requests {
            let alone = request.data.len() == 1 && request.data[0].name == "Health";
            assert!(
                alone || starts.contains(&request.data[0].timestamp),
                "{request:?}"
            );
        }
        assert!(cloud::capacities(&log).values().all(|slots| *slots == 18.0));
    }
}

fn told_by_name(log: &Log, kind: &str, name: &str) -> bool {
    log.data()
        .any(|one| one.dimensions.get(kind).is_some_and(|id| id == name))
}

#[tokio::test]
async fn sick_cards_and_cameras_are_told_by_name_while_they_are_sick() {
    let field = Field::start(Plan::new().expecting_cameras()).await;
    field.stats(stats(5.0, ("hole07", 0.0)));
    field.kernel_says(&xid(79));
    field.until_state("failing").await;
    let both =
        |log: &Log| told_by_name(log, "Gpu", CARDS[1]) && told_by_name(log, "Camera", "hole07");
    field.aws.until(both).await;
    // From now on, every period.
    field.aws.clear();
    field.aws.until(|log| !cloud::periods(log).is_empty()).await;
    field.aws.clear();
    let log = field.aws.until(|log| cloud::periods(log).len() >= 3).await;
    let expected = [
        ("CameraFpsRatio", "hole07"),
        ("CamerasUp", "hole07"),
        ("GpuFaults", CARDS[1]),
        ("GpuMemoryUsed", CARDS[1]),
        ("GpuTemperature", CARDS[1]),
        ("GpuUtilization", CARDS[1]),
    ];
    for request in cloud::periods(&log) {
        let named = |datum: &Datum| {
            let of = ["Gpu", "Camera"]
                .iter()
                .find_map(|kind| datum.dimensions.get(*kind));
            of.map(|of| (datum.name.clone(), of.clone()))
        };
        let told: BTreeSet<_> = request.data.iter().filter_map(named).collect();
        let expected = expected.map(|(name, of)| (name.to_owned(), of.to_owned()));
        assert_eq!(told, expected.into());
    }

    // Well again: nothing by name any more.
    field.gpus(&cards(&serde_json::json!({"lost": true})));
    field
        .until("the loss", |report| report["gpus"][1]["state"] == "lost")
        .await;
    field.gpus(&cards(&serde_json::json!({})));
    field.stats(all_is_well());
    field.until_state("healthy").await;
    field.aws.clear();
    field.aws.until(|log| !cloud::periods(log).is_empty()).await;
    field.aws.clear();
    let log = field.aws.until(|log| cloud::periods(log).len() >= 2).await;
    assert_eq!(log.data().find(|one| one.dimensions.len() > 2), None);
}
