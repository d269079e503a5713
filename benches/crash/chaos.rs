//! What happens to a node by chance: Xids, cameras, cards, and faults on both ways to the cloud.

use std::ops::Range;
use std::time::Duration;

use fastrand::Rng;
use serde_json::json;

use crate::aws::{self, Times};
use crate::field::Field;
use crate::plan::{all_is_well, cards, holes, stats};
use crate::proxy::{self, Proxy};
use crate::tally::{Section, Tally};

/// Some that condemn a card, some that a program causes, one that is a repair.
const XIDS: [u32; 10] = [13, 31, 43, 48, 63, 64, 74, 79, 95, 119];

/// Forgets what was said of the GPUs.
const FRESH_DRIVER: &str = "NVRM: loading NVIDIA UNIX x86_64 Kernel Module  535.161.07";

const CLOUDWATCH_FAULTS: [aws::Fault; 7] = [
    aws::Fault::Throttle,
    aws::Fault::InternalError,
    aws::Fault::Unavailable,
    aws::Fault::ExpiredToken,
    aws::Fault::Hang,
    aws::Fault::ResetBeforeReading,
    aws::Fault::ResetAfterStoring,
];

/// A connection's birth and its retained state are longer than that.
const MID_STREAM: Range<usize> = 0..6_000;

/// Chance, and what it has done.
pub(crate) struct Chaos {
    rng: Rng,
    /// A fault lies on the way to CloudWatch, or did until it was used up.
    pub(crate) cloudwatch: bool,
    /// A fault lies on the way to the broker.
    pub(crate) relay: bool,
    pub(crate) tally: Tally,
}

impl Chaos {
    pub(crate) fn new(seed: u64) -> Self {
        Chaos {
            rng: Rng::with_seed(seed),
            cloudwatch: false,
            relay: false,
            tally: Tally::default(),
        }
    }

    /// True so many times in a hundred.
    pub(crate) fn percent(&mut self, chance: u32) -> bool {
        self.rng.u32(0..100) < chance
    }

    /// Any time in this range of milliseconds.
    pub(crate) fn millis(&mut self, range: Range<u64>) -> Duration {
        Duration::from_micros(self.rng.u64(range.start * 1_000..range.end * 1_000))
    }

    /// One thing happens.
    pub(crate) async fn strike(&mut self, field: &mut Field, way: &Proxy) {
        match self.rng.u32(0..100) {
            0..30 => field.kernel_says(&self.xid()),
            30..35 => field.kernel_says(FRESH_DRIVER),
            35..60 => field.stats(self.cameras()),
            60..70 => self.card(field),
            70..85 if self.cloudwatch && self.rng.bool() => self.heal_cloudwatch(field).await,
            70..85 => self.strike_cloudwatch(field).await,
            _ if self.relay && self.rng.bool() => self.heal_relay(way),
            _ => self.strike_relay(way),
        }
    }

    /// Takes away every fault on the ways to the cloud.
    pub(crate) async fn heal(&mut self, field: &mut Field, way: &Proxy) {
        self.heal_cloudwatch(field).await;
        self.heal_relay(way);
    }

    fn xid(&mut self) -> String {
        let card = self.rng.u32(1..=2);
        let number = XIDS[self.rng.usize(..XIDS.len())];
        let process = self.rng.u32(1_000..1_010);
        format!(
            "NVRM: Xid (PCI:0000:0{card}:00): {number}, pid={process}, name=decoder, Ch 0000000a"
        )
    }

    fn cameras(&mut self) -> String {
        if self.rng.bool() {
            return all_is_well();
        }
        let hole = self.rng.usize(..holes().count());
        let hole = holes().nth(hole).unwrap_or_default();
        stats(5.0, (&hole, 0.0))
    }

    fn card(&mut self, field: &Field) {
        let change = match self.rng.u32(..4) {
            0 => json!({"lost": true}),
            1 => json!({"missing": true}),
            _ => json!({}),
        };
        field.gpus(&cards(&change));
    }

    async fn strike_cloudwatch(&mut self, field: &mut Field) {
        self.heal_cloudwatch(field).await;
        self.cloudwatch = true;
        let name = match CLOUDWATCH_FAULTS.get(self.rng.usize(..=CLOUDWATCH_FAULTS.len())) {
            Some(fault) => {
                let lasts = match self.rng.u32(..3) {
                    0 => Times::UntilCleared,
                    _ => Times::Next(self.rng.u32(1..=3)),
                };
                field.aws.fault(*fault, lasts);
                format!("{fault:?}")
            }
            None => {
                field.aws.go_offline().await;
                "Offline".to_owned()
            }
        };
        self.tally
            .add(Section::Faults, format!("CloudWatch {name}"), 1);
    }

    async fn heal_cloudwatch(&mut self, field: &mut Field) {
        self.cloudwatch = false;
        field.aws.clear_faults();
        field.aws.go_online().await;
    }

    fn strike_relay(&mut self, way: &Proxy) {
        self.relay = true;
        let (fault, name) = match self.rng.u32(..5) {
            0 => (proxy::Fault::Refuse, "Refuse"),
            1 => (proxy::Fault::AcceptThenReset, "AcceptThenReset"),
            2 => (proxy::Fault::Hang, "Hang"),
            3 => {
                let bytes = self.rng.usize(MID_STREAM);
                (proxy::Fault::ResetMidStream(bytes), "ResetMidStream")
            }
            _ => (proxy::Fault::SlowDrip, "SlowDrip"),
        };
        way.fault(fault);
        self.tally.add(Section::Faults, format!("broker {name}"), 1);
    }

    fn heal_relay(&mut self, way: &Proxy) {
        self.relay = false;
        way.clear();
    }
}
