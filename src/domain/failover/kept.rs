//! What a node remembers of where it stands, so that a restart goes on there.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::span::Span;
use crate::domain::ecs::Claim;
use crate::domain::moment::{Moment, Now};
use crate::domain::report::{DrillReport, FailoverState};

/// What outlives the agent. Moments are of the boot that it was kept in.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Kept {
    pub(super) state: FailoverState,
    /// Since when; `None` until the first look of this boot.
    pub(super) entered: Option<Moment>,
    /// The same, for people.
    pub(super) since: Option<Timestamp>,
    /// Why, for people.
    pub(super) why: Option<String>,
    /// The claim that goes with the state.
    pub(super) claim: Option<Claim>,
    /// When it was stamped.
    pub(super) stamped: Option<Moment>,
    /// ECS was asked to drain this node, and it is not back yet; `None` where an earlier life may have asked, whose
    /// memory is gone. Else a claim is but a hold's, and who is DRAINING beside it was drained by somebody else.
    pub(super) asked: Option<bool>,
    /// The change that the trouble of now began right after. Decided once: neither time nor a roll-back alters it.
    pub(super) follows: Option<Change>,
    /// Since when ECS has been seen to be where this node wanted it: DRAINING, with a claim.
    pub(super) took_hold: Option<Moment>,
    /// Somebody has set the node ACTIVE again that was drained: not once more for the same trouble.
    pub(super) overruled: bool,
    /// Taken out of service by hand.
    pub(super) maintenance: Option<Maintenance>,
    pub(super) drill: Option<Drill>,
    /// A rehearsal was ended by hand, and nobody has been told yet.
    pub(super) drill_ended: bool,
    /// When the machine drained the node by itself, for a day.
    pub(super) drains: Vec<Timestamp>,
}

impl Kept {
    /// Another boot begins: its moments are others.
    pub fn begin_boot(&mut self) {
        self.entered = None;
        self.stamped = None;
        self.took_hold = self.took_hold.map(|_| Moment::BOOT);
        let order = self.maintenance.as_mut();
        let spans = [
            order.and_then(|order| order.span.as_mut()),
            self.drill.as_mut().map(|drill| &mut drill.span),
        ];
        for span in spans.into_iter().flatten() {
            span.begin_boot();
        }
    }

    /// Where the node stands.
    #[must_use]
    pub fn state(&self) -> FailoverState {
        self.state
    }

    /// When maintenance ends by itself.
    pub(super) fn until(&self) -> Option<Timestamp> {
        let span = self.maintenance.as_ref()?.span.as_ref();
        span.map(Span::until)
    }

    pub(super) fn drilling(&self) -> Option<DrillReport> {
        self.drill.as_ref().map(|drill| DrillReport {
            until: drill.span.until(),
            slots: drill.slots,
        })
    }

    pub(super) fn stamp(&mut self, cause: String, now: Now) {
        self.claim = Some(Claim::new(cause, now.wall));
        self.stamped = Some(now.moment);
    }
}

/// A change that trouble may come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Change {
    /// It breaks no hardware, and what is wrong here may be wrong on every node.
    Configuration,
    /// Another driver was loaded.
    Driver,
}

/// Out of service by hand.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Maintenance {
    pub(super) reason: String,
    /// `None`: somebody drained the node in ECS, and only they end it.
    pub(super) span: Option<Span>,
}

/// A rehearsal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Drill {
    pub(super) slots: u32,
    pub(super) span: Span,
    /// Who listens has been told that it goes on.
    pub(super) told: bool,
}
