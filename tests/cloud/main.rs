//! The whole loop, from a card that dies to a task in the cloud and back, against a cloud that nobody here wrote:
//! `tests/run cloud`.
//!
//! fakecloud serves CloudWatch, ECS, IAM, STS, CloudFormation and Application Auto Scaling; AWS's own SDK for Python
//! deploys `packaging/aws/sideline.yaml` there (`site.py`). The agent is the real one, on one of three external
//! instances of a cluster, with credentials of the role that the template gives its policy to. The lines that a story
//! prints are what its operator would see, by the seconds since the fault.
//!
//! What this does not show, because fakecloud lacks it:
//! - Alarms on metric math: it keeps them and never evaluates them, nor knows FILL. What the template's two alarms say
//!   is read back from the deployed stack and said again as an alarm on the metric alone, where missing data breaches
//!   instead of counting 0. Metric, period, how many of how many, and actions stay, but that the way back takes 3 of 4
//!   periods, not 59 of 60.
//! - When CloudWatch looks. fakecloud evaluates an alarm when it is described, which a story does four times a second;
//!   it counts the period that has only begun, where CloudWatch waits for its end and some more. So it is faster.
//! - The steps of a policy: it takes the first whatever is missing, so here one task carries the whole site.
//! - What IAM lets through: strict or not, it is not asked about ECS, CloudWatch and SSM. The gate (`gate.py`) asks its
//!   policy simulator instead, conditions included, and refuses what that denies. Signatures are checked.
//! - Tasks and instances: no container runs and no instance starts; a desired count is as far as it goes.
//! - `ClusterCapacityProviderAssociations` and `WarmPool`, which it takes for made without making them, and the filter
//!   of `ListContainerInstances`, which it ignores: here all instances are external.
#![expect(clippy::print_stdout, reason = "a time line is what it is for")]

#[path = "../servers/aws.rs"]
mod aws;
#[path = "../servers/fake_nvml.rs"]
mod fake_nvml;
#[path = "../agent/field.rs"]
mod field;
#[expect(dead_code, reason = "the broker stays up here")]
#[path = "../servers/mosquitto.rs"]
mod mosquitto;
#[allow(dead_code, reason = "a part of what others hear is heard here")]
#[path = "../agent/mqtt.rs"]
mod mqtt;
#[allow(dead_code, reason = "one plan is made here")]
#[path = "../agent/plan.rs"]
mod plan;
mod site;
mod story;

use std::time::Duration;

use serde_json::json;

use story::{Seen, Story};

/// From a fault to the desired count, with `FastDetection`.
const PROMISED: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_card_that_dies_moves_its_work_to_the_cloud_and_back() {
    let mut story = Story::begin().await;
    story.now("Xid 79: the only card has fallen off the bus");
    let line = plan::xid(79).replace("0000:02", "0000:01");
    story.field.kernel_says(&line);
    story
        .field
        .gpus(&json!({"gpus": [{"preset": "l4", "lost": true}]}));
    let drains = |seen: &Seen| seen.health == Some(2) && seen.instance == "DRAINING";
    story.until("DRAINING", drains).await;
    let claim = story.seen.claim.clone().unwrap_or_default();
    assert!(claim.starts_with("gpu."), "{claim:?}");
    let took = story.until("the twin", Seen::is_taken_over).await;
    assert!(took <= PROMISED, "{took:?}");
    assert_eq!(story.seen.capacity.first(), Some(&0));

    story.now("the card is back, and the driver loaded afresh");
    story.field.gpus(&story.field.plan.gpus);
    story
        .field
        .kernel_says("NVRM: loading NVIDIA UNIX x86_64 Kernel Module  535.161.07");
    story.until("everything as it was", Seen::is_well).await;

    let calls = story.calls().await;
    println!("--- all that the node has called, and its role allows: {calls:#?}");
    assert!(story.field.stop().await.success(), "{}", story.field.log());
}

#[tokio::test]
async fn a_power_cut_does_the_same() {
    let mut story = Story::begin().await;
    story.now("the power is cut (kill -9)");
    story.field.kill().await;
    let took = story.until("the twin", Seen::is_taken_over).await;
    assert!(took <= PROMISED, "{took:?}");
    assert_eq!(
        story.seen.instance, "ACTIVE",
        "who has no power can't drain"
    );

    story.now("the power is back");
    story.field.start_agent().await;
    story.until("everything as it was", Seen::is_well).await;
    assert!(story.field.stop().await.success(), "{}", story.field.log());
}

#[tokio::test]
async fn a_drill_moves_the_work_and_ends_by_itself() {
    let mut story = Story::begin().await;
    story.now("sideline drill --for 30s");
    let answer = story.field.sideline(&["drill", "--for", "30s"]).await;
    println!("{}", answer.out);
    assert_eq!(answer.status, Some(0), "{answer:?}");
    let rehearses = |seen: &Seen| seen.report["capacity"]["because"] == "drill";
    story.until("the drill", rehearses).await;
    println!("{}", story.field.sideline(&["status"]).await.out);
    story.until("the twin", Seen::is_taken_over).await;
    assert_eq!(story.seen.capacity.first(), Some(&0));
    assert_eq!(
        story.seen.instance, "ACTIVE",
        "nothing is drained in a drill"
    );
    story.until("the drill's end", Seen::is_well).await;
    println!("{}", story.field.sideline(&["status"]).await.out);
    assert!(story.field.stop().await.success(), "{}", story.field.log());
}

/// Each alone, the calls of a node: what the agent needs, and what its role is refused.
#[tokio::test]
async fn the_role_allows_what_the_agent_calls_and_no_more() {
    let (mut site, gate) = story::site().await;
    let own = gate.container_instance.as_str();
    let claim = json!([{"name": "sideline.claim", "value": "maintenance@2026-11-22T19:36:12Z", "targetId": own}]);
    let data = json!([{"MetricName": "Capacity", "Value": 18}]);
    let may = json!([
        ["cloudwatch", "put_metric_data", {"Namespace": "Sideline", "MetricData": data}],
        ["ecs", "list_container_instances", {"cluster": "sheds"}],
        ["ecs", "describe_container_instances", {"cluster": "sheds", "containerInstances": [own]}],
        ["ecs", "put_attributes", {"cluster": "sheds", "attributes": claim}],
        ["ecs", "delete_attributes", {"cluster": "sheds", "attributes": claim}],
        ["ecs", "update_container_instances_state",
            {"cluster": "sheds", "containerInstances": [own], "status": "ACTIVE"}],
    ]);
    let may_not = json!([
        ["cloudwatch", "put_metric_data", {"Namespace": "Others", "MetricData": data}],
        ["cloudwatch", "delete_alarms", {"AlarmNames": ["sideline-north-shortage"]}],
        ["ecs", "list_container_instances", {"cluster": "others"}],
        ["ecs", "update_container_instances_state",
            {"cluster": "others", "containerInstances": [own], "status": "DRAINING"}],
        ["ecs", "deregister_container_instance", {"cluster": "sheds", "containerInstance": own}],
        ["ecs", "update_service", {"cluster": "sheds", "service": "pictures", "desiredCount": 0}],
        ["ssm", "get_parameters_by_path", {"Path": "/sideline"}],
        ["ssm", "put_parameter", {"Name": "/sideline/site/north", "Value": "", "Type": "String"}],
    ]);
    let forged = json!([["ecs", "list_container_instances", {"cluster": "sheds"}]]);
    for (calls, keys, expected) in [
        (may, "own", None),
        (may_not, "own", Some("AccessDeniedException")),
        (forged, "forged", Some("SignatureDoesNotMatch")),
    ] {
        for call in calls.as_array().expect("a list") {
            let ask = json!({"do": "as_node", "keys": keys, "call": call});
            let refused: Option<String> = site.ask(&ask).await;
            let call = call.to_string().replace(own, "its own");
            println!("{:21}  {call}", refused.as_deref().unwrap_or("allowed"));
            assert_eq!(refused.as_deref(), expected, "{call}");
        }
    }
}
