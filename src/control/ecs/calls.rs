//! One call of the plan, made: what ECS answers becomes what the domain knows.

use jiff::Timestamp;

use super::plan::{Answer, Call};
use crate::clients::aws::ecs::{ContainerInstance, EXTERNAL, Ecs, PAGE};
use crate::clients::aws::json::{Failure, FailureKind};
use crate::domain::ecs::{Claim, Cluster, Out, Own, Place, Status, Trouble, TroubleKind};
use crate::domain::moment::Moment;

/// ECS lets a cluster have this many container instances; a listing that goes on is none.
const LARGEST_CLUSTER: usize = 5_000;

/// Makes a call about `place`, and about nothing else, at the moment `at`.
pub(super) async fn make(
    ecs: Ecs,
    place: Place,
    call: Call,
    at: Moment,
) -> Result<Answer, Trouble> {
    let (cluster, arn) = (&place.cluster, place.container_instance.as_str());
    let done = match &call {
        Call::Look => return look(&ecs, &place, at).await.map_err(trouble),
        Call::Count => return count(&ecs, &place, at).await.map_err(trouble),
        Call::Claim(claim) => {
            let value = claim.to_string();
            ecs.put_attribute(cluster, arn, Claim::ATTRIBUTE, &value)
                .await
        }
        Call::Unclaim => ecs.delete_attribute(cluster, arn, Claim::ATTRIBUTE).await,
        Call::Drain => ecs.set_status(cluster, arn, "DRAINING").await,
        Call::Activate => ecs.set_status(cluster, arn, "ACTIVE").await,
    };
    done.map(|()| Answer::Done).map_err(trouble)
}

async fn look(ecs: &Ecs, place: &Place, at: Moment) -> Result<Answer, Failure> {
    let arn = place.container_instance.as_str();
    let found = ecs.describe(&place.cluster, &[arn]).await?;
    let own = found.into_iter().find(|one| one.arn == arn);
    let own = own.ok_or_else(|| refused("another container instance was described"))?;
    Ok(Answer::Own(read_own(&own, at)))
}

/// Counts the external ones, page by page; half a count is none.
async fn count(ecs: &Ecs, place: &Place, at: Moment) -> Result<Answer, Failure> {
    let mut cluster = Cluster {
        at,
        external: 0,
        out: Vec::new(),
    };
    let mut own = None;
    let mut token = None;
    let mut listed = 0;
    loop {
        let page = ecs.list(&place.cluster, token.as_deref()).await?;
        listed += page.arns.len();
        if LARGEST_CLUSTER < listed {
            return Err(refused("the cluster has more than 5,000 external nodes"));
        }
        for arns in page.arns.chunks(PAGE) {
            let arns: Vec<&str> = arns.iter().map(String::as_str).collect();
            for one in ecs.describe(&place.cluster, &arns).await? {
                // The filter is ECS's; that a look-alike has none must not make the cluster larger.
                if one.attribute(EXTERNAL).is_none() {
                    continue;
                }
                cluster.external += 1;
                if one.arn == place.container_instance {
                    own = Some(read_own(&one, at));
                } else {
                    cluster.out.extend(read_out(one));
                }
            }
        }
        token = page.next_token.filter(|token| !token.is_empty());
        if token.is_none() {
            break;
        }
    }
    let own = own.ok_or_else(|| refused("this node is none of the cluster's external ones"))?;
    Ok(Answer::Counted(cluster, own))
}

fn read_own(one: &ContainerInstance, at: Moment) -> Own {
    Own {
        at,
        status: read_status(&one.status),
        // A value that is not ours was written by somebody else, who need not fear for it.
        claim: one
            .attribute(Claim::ATTRIBUTE)
            .and_then(|value| value.parse().ok()),
        running: one.running,
        pending: one.pending,
    }
}

fn read_out(one: ContainerInstance) -> Option<Out> {
    let gone = read_status(&one.status) == Status::Draining || !one.connected;
    // One that can't be read counts, before all others.
    let claim = one.attribute(Claim::ATTRIBUTE).map(|value| {
        value.parse().unwrap_or_else(|_| Claim {
            at: Timestamp::MIN,
            cause: value.to_owned(),
        })
    });
    (gone || claim.is_some()).then_some(Out {
        arn: one.arn,
        gone,
        claim,
    })
}

fn read_status(status: &str) -> Status {
    match status {
        "ACTIVE" => Status::Active,
        "DRAINING" => Status::Draining,
        _ => Status::Other,
    }
}

fn refused(said: &str) -> Failure {
    Failure {
        kind: FailureKind::Refused,
        said: said.to_owned(),
    }
}

fn trouble(failure: Failure) -> Trouble {
    let kind = match failure.kind {
        FailureKind::Unreachable | FailureKind::Credentials => TroubleKind::Unreachable,
        FailureKind::Denied => TroubleKind::Denied,
        FailureKind::Throttled => TroubleKind::Throttled,
        FailureKind::Refused => TroubleKind::Refused,
    };
    Trouble {
        kind,
        said: failure.said,
    }
}
