//! The two calls of SSM and the tasks that make them, against the double: what is asked, what is told, what is refused.

#[path = "servers/aws.rs"]
mod aws;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aws::{Aws, Fault, Times};
use jiff::Timestamp;
use sideline::clients::aws::Connections;
use sideline::clients::aws::json::FailureKind;
use sideline::clients::aws::ssm::{COMPLIANCE_TYPE, Ssm};
use sideline::clients::credentials::NodeCredentials;
use sideline::clock::Clock;
use sideline::config;
use sideline::control::ssm::parameters::{Parameters, run};
use sideline::domain::compliance::Item;
use sideline::domain::report::{Outlet, OutletState};
use sideline::domain::settings::Fetched;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const NODE: &str = "mi-0123456789abcdef0";

/// No condition here takes longer: the first look comes within 10 s.
const PATIENCE: Duration = Duration::from_secs(20);

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn client(aws: &Aws, clock: &Clock) -> (Ssm, NodeCredentials) {
    let env = |name: &str| match name {
        "AWS_ACCESS_KEY_ID" => Some("AKIAX".to_owned()),
        "AWS_SECRET_ACCESS_KEY" => Some("secret".to_owned()),
        _ => None,
    };
    let keys = NodeCredentials::new(&config::Aws::default(), env, clock.clone());
    let (url, ways) = (Some(aws.url()), Connections::default());
    let ssm = Ssm::new("eu-west-1", keys.clone(), url, clock.clone(), ways);
    (ssm, keys)
}

fn item(id: &str, severity: &'static str) -> Item {
    Item {
        id: id.to_owned(),
        title: "no picture".to_owned(),
        severity,
        status: "NON_COMPLIANT",
        details: BTreeMap::from([("Evidence", "it is dark".to_owned())]),
    }
}

#[tokio::test]
async fn parameters_come_in_the_order_that_was_asked_for() {
    let aws = Aws::start().await;
    let (ssm, keys) = client(&aws, &Clock::start(None));
    aws.ssm(|ssm| {
        assert_eq!(ssm.put("/b", "old"), 1);
        assert_eq!(ssm.put("/b", "new"), 2);
        assert_eq!(ssm.put_secret("/a", "secret"), 1);
    });
    let fetched = ssm.parameters(&names(&["/b", "/none", "/a"])).await;
    let fetched = fetched.expect("SSM answers");
    let all = fetched.parameters.iter();
    let all: Vec<_> = all
        .map(|one| (one.name.as_str(), one.version, one.value.as_str()))
        .collect();
    assert_eq!(all, [("/b", 2, "new"), ("/a", 1, "secret")]);
    assert_eq!(fetched.missing, ["/none"]);
    assert!(!format!("{fetched:?}").contains("secret"), "{fetched:?}");

    let eleven: Vec<String> = (0..11).map(|number| format!("/{number}")).collect();
    let refused = ssm.parameters(&eleven).await.expect_err("at most ten");
    assert_eq!(refused.kind, FailureKind::Refused, "{refused}");

    for (fault, kind) in [
        (Fault::Throttle, FailureKind::Throttled),
        (Fault::AccessDenied, FailureKind::Denied),
        (Fault::ResetBeforeReading, FailureKind::Unreachable),
        (Fault::Garbage(200), FailureKind::Unreachable),
        (Fault::ExpiredToken, FailureKind::Credentials),
    ] {
        aws.fault(fault, Times::Next(1));
        let failure = ssm.parameters(&names(&["/b"])).await;
        let failure = failure.expect_err("it was told to fail");
        assert_eq!(failure.kind, kind, "{failure}");
        let refused = keys.look().await.refused;
        assert_eq!(
            refused.is_some(),
            kind == FailureKind::Credentials,
            "{refused:?}"
        );
    }
    // AWS takes them again, and no more is said of it.
    assert!(ssm.parameters(&names(&["/b"])).await.is_ok());
    assert_eq!(keys.look().await.refused, None);

    // A stranger that answers with nothing takes no layer away.
    aws.answer("AmazonSSM.GetParameters", serde_json::json!({}));
    let failure = ssm.parameters(&names(&["/b"])).await;
    let failure = failure.expect_err("that is no answer");
    assert_eq!(failure.kind, FailureKind::Unreachable, "{failure}");
}

#[tokio::test]
async fn compliance_is_told_in_place_of_what_was_told_before() {
    let aws = Aws::start().await;
    let (ssm, _) = client(&aws, &Clock::start(None));
    let at: Timestamp = "2026-11-23T10:00:00.7Z".parse().expect("a time");
    for ids in [vec!["a", "b"], vec!["c"]] {
        let items: Vec<Item> = ids.iter().map(|id| item(id, "HIGH")).collect();
        let told = ssm.put_compliance(NODE, at, &items).await;
        told.expect("SSM takes it");
        let said = aws.ssm(|ssm| ssm.compliance(NODE, COMPLIANCE_TYPE));
        let said = said.expect("it was told");
        let kept: Vec<&str> = said.items.iter().map(|item| item.id.as_str()).collect();
        assert_eq!(kept, ids);
        assert_eq!(said.items[0].details["Evidence"], "it is dark");
        assert_eq!(said.found_at, 1_795_428_000.0);
    }
    for (node, severity) in [("fileserver", "HIGH"), (NODE, "AWFUL")] {
        let told = ssm.put_compliance(node, at, &[item("a", severity)]).await;
        let refused = told.expect_err("SSM does not take it");
        assert_eq!(refused.kind, FailureKind::Refused, "{refused}");
    }
}

#[tokio::test]
async fn what_has_changed_is_published_and_what_has_not_is_no_news() {
    let aws = Aws::start().await;
    let clock = Clock::start(None);
    aws.ssm(|ssm| ssm.put("/a", "1"));
    let parameters = Parameters {
        ssm: client(&aws, &clock).0,
        names: names(&["/a"]),
        every: Duration::from_millis(10),
        clock,
    };
    let (publish, mut fetched) = watch::channel::<Option<Arc<Fetched>>>(None);
    let (tell, outlet) = watch::channel(Outlet::off("ssm"));
    let token = CancellationToken::new();
    let task = tokio::spawn(run(parameters, publish, tell, token.clone()));
    for version in 1..=3 {
        let changed = timeout(PATIENCE, fetched.changed()).await;
        changed.expect("in time").expect("it runs");
        let news = fetched.borrow_and_update().clone().expect("something");
        assert_eq!(news.parameters[0].version, version);
        // Asked again and again, it says the same.
        let looks = aws.log().calls.len();
        aws.until(|log| looks + 5 <= log.calls.len()).await;
        assert!(!fetched.has_changed().expect("it runs"));
        aws.ssm(|ssm| ssm.put("/a", &version.to_string()));
    }
    assert_eq!(outlet.borrow().state, OutletState::Ok);
    token.cancel();
    let ended = timeout(PATIENCE, task).await.expect("in time");
    ended.expect("it does not panic").expect("it has no errors");
}
