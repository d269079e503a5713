//! Slots that nobody carried, and why: integrated over time, site by site.

use std::time::Duration;

use serde::Serialize;

/// Why a node does not carry a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The box or its shed has no power, or it starts up again.
    Power,
    /// A card is broken.
    Hardware,
    /// A card does not answer for a moment.
    Hang,
    /// sideline has drained a node whose cards were all broken, and they are mended.
    Drain,
    /// sideline has drained a node of which a card was sound.
    WrongDrain,
    /// An operator has drained the node.
    Operator,
}

/// All of them, with their names.
pub(crate) const CAUSES: [(Cause, &str); 6] = [
    (Cause::Power, "no power"),
    (Cause::Hardware, "broken cards"),
    (Cause::Hang, "cards that hang for a moment"),
    (Cause::Drain, "drained by sideline, rightly"),
    (Cause::WrongDrain, "drained by sideline, wrongly"),
    (Cause::Operator, "drained by an operator"),
];

/// Slots, a number for each cause.
pub(crate) type Slots = [u32; CAUSES.len()];

/// Hours of slots, a number for each cause.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub(crate) struct SlotHours(pub(crate) [f64; CAUSES.len()]);

impl SlotHours {
    /// All of them.
    pub(crate) fn sum(self) -> f64 {
        self.0.iter().sum()
    }

    /// Those of one cause.
    pub(crate) fn of(self, cause: Cause) -> f64 {
        self.0[cause as usize]
    }
}

/// What one site's nodes do not carry, and what the cloud does.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Site {
    missing: Slots,
    cloud: u32,
    since: Duration,
}

/// What is written down of all sites.
#[derive(Debug, Clone)]
pub(crate) struct Losses {
    until: Duration,
    /// Slots that were carried by nobody.
    pub(crate) lost: SlotHours,
    /// Slots that the nodes did not carry.
    pub(crate) missing: SlotHours,
    /// Slots that the cloud carried while the nodes carried them too.
    pub(crate) twice_h: f64,
    /// Slots lost in each hour of the run.
    pub(crate) hourly: Vec<f64>,
}

impl Losses {
    /// Nothing lost yet; what happens after `until` does not count.
    pub(crate) fn new(until: Duration) -> Self {
        Losses {
            until,
            lost: SlotHours::default(),
            missing: SlotHours::default(),
            twice_h: 0.0,
            hourly: vec![0.0; until.as_secs().div_ceil(3_600) as usize],
        }
    }

    /// A node of the site carries less, or more.
    pub(crate) fn node(&mut self, site: &mut Site, was: Slots, is: Slots, at: Duration) {
        self.write(site, at);
        for (sum, (was, is)) in site.missing.iter_mut().zip(was.into_iter().zip(is)) {
            *sum = *sum + is - was;
        }
    }

    /// The cloud carries less, or more, for the site.
    pub(crate) fn cloud(&mut self, site: &mut Site, slots: u32, at: Duration) {
        self.write(site, at);
        site.cloud = slots;
    }

    /// Writes down how it was until `at`.
    pub(crate) fn write(&mut self, site: &mut Site, at: Duration) {
        let (from, to) = (site.since, at.min(self.until));
        site.since = at;
        let missing: u32 = site.missing.iter().sum();
        if to <= from || missing + site.cloud == 0 {
            return;
        }
        let hours = (to - from).as_secs_f64() / 3_600.0;
        self.twice_h += f64::from(site.cloud.saturating_sub(missing)) * hours;
        if missing == 0 {
            return;
        }
        let uncovered = f64::from(missing.saturating_sub(site.cloud));
        for (index, count) in site.missing.into_iter().enumerate() {
            let count = f64::from(count);
            self.missing.0[index] += count * hours;
            self.lost.0[index] += count / f64::from(missing) * uncovered * hours;
        }
        let mut begins = from;
        while begins < to {
            let hour = begins.as_secs() / 3_600;
            let ends = to.min(Duration::from_secs((hour + 1) * 3_600));
            self.hourly[hour as usize] += uncovered * (ends - begins).as_secs_f64() / 3_600.0;
            begins = ends;
        }
    }
}
