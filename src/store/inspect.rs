//! Looks into the store from outside, also while the agent runs; changes nothing.

use std::path::Path;

use super::database::{Answer, Database, FILE};
use crate::domain::memory::Memory;

/// What an agent remembered in `folder`; nothing where there is no store, or none that can be read.
#[must_use]
pub fn memory(folder: &Path) -> Memory {
    let fields: Answer<_> = Database::look(&folder.join(FILE)).and_then(|it| it.remembered());
    let fields = serde_json::Value::Object(fields.unwrap_or_default());
    serde_json::from_value(fields).unwrap_or_default()
}
