//! The GPUs: NVML, whether driver and library go together, and what ECS believes to be here.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::check::{Check, Found, timed};
use super::devices;
use super::scene::{Scene, read};
use crate::collect::gpus;
use crate::config::{Enabled, Expected};
use crate::domain::reading::Reading;
use crate::domain::snapshot::{GpuState, Gpus, Probe};

/// NVML may wake every card first.
const PATIENCE: Duration = Duration::from_secs(9);

/// The probe is a child: this is for its end.
const FAREWELL: Duration = Duration::from_millis(500);

/// What ecs-init writes of the GPUs when it starts, and only then.
const ECS_BELIEF: &str = "var/lib/ecs/gpu/nvidia-gpu-info.json";

/// Where ECS is told that there are GPUs.
const ECS_SETTINGS: [&str; 2] = ["etc/ecs/ecs.config", "var/lib/ecs/ecs.config"];

const HANGS: &str = "sudo reboot   # the driver hangs, and no signal ends what waits for it; `sideline explain gpu.hung`";

/// Has ecs-init look at the GPUs again.
const ASK_AGAIN: &str = "sudo systemctl restart ecs";

pub(super) async fn look(scene: Arc<Scene>) -> Vec<Check> {
    let mut seen = None;
    let nvml = async {
        let reading = match ask(&scene).await {
            Ok(reading) => reading,
            Err(found) => return found,
        };
        let found = told(&scene, &reading);
        seen = reading.value().cloned();
        found
    };
    let nvml = timed("gpu.nvml", nvml.boxed()).await;
    vec![
        nvml,
        devices::look(Arc::clone(&scene)).await,
        in_ecs(&scene, seen.as_ref()).named("gpu.ecs"),
    ]
}

/// One reading, through a probe of our own.
async fn ask(scene: &Scene) -> Result<Reading<Gpus>, Found> {
    if let Some(finding) = scene.findings("gpu.hung").first() {
        // A second probe would only hang beside the agent's.
        let evidence = finding["evidence"].as_str().unwrap_or("a card hangs");
        return Err(Found::fail(
            format!("the agent's probe hangs: {evidence}"),
            HANGS,
        ));
    }
    let (out, mut reading) = watch::channel(Reading::Pending);
    let cancel = CancellationToken::new();
    let config = scene.config.gpu.clone();
    let probe = gpus::run(config, Vec::new(), out, scene.clock.clone(), cancel.clone());
    let mut probe = probe.boxed();
    let settled = async {
        let settled = timeout(PATIENCE, reading.wait_for(Reading::is_settled)).await;
        settled
            .ok()
            .and_then(|seen| seen.ok().map(|seen| seen.clone()))
    };
    let seen = tokio::select! {
        seen = settled => seen,
        // It goes on until it is cancelled.
        _ = &mut probe => None,
    };
    cancel.cancel();
    // It is killed with this process where it does not go.
    let _ = timeout(FAREWELL, probe).await;
    seen.ok_or_else(|| Found::fail(format!("NVML does not answer within {PATIENCE:?}"), HANGS))
}

fn told(scene: &Scene, reading: &Reading<Gpus>) -> Found {
    let gpus = match reading {
        Reading::Ok { value, .. } => value,
        Reading::Off | Reading::Pending => return Found::unused("gpu.enabled is never"),
        Reading::Failed { why, .. } => return Found::fail(why.clone(), HANGS),
    };
    match &gpus.probe {
        Probe::Answering => answering(scene, gpus),
        Probe::NoLibrary { .. }
            if gpus.bus.is_empty()
                && scene.config.gpu.enabled == Enabled::Auto
                && scene.config.gpu.library.is_empty() =>
        {
            Found::unused("no NVIDIA GPU on the PCI bus")
        }
        Probe::NoLibrary { why } => Found::fail(
            format!("NVML's library can't be loaded: {why}"),
            match scene.config.gpu.library.as_str() {
                "" => {
                    "sudo apt install nvidia-driver   # its libnvidia-ml1 holds libnvidia-ml.so.1"
                        .to_owned()
                }
                set => format!("[gpu] library = \"\"   # the loader's own instead of {set}"),
            },
        ),
        Probe::Driver { why } => driver(scene, why),
        Probe::Hung { call, card, .. } => {
            let call = call.as_deref().unwrap_or("a call");
            let card = card
                .as_ref()
                .map_or_else(String::new, |card| format!(" at {card}"));
            Found::fail(
                format!("NVML hangs: {call} does not come back{card}"),
                HANGS,
            )
        }
        Probe::Crashed { how, .. } => Found::fail(
            format!("NVML crashes: the probe was {how}"),
            "nvidia-smi; sudo dmesg | grep -i -e nvrm -e xid | tail   # then the driver's own packages",
        ),
    }
}

fn answering(scene: &Scene, gpus: &Gpus) -> Found {
    let driver = gpus.driver.as_deref().unwrap_or("unknown");
    if let Some(loaded) = loaded(scene)
        && gpus.driver.as_ref().is_some_and(|driver| *driver != loaded)
    {
        return mismatch(&format!(
            "NVML speaks of driver {driver}, the kernel has {loaded}"
        ));
    }
    let sick = gpus.cards.iter().find(|card| card.state != GpuState::Ok);
    if let Some(card) = sick {
        let state = match card.state {
            GpuState::Ok => "well",
            GpuState::Lost => "lost",
            GpuState::Hung => "hung",
            GpuState::Unknown => "unknown",
        };
        let name = if card.id.is_empty() {
            "a card"
        } else {
            &card.id
        };
        return Found::fail(
            format!("{name} is {state}"),
            format!(
                "sideline explain gpu.{}",
                if state == "unknown" { "driver" } else { state }
            ),
        );
    }
    let count = gpus.cards.len();
    if let Expected::Count(expected) = scene.config.gpu.expected
        && usize::try_from(expected).is_ok_and(|expected| count < expected)
    {
        return Found::fail(
            format!("{count} of the {expected} GPUs of gpu.expected are here"),
            "lspci -d 10de: ; sudo dmesg | grep -i nvrm | tail   # reseat what is missing, or set gpu.expected",
        );
    }
    if count < gpus.bus.len() {
        return Found::fail(
            format!(
                "{} NVIDIA GPUs on the PCI bus, {count} in NVML",
                gpus.bus.len()
            ),
            "sudo dmesg | grep -i nvrm | tail   # why the driver leaves one out",
        );
    }
    let cards = if count == 1 { "card" } else { "cards" };
    Found::ok(format!("{count} {cards}, driver {driver}"))
}

/// NVML will not start.
fn driver(scene: &Scene, why: &str) -> Found {
    if why.to_lowercase().contains("mismatch") {
        let kernel = loaded(scene).unwrap_or_else(|| "another".into());
        let library = library(scene)
            .map_or_else(String::new, |version| format!(", the library is {version}"));
        return mismatch(&format!("{why}: the kernel has {kernel}{library}"));
    }
    if loaded(scene).is_none() {
        return Found::fail(
            format!("NVML does not start: {why}"),
            "sudo modprobe nvidia; sudo dmesg | grep -i -e nvrm -e nouveau | tail",
        );
    }
    Found::fail(
        format!("NVML does not start: {why}"),
        "nvidia-smi; sudo dmesg | grep -i nvrm | tail; ls -l /dev/nvidia*",
    )
}

/// An update has changed one of the two under the other.
fn mismatch(says: &str) -> Found {
    Found::fail(
        says.to_owned(),
        "sudo reboot   # so that the kernel loads the driver that goes with the library",
    )
}

/// The version of the driver in the kernel.
pub(super) fn loaded(scene: &Scene) -> Option<String> {
    if let Ok(version) = read(&scene.system("sys/module/nvidia/version")) {
        return Some(version.trim().to_owned());
    }
    // NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.90.07  Fri May 31 09:35:42 UTC 2024
    let text = read(&scene.system("proc/driver/nvidia/version")).ok()?;
    let mut words = text.lines().next()?.split_whitespace();
    let is_version = |word: &str| {
        word.contains('.')
            && word
                .bytes()
                .all(|byte| byte.is_ascii_digit() || byte == b'.')
    };
    words.find(|word| is_version(word)).map(str::to_owned)
}

/// The version of the library that the loader finds, by the name of its file: libnvidia-ml.so.550.120.
fn library(scene: &Scene) -> Option<String> {
    let folders = ["x86_64-linux-gnu", "aarch64-linux-gnu"];
    let link = |folder| {
        scene
            .system("usr/lib")
            .join(folder)
            .join("libnvidia-ml.so.1")
    };
    let target = folders
        .iter()
        .find_map(|folder| std::fs::read_link(link(folder)).ok())?;
    let name = target.file_name()?.to_str()?;
    Some(name.strip_prefix("libnvidia-ml.so.")?.to_owned())
}

/// Whether ECS places work on the GPUs that are here.
fn in_ecs(scene: &Scene, gpus: Option<&Gpus>) -> Found {
    let is_here = scene.system("etc/ecs").exists() || scene.system("var/lib/ecs").exists();
    if !is_here {
        return Found::unused("no ECS agent is installed");
    }
    let Some(gpus) = gpus.filter(|gpus| gpus.cards_at.is_some()) else {
        return Found::unused("what NVML sees is not known");
    };
    let well = gpus.cards.iter().filter(|card| card.state == GpuState::Ok);
    let here: BTreeSet<&str> = well.map(|card| card.id.as_str()).collect();
    let settings = ECS_SETTINGS.map(|file| read(&scene.system(file)).unwrap_or_default());
    let wanted = settings.iter().flat_map(|text| text.lines());
    let wanted = wanted
        .map(str::trim)
        .any(|line| line == "ECS_ENABLE_GPU_SUPPORT=true");
    let text = match read(&scene.system(ECS_BELIEF)) {
        Ok(text) => text,
        Err(_) if here.is_empty() => return Found::unused("no GPU here"),
        Err(_) if wanted => {
            return Found::fail(
                format!("ECS_ENABLE_GPU_SUPPORT is true, but there is no /{ECS_BELIEF}"),
                ASK_AGAIN,
            );
        }
        Err(_) => {
            return Found::warn(
                format!("{} GPUs are here, and ECS was not told of any", here.len()),
                format!(
                    "echo ECS_ENABLE_GPU_SUPPORT=true | sudo tee -a /etc/ecs/ecs.config && {ASK_AGAIN}"
                ),
            );
        }
    };
    // {"DriverVersion":"550.90.07","GPUIDs":["GPU-…"]}
    let Ok(belief) = serde_json::from_str::<Value>(&text) else {
        return Found::fail(format!("/{ECS_BELIEF} is damaged"), ASK_AGAIN);
    };
    let believed = belief["GPUIDs"].as_array().into_iter().flatten();
    let believed: BTreeSet<&str> = believed.filter_map(Value::as_str).collect();
    if let Some(gone) = believed.difference(&here).next() {
        return Found::fail(
            format!("ECS places work on {gone}, which NVML does not see"),
            format!("{ASK_AGAIN}   # when the card is back, or to go on without it"),
        );
    }
    if let Some(unknown) = here.difference(&believed).next() {
        return Found::warn(
            format!("{unknown} is here, and ECS does not know of it: it places no work there"),
            ASK_AGAIN,
        );
    }
    let ecs = belief["DriverVersion"].as_str().unwrap_or("unknown");
    if let Some(driver) = gpus.driver.as_deref().filter(|driver| *driver != ecs) {
        return Found::warn(
            format!(
                "ECS believes in driver {ecs}, here is {driver}: tasks that ask for it are not placed"
            ),
            ASK_AGAIN,
        );
    }
    Found::ok(format!("ECS knows the {} GPUs that are here", here.len()))
}
