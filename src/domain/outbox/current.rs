//! The lane of current state: the last value by subject, sent before any journal.

use std::collections::BTreeMap;

/// Names one value of one subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(u64);

#[derive(Debug, Clone)]
struct Value<T> {
    version: Version,
    value: T,
    flying: bool,
}

/// The values that the destination does not have yet. A newer value takes the place of the older one.
#[derive(Debug, Clone)]
pub struct Current<T> {
    values: BTreeMap<String, Value<T>>,
    versions: u64,
}

impl<T> Default for Current<T> {
    fn default() -> Self {
        Current {
            values: BTreeMap::new(),
            versions: 0,
        }
    }
}

impl<T> Current<T> {
    /// What holds of a subject now.
    pub fn put(&mut self, subject: String, value: T) {
        self.versions += 1;
        let version = Version(self.versions);
        let value = Value {
            version,
            value,
            flying: false,
        };
        self.values.insert(subject, value);
    }

    /// Hands out at most so many values. They are flying until they are acknowledged or handed back.
    pub fn take(&mut self, records: usize) -> Vec<(Version, &str, &T)> {
        let waiting = self.values.iter_mut().filter(|(_, value)| !value.flying);
        waiting
            .take(records)
            .map(|(subject, value)| {
                value.flying = true;
                (value.version, subject.as_str(), &value.value)
            })
            .collect()
    }

    /// The destination has this value; a newer one of the same subject waits on.
    pub fn settle(&mut self, version: Version) {
        self.values.retain(|_, value| value.version != version);
    }

    /// What flies will not arrive: it waits again.
    pub fn hand_back(&mut self) {
        self.values
            .values_mut()
            .for_each(|value| value.flying = false);
    }

    /// Whether something can be taken.
    #[must_use]
    pub fn has_waiting(&self) -> bool {
        self.values.values().any(|value| !value.flying)
    }

    /// Values that the destination does not have.
    #[must_use]
    pub fn pending(&self) -> u64 {
        self.values.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(lane: &mut Current<&'static str>, records: usize) -> Vec<&'static str> {
        let all = lane.take(records).into_iter();
        all.map(|(_, _, value)| *value).collect()
    }

    #[test]
    fn the_last_value_is_sent_once() {
        let mut lane = Current::default();
        lane.put("health".to_owned(), "ill");
        lane.put("health".to_owned(), "well");
        lane.put("camera".to_owned(), "up");
        assert_eq!(taken(&mut lane, 1), ["up"]);
        assert_eq!(taken(&mut lane, 9), ["well"]);
        assert!(!lane.has_waiting());
        lane.hand_back();
        assert_eq!(taken(&mut lane, 9), ["up", "well"]);
        assert_eq!(lane.pending(), 2);
    }

    #[test]
    fn a_newer_value_outlives_the_acknowledgement_of_the_older() {
        let mut lane = Current::default();
        lane.put("health".to_owned(), "ill");
        let old = lane.take(1)[0].0;
        lane.put("health".to_owned(), "well");
        lane.settle(old);
        assert_eq!(taken(&mut lane, 9), ["well"]);
    }
}
