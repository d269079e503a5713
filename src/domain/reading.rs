//! What a source last said: nothing yet, a value, or why it failed. Trouble in the world is data.

use super::moment::Moment;

/// The latest word of one source. A level, never an edge: a late reader must not miss anything.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Reading<T> {
    /// The source is enabled and has not answered yet.
    #[default]
    Pending,
    /// The source is switched off, or there is nothing here to read.
    Off,
    /// The source answered.
    Ok {
        /// What it said.
        value: T,
        /// When it said so.
        at: Moment,
    },
    /// The source could not be read.
    Failed {
        /// Why, for a person.
        why: String,
        /// Since when it has been failing.
        at: Moment,
    },
}

impl<T> Reading<T> {
    /// A value read at `at`.
    pub fn ok(value: T, at: Moment) -> Self {
        Reading::Ok { value, at }
    }

    /// The value, however old.
    pub fn value(&self) -> Option<&T> {
        match self {
            Reading::Ok { value, .. } => Some(value),
            Reading::Pending | Reading::Off | Reading::Failed { .. } => None,
        }
    }

    /// Whether the source has answered or failed, or will never be asked.
    pub fn is_settled(&self) -> bool {
        !matches!(self, Reading::Pending)
    }
}
