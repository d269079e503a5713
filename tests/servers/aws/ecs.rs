//! A small ECS for the double: one cluster of external machines that can be listed, claimed and drained.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::wire::Refusal;

/// What `X-Amz-Target` begins with.
pub(super) const TARGET: &str = "AmazonEC2ContainerServiceV20141113.";

/// What ECS takes in one call, by its reference.
const MOST_DESCRIBED: usize = 100;
const MOST_UPDATED: usize = 10;
const MOST_ATTRIBUTES: usize = 10;

/// What marks an external machine.
const EXTERNAL: &str = "ecs.capability.external";

/// A cluster, to be scripted.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Its name.
    pub name: String,
    /// Container instances by ARN.
    pub instances: BTreeMap<String, Instance>,
    /// How many a page of a listing holds at most; ECS's own limit is 100.
    pub page: usize,
}

/// A container instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// `ACTIVE`, `DRAINING`, …
    pub status: String,
    /// Whether ECS hears of its agent.
    pub connected: bool,
    /// Whether it is in nobody's data centre but one's own.
    pub external: bool,
    /// Tasks that run.
    pub running: u32,
    /// Tasks that are about to.
    pub pending: u32,
    /// What was put on it.
    pub attributes: BTreeMap<String, String>,
}

impl Cluster {
    /// A cluster without container instances.
    pub fn named(name: &str) -> Self {
        Cluster {
            name: name.to_owned(),
            instances: BTreeMap::new(),
            page: MOST_DESCRIBED,
        }
    }

    /// The ARN of the container instance with this id.
    pub fn arn(&self, id: &str) -> String {
        format!(
            "arn:aws:ecs:eu-west-1:123456789012:container-instance/{}/{id}",
            self.name
        )
    }

    /// Registers an external machine that is well and carries nothing, and returns its ARN.
    pub fn register(&mut self, id: &str) -> String {
        let arn = self.arn(id);
        let instance = Instance {
            status: "ACTIVE".to_owned(),
            connected: true,
            external: true,
            running: 0,
            pending: 0,
            attributes: BTreeMap::new(),
        };
        self.instances.insert(arn.clone(), instance);
        arn
    }

    /// What the ECS agent on the machine of this container instance tells of its tasks.
    pub(super) fn tasks(&self, arn: &str) -> Value {
        let task = |status: &str| json!({"Arn": "arn", "DesiredStatus": "RUNNING", "KnownStatus": status, "Containers": []});
        let own = self.instances.get(arn);
        let (running, pending) = own.map_or((0, 0), |own| (own.running, own.pending));
        let running = (0..running).map(|_| task("RUNNING"));
        let tasks: Vec<Value> = running
            .chain((0..pending).map(|_| task("CREATED")))
            .collect();
        json!({ "Tasks": tasks })
    }

    /// Answers a call.
    pub(super) fn call(&mut self, operation: &str, input: &Value) -> Result<Value, Refusal> {
        match operation {
            "ListContainerInstances" => self.list(&read(input)?),
            "DescribeContainerInstances" => self.describe(&read(input)?),
            "UpdateContainerInstancesState" => self.update(&read(input)?),
            "PutAttributes" => self.put(&read(input)?),
            "DeleteAttributes" => self.delete(&read(input)?),
            _ => Err(Refusal::unknown_operation()),
        }
    }

    fn list(&self, input: &List) -> Result<Value, Refusal> {
        self.is_meant(&input.cluster)?;
        let most = input.max_results.unwrap_or(MOST_DESCRIBED);
        if !(1..=MOST_DESCRIBED).contains(&most) {
            return Err(invalid("maxResults must be between 1 and 100"));
        }
        let filter = format!("attribute:{EXTERNAL} exists");
        let external = match input.filter.as_deref() {
            None => false,
            Some(text) if text == filter => true,
            Some(other) => return Err(invalid(&format!("Invalid filter {other}"))),
        };
        let start: usize = match input.next_token.as_deref().map(str::parse) {
            None => 0,
            Some(Ok(start)) => start,
            Some(Err(_)) => return Err(invalid("Invalid token")),
        };
        let all = self.instances.iter();
        let wanted = all.filter(|(_, one)| one.external || !external);
        let rest: Vec<&String> = wanted.map(|(arn, _)| arn).skip(start).collect();
        let size = most.min(self.page);
        let page = &rest[..size.min(rest.len())];
        let mut answer = json!({ "containerInstanceArns": page });
        if size < rest.len() {
            answer["nextToken"] = json!((start + size).to_string());
        }
        Ok(answer)
    }

    fn describe(&self, input: &Named) -> Result<Value, Refusal> {
        self.is_meant(&input.cluster)?;
        if !(1..=MOST_DESCRIBED).contains(&input.container_instances.len()) {
            return Err(invalid("instanceIds can have at most 100 items."));
        }
        Ok(self.shown(&input.container_instances))
    }

    fn update(&mut self, input: &Named) -> Result<Value, Refusal> {
        self.is_meant(&input.cluster)?;
        let status = input.status.as_deref().unwrap_or_default();
        if !matches!(status, "ACTIVE" | "DRAINING") {
            return Err(invalid("status must be ACTIVE or DRAINING"));
        }
        if !(1..=MOST_UPDATED).contains(&input.container_instances.len()) {
            return Err(invalid("containerInstances can have at most 10 items."));
        }
        for name in &input.container_instances {
            let arn = self.full(name);
            if let Some(one) = self.instances.get_mut(&arn) {
                status.clone_into(&mut one.status);
            }
        }
        Ok(self.shown(&input.container_instances))
    }

    fn put(&mut self, input: &Attributes) -> Result<Value, Refusal> {
        self.is_meant(&input.cluster)?;
        for put in &input.attributes {
            let value = put.value.as_deref().unwrap_or_default();
            if !is_text(&put.name, "-_./\\") || !is_text(value, "-_.@/\\: ") {
                return Err(invalid("The specified attribute is invalid"));
            }
            let one = self.target(put)?;
            one.attributes.insert(put.name.clone(), value.to_owned());
            if MOST_ATTRIBUTES < one.attributes.len() {
                let message = "A container instance can have at most 10 attributes";
                return Err(Refusal::ecs("AttributeLimitExceededException", message));
            }
        }
        Ok(json!({ "attributes": [] }))
    }

    fn delete(&mut self, input: &Attributes) -> Result<Value, Refusal> {
        self.is_meant(&input.cluster)?;
        for gone in &input.attributes {
            self.target(gone)?.attributes.remove(&gone.name);
        }
        Ok(json!({ "attributes": [] }))
    }

    fn is_meant(&self, cluster: &str) -> Result<(), Refusal> {
        let short = cluster.rsplit('/').next().unwrap_or_default();
        if short == self.name {
            Ok(())
        } else {
            let message = "Cluster not found.";
            Err(Refusal::ecs("ClusterNotFoundException", message))
        }
    }

    /// The ARN of what is named by its ARN or its id.
    fn full(&self, name: &str) -> String {
        if name.starts_with("arn:") {
            name.to_owned()
        } else {
            self.arn(name)
        }
    }

    fn target(&mut self, put: &Attribute) -> Result<&mut Instance, Refusal> {
        let is_short = !put.target_id.starts_with("arn:");
        if is_short && put.target_type.as_deref() != Some("container-instance") {
            return Err(invalid("A short id needs a targetType"));
        }
        let arn = self.full(&put.target_id);
        let missing = || Refusal::ecs("TargetNotFoundException", "The target was not found");
        self.instances.get_mut(&arn).ok_or_else(missing)
    }

    fn shown(&self, names: &[String]) -> Value {
        let mut found = Vec::new();
        let mut failures = Vec::new();
        for name in names {
            let arn = self.full(name);
            match self.instances.get(&arn) {
                Some(one) => found.push(one.shown(&arn)),
                None => failures.push(json!({"arn": arn, "reason": "MISSING"})),
            }
        }
        json!({ "containerInstances": found, "failures": failures })
    }
}

impl Instance {
    fn shown(&self, arn: &str) -> Value {
        let mut attributes = vec![json!({"name": "ecs.os-type", "value": "linux"})];
        if self.external {
            attributes.push(json!({ "name": EXTERNAL }));
        }
        let own = self.attributes.iter();
        attributes.extend(own.map(|(name, value)| json!({"name": name, "value": value})));
        json!({
            "containerInstanceArn": arn,
            "ec2InstanceId": "mi-0123456789abcdef0",
            "version": 1,
            "status": self.status,
            "runningTasksCount": self.running,
            "pendingTasksCount": self.pending,
            "agentConnected": self.connected,
            "attributes": attributes,
        })
    }
}

fn invalid(message: &str) -> Refusal {
    Refusal::ecs("InvalidParameterException", message)
}

/// Letters, digits and `more`, 1 to 128 of them, and no space at either end.
fn is_text(text: &str, more: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.trim() == text
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || more.contains(c))
}

fn read<T: DeserializeOwned>(input: &Value) -> Result<T, Refusal> {
    T::deserialize(input).map_err(|error| Refusal::malformed(&error.to_string()))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct List {
    cluster: String,
    filter: Option<String>,
    max_results: Option<usize>,
    next_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Named {
    cluster: String,
    container_instances: Vec<String>,
    status: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Attributes {
    cluster: String,
    attributes: Vec<Attribute>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Attribute {
    name: String,
    value: Option<String>,
    target_type: Option<String>,
    target_id: String,
}
