//! What CloudWatch has been told, read as an operator's alarm reads it.

use std::collections::BTreeMap;

use crate::aws::{Datum, Log, Request};

/// The metrics of the essential profile with their dimensions.
pub(crate) const ESSENTIAL: [(&str, &[&str]); 12] = [
    ("Capacity", &["Site"]),
    ("Health", &["Node", "Site"]),
    ("GpuUtilization", &["Node", "Site"]),
    ("GpuMemoryUsed", &["Node", "Site"]),
    ("GpuTemperature", &["Node", "Site"]),
    ("GpuFaults", &["Node", "Site"]),
    ("CamerasUp", &["Node", "Site"]),
    ("CameraFpsRatio", &["Node", "Site"]),
    ("CpuUtilization", &["Node", "Site"]),
    ("MemoryUsed", &["Node", "Site"]),
    ("DiskUsed", &["Node", "Site"]),
    ("OutboxAge", &["Node", "Site"]),
];

/// A datum's metric and the names of its dimensions.
pub(crate) fn shape(datum: &Datum) -> (String, Vec<String>) {
    (
        datum.name.clone(),
        datum.dimensions.keys().cloned().collect(),
    )
}

/// The requests that close a period; those that tell of a change are left out.
pub(crate) fn periods(log: &Log) -> Vec<&Request> {
    let closes = |request: &&Request| request.data.iter().any(|datum| datum.name == "Capacity");
    log.requests
        .iter()
        .map(|one| &**one)
        .filter(closes)
        .collect()
}

/// The data of a metric.
pub(crate) fn data<'a>(log: &'a Log, name: &str) -> Vec<&'a Datum> {
    log.data().filter(|datum| datum.name == name).collect()
}

/// `Capacity` by the second that its period ends in.
///
/// # Panics
/// Where a period has two, or a datum that holds more than one sample.
pub(crate) fn capacities(log: &Log) -> BTreeMap<i64, f64> {
    let mut periods = BTreeMap::new();
    for datum in data(log, "Capacity") {
        assert_eq!(datum.counts, [1.0], "one sample a node: {datum:?}");
        assert_eq!(datum.values.len(), 1, "{datum:?}");
        let twice = periods.insert(datum.timestamp.as_second(), datum.values[0]);
        assert_eq!(twice, None, "a second Capacity in one period: {datum:?}");
    }
    periods
}

/// Checks that each period of a second from the first to the last has its `Capacity`, and no period two.
///
/// # Panics
/// Where that is not so.
pub(crate) fn assert_no_gap(log: &Log) {
    let told = capacities(log);
    let ends = told.keys().next().zip(told.keys().next_back());
    let (first, last) = ends.expect("some Capacity was told");
    let missing = (*first..=*last).filter(|second| !told.contains_key(second));
    let missing: Vec<i64> = missing.collect();
    assert!(missing.is_empty(), "no Capacity at {missing:?} of {told:?}");
}
