//! Amazon ECS, as far as sideline uses it: container instances, their status and attributes.

use std::ops::Range;
use std::time::Duration;

use sideline::domain::ecs::{Claim, Cluster, Out, Own, Status};

use crate::node::moment;
use crate::plan::name;

/// A drained node's tasks are gone after so long: the default `stopTimeout` of ECS is 30 seconds.
pub(crate) const TASKS_LEAVE: Duration = Duration::from_secs(30);

/// A node that takes tasks again has them after so long. An assumption.
pub(crate) const TASKS_RETURN: Duration = Duration::from_secs(60);

/// What one node has written is read by others after at most so long. ECS promises consistency only in the end; how
/// late is an assumption.
const SEEN_AFTER: Duration = Duration::from_secs(3);

/// Who drained a node, and whether that was right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// A person.
    Operator,
    /// Its own sideline, for want of a single card that works.
    Sideline,
    /// Its own sideline, though it carries something, or will again in a moment.
    Mistake,
}

/// All container instances.
pub(crate) struct Ecs {
    instances: Vec<Instance>,
}

#[derive(Debug, Clone)]
struct Instance {
    draining: bool,
    /// Since when it is or is not.
    since: Duration,
    /// Who drained it last.
    by: By,
    claim: Option<Claim>,
    /// Since when the claim is or is not on record.
    claimed: Duration,
    connected: bool,
}

impl Ecs {
    /// So many nodes, all of them ACTIVE and with their tasks.
    pub(crate) fn new(nodes: u32) -> Self {
        let active = Instance {
            draining: false,
            since: Duration::ZERO,
            by: By::Operator,
            claim: None,
            claimed: Duration::ZERO,
            connected: true,
        };
        Ecs {
            instances: vec![active; nodes as usize],
        }
    }

    /// `DescribeContainerInstances` of the node itself.
    pub(crate) fn own(&self, node: u32, slots: u32, at: Duration) -> Own {
        let instance = self.get(node);
        Own {
            at: moment(at),
            status: if instance.draining {
                Status::Draining
            } else {
                Status::Active
            },
            claim: instance.claim.clone(),
            running: if self.emptied(node, at).is_some() {
                0
            } else {
                slots
            },
            pending: 0,
        }
    }

    /// What a count of the cluster's external nodes finds, as `node` sees it.
    pub(crate) fn count(&self, node: u32, cluster: Range<u32>, at: Duration) -> Cluster {
        let external = cluster.len() as u32;
        let others = cluster.filter(|other| *other != node);
        let out = others.filter_map(|other| {
            let instance = self.get(other);
            let is_news = |since: Duration| at < since + SEEN_AFTER && !since.is_zero();
            let gone = (instance.draining && !is_news(instance.since)) || !instance.connected;
            let claim = instance
                .claim
                .clone()
                .filter(|_| !is_news(instance.claimed));
            (gone || claim.is_some()).then(|| Out {
                arn: name(other),
                gone,
                claim,
            })
        });
        Cluster {
            at: moment(at),
            external,
            out: out.collect(),
        }
    }

    /// `PutAttributes` and `DeleteAttributes`.
    pub(crate) fn claim(&mut self, node: u32, claim: Option<Claim>, at: Duration) {
        let instance = self.get_mut(node);
        instance.claim = claim;
        instance.claimed = at;
    }

    /// `UpdateContainerInstancesState`.
    pub(crate) fn drain(&mut self, node: u32, by: Option<By>, at: Duration) {
        let instance = self.get_mut(node);
        if instance.draining != by.is_some() {
            instance.since = at;
            instance.draining = by.is_some();
            instance.by = by.unwrap_or(instance.by);
        }
    }

    /// Whether ECS hears of the node's agent.
    pub(crate) fn connect(&mut self, node: u32, connected: bool) {
        self.get_mut(node).connected = connected;
    }

    /// Who has drained the node.
    pub(crate) fn drained(&self, node: u32) -> Option<By> {
        let instance = self.get(node);
        instance.draining.then_some(instance.by)
    }

    /// The claim on record.
    pub(crate) fn claim_of(&self, node: u32) -> Option<&Claim> {
        self.get(node).claim.as_ref()
    }

    /// Who has drained a node that carries no tasks for that, or not yet again.
    pub(crate) fn emptied(&self, node: u32, at: Duration) -> Option<By> {
        let instance = self.get(node);
        let is_empty = if instance.draining {
            instance.since + TASKS_LEAVE <= at
        } else {
            !instance.since.is_zero() && at < instance.since + TASKS_RETURN
        };
        is_empty.then_some(instance.by)
    }

    fn get(&self, node: u32) -> &Instance {
        &self.instances[node as usize]
    }

    fn get_mut(&mut self, node: u32) -> &mut Instance {
        &mut self.instances[node as usize]
    }
}
