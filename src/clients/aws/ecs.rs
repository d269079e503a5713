//! The five calls of ECS that a node makes, as ECS has them: one request each, nothing is interpreted.

use serde::{Deserialize, Serialize};

use super::Connections;
use super::json::{Failure, FailureKind, Json, Service};
use crate::clients::credentials::NodeCredentials;
use crate::clock::Clock;

const SERVICE: Service = Service {
    name: "ecs",
    target: "AmazonEC2ContainerServiceV20141113",
};

/// Most container instances that one listing or description holds.
pub const PAGE: usize = 100;

/// ECS itself marks machines that are not in its own data centres with this attribute.
pub const EXTERNAL: &str = "ecs.capability.external";

/// A way to ECS.
#[derive(Debug, Clone)]
pub struct Ecs {
    json: Json,
}

/// A container instance, as far as it is read.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerInstance {
    /// Its ARN.
    #[serde(rename = "containerInstanceArn")]
    pub arn: String,
    /// `ACTIVE`, `DRAINING`, `REGISTERING`, …
    pub status: String,
    /// Tasks that run.
    #[serde(default, rename = "runningTasksCount")]
    pub running: u32,
    /// Tasks that are about to.
    #[serde(default, rename = "pendingTasksCount")]
    pub pending: u32,
    /// Whether ECS hears of its agent.
    #[serde(default, rename = "agentConnected")]
    pub connected: bool,
    /// Its own and those that others have put.
    #[serde(default)]
    pub attributes: Vec<Attribute>,
}

/// An attribute of a container instance.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Attribute {
    /// Its name.
    pub name: String,
    /// Its value, where it has one.
    pub value: Option<String>,
}

impl ContainerInstance {
    /// The value of an attribute that it has: empty where that has none.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&str> {
        let found = self.attributes.iter().find(|one| one.name == name);
        found.map(|one| one.value.as_deref().unwrap_or_default())
    }
}

/// One page of a listing.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Listing {
    /// ARNs.
    #[serde(rename = "containerInstanceArns")]
    pub arns: Vec<String>,
    /// Where the next page starts, if there is one.
    pub next_token: Option<String>,
}

/// What a call on named container instances answers: those that were found, and what was wrong with the others.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Found {
    #[serde(default)]
    container_instances: Vec<ContainerInstance>,
    #[serde(default)]
    failures: Vec<NotFound>,
}

#[derive(Deserialize)]
struct NotFound {
    arn: Option<String>,
    reason: Option<String>,
}

/// An answer that says no more than that it was done.
#[derive(Deserialize)]
struct Done {}

impl Ecs {
    /// A way to ECS; the arguments are those of [`Json::new`].
    #[must_use]
    pub fn new(
        region: &str,
        credentials: NodeCredentials,
        endpoint: Option<String>,
        clock: Clock,
        connections: Connections,
    ) -> Self {
        Ecs {
            json: Json::new(SERVICE, region, credentials, endpoint, clock, connections),
        }
    }

    /// One page of the cluster's external container instances, whatever their state.
    ///
    /// # Errors
    /// See [`FailureKind`].
    pub async fn list(&self, cluster: &str, token: Option<&str>) -> Result<Listing, Failure> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Input<'a> {
            cluster: &'a str,
            filter: String,
            max_results: usize,
            #[serde(skip_serializing_if = "Option::is_none")]
            next_token: Option<&'a str>,
        }
        let input = Input {
            cluster,
            filter: format!("attribute:{EXTERNAL} exists"),
            max_results: PAGE,
            next_token: token,
        };
        self.json.call("ListContainerInstances", &input).await
    }

    /// At most [`PAGE`] container instances: all of them, or an error.
    ///
    /// # Errors
    /// See [`FailureKind`]; one that is not in the cluster is `Refused`.
    pub async fn describe(
        &self,
        cluster: &str,
        arns: &[&str],
    ) -> Result<Vec<ContainerInstance>, Failure> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Input<'a> {
            cluster: &'a str,
            container_instances: &'a [&'a str],
        }
        let operation = "DescribeContainerInstances";
        let input = Input {
            cluster,
            container_instances: arns,
        };
        let found: Found = self.json.call(operation, &input).await?;
        found.all(operation, arns.len())
    }

    /// Puts an attribute on a container instance, in place of one of the same name.
    ///
    /// # Errors
    /// See [`FailureKind`].
    pub async fn put_attribute(
        &self,
        cluster: &str,
        arn: &str,
        name: &str,
        value: &str,
    ) -> Result<(), Failure> {
        let input = Attributes::of(cluster, arn, name, Some(value));
        let Done {} = self.json.call("PutAttributes", &input).await?;
        Ok(())
    }

    /// Takes an attribute off a container instance.
    ///
    /// # Errors
    /// See [`FailureKind`].
    pub async fn delete_attribute(
        &self,
        cluster: &str,
        arn: &str,
        name: &str,
    ) -> Result<(), Failure> {
        let input = Attributes::of(cluster, arn, name, None);
        let Done {} = self.json.call("DeleteAttributes", &input).await?;
        Ok(())
    }

    /// Sets a container instance's status: `ACTIVE` or `DRAINING`.
    ///
    /// # Errors
    /// See [`FailureKind`]; one that is not in the cluster is `Refused`.
    pub async fn set_status(&self, cluster: &str, arn: &str, status: &str) -> Result<(), Failure> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Input<'a> {
            cluster: &'a str,
            container_instances: [&'a str; 1],
            status: &'a str,
        }
        let operation = "UpdateContainerInstancesState";
        let input = Input {
            cluster,
            container_instances: [arn],
            status,
        };
        let found: Found = self.json.call(operation, &input).await?;
        found.all(operation, 1).map(drop)
    }
}

impl Found {
    fn all(self, operation: &str, wanted: usize) -> Result<Vec<ContainerInstance>, Failure> {
        let count = self.container_instances.len();
        let what = match self.failures.first() {
            None if count == wanted => return Ok(self.container_instances),
            None => format!("{count} container instances instead of {wanted}"),
            Some(NotFound { arn, reason }) => format!(
                "{}: {}",
                reason.as_deref().unwrap_or("failed"),
                arn.as_deref().unwrap_or("a container instance")
            ),
        };
        Err(Failure {
            kind: FailureKind::Refused,
            said: format!("{operation}: {what}"),
        })
    }
}

/// The input of both calls on attributes.
#[derive(Serialize)]
struct Attributes<'a> {
    cluster: &'a str,
    attributes: [Target<'a>; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Target<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    target_type: &'static str,
    target_id: &'a str,
}

impl<'a> Attributes<'a> {
    fn of(cluster: &'a str, arn: &'a str, name: &'a str, value: Option<&'a str>) -> Self {
        let target = Target {
            name,
            value,
            target_type: "container-instance",
            // The short form goes with the type; the ARN would do without, but look-alikes of ECS don't know it.
            target_id: arn.rsplit('/').next().unwrap_or(arn),
        };
        Attributes {
            cluster,
            attributes: [target],
        }
    }
}
