//! How the node stands in ECS: by whose will, and what is wanted there.

use super::{Failover, Need, Seen};
use crate::config::FailoverMode;
use crate::domain::ecs::{Own, SHOWN, Status, Want};
use crate::domain::moment::Now;
use crate::domain::report::FailoverState;

impl Failover {
    /// What is wanted of ECS in the state that the node is in.
    pub(super) fn wanted(&mut self, need: Need, seen: Seen<'_>) -> Want {
        if seen.settings.mode == FailoverMode::Observe {
            return self.wanted_back(seen);
        }
        // Nothing is changed that was not seen: somebody may have changed it while no agent ran.
        let Some(own) = &seen.ecs.own else {
            return Want::Look;
        };
        let want = match (self.kept.state, &self.kept.claim) {
            (FailoverState::Holding, Some(claim)) if self.counts => Want::Count(claim.clone()),
            (FailoverState::Holding, Some(claim)) => Want::Claim(claim.clone()),
            (FailoverState::Maintenance, None) => Want::LetBe,
            (FailoverState::InService, _) | (_, None) => match self.kept.asked {
                Some(true) => Want::Stay,
                Some(false) | None if own.claim.is_some() => Want::LetBe,
                Some(false) | None => Want::Look,
            },
            // Decided before a restart and not done yet: not for what nobody knows now.
            (FailoverState::Draining, Some(_))
                if need == Need::Unclear && self.kept.took_hold.is_none() =>
            {
                Want::Look
            }
            (FailoverState::Maintenance, Some(claim)) if !self.may_maintain(own, seen) => {
                Want::Claim(claim.clone())
            }
            (
                FailoverState::Draining
                | FailoverState::Drained
                | FailoverState::Probation
                | FailoverState::Maintenance,
                Some(claim),
            ) => Want::Drain(claim.clone()),
        };
        if let Want::Drain(_) = want {
            self.kept.asked = Some(true);
        }
        want
    }

    /// Who only observes asks for nothing, but that what was drained before comes back when it is sound.
    fn wanted_back(&mut self, seen: Seen<'_>) -> Want {
        if !self.is_to_come_back() || self.kept.state != FailoverState::InService {
            return Want::Nothing;
        }
        match &seen.ecs.own {
            None => Want::Look,
            Some(own) if own.claim.is_some() => Want::Stay,
            Some(_) => {
                self.kept.asked = Some(false);
                Want::Nothing
            }
        }
    }

    /// Whether ECS was asked to drain the node, and it is not back yet.
    #[must_use]
    pub fn is_to_come_back(&self) -> bool {
        self.kept.asked == Some(true)
    }

    /// Whether it is known that nobody else has drained the node, who would be the one to end it.
    fn may_maintain(&self, own: &Own, seen: Seen<'_>) -> bool {
        let claimed = seen.ecs.claimed.as_ref();
        let ours = claimed.filter(|(claim, _)| Some(claim) == self.kept.claim.as_ref());
        self.kept.asked != Some(false) || ours.is_some_and(|(_, since)| *since <= own.at)
    }

    /// Whether the node is DRAINING though sideline has not asked for it.
    pub(super) fn is_drained_by_others(&self, own: &Own) -> bool {
        let by_us = own.claim.is_some() && self.kept.asked != Some(false);
        own.status == Status::Draining && !by_us
    }

    /// Whether somebody has set the node ACTIVE that sideline has drained. What is seen right after a drain may be older.
    pub(super) fn is_activated_by_others(&self, own: &Own) -> bool {
        let drained = self.kept.took_hold;
        own.status == Status::Active && drained.is_some_and(|since| own.at - since >= SHOWN)
    }

    /// Whether its claim says that an earlier life, whose memory is gone, has drained the node.
    pub(super) fn was_drained_before(&self, own: &Own) -> bool {
        let knows = self.kept.asked.is_some() || self.kept.took_hold.is_some();
        own.is_drained_with_claim() && !knows
    }

    /// Takes in how the node stands in ECS.
    pub(super) fn note(&mut self, own: &Own, now: Now) {
        let drained = own.is_drained_with_claim();
        if matches!(
            self.kept.state,
            FailoverState::InService | FailoverState::Holding
        ) {
            // In service and without a claim there is nothing to come back from. Where nobody knows of an earlier life, its
            // claim beside DRAINING says that it has asked.
            let in_doubt = match self.kept.asked {
                None => drained,
                Some(_) => own.claim.is_some(),
            };
            if !in_doubt {
                self.kept.asked = Some(false);
            }
        } else if self.kept.asked == Some(false) && own.status == Status::Draining {
            // Maintenance was ordered of a node that somebody had drained in ECS: as good as done.
            self.kept.claim = None;
        } else if drained {
            self.kept.took_hold.get_or_insert(now.moment);
        }
    }
}
