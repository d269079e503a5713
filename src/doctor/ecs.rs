//! ECS: the agent on this machine, and the calls that a drain makes.

use super::aws::{allow, failed, way};
use super::check::Found;
use super::scene::Scene;
use crate::clients::aws::ecs::Ecs;
use crate::clients::aws::json::{Failure, FailureKind};
use crate::collect::identity::ecs::ask;
use crate::config::FailoverMode;
use crate::domain::ecs::Place;

/// An attribute that is never put: the container instance does not exist.
const ATTRIBUTE: &str = "sideline.doctor";

/// This node's place in ECS, as the agent on this machine tells.
pub(super) async fn place(scene: &Scene) -> Result<Place, String> {
    let url = &scene.config.aws.ecs_agent;
    if url.is_empty() {
        return Err("aws.ecs_agent is empty".to_owned());
    }
    ask(url, false).await.map_err(|error| format!("{error:#}"))
}

fn drains(scene: &Scene) -> bool {
    scene.config.failover.mode == FailoverMode::Drain
}

pub(super) fn agent(scene: &Scene, place: &Result<Place, String>) -> Found {
    let url = &scene.config.aws.ecs_agent;
    let is_here = scene.system("etc/ecs").exists() || scene.system("var/lib/ecs").exists();
    let restart = "sudo systemctl restart ecs && journalctl -u ecs -n 20 --no-pager";
    match place {
        Ok(place) => {
            let id = place
                .container_instance
                .rsplit('/')
                .next()
                .unwrap_or_default();
            Found::ok(format!(
                "cluster {}, container instance {id}",
                place.cluster
            ))
        }
        Err(_) if url.is_empty() => Found::unused("aws.ecs_agent is empty"),
        Err(why) if is_here || drains(scene) => {
            Found::fail(format!("the ECS agent at {url}: {why}"), restart)
        }
        Err(_) => Found::unused(&format!("no ECS agent at {url}")),
    }
}

/// ListContainerInstances and DescribeContainerInstances, as the guards of a drain need them.
pub(super) async fn reads(scene: &Scene, place: &Result<Place, String>) -> Found {
    let (ecs, place) = match client(scene, place).await {
        Ok(both) => both,
        Err(found) => return found,
    };
    let mut listed = ecs.list(&place.cluster, None).await;
    if listed.as_ref().is_err_and(is_of_credentials) {
        listed = ecs.list(&place.cluster, None).await;
    }
    let count = match listed {
        Ok(listing) => listing.arns.len(),
        Err(failure) => return told(scene, failure, place, &["ListContainerInstances"]),
    };
    match ecs
        .describe(&place.cluster, &[&place.container_instance])
        .await
    {
        Ok(_) => Found::ok(format!(
            "may be listed and described: {count} external nodes"
        )),
        Err(failure) if failure.said.contains("MISSING") => Found::fail(
            format!(
                "this node's container instance is not in the cluster: {}",
                failure.said
            ),
            "sudo systemctl stop ecs && sudo rm /var/lib/ecs/data/agent.db && sudo systemctl start ecs",
        ),
        Err(failure) => told(scene, failure, place, &["DescribeContainerInstances"]),
    }
}

/// The calls that change something, for a container instance that does not exist.
pub(super) async fn writes(scene: &Scene, place: &Result<Place, String>) -> Found {
    let (ecs, place) = match client(scene, place).await {
        Ok(both) => both,
        Err(found) => return found,
    };
    let nobody = nobody(&place.container_instance);
    let mut status = ecs.set_status(&place.cluster, &nobody, "ACTIVE").await;
    if status.as_ref().is_err_and(is_of_credentials) {
        status = ecs.set_status(&place.cluster, &nobody, "ACTIVE").await;
    }
    let put = ecs
        .put_attribute(&place.cluster, &nobody, ATTRIBUTE, "0")
        .await;
    let delete = ecs
        .delete_attribute(&place.cluster, &nobody, ATTRIBUTE)
        .await;
    let mut denied = Vec::new();
    let mut said = None;
    for (action, answer) in [
        ("UpdateContainerInstancesState", status),
        ("PutAttributes", put),
        ("DeleteAttributes", delete),
    ] {
        match answer {
            // That it does not exist is said to those who may ask.
            Ok(()) => {}
            Err(failure) if failure.kind == FailureKind::Refused => {}
            Err(failure) if failure.kind == FailureKind::Denied => {
                denied.push(action);
                said.get_or_insert(failure);
            }
            Err(failure) => return failed(scene, failure),
        }
    }
    match said {
        Some(failure) => told(scene, failure, place, &denied),
        None => Found::ok("may be drained and brought back"),
    }
}

/// A way to ECS, and this node's place there.
async fn client<'a>(
    scene: &Scene,
    place: &'a Result<Place, String>,
) -> Result<(Ecs, &'a Place), Found> {
    if !drains(scene) {
        return Err(Found::unused("failover.mode is observe"));
    }
    let place = place.as_ref().map_err(|_| {
        Found::fail(
            "not asked: the ECS agent does not tell this node's container instance",
            "sudo systemctl restart ecs",
        )
    })?;
    let endpoint = way(scene, "ECS", "ecs").await?;
    let ecs = Ecs::new(
        &scene.aws().region,
        scene.credentials.clone(),
        endpoint,
        scene.clock.clone(),
        scene.connections.clone(),
    );
    Ok((ecs, place))
}

fn is_of_credentials(failure: &Failure) -> bool {
    failure.kind == FailureKind::Credentials
}

/// A failure; where rights are missing, with the statement that gives them.
fn told(scene: &Scene, failure: Failure, place: &Place, actions: &[&str]) -> Found {
    if failure.kind != FailureKind::Denied {
        return failed(scene, failure);
    }
    let lists = actions.contains(&"ListContainerInstances");
    let actions: Vec<String> = actions
        .iter()
        .map(|action| format!("\"ecs:{action}\""))
        .collect();
    let actions = format!("[{}]", actions.join(","));
    // arn:aws:ecs:eu-west-1:123456789012:container-instance/CLUSTER/ID
    let arn = &place.container_instance;
    let (before, _) = arn.split_once(":container-instance/").unwrap_or((arn, ""));
    let resource = match lists {
        true => format!("\"{before}:cluster/{}\"", place.cluster),
        false => format!("\"{before}:container-instance/{}/*\"", place.cluster),
    };
    Found::fail(failure.said, allow(&actions, &resource, None))
}

/// The ARN of a container instance that nobody has, beside this one.
fn nobody(arn: &str) -> String {
    let (before, _) = arn.rsplit_once('/').unwrap_or((arn, ""));
    format!("{before}/{:032}", 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_a_neighbor() {
        let arn = "arn:aws:ecs:eu-west-1:1:container-instance/c/0123456789abcdef0123456789abcdef";
        let expected =
            "arn:aws:ecs:eu-west-1:1:container-instance/c/00000000000000000000000000000000";
        assert_eq!(nobody(arn), expected);
    }
}
