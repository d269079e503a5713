//! What CloudWatch's PutMetricData takes and what it refuses, in its own words.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use super::wire::Refusal;
use super::{Datum, Statistics};

/// The most bytes a request may have once it is unzipped.
pub const BODY_BYTES: usize = 1_048_576;
/// The most data a request may carry.
pub const DATA: usize = 1_000;
/// The most entries `Values` may have in one datum.
pub const VALUES: usize = 150;
/// The most dimensions one datum may have.
pub const DIMENSIONS: usize = 30;
/// How far back a timestamp may lie.
pub const OLDEST: SignedDuration = SignedDuration::from_hours(14 * 24);
/// How far ahead a timestamp may lie.
pub const NEWEST: SignedDuration = SignedDuration::from_hours(2);

const NAME_CHARS: usize = 255;
const DIMENSION_VALUE_CHARS: usize = 1_024;

const UNITS: &[&str] = &[
    "Bits",
    "Bits/Second",
    "Bytes",
    "Bytes/Second",
    "Count",
    "Count/Second",
    "Gigabits",
    "Gigabits/Second",
    "Gigabytes",
    "Gigabytes/Second",
    "Kilobits",
    "Kilobits/Second",
    "Kilobytes",
    "Kilobytes/Second",
    "Megabits",
    "Megabits/Second",
    "Megabytes",
    "Megabytes/Second",
    "Microseconds",
    "Milliseconds",
    "None",
    "Percent",
    "Seconds",
    "Terabits",
    "Terabits/Second",
    "Terabytes",
    "Terabytes/Second",
];

/// A request that CloudWatch would take.
pub(super) struct Accepted {
    pub(super) namespace: String,
    pub(super) data: Vec<Datum>,
    pub(super) strict: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Input {
    namespace: Option<String>,
    metric_data: Option<Vec<RawDatum>>,
    entity_metric_data: Option<Vec<ciborium::Value>>,
    strict_entity_validation: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawDatum {
    metric_name: Option<String>,
    dimensions: Option<Vec<RawDimension>>,
    timestamp: Option<f64>,
    value: Option<f64>,
    statistic_values: Option<RawStatistics>,
    values: Option<Vec<f64>>,
    counts: Option<Vec<f64>>,
    unit: Option<String>,
    storage_resolution: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawDimension {
    name: Option<String>,
    value: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawStatistics {
    sample_count: Option<f64>,
    sum: Option<f64>,
    minimum: Option<f64>,
    maximum: Option<f64>,
}

/// Reads an unzipped CBOR body and holds it against the limits as of `now`, the server's clock.
pub(super) fn check(body: &[u8], now: Timestamp) -> Result<Accepted, Refusal> {
    let input: Input =
        ciborium::from_reader(body).map_err(|e| Refusal::malformed(&format!("body: {e}")))?;
    if input.entity_metric_data.is_some() {
        return Err(Refusal::malformed("EntityMetricData is beyond this double"));
    }
    let Some(namespace) = input.namespace else {
        return Err(Refusal::missing("The parameter Namespace is required."));
    };
    let raw = input.metric_data.unwrap_or_default();
    if raw.is_empty() {
        return Err(Refusal::missing("The parameter MetricData is required."));
    }
    let mut found = Complaints::default();
    if !good_namespace(&namespace) {
        found.value(&namespace, "Namespace");
    }
    if DATA < raw.len() {
        found.size("MetricData", DATA);
        return Err(found.first_kind().unwrap_or_else(Refusal::internal));
    }
    let data = raw
        .into_iter()
        .enumerate()
        .map(|(index, raw)| {
            datum(
                raw,
                &format!("MetricData.member.{}", index + 1),
                now,
                &mut found,
            )
        })
        .collect();
    match found.first_kind() {
        Some(refusal) => Err(refusal),
        None => Ok(Accepted {
            namespace,
            data,
            strict: input.strict_entity_validation.unwrap_or(false),
        }),
    }
}

fn datum(raw: RawDatum, at: &str, now: Timestamp, found: &mut Complaints) -> Datum {
    let name = raw.metric_name.unwrap_or_default();
    if name.is_empty() {
        found.missing(&format!("{at}.MetricName"));
    } else if !good_text(&name, NAME_CHARS) {
        found.value(&name, &format!("{at}.MetricName"));
    }
    if let Some(unit) = raw.unit.as_deref()
        && !UNITS.contains(&unit)
    {
        found.value(unit, &format!("{at}.Unit"));
    }
    if let Some(seconds) = raw.storage_resolution
        && seconds != 1
        && seconds != 60
    {
        found.value(seconds, &format!("{at}.StorageResolution"));
    }
    let timestamp = timestamp(raw.timestamp, at, now, found);
    let dimensions = dimensions(raw.dimensions.unwrap_or_default(), at, found);
    let values = raw.values.unwrap_or_default();
    let counts = raw.counts.unwrap_or_default();
    one_kind_of_value(
        [
            ("Value", raw.value.is_some()),
            ("Values", !values.is_empty()),
            ("StatisticValues", raw.statistic_values.is_some()),
        ],
        at,
        found,
    );
    if let Some(value) = raw.value
        && !good_value(value)
    {
        found.value(value, &format!("{at}.Value"));
    }
    several_values(&values, &counts, at, found);
    Datum {
        name,
        dimensions,
        stamped: raw.timestamp.is_some(),
        timestamp,
        value: raw.value,
        values,
        counts,
        statistic_values: raw
            .statistic_values
            .map(|raw| statistics(&raw, &format!("{at}.StatisticValues"), found)),
        unit: raw.unit,
        storage_resolution: raw.storage_resolution,
    }
}

fn timestamp(seconds: Option<f64>, at: &str, now: Timestamp, found: &mut Complaints) -> Timestamp {
    let Some(seconds) = seconds else {
        return now;
    };
    // The wire has seconds as a double, which is a hair off for most milliseconds.
    let milliseconds = (seconds * 1_000.0).round();
    let stamped = milliseconds
        .is_finite()
        .then(|| Timestamp::from_millisecond(milliseconds as i64))
        .and_then(Result::ok);
    let Some(stamped) = stamped else {
        found.value(seconds, &format!("{at}.Timestamp"));
        return now;
    };
    let age = now.duration_since(stamped);
    if OLDEST < age {
        found.invalid(format!(
            "The parameter {at}.Timestamp must specify a time within the past two weeks."
        ));
    } else if age < -NEWEST {
        found.invalid(format!(
            "The parameter {at}.Timestamp must specify a time no more than two hours in the future."
        ));
    }
    stamped
}

fn dimensions(
    raw: Vec<RawDimension>,
    at: &str,
    found: &mut Complaints,
) -> BTreeMap<String, String> {
    if DIMENSIONS < raw.len() {
        found.size(&format!("{at}.Dimensions"), DIMENSIONS);
    }
    let mut seen = BTreeMap::new();
    for (index, dimension) in raw.into_iter().enumerate() {
        let at = format!("{at}.Dimensions.member.{}", index + 1);
        let (Some(name), Some(value)) = (dimension.name, dimension.value) else {
            found.missing(&format!("{at}.Name and {at}.Value"));
            continue;
        };
        if !good_text(&name, NAME_CHARS) || name.starts_with(':') {
            found.value(&name, &format!("{at}.Name"));
        }
        if !good_text(&value, DIMENSION_VALUE_CHARS) {
            found.value(&value, &format!("{at}.Value"));
        }
        if seen.contains_key(&name) {
            found.value(&name, &format!("{at}.Name"));
        }
        seen.insert(name, value);
    }
    seen
}

fn one_kind_of_value(kinds: [(&str, bool); 3], at: &str, found: &mut Complaints) {
    let given: Vec<&str> = kinds
        .iter()
        .filter(|(_, given)| *given)
        .map(|(kind, _)| *kind)
        .collect();
    match given.as_slice() {
        [_] => {}
        [first, second, ..] => found.combination(format!(
            "The parameters {at}.{first} and {at}.{second} are mutually exclusive \
             and you have specified both."
        )),
        [] => found.combination(format!(
            "At least one of the parameters {at}.Value, {at}.Values and {at}.StatisticValues \
             must be specified."
        )),
    }
}

fn several_values(values: &[f64], counts: &[f64], at: &str, found: &mut Complaints) {
    if VALUES < values.len() {
        found.size(&format!("{at}.Values"), VALUES);
    }
    if !counts.is_empty() && counts.len() != values.len() {
        found.invalid(format!(
            "The parameters {at}.Values and {at}.Counts must be of the same size."
        ));
    }
    let mut seen = BTreeSet::new();
    for (index, value) in values.iter().enumerate() {
        // CloudWatch's guide wants each value once; a repeat means that the sender did not count.
        if !good_value(*value) || !seen.insert(value.to_bits()) {
            found.value(value, &format!("{at}.Values.member.{}", index + 1));
        }
    }
    for (index, count) in counts.iter().enumerate() {
        if !good_value(*count) || *count <= 0.0 {
            found.value(count, &format!("{at}.Counts.member.{}", index + 1));
        }
    }
}

fn statistics(raw: &RawStatistics, at: &str, found: &mut Complaints) -> Statistics {
    let mut take = |given: Option<f64>, name: &str| match given {
        Some(value) if good_value(value) => value,
        Some(value) => {
            found.value(value, &format!("{at}.{name}"));
            value
        }
        None => {
            found.missing(&format!("{at}.{name}"));
            0.0
        }
    };
    let taken = Statistics {
        sample_count: take(raw.sample_count, "SampleCount"),
        sum: take(raw.sum, "Sum"),
        minimum: take(raw.minimum, "Minimum"),
        maximum: take(raw.maximum, "Maximum"),
    };
    if taken.maximum < taken.minimum {
        found.value(taken.maximum, &format!("{at}.Maximum"));
    }
    if raw.sample_count.is_some_and(|count| count <= 0.0) {
        found.value(taken.sample_count, &format!("{at}.SampleCount"));
    }
    taken
}

/// The service refuses magnitudes beyond 2^360 and also those, other than zero, under 2^-360.
fn good_value(value: f64) -> bool {
    let magnitude = value.abs();
    value == 0.0 || (2f64.powi(-360)..=2f64.powi(360)).contains(&magnitude)
}

fn good_text(text: &str, most: usize) -> bool {
    text.len() <= most
        && text.bytes().all(|b| (b' '..=b'~').contains(&b))
        && text.bytes().any(|b| b != b' ')
}

fn good_namespace(text: &str) -> bool {
    (1..=NAME_CHARS).contains(&text.len())
        && !text.starts_with(':')
        && !text.starts_with("AWS/")
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b".-_/#: ".contains(&b))
        && text.bytes().any(|b| b != b' ')
}

/// All that is wrong with one request; the answer names one kind of error, a line for each place.
#[derive(Default)]
struct Complaints(Vec<Complaint>);

enum Complaint {
    Value(String),
    Combination(String),
    Missing(String),
}

impl Complaints {
    fn value(&mut self, value: impl std::fmt::Display, parameter: &str) {
        self.invalid(format!(
            "The value {value} for parameter {parameter} is invalid."
        ));
    }

    fn size(&mut self, collection: &str, most: usize) {
        self.invalid(format!(
            "The collection {collection} must not have a size greater than {most}."
        ));
    }

    fn invalid(&mut self, message: String) {
        self.0.push(Complaint::Value(message));
    }

    fn combination(&mut self, message: String) {
        self.0.push(Complaint::Combination(message));
    }

    fn missing(&mut self, parameter: &str) {
        self.0.push(Complaint::Missing(format!(
            "The parameter {parameter} is required."
        )));
    }

    fn first_kind(self) -> Option<Refusal> {
        let kind = std::mem::discriminant(self.0.first()?);
        let lines: Vec<&str> = self
            .0
            .iter()
            .filter(|one| std::mem::discriminant(*one) == kind)
            .map(Complaint::message)
            .collect();
        let message = lines.join("\n");
        self.0.first().map(|first| match first {
            Complaint::Value(_) => Refusal::value(&message),
            Complaint::Combination(_) => Refusal::combination(&message),
            Complaint::Missing(_) => Refusal::missing(&message),
        })
    }
}

impl Complaint {
    fn message(&self) -> &str {
        match self {
            Self::Value(message) | Self::Combination(message) | Self::Missing(message) => message,
        }
    }
}
