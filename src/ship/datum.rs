//! One metric over one period: its form in the outbox, and what CloudWatch takes.
//!
//! Limits by AWS's PutMetricData reference: at most 150 different values a datum, at most 1,000 data and 1 MB a
//! request, dimensions of 1 to 255 printable ASCII characters, no time over two weeks ago or two hours ahead.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// Different values that one datum may hold.
pub const MAX_VALUES: usize = 150;

/// Data that one request may hold.
pub const MAX_DATA: usize = 1000;

/// The oldest time that is taken.
const OLDEST: Duration = Duration::from_secs(14 * 24 * 3600);

/// How far ahead a time may be.
const FARTHEST: SignedDuration = SignedDuration::from_hours(2);

/// Version of the form in the outbox.
const FORM: u8 = 1;

/// The metric that counts a node once a period.
pub const CAPACITY: &str = "Capacity";

/// The metric that is sent at once when it changes.
pub const HEALTH: &str = "Health";

/// Unit of a metric, as CloudWatch names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// A number without a unit.
    None,
    /// How many.
    Count,
    /// 0 to 100.
    Percent,
    /// Seconds.
    Seconds,
}

/// What a datum is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Scope {
    /// Dimension Site.
    Site,
    /// Dimensions Site and Node.
    Node,
    /// Dimensions Site, Node and Gpu.
    Gpu(String),
    /// Dimensions Site, Node and Camera.
    Camera(String),
}

impl Scope {
    /// Whether CloudWatch takes it: a dimension is 1 to 255 printable ASCII characters. A card may be lost before
    /// it has told its name, and cameras have names in every script; they count in the node's metrics all the same.
    #[must_use]
    pub fn can_be_named(&self) -> bool {
        match self {
            Scope::Site | Scope::Node => true,
            Scope::Gpu(id) | Scope::Camera(id) => {
                let printable = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
                (1..=255).contains(&id.len())
                    && id.bytes().all(printable)
                    && id.trim() != ""
                    && !id.starts_with(':')
            }
        }
    }
}

/// One metric over one period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datum {
    /// The metric.
    pub name: &'static str,
    /// What it is about.
    pub scope: Scope,
    /// Different values, in hundredths of the unit, and how often each was seen.
    pub values: Vec<(i64, u32)>,
}

impl Datum {
    /// A datum that holds a single value.
    #[must_use]
    pub fn single(name: &'static str, scope: Scope, value: f64) -> Self {
        Datum {
            name,
            scope,
            values: vec![(hundredths(value), 1)],
        }
    }

    /// The metric's unit.
    #[must_use]
    pub fn unit(&self) -> Unit {
        METRICS
            .iter()
            .find(|(name, _)| *name == self.name)
            .map_or(Unit::None, |(_, unit)| *unit)
    }
}

/// Every metric and its unit.
pub const METRICS: [(&str, Unit); 12] = [
    ("Capacity", Unit::Count),
    ("Health", Unit::None),
    ("GpuUtilization", Unit::Percent),
    ("GpuMemoryUsed", Unit::Percent),
    ("GpuTemperature", Unit::None),
    ("GpuFaults", Unit::Count),
    ("CamerasUp", Unit::Count),
    ("CameraFpsRatio", Unit::None),
    ("CpuUtilization", Unit::Percent),
    ("MemoryUsed", Unit::Percent),
    ("DiskUsed", Unit::Percent),
    ("OutboxAge", Unit::Seconds),
];

/// A value as it is kept: finer than this nobody reads a graph. What is no number becomes 0, so callers leave it out.
#[must_use]
pub fn hundredths(value: f64) -> i64 {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "`as` saturates, and values are small"
    )]
    let hundredths = (value * 100.0).round() as i64;
    hundredths
}

/// The data of one record as bytes for the outbox.
#[must_use]
pub fn encode(data: &[Datum]) -> Vec<u8> {
    let kept: Vec<_> = data
        .iter()
        .map(|datum| (datum.name, &datum.scope, &datum.values))
        .collect();
    postcard::to_allocvec(&(FORM, kept)).expect("memory is the only thing it could lack")
}

/// The data of one record from the outbox; `None` where these are no such bytes. A metric that this version does not
/// know is left out.
#[must_use]
pub fn decode(bytes: &[u8]) -> Option<Vec<Datum>> {
    type Kept<'a> = (&'a str, Scope, Vec<(i64, u32)>);
    let (form, kept): (u8, Vec<Kept<'_>>) = postcard::from_bytes(bytes).ok()?;
    let known = |(name, scope, values): Kept<'_>| {
        let (name, _) = METRICS.iter().find(|(known, _)| *known == name)?;
        Some(Datum {
            name,
            scope,
            values,
        })
    };
    (form == FORM).then(|| kept.into_iter().filter_map(known).collect())
}

/// Why CloudWatch would not take a datum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The datum itself is wrong: it holds no value or too many, or its dimension has no name.
    Malformed,
    /// Its time is too old.
    TooOld,
    /// Its time lies too far ahead.
    TooNew,
}

/// Finds what CloudWatch would refuse, so that one datum does not cost the whole request.
#[must_use]
pub fn fault(datum: &Datum, at: Timestamp, now: Timestamp) -> Option<Fault> {
    let values = datum.values.len();
    let seen = datum.values.iter().all(|(_, count)| *count > 0);
    let ahead = at.duration_since(now);
    if !(1..=MAX_VALUES).contains(&values) || !seen || !datum.scope.can_be_named() {
        Some(Fault::Malformed)
    } else if ahead > FARTHEST {
        Some(Fault::TooNew)
    } else if ahead.is_negative() && ahead.unsigned_abs() > OLDEST {
        Some(Fault::TooOld)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn datum(scope: Scope, values: usize) -> Datum {
        Datum {
            name: "GpuTemperature",
            scope,
            values: (0..i64::try_from(values).unwrap())
                .map(|value| (value, 1))
                .collect(),
        }
    }

    #[test]
    fn what_cloudwatch_would_refuse() {
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let at = |text: &str| text.parse().unwrap();
        let gpu = |id: &str| Scope::Gpu(id.to_owned());
        for (datum, at, fault_found) in [
            (datum(Scope::Node, 1), now, None),
            (datum(Scope::Node, 150), now, None),
            (datum(Scope::Node, 0), now, Some(Fault::Malformed)),
            (datum(Scope::Node, 151), now, Some(Fault::Malformed)),
            (datum(gpu("GPU-1"), 1), now, None),
            (datum(gpu(""), 1), now, Some(Fault::Malformed)),
            (datum(gpu(&"x".repeat(256)), 1), now, Some(Fault::Malformed)),
            (datum(gpu("Grün"), 1), now, Some(Fault::Malformed)),
            (datum(Scope::Node, 1), at("2026-11-08T12:00:00Z"), None),
            (
                datum(Scope::Node, 1),
                at("2026-11-08T11:59:59Z"),
                Some(Fault::TooOld),
            ),
            (datum(Scope::Node, 1), at("2026-11-22T14:00:00Z"), None),
            (
                datum(Scope::Node, 1),
                at("2026-11-22T14:00:01Z"),
                Some(Fault::TooNew),
            ),
        ] {
            assert_eq!(fault(&datum, at, now), fault_found, "{datum:?} {at}");
        }
        let unseen = Datum {
            values: vec![(1, 0)],
            ..datum(Scope::Node, 1)
        };
        assert_eq!(fault(&unseen, now, now), Some(Fault::Malformed));
    }

    #[test]
    fn values_keep_two_places_and_no_value_is_no_number() {
        for (value, kept) in [
            (18.0, 1800),
            (0.125, 13),
            (-0.5, -50),
            (f64::NAN, 0),
            (f64::INFINITY, i64::MAX),
        ] {
            assert_eq!(hundredths(value), kept, "{value}");
        }
    }

    #[test]
    fn a_metric_of_another_version_is_left_out() {
        let bytes = |form: u8, name: &str| {
            postcard::to_allocvec(&(form, vec![(name, Scope::Node, vec![(1_i64, 1_u32)])])).unwrap()
        };
        assert_eq!(
            decode(&bytes(FORM, "Capacity")).map(|data| data.len()),
            Some(1)
        );
        assert_eq!(
            decode(&bytes(FORM, "Tomorrow")).map(|data| data.len()),
            Some(0)
        );
        assert_eq!(decode(&bytes(9, "Capacity")), None);
        assert_eq!(decode(b""), None);
    }

    proptest! {
        #[test]
        fn what_is_kept_comes_back(
            values in prop::collection::vec((any::<i64>(), any::<u32>()), 0..200),
            camera in ".*",
            metric in 0..METRICS.len(),
        ) {
            let datum = Datum { name: METRICS[metric].0, scope: Scope::Camera(camera), values };
            prop_assert_eq!(decode(&encode(std::slice::from_ref(&datum))), Some(vec![datum]));
        }
    }
}
