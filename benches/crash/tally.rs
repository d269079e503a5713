//! What happened how often, by section.

use std::collections::BTreeMap;
use std::fmt;

/// The sections of the table, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Section {
    Rounds,
    Kills,
    Faults,
    Journal,
    CloudWatch,
}

impl Section {
    fn title(self) -> &'static str {
        match self {
            Section::Rounds => "rounds",
            Section::Kills => "killed",
            Section::Faults => "faults",
            Section::Journal => "relay's journal",
            Section::CloudWatch => "CloudWatch",
        }
    }
}

/// Counts by section and name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally(BTreeMap<(Section, String), u64>);

impl Tally {
    pub(crate) fn add(&mut self, section: Section, what: impl Into<String>, times: u64) {
        *self.0.entry((section, what.into())).or_default() += times;
    }

    pub(crate) fn add_all(&mut self, other: Tally) {
        for ((section, what), times) in other.0 {
            self.add(section, what, times);
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut title = "";
        for ((section, what), times) in &self.0 {
            if title != section.title() {
                title = section.title();
                writeln!(f, "{title}")?;
            }
            writeln!(f, "  {what:<52} {times:>8}")?;
        }
        Ok(())
    }
}
