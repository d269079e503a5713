//! What systemd says of a unit.

use std::collections::BTreeMap;

use super::scene::Scene;

/// What `systemctl show` prints of a unit is some 100 bytes a property.
const LONGEST: usize = 64 << 10;

/// Some properties of a unit, by name.
pub(super) struct Unit(BTreeMap<String, String>);

impl Unit {
    /// Asks for them; `None` where systemd does not run.
    ///
    /// # Errors
    /// systemctl does not answer.
    pub(super) async fn ask(
        scene: &Scene,
        unit: &str,
        properties: &str,
    ) -> Option<Result<Unit, String>> {
        if !scene.has_systemd() {
            return None;
        }
        let asked = format!("--property={properties}");
        let answer = scene
            .ask("systemctl", &["show", unit, &asked], LONGEST)
            .await;
        Some(answer.map(|text| Unit::read(&text)))
    }

    fn read(text: &str) -> Unit {
        let lines = text.lines().filter_map(|line| line.split_once('='));
        Unit(
            lines
                .map(|(key, value)| (key.into(), value.into()))
                .collect(),
        )
    }

    /// The value of a property; empty where it has none.
    pub(super) fn get(&self, property: &str) -> &str {
        self.0.get(property).map_or("", String::as_str)
    }

    /// Whether there is such a unit at all.
    pub(super) fn exists(&self) -> bool {
        !matches!(self.get("LoadState"), "not-found" | "")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_are_read() {
        let unit = Unit::read("LoadState=loaded\nEnvironment=A=b\nResult=\n");
        assert!(unit.exists());
        assert_eq!(unit.get("Environment"), "A=b");
        assert_eq!((unit.get("Result"), unit.get("Missing")), ("", ""));
        for text in ["LoadState=not-found\n", ""] {
            assert!(!Unit::read(text).exists(), "{text}");
        }
    }
}
