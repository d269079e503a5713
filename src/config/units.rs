//! Durations (`10s`, `2m`, `1h30m`) and sizes (`256MiB`) as the configuration and the arguments write them.

use std::time::Duration;

/// Reads `10s`, `2m`, `1h30m`, `14d`.
///
/// # Errors
/// Says what would be right.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|_| format!("\"{text}\" is no duration; write 10s, 2m or 1h30m"))
}

/// Writes `1h30m`.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    humantime::format_duration(duration)
        .to_string()
        .replace(' ', "")
        .replace("days", "d")
        .replace("day", "d")
}

/// Durations in serde.
pub mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// Writes `1h30m`.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::format_duration(*duration))
    }

    /// Reads `1h30m`.
    ///
    /// # Errors
    /// What is no duration.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        super::parse_duration(&text).map_err(D::Error::custom)
    }
}

/// Sizes in serde.
pub mod size {
    use bytesize::ByteSize;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// The largest first.
    const UNITS: [(&str, u64); 4] = [
        ("TiB", 1 << 40),
        ("GiB", 1 << 30),
        ("MiB", 1 << 20),
        ("KiB", 1 << 10),
    ];

    /// Writes `256MiB`: the number of the largest unit that leaves nothing over, so that it is read as the same size.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(size: &ByteSize, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes = size.as_u64();
        let fits = |(_, of): &&(&str, u64)| bytes.is_multiple_of(*of);
        let (unit, of) = UNITS.iter().find(fits).unwrap_or(&("B", 1));
        serializer.collect_str(&format_args!("{}{unit}", bytes / of))
    }

    /// Reads `256MiB`.
    ///
    /// # Errors
    /// What is no size.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ByteSize, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse()
            .map_err(|_| D::Error::custom(format!("\"{text}\" is no size; write 64MiB or 1GiB")))
    }
}
