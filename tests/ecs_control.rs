//! The control of the node's own container instance, against the double of ECS: what is asked, how fast, of whom.

#[path = "servers/aws.rs"]
mod aws;

use std::time::{Duration, Instant};

use aws::ecs::Cluster;
use aws::{Aws, Fault, Log, Times};
use jiff::Timestamp;
use sideline::clients::aws::Connections;
use sideline::clients::aws::ecs::Ecs;
use sideline::clients::credentials::NodeCredentials;
use sideline::clock::Clock;
use sideline::config;
use sideline::control::ecs::{EcsControl, run};
use sideline::domain::ecs::{Claim, EcsView, Place, Status, TroubleKind, Want};
use sideline::domain::report::{Outlet, OutletState};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// No condition here takes longer; most take milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// A node of a cluster, and what the agent's end of its control holds.
struct Node {
    aws: Aws,
    arn: String,
    wants: watch::Sender<Want>,
    place: watch::Sender<Option<Place>>,
    seen: watch::Receiver<EcsView>,
    outlet: watch::Receiver<Outlet>,
    token: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Node {
    /// One of `nodes` in the cluster `yard`, listed three a page.
    async fn among(nodes: usize) -> Node {
        let aws = Aws::start().await;
        let mut cluster = Cluster::named("yard");
        cluster.page = 3;
        let arn = cluster.register("own");
        for number in 1..nodes {
            cluster.register(&format!("other{number}"));
        }
        let in_the_cloud = cluster.register("ec2");
        let in_the_cloud = cluster.instances.get_mut(&in_the_cloud);
        in_the_cloud.expect("it is registered").external = false;
        aws.serve_cluster(cluster, &arn);

        let env = |name: &str| match name {
            "AWS_ACCESS_KEY_ID" => Some("AKIAX".to_owned()),
            "AWS_SECRET_ACCESS_KEY" => Some("secret".to_owned()),
            _ => None,
        };
        let clock = Clock::start(None);
        let keys = NodeCredentials::new(&config::Aws::default(), env, clock.clone());
        let ecs = Ecs::new(
            "eu-west-1",
            keys,
            Some(aws.url()),
            clock.clone(),
            Connections::default(),
        );
        let wants = watch::Sender::new(Want::Nothing);
        let place = watch::Sender::new(Some(Place {
            cluster: "yard".into(),
            container_instance: arn.clone(),
            tasks: None,
        }));
        let (view, seen) = watch::channel(EcsView::default());
        let (status, outlet) = watch::channel(Outlet::off("ecs"));
        let token = CancellationToken::new();
        let task = tokio::spawn(run(
            EcsControl { ecs, clock },
            wants.subscribe(),
            place.subscribe(),
            view,
            status,
            token.clone(),
        ));
        Node {
            aws,
            arn,
            wants,
            place,
            seen,
            outlet,
            token,
            task,
        }
    }

    /// Waits until what was seen is as `wanted` says.
    async fn until(&mut self, wanted: impl Fn(&EcsView) -> bool) -> EcsView {
        let seen = self.seen.clone();
        let waited = tokio::time::timeout(PATIENCE, self.seen.wait_for(wanted)).await;
        match waited {
            Ok(view) => view.expect("control runs").clone(),
            Err(_) => panic!("seen instead: {:#?}", *seen.borrow()),
        }
    }

    async fn stop(self) {
        self.token.cancel();
        let ended = self.task.await.expect("control does not panic");
        ended.expect("control has no errors");
        // Whatever happened, nobody else was touched.
        let cluster = self.aws.cluster(|cluster| cluster.clone());
        for (arn, one) in &cluster.instances {
            if *arn != self.arn {
                assert_eq!(one.status, "ACTIVE", "{arn}");
            }
        }
    }
}

fn claim() -> Claim {
    Claim::new("gpu.xid.79".into(), Timestamp::now())
}

fn operations(log: &Log) -> Vec<&str> {
    let names = log.calls.iter().map(|call| call.target.rsplit('.').next());
    names.map(Option::unwrap_or_default).collect()
}

#[tokio::test]
async fn there_and_back() {
    let mut node = Node::among(7).await;
    let claim = claim();
    node.aws.cluster(|cluster| {
        let mut others = cluster.instances.iter_mut();
        let drained = others.find(|(arn, _)| arn.ends_with("other2")).unwrap();
        drained.1.attributes.insert("rack".into(), "7".into());
        let ours = drained.1;
        ours.attributes.insert(
            Claim::ATTRIBUTE.into(),
            "gpu.lost@2026-11-22T19:36:12Z".into(),
        );
        let cut_off = others.find(|(arn, _)| arn.ends_with("other5")).unwrap();
        cut_off.1.connected = false;
    });

    node.wants.send_replace(Want::Stay);
    let view = node.until(|view| view.own.is_some()).await;
    let own = view.own.unwrap();
    assert_eq!((own.status, own.claim), (Status::Active, None));

    node.wants.send_replace(Want::Count(claim.clone()));
    let view = node.until(|view| view.cluster.is_some()).await;
    let cluster = view.cluster.unwrap();
    assert_eq!(cluster.external, 7);
    let out: Vec<_> = cluster
        .out
        .iter()
        .map(|out| {
            let cause = out.claim.as_ref().map(|claim| claim.cause.as_str());
            (out.arn.rsplit('/').next().unwrap(), out.gone, cause)
        })
        .collect();
    assert_eq!(
        out,
        [("other2", false, Some("gpu.lost")), ("other5", true, None)]
    );
    assert_eq!(view.claimed.as_ref().unwrap().0, claim);
    assert!(view.claimed.unwrap().1 <= cluster.at);

    node.aws.cluster(|cluster| {
        let own = cluster.instances.get_mut(&node.arn).unwrap();
        (own.running, own.pending) = (2, 1);
    });
    node.wants.send_replace(Want::Drain(claim.clone()));
    node.aws
        .until(|log| operations(log).contains(&"UpdateContainerInstancesState"))
        .await;
    let own = node
        .aws
        .cluster(|cluster| cluster.instances[&node.arn].clone());
    assert_eq!(own.status, "DRAINING");
    assert_eq!(own.attributes[Claim::ATTRIBUTE], claim.to_string());
    let view = node
        .until(|view| view.own.as_ref().is_some_and(|own| own.running == 2))
        .await;
    let own = view.own.unwrap();
    assert_eq!((own.status, own.pending), (Status::Draining, 1));

    node.wants.send_replace(Want::Stay);
    let log = node
        .aws
        .until(|log| operations(log).contains(&"DeleteAttributes"))
        .await;
    let changes: Vec<_> = operations(&log)
        .into_iter()
        .filter(|name| !name.starts_with("Describe") && !name.starts_with("List"))
        .collect();
    assert_eq!(
        changes,
        [
            "PutAttributes",
            "UpdateContainerInstancesState",
            "UpdateContainerInstancesState",
            "DeleteAttributes"
        ]
    );
    let own = node
        .aws
        .cluster(|cluster| cluster.instances[&node.arn].clone());
    assert_eq!((own.status.as_str(), own.attributes.len()), ("ACTIVE", 0));
    let outlet = node.outlet.borrow().clone();
    assert_eq!(outlet.state, OutletState::Ok);
    assert!(outlet.last_success.is_some());
    node.stop().await;
}

#[tokio::test]
async fn an_operators_drain_is_left_alone() {
    let mut node = Node::among(2).await;
    node.aws.cluster(|cluster| {
        let own = cluster.instances.get_mut(&node.arn).unwrap();
        own.status = "DRAINING".into();
    });
    node.wants.send_replace(Want::Stay);
    let view = node.until(|view| view.own.is_some()).await;
    assert_eq!(view.own.unwrap().status, Status::Draining);
    let log = node.aws.log();
    assert_eq!(operations(&log), ["DescribeContainerInstances"]);
    node.stop().await;
}

#[tokio::test]
async fn trouble_is_told_and_overcome() {
    for (fault, kind, state, says) in [
        (
            Fault::AccessDenied,
            TroubleKind::Denied,
            OutletState::Rejected,
            "PutAttributes: AccessDeniedException",
        ),
        (
            Fault::Throttle,
            TroubleKind::Throttled,
            OutletState::Retrying,
            "PutAttributes: ThrottlingException",
        ),
        (
            Fault::ExpiredToken,
            TroubleKind::Unreachable,
            OutletState::Retrying,
            "PutAttributes: ExpiredTokenException",
        ),
        (
            Fault::Garbage(200),
            TroubleKind::Unreachable,
            OutletState::Retrying,
            "PutAttributes: the answer is not AWS's",
        ),
        (
            Fault::ResetAfterStoring,
            TroubleKind::Unreachable,
            OutletState::Retrying,
            "PutAttributes: ",
        ),
    ] {
        let mut node = Node::among(2).await;
        node.aws.fault_on("PutAttributes", fault, Times::Next(1));
        node.wants.send_replace(Want::Count(claim()));
        let view = node.until(|view| view.trouble.is_some()).await;
        let trouble = view.trouble.unwrap();
        assert_eq!(trouble.kind, kind, "{fault:?}");
        assert!(trouble.said.starts_with(says), "{}", trouble.said);
        let outlet = node.outlet.borrow().clone();
        assert_eq!(outlet.state, state, "{fault:?}");
        assert_eq!(outlet.error, Some(trouble.said));
        // It backs off for a second or two.
        let view = node.until(|view| view.cluster.is_some()).await;
        assert_eq!(view.trouble, None, "{fault:?}");
        node.stop().await;
    }
}

#[tokio::test]
async fn half_a_count_is_none() {
    let mut node = Node::among(7).await;
    node.aws.answer(
        "AmazonEC2ContainerServiceV20141113.DescribeContainerInstances",
        serde_json::json!({"containerInstances": [], "failures": [{"arn": "arn:x", "reason": "MISSING"}]}),
    );
    node.wants.send_replace(Want::Count(claim()));
    let view = node.until(|view| view.trouble.is_some()).await;
    let trouble = view.trouble.unwrap();
    assert_eq!(trouble.kind, TroubleKind::Refused);
    assert_eq!(trouble.said, "DescribeContainerInstances: MISSING: arn:x");
    assert_eq!(view.cluster, None);
    node.stop().await;
}

#[tokio::test]
async fn a_cluster_of_which_it_is_no_part_is_not_counted() {
    let mut node = Node::among(2).await;
    node.aws.cluster(|cluster| {
        cluster.instances.get_mut(&node.arn).unwrap().external = false;
    });
    node.wants.send_replace(Want::Count(claim()));
    let view = node.until(|view| view.trouble.is_some()).await;
    assert_eq!(
        view.trouble.unwrap().said,
        "this node is none of the cluster's external ones"
    );
    assert_eq!(view.cluster, None);
    node.stop().await;
}

/// A look that hangs holds nothing up; nor does a wait after a failure.
#[tokio::test]
async fn a_new_want_waits_for_nothing() {
    let mut node = Node::among(2).await;
    node.aws
        .fault_on("DescribeContainerInstances", Fault::Hang, Times::Next(1));
    node.wants.send_replace(Want::Stay);
    node.aws.until(|log| log.held == 1).await;
    let asked = Instant::now();
    let claim = claim();
    node.wants.send_replace(Want::Count(claim.clone()));
    node.until(|view| view.cluster.is_some()).await;
    node.wants.send_replace(Want::Drain(claim));
    node.aws
        .until(|log| operations(log).contains(&"UpdateContainerInstancesState"))
        .await;
    let took = asked.elapsed();
    assert!(took < Duration::from_millis(500), "{took:?}");
    node.stop().await;
}

#[tokio::test]
async fn what_is_not_wanted_is_not_asked() {
    let mut node = Node::among(2).await;
    node.wants.send_replace(Want::Stay);
    node.until(|view| view.own.is_some()).await;
    node.wants.send_replace(Want::Nothing);
    node.until(|view| *view == EcsView::default()).await;
    assert_eq!(node.outlet.borrow().state, OutletState::Off);
    node.place.send_replace(None);
    node.wants.send_replace(Want::Stay);
    node.place.send_replace(Some(Place {
        cluster: "field".into(),
        container_instance: node.arn.clone(),
        tasks: None,
    }));
    let view = node.until(|view| view.trouble.is_some()).await;
    assert_eq!(
        view.trouble.unwrap().said,
        "DescribeContainerInstances: ClusterNotFoundException: Cluster not found."
    );
    node.stop().await;
}
