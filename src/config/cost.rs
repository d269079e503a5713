//! What CloudWatch charges a month: which metrics a node sends, and the arithmetic of the price list.
//!
//! A metric is billed by name and set of dimensions, and by the hour in which it is sent; a month has 730 of them.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::{CloudWatch, Profile};

/// Where the prices stand, and how sure they are.
pub const SOURCE: &str = "List prices of us-east-1, as third-party pages agree on them, not checked against a bill:\n\
    $0.30 a metric (the first 10,000), $0.01 per 1,000 PutMetricData requests";

/// A metric's price a month, up to 10,000 of them in an account; later ones cost less.
const METRIC: Dollars = Dollars(300_000);
/// The price of one PutMetricData request.
const REQUEST: Dollars = Dollars(10);
/// Minutes of a month: 730 hours.
const MINUTES: u64 = 43_800;
/// One request carries so many data.
const DATA_A_REQUEST: u64 = 1_000;

/// By site: one metric however many nodes send it, and one datum a node and period.
pub const BY_SITE: [&str; 1] = ["Capacity"];
/// By site and node: the verdict.
pub const HEALTH: [&str; 1] = ["Health"];
/// By site and node: every GPU in one datum. `full` sends them by site, node and GPU as well.
pub const GPU: [&str; 4] = [
    "GpuUtilization",
    "GpuMemoryUsed",
    "GpuTemperature",
    "GpuFaults",
];
/// By site and node: every camera in one datum. `full` sends them by site, node and camera as well.
pub const CAMERA: [&str; 2] = ["CamerasUp", "CameraFpsRatio"];
/// By site and node: the host.
pub const HOST: [&str; 4] = ["CpuUtilization", "MemoryUsed", "DiskUsed", "OutboxAge"];

/// An amount of money, in millionths of a US dollar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Dollars(pub u64);

impl Dollars {
    fn times(self, count: u64) -> Self {
        Dollars(self.0.saturating_mul(count))
    }

    fn plus(self, other: Self) -> Self {
        Dollars(self.0.saturating_add(other.0))
    }
}

/// Two decimals, rounded up: a bill is not smaller than it was told to be.
impl fmt::Display for Dollars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cents = self.0.div_ceil(10_000);
        f.pad(&format!("{}.{:02}", cents / 100, cents % 100))
    }
}

/// As a number of dollars.
impl Serialize for Dollars {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0 as f64 / 1e6)
    }
}

/// What is to be paid for: nodes of one site that are alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Fleet {
    /// Nodes of the site.
    pub nodes: u32,
    /// GPUs of each.
    pub gpus: u32,
    /// Cameras of each.
    pub cameras: u32,
}

/// One kind of metric.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Name of the metric.
    pub metric: &'static str,
    /// Its dimensions.
    pub dimensions: &'static str,
    /// How many metrics it is for the whole fleet.
    pub metrics: u64,
    /// What they cost a month.
    pub monthly: Dollars,
}

/// What a month costs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Bill {
    /// What it is for.
    pub fleet: Fleet,
    /// Every metric.
    pub rows: Vec<Row>,
    /// All metrics.
    pub metrics: u64,
    /// What they cost.
    pub metrics_monthly: Dollars,
    /// PutMetricData requests.
    pub requests: u64,
    /// What they cost.
    pub requests_monthly: Dollars,
    /// Metrics and requests of one node alone, its site's among them.
    pub node_monthly: Dollars,
    /// Metrics and requests of the fleet.
    pub monthly: Dollars,
    /// Metrics that sick GPUs and cameras may add, at most.
    pub detail_metrics: u64,
    /// What these add, if as many are sick all month.
    pub detail_monthly: Dollars,
}

impl Bill {
    /// The bill of a fleet whose nodes all have this configuration.
    #[must_use]
    pub fn of(cloudwatch: &CloudWatch, fleet: Fleet) -> Self {
        let one = Fleet { nodes: 1, ..fleet };
        let node =
            price(&rows(cloudwatch.profile, one)).plus(REQUEST.times(requests(cloudwatch, one)));
        let rows = rows(cloudwatch.profile, fleet);
        let metrics_monthly = price(&rows);
        let requests = requests(cloudwatch, fleet);
        let requests_monthly = REQUEST.times(requests);
        let detail_metrics = u64::from(fleet.nodes).saturating_mul(detail(cloudwatch, fleet));
        Bill {
            fleet,
            metrics: count(&rows),
            rows,
            metrics_monthly,
            requests,
            requests_monthly,
            node_monthly: node,
            monthly: metrics_monthly.plus(requests_monthly),
            detail_metrics,
            detail_monthly: METRIC.times(detail_metrics),
        }
    }
}

/// All metrics. Whatever numbers are asked for, the sums end at the largest and do not begin anew.
fn count(rows: &[Row]) -> u64 {
    rows.iter()
        .fold(0, |sum: u64, row| sum.saturating_add(row.metrics))
}

fn price(rows: &[Row]) -> Dollars {
    rows.iter()
        .fold(Dollars(0), |sum, row| sum.plus(row.monthly))
}

/// Every metric of a fleet. A node without GPUs or cameras sends none of theirs.
fn rows(profile: Profile, fleet: Fleet) -> Vec<Row> {
    let Fleet {
        nodes,
        gpus,
        cameras,
    } = fleet;
    let [nodes, gpus, cameras] = [nodes, gpus, cameras].map(u64::from);
    let mut rows = Vec::new();
    let mut add = |names: &[&'static str], dimensions, metrics: u64| {
        rows.extend(names.iter().filter(|_| metrics > 0).map(|metric| Row {
            metric,
            dimensions,
            metrics,
            monthly: METRIC.times(metrics),
        }));
    };
    add(&BY_SITE, "Site", 1);
    add(&HEALTH, "Site, Node", nodes);
    if profile != Profile::Capacity {
        add(&GPU, "Site, Node", if gpus > 0 { nodes } else { 0 });
        add(&CAMERA, "Site, Node", if cameras > 0 { nodes } else { 0 });
        add(&HOST, "Site, Node", nodes);
    }
    if profile == Profile::Full {
        add(&GPU, "Site, Node, Gpu", nodes * gpus);
        add(&CAMERA, "Site, Node, Camera", nodes * cameras);
    }
    rows
}

/// Requests of a month: one a node and period, or as many as its data fill.
fn requests(cloudwatch: &CloudWatch, fleet: Fleet) -> u64 {
    let data = count(&rows(cloudwatch.profile, Fleet { nodes: 1, ..fleet }));
    let period = cloudwatch.period.max(Duration::from_secs(1)).as_secs();
    let periods = (MINUTES * 60).div_ceil(period);
    u64::from(fleet.nodes)
        .saturating_mul(periods)
        .saturating_mul(data.div_ceil(DATA_A_REQUEST))
}

/// The detail that one node may add. The profile `full` sends it always, `capacity` never.
fn detail(cloudwatch: &CloudWatch, fleet: Fleet) -> u64 {
    let all =
        u64::from(fleet.gpus) * GPU.len() as u64 + u64::from(fleet.cameras) * CAMERA.len() as u64;
    match cloudwatch.profile {
        Profile::Essential => all.min(cloudwatch.detail_budget.into()),
        Profile::Capacity | Profile::Full => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bills_add_up() {
        use Profile::{Capacity, Essential, Full};
        // profile, period, nodes, gpus, cameras → metrics, requests, a node, all, detail
        for (profile, period, nodes, gpus, cameras, wanted) in [
            (Capacity, 60, 1, 2, 18, "2 43800 1.04 1.04 0.00"),
            (Essential, 60, 1, 2, 18, "12 43800 4.04 4.04 3.00"),
            (Essential, 60, 1, 0, 0, "6 43800 2.24 2.24 0.00"),
            (Essential, 60, 1, 1, 0, "10 43800 3.44 3.44 1.20"),
            (Essential, 1, 1, 2, 18, "12 2628000 29.88 29.88 3.00"),
            (Essential, 60, 20, 2, 18, "221 876000 4.04 75.06 60.00"),
            (Full, 60, 1, 2, 18, "56 43800 17.24 17.24 0.00"),
            // 8,212 data of a node go in nine requests.
            (Full, 60, 1, 2, 4096, "8212 394200 2467.55 2467.55 0.00"),
            (Essential, 86_400, 1, 1, 1, "12 31 3.61 3.61 1.80"),
        ] {
            let cloudwatch = CloudWatch {
                profile,
                period: Duration::from_secs(period),
                ..CloudWatch::default()
            };
            let fleet = Fleet {
                nodes,
                gpus,
                cameras,
            };
            let bill = Bill::of(&cloudwatch, fleet);
            let seen = format!(
                "{} {} {} {} {}",
                bill.metrics, bill.requests, bill.node_monthly, bill.monthly, bill.detail_monthly
            );
            assert_eq!(seen, wanted, "{profile:?} {period} {fleet:?}");
        }
    }

    #[test]
    fn a_fleet_beyond_all_numbers_costs_the_largest() {
        let cloudwatch = CloudWatch {
            profile: Profile::Full,
            period: Duration::from_secs(1),
            ..CloudWatch::default()
        };
        let most = u32::MAX;
        let fleet = Fleet {
            nodes: most,
            gpus: most,
            cameras: most,
        };
        let bill = Bill::of(&cloudwatch, fleet);
        assert_eq!((bill.metrics, bill.requests), (u64::MAX, u64::MAX));
        assert_eq!(bill.monthly, Dollars(u64::MAX));
    }

    #[test]
    fn dollars_are_rounded_up() {
        for (millionths, wanted) in [
            (0, "0.00"),
            (1, "0.01"),
            (10_000, "0.01"),
            (438_000, "0.44"),
            (1_000_000, "1.00"),
            (12_345_678, "12.35"),
        ] {
            assert_eq!(Dollars(millionths).to_string(), wanted);
        }
    }
}
