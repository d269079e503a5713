//! What is broken towards AWS: identity, credentials, rights, ways.

use jiff::SignedDuration;

use crate::aws::{Fault, Times};
use crate::case::{all, case, find};
use crate::setup::Setup;

#[tokio::test]
async fn identity() {
    all(vec![
        case(
            "a registration that is no JSON",
            "identity.registration aws.region aws.ssm aws.ecs aws.ecs.drain",
            "fail",
            "holds no JSON",
            "amazon-ssm-agent -register",
            |setup| setup.write("ssm/registration", "{"),
        ),
        case(
            "an SSM agent that was never registered",
            "identity.registration identity.ssm_agent",
            "warn",
            "installed, but not registered",
            "-register -y -code CODE",
            |setup| {
                setup.remove("ssm/registration");
                setup.set("[aws]\n", "[aws]\nregion = \"eu-west-1\"\n");
            },
        ),
        case(
            "no Region",
            "aws.region aws.ssm aws.ecs aws.ecs.drain identity.registration",
            "fail",
            "no Region is known",
            "[aws] region = ",
            |setup| setup.remove("ssm/registration"),
        ),
        case(
            "a Region that is none",
            "aws.region aws.ssm aws.ssm.compliance aws.ecs aws.ecs.drain",
            "fail",
            "names no Region",
            "[aws] region = ",
            |setup| {
                setup.write(
                    "ssm/registration",
                    "{\"ManagedInstanceID\":\"mi-0123456789abcdef0\",\"Region\":\"Ireland\"}",
                );
            },
        ),
        case(
            "no credentials",
            "identity.credentials aws.cloudwatch aws.ssm aws.ssm.compliance aws.ecs aws.ecs.drain",
            "fail",
            "there is no credentials file",
            "sudo systemctl restart amazon-ssm-agent",
            |setup| setup.remove("credentials"),
        ),
        case(
            "a torn credentials file",
            "identity.credentials aws.cloudwatch aws.ssm aws.ssm.compliance aws.ecs aws.ecs.drain",
            "fail",
            "no aws_session_token",
            "sudo systemctl restart amazon-ssm-agent",
            |setup| setup.credentials("ASIAFIELD", None),
        ),
        case(
            "long-lived keys",
            "identity.credentials",
            "warn",
            "long-lived keys",
            "then delete the keys",
            |setup| {
                setup.credentials("AKIAFIELD", None);
            },
        ),
        case(
            "credentials for everybody's eyes",
            "identity.credentials",
            "warn",
            "others than its owner may read",
            "chmod 600",
            |setup| setup.mode("credentials", 0o644),
        ),
        case(
            "credentials that have expired",
            "identity.credentials identity.ssm_agent",
            "fail",
            "expired 10 h ago",
            "sudo systemctl restart amazon-ssm-agent",
            |setup| {
                setup.renewed(
                    SignedDuration::from_hours(11),
                    SignedDuration::from_hours(-10),
                );
            },
        ),
        case(
            "an SSM agent that sleeps",
            "identity.ssm_agent",
            "warn",
            "it sleeps: the credentials should have been renewed 12 min ago",
            "-fingerprint -similarityThreshold 1",
            |setup| {
                setup.renewed(SignedDuration::from_mins(42), SignedDuration::from_mins(18));
            },
        ),
        case(
            "an SSM agent that does not run",
            "identity.ssm_agent",
            "fail",
            "amazon-ssm-agent.service is inactive",
            "sudo systemctl enable --now amazon-ssm-agent",
            |setup| {
                setup.write(
                    "root/units/amazon-ssm-agent.service",
                    "LoadState=loaded\nActiveState=inactive\nUnitFileState=enabled\n",
                );
            },
        ),
        case(
            "an SSM agent that oversleeps",
            "identity.ssm_agent",
            "warn",
            "version 3.1.1188.0 may sleep for a day",
            "AWS-UpdateSSMAgent",
            |setup| {
                setup.program(
                    "amazon-ssm-agent",
                    "#!/bin/sh\necho SSM Agent version: 3.1.1188.0\n",
                );
            },
        ),
    ])
    .await;
}

#[tokio::test]
async fn aws() {
    const DENIED: &str = "AccessDeniedException";
    let denied = |operation: &'static str| {
        move |setup: &mut Setup| {
            setup
                .aws
                .fault_on(operation, Fault::AccessDenied, Times::UntilCleared);
        }
    };
    all(vec![
        case(
            "a role without any right",
            "aws.cloudwatch aws.ssm aws.ssm.compliance aws.ecs aws.ecs.drain",
            "fail",
            DENIED,
            "\"cloudwatch:PutMetricData\",\"Resource\":\"*\",\"Condition\":{\"StringEquals\":{\"cloudwatch:namespace\":\"Sideline\"}}",
            |setup| setup.aws.fault(Fault::AccessDenied, Times::UntilCleared),
        ),
        case(
            "a role that may not read parameters",
            "aws.ssm",
            "fail",
            DENIED,
            "\"ssm:GetParameters\",\"Resource\":[\"arn:aws:ssm:eu-west-1:*:parameter/sideline/fleet\"]",
            denied("GetParameters"),
        ),
        case(
            "a role that may not tell its compliance",
            "aws.ssm.compliance",
            "fail",
            DENIED,
            "\"ssm:PutComplianceItems\"",
            denied("PutComplianceItems"),
        ),
        case(
            "a role that may not count the cluster",
            "aws.ecs",
            "fail",
            DENIED,
            "[\"ecs:ListContainerInstances\"],\"Resource\":\"arn:aws:ecs:eu-west-1:123456789012:cluster/field\"",
            denied("ListContainerInstances"),
        ),
        case(
            "a role that may not drain",
            "aws.ecs.drain",
            "fail",
            DENIED,
            "[\"ecs:UpdateContainerInstancesState\"],\"Resource\":\"arn:aws:ecs:eu-west-1:123456789012:container-instance/field/*\"",
            denied("UpdateContainerInstancesState"),
        ),
        case(
            "keys that AWS does not know",
            "aws.cloudwatch aws.ssm aws.ssm.compliance aws.ecs aws.ecs.drain",
            "fail",
            "PutMetricData: UnrecognizedClient",
            "sudo systemctl restart amazon-ssm-agent",
            |setup| setup.aws.accept_keys(["ASIAOTHER"]),
        ),
        case(
            "a captive portal",
            "aws.cloudwatch aws.ssm aws.ssm.compliance aws.ecs aws.ecs.drain",
            "fail",
            "a proxy or a captive portal is in between",
            "curl -sv",
            |setup| setup.aws.fault(Fault::Garbage(200), Times::UntilCleared),
        ),
        case(
            "a server that takes the call and never answers",
            "aws.ssm",
            "fail",
            "no answer within 9s",
            "curl -sv",
            |setup| {
                setup
                    .aws
                    .fault_on("GetParameters", Fault::Hang, Times::UntilCleared);
            },
        ),
        case(
            "a name that can't be resolved",
            "aws.cloudwatch",
            "fail",
            "the name monitoring.invalid can't be resolved",
            "getent hosts monitoring.invalid",
            |setup| {
                let url = "http://monitoring.invalid".to_owned();
                setup.environment.push(("AWS_ENDPOINT_URL_CLOUDWATCH".into(), url));
            },
        ),
        case(
            "a port that is closed",
            "aws.ssm aws.ssm.compliance",
            "fail",
            "127.0.0.1 port 9: Connection refused",
            "HTTPS_PROXY",
            |setup| {
                let url = "http://127.0.0.1:9".to_owned();
                setup.environment.push(("AWS_ENDPOINT_URL_SSM".into(), url));
            },
        ),
        case(
            "a clock that is two hours slow",
            "clock",
            "fail",
            "behind AWS's",
            "sudo timedatectl set-ntp true",
            |setup| {
                let skew = Fault::SkewRefusing(SignedDuration::from_hours(2));
                setup.aws.fault(skew, Times::UntilCleared);
            },
        ),
        case(
            "no ECS agent",
            "ecs.agent aws.ecs aws.ecs.drain",
            "fail",
            "the ECS agent at http://127.0.0.1:9: Connection refused",
            "sudo systemctl restart ecs",
            |setup| setup.set("{aws}", "http://127.0.0.1:9"),
        ),
        case(
            "a container instance that ECS does not know",
            "aws.ecs",
            "fail",
            "not in the cluster",
            "agent.db",
            |setup| setup.aws.cluster(|cluster| cluster.instances.clear()),
        ),
    ])
    .await;
}

#[tokio::test]
async fn an_agent_that_is_ill_is_told() {
    let setup = Setup::new().await;
    setup.aws.fault(Fault::AccessDenied, Times::UntilCleared);
    let _agent = setup.start_agent().await;
    setup
        .aws
        .until(|log| log.refused_for("AccessDeniedException") > 0)
        .await;
    let waiting = async {
        loop {
            let (_, found) = setup.examine().await;
            let check = find(&found, "agent.outlets").clone();
            if check["state"] != "ok" {
                break check;
            }
        }
    };
    let check = tokio::time::timeout(std::time::Duration::from_secs(60), waiting).await;
    let check = check.expect("it is told");
    let says = check["says"].as_str().unwrap_or_default();
    assert!(says.contains("AccessDenied"), "{check:#}");
}
