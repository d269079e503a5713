//! The uninterruptible power supply, as upsd tells.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::timeout;

use super::check::{Check, Found, timed};
use super::scene::Scene;
use crate::collect::ups::ask;
use crate::config::Enabled;
use crate::domain::snapshot::Ups;

/// upsd answers at once.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn look(scene: Arc<Scene>) -> Vec<Check> {
    vec![timed("ups", supply(&scene).boxed()).await]
}

async fn supply(scene: &Scene) -> Found {
    let (enabled, address) = (scene.config.ups.enabled, &scene.config.ups.address);
    if enabled == Enabled::Never {
        return Found::unused("ups.enabled is never");
    }
    let answer = timeout(PATIENCE, ask(address)).await;
    let start = "sudo systemctl restart nut-server && upsc -l";
    match answer {
        Ok(Ok(supplies)) => told(&supplies, address),
        Ok(Err(error))
            if error.kind() == ErrorKind::ConnectionRefused && enabled == Enabled::Auto =>
        {
            Found::unused(&format!("no upsd at {address}"))
        }
        Ok(Err(error)) => Found::fail(format!("upsd at {address}: {error}"), start),
        Err(_) => Found::fail(
            format!("upsd at {address} does not answer within {PATIENCE:?}"),
            start,
        ),
    }
}

fn told(supplies: &[Ups], address: &str) -> Found {
    if let Some(stale) = supplies.iter().find(|ups| ups.stale) {
        let why = stale.why.as_deref().unwrap_or("it says nothing");
        let name = &stale.name;
        return Found::fail(
            format!("upsd at {address} has lost {name}: {why}"),
            format!("sudo upsdrvctl stop {name}; sudo upsdrvctl start {name}   # or its cable"),
        );
    }
    let bad = supplies
        .iter()
        .find(|ups| ups.replace_battery || ups.overloaded || ups.alarm);
    if let Some(bad) = bad {
        return Found::warn(
            format!("{} says {}", bad.name, bad.status),
            format!(
                "upsc {}   # RB: new battery; OVER: less load; ALARM: ups.alarm says which",
                bad.name
            ),
        );
    }
    match supplies {
        [] => Found::warn(
            format!("upsd at {address} knows no supply"),
            "sudo nut-scanner -U | sudo tee -a /etc/nut/ups.conf && sudo systemctl restart nut-driver-enumerator",
        ),
        supplies => {
            let names: Vec<String> = supplies
                .iter()
                .map(|ups| format!("{} says {}", ups.name, ups.status))
                .collect();
            Found::ok(names.join(", "))
        }
    }
}
