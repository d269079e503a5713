//! What keeps a node from draining itself: too many others out, a change that may be the culprit, too many drains.
//!
//! The share holds without a coordinator, whatever fails or restarts, as long as the age of ECS's answers and the
//! difference of two nodes' clocks are together at most [`SETTLED`] less [`TAKEN`], 10 s. Who skips the hold counts at once:
//! of several such nodes it holds as long as an answer shows what was acknowledged before it was asked for; beside others,
//! as long as DRAINING follows its count within [`SETTLED`].

use std::time::Duration;

use jiff::Timestamp;

use super::kept::Change;
use super::{Failover, Seen};
use crate::config::FailoverMode;
use crate::domain::ecs::{Claim, Cluster, Out, SETTLED, TAKEN};
use crate::domain::moment::{CLOCK_TOLERANCE, Moment, Now};
use crate::domain::phase;

/// A count that is older says nothing of now.
const COUNT_LASTS: Duration = Duration::from_secs(60);

/// After a change that reached many nodes, many may fail in one second: their claims are spread over this time.
const SPREAD: Duration = Duration::from_secs(600);

/// The change that trouble which begins now follows so soon that it may be the culprit.
pub(super) fn follows(seen: Seen<'_>, now: Now) -> Option<Change> {
    let recent = |at: Option<Moment>| at.is_some_and(|at| now.moment - at < seen.settings.changes);
    if recent(seen.configured) {
        return Some(Change::Configuration);
    }
    recent(seen.driver_changed).then_some(Change::Driver)
}

/// Why there is no drain now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Guard {
    /// For people; `None` where ECS is still being asked.
    pub(super) why: Option<String>,
    /// When the guard would think again by itself.
    pub(super) due: Option<Moment>,
}

impl Guard {
    fn because(why: String) -> Self {
        Guard {
            why: Some(why),
            due: None,
        }
    }
}

impl Failover {
    /// How long a node waits with its claim, so that a bad driver for thousands does not call ECS thousands of times in
    /// one second, and the first to claim is seen by the others.
    pub(super) fn spread(&self, proven: bool, seen: Seen<'_>) -> Duration {
        match seen.place {
            Some(place) if !proven && self.kept.follows.is_some() => {
                phase::of(&place.container_instance, SPREAD)
            }
            Some(_) | None => Duration::ZERO,
        }
    }

    /// Stamps the claim anew where its place in the order would be a lie: ECS took long to take it, so that others may
    /// have counted without it, or the clock that it was stamped with was wrong.
    pub(super) fn renew_claim(&mut self, seen: Seen<'_>, now: Now) {
        let acknowledged = seen.ecs.claimed.as_ref();
        let ours = acknowledged.filter(|(on, _)| Some(on) == self.kept.claim.as_ref());
        let Some((claim, at)) = ours else { return };
        let is_true = |stamped: Moment| {
            let wrong_by = claim.at.duration_since(now.wall_at(stamped));
            *at - stamped <= TAKEN && wrong_by.abs() <= CLOCK_TOLERANCE * 2
        };
        if !self.kept.stamped.is_some_and(is_true) {
            self.kept.stamp(claim.cause.clone(), now);
        }
    }

    /// Whether the node may drain itself now.
    pub(super) fn may_drain(&self, proven: bool, seen: Seen<'_>, now: Now) -> Result<(), Guard> {
        let most = seen.settings.max_drains_a_day as usize;
        if self.kept.drains.len() >= most {
            let oldest = self.kept.drains.iter().min();
            return Err(Guard {
                why: Some(format!(
                    "it was drained {} times within a day, as often as failover.max_drains_a_day allows",
                    self.kept.drains.len()
                )),
                due: oldest.and_then(|at| now.moment_at(at.checked_add(super::A_DAY).ok()?)),
            });
        }
        if seen.settings.mode == FailoverMode::Observe {
            return Ok(());
        }
        let cluster = self.count(proven, seen, now)?;
        let claim = self.kept.claim.as_ref().ok_or_else(Guard::default)?;
        let alike = |out: &&Out| together(out, claim, seen.settings.changes);
        let others = cluster.out.iter().filter(alike).count();
        if others > 0 && self.kept.follows.is_some() {
            return Err(Guard::because(format!(
                "{others} other nodes have {} too, which began here right after a change of driver or configuration",
                claim.cause
            )));
        }
        let own = seen.place.map_or("", |place| &place.container_instance);
        let out = cluster
            .out
            .iter()
            .filter(|out| {
                out.gone || proven && out.claim.is_some() || is_before(out, (claim.at, own))
            })
            .count()
            + 1;
        let share = out as f64 / f64::from(cluster.external.max(1));
        if share > seen.settings.max_unfit_share {
            return Err(Guard::because(format!(
                "{out} of {} external nodes of the cluster would be out, more than failover.max_unfit_share {}",
                cluster.external, seen.settings.max_unfit_share
            )));
        }
        Ok(())
    }

    /// A count of the cluster that every earlier claim is in.
    fn count<'a>(&self, proven: bool, seen: Seen<'a>, now: Now) -> Result<&'a Cluster, Guard> {
        let uncounted = || {
            let trouble = seen.ecs.trouble.as_ref();
            Guard {
                why: trouble
                    .map(|trouble| format!("the cluster can't be counted: {}", trouble.said)),
                due: None,
            }
        };
        let claim = self.kept.claim.as_ref().ok_or_else(Guard::default)?;
        let claimed = seen.ecs.claimed.as_ref().filter(|(on, _)| on == claim);
        let (_, acknowledged) = claimed.ok_or_else(uncounted)?;
        // Who skips the hold counts every claim, earlier or later, and need not wait for them.
        let after = match proven {
            true => *acknowledged,
            false => *acknowledged + SETTLED,
        };
        let cluster = seen.ecs.cluster.as_ref().ok_or_else(uncounted)?;
        if cluster.at < after || now.moment - cluster.at > COUNT_LASTS {
            return Err(uncounted());
        }
        Ok(cluster)
    }
}

/// Whether its claim goes before ours: the earlier, and of two in one second that of the lesser ARN.
fn is_before(out: &Out, ours: (Timestamp, &str)) -> bool {
    let claim = out.claim.as_ref();
    claim.is_some_and(|claim| (claim.at, out.arn.as_str()) < ours)
}

/// Whether another node has had the same trouble since at most so long before or after.
fn together(out: &Out, ours: &Claim, within: Duration) -> bool {
    let same = |claim: &Claim| {
        let apart = claim.at.duration_since(ours.at);
        claim.cause == ours.cause && apart.unsigned_abs() <= within
    };
    out.claim.as_ref().is_some_and(same)
}
