//! The service: its unit, what its sandbox must let through, and the group that may ask it.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use super::check::{Check, Found, on_disk};
use super::scene::{Scene, read};
use super::systemd::Unit;
use crate::config::Config;

/// What is asked of the unit.
const PROPERTIES: &str = "LoadState,ActiveState,SubState,Result,UnitFileState,NRestarts,NeedDaemonReload,\
                          CapabilityBoundingSet,ProtectSystem,StandardInput";

/// Whose members may read the status.
const GROUP: &str = "sideline";

/// The kernel log's device.
const KMSG: &str = "/dev/kmsg";

/// Before what makes systemd read its files again.
const TRAP: &str = "# in a quiet hour: it can take GPUs from running containers";

pub(super) async fn look(scene: Arc<Scene>) -> Vec<Check> {
    let unit = Unit::ask(&scene, "sideline.service", PROPERTIES).await;
    let (of_checks, of_group) = (Arc::clone(&scene), Arc::clone(&scene));
    let is_installed = matches!(&unit, Some(Ok(unit)) if unit.exists());
    vec![
        service(&unit).named("service"),
        sandbox(&unit, &scene.config).named("service.sandbox"),
        on_disk("service.checks", Box::new(move || programs(&of_checks))).await,
        on_disk(
            "service.group",
            Box::new(move || group(&of_group, is_installed)),
        )
        .await,
    ]
}

/// The unit, where there is one to look at.
fn installed(unit: &Option<Result<Unit, String>>) -> Result<&Unit, Found> {
    match unit {
        None => Err(Found::unused("systemd does not run here")),
        Some(Err(why)) => Err(Found::fail(
            format!("systemd does not answer: {why}"),
            "systemctl status sideline",
        )),
        Some(Ok(unit)) if unit.exists() => Ok(unit),
        Some(Ok(_)) => Err(Found::unused("there is no sideline.service")),
    }
}

fn service(unit: &Option<Result<Unit, String>>) -> Found {
    let unit = match installed(unit) {
        Ok(unit) => unit,
        Err(found) => return found,
    };
    let active = unit.get("ActiveState");
    let restarts = unit.get("NRestarts");
    let log = "journalctl -u sideline -n 50 --no-pager";
    if unit.get("LoadState") == "masked" {
        return Found::fail(
            "the unit is masked",
            "sudo systemctl unmask sideline && sudo systemctl enable --now sideline",
        );
    }
    if !matches!(unit.get("LoadState"), "loaded") {
        let state = unit.get("LoadState");
        return Found::fail(
            format!("systemd can't load the unit: {state}"),
            "systemd-analyze verify sideline.service",
        );
    }
    match active {
        "active" | "reloading" => {}
        "activating" => {
            return Found::warn(
                format!("the service is starting; restarted {restarts} times"),
                log,
            );
        }
        "failed" => {
            let result = unit.get("Result");
            return Found::fail(format!("the service has failed: {result}"), log);
        }
        _ => {
            return Found::fail(
                format!("the service is {active}"),
                "sudo systemctl enable --now sideline",
            );
        }
    }
    if !matches!(unit.get("UnitFileState"), "enabled" | "enabled-runtime") {
        let state = unit.get("UnitFileState");
        return Found::warn(
            format!("the service runs, but is {state}: it will not start with the machine"),
            "sudo systemctl enable sideline",
        );
    }
    if unit.get("NeedDaemonReload") == "yes" {
        return Found::warn(
            "the unit's file has changed since systemd read it",
            format!("sudo systemctl daemon-reload && sudo systemctl restart sideline   {TRAP}"),
        );
    }
    if !matches!(restarts, "" | "0") {
        return Found::warn(
            format!("it runs, but systemd has restarted it {restarts} times"),
            log,
        );
    }
    Found::ok("active, enabled, never restarted by systemd")
}

/// Whether the unit leaves what the configuration needs.
fn sandbox(unit: &Option<Result<Unit, String>>, config: &Config) -> Found {
    let unit = match installed(unit) {
        Ok(unit) => unit,
        Err(found) => return found,
    };
    let has = |capability: &str| {
        let set = unit.get("CapabilityBoundingSet");
        set.split(' ')
            .any(|one| one.eq_ignore_ascii_case(capability))
    };
    let lacks = |wanted: &[&str]| {
        let missing: Vec<_> = wanted.iter().copied().filter(|one| !has(one)).collect();
        (!missing.is_empty()).then(|| missing.join(" "))
    };
    // The packaged unit opens it for the agent; else that takes a capability.
    let handed_over = unit.get("StandardInput").starts_with("file");
    if config.kernel_log.path == Path::new(KMSG) && !handed_over && !has("cap_syslog") {
        return Found::fail(
            "the unit neither hands over /dev/kmsg nor gives cap_syslog: the kernel log can't be read",
            drop_in("StandardInput=file:/dev/kmsg"),
        );
    }
    let as_others = config.check.iter().filter(|check| check.user != "root");
    if let Some(check) = as_others.clone().next()
        && let Some(missing) = lacks(&["cap_setuid", "cap_setgid", "cap_kill"])
    {
        let (count, name, user) = (as_others.count(), &check.name, &check.user);
        return Found::fail(
            format!(
                "the unit does not give {missing}, so {count} of [[check]] can't run as another user ({name} as {user})"
            ),
            example("checks.conf"),
        );
    }
    if unit.get("ProtectSystem") != "strict" {
        return Found::warn(
            "the unit is not the packaged one: its sandbox is off (ProtectSystem is not strict)",
            "systemctl cat sideline",
        );
    }
    let smart = match lacks(&["cap_sys_rawio"]) {
        None => "",
        Some(_) => "; SMART is off (drop-in smart.conf)",
    };
    Found::ok(format!("it gives what this configuration needs{smart}"))
}

/// A line for the unit, as a drop-in.
fn drop_in(line: &str) -> String {
    format!(
        "printf '[Service]\\n{line}\\n' | sudo systemctl edit --stdin sideline && sudo systemctl restart sideline   {TRAP}"
    )
}

/// One of the drop-ins that come with the package.
fn example(name: &str) -> String {
    format!(
        "sudo install -Dm644 /usr/share/doc/sideline/examples/sideline.service.d/{name} -t \
         /etc/systemd/system/sideline.service.d && sudo systemctl daemon-reload && sudo systemctl restart sideline   {TRAP}"
    )
}

/// The operator's own checks: the program is there, and so is the user.
fn programs(scene: &Scene) -> Found {
    let checks = &scene.config.check;
    if checks.is_empty() {
        return Found::unused("there is no [[check]]");
    }
    let users = read(&scene.system("etc/passwd")).unwrap_or_default();
    for check in checks {
        let (name, user) = (&check.name, &check.user);
        let program = check.command.first().map_or("", String::as_str);
        let mode = std::fs::metadata(program).map(|file| file.permissions().mode());
        match mode {
            Err(error) => {
                return Found::fail(
                    format!("check {name}: {program}: {error}"),
                    format!("ls -l {program}   # command of [[check]] {name}"),
                );
            }
            Ok(mode) if mode & 0o111 == 0 => {
                return Found::fail(
                    format!("check {name}: {program} is not executable"),
                    format!("sudo chmod +x {program}"),
                );
            }
            Ok(_) => {}
        }
        if !has_name(&users, user) {
            return Found::fail(
                format!("check {name}: user {user} is not in /etc/passwd"),
                format!("sudo useradd --system --no-create-home {user}"),
            );
        }
    }
    Found::ok(format!("{} of [[check]] can be started", checks.len()))
}

fn group(scene: &Scene, is_installed: bool) -> Found {
    let groups = read(&scene.system("etc/group")).unwrap_or_default();
    let line = groups.lines().find(|line| named(line, GROUP));
    match line {
        Some(line) => {
            let members = line.rsplit(':').next().unwrap_or_default();
            Found::ok(match members {
                "" => format!("group {GROUP} may read the status; it has no members"),
                members => format!("group {GROUP} may read the status: {members}"),
            })
        }
        None if is_installed => Found::warn(
            format!("there is no group {GROUP}: only root may read the status"),
            format!("sudo groupadd --system {GROUP} && sudo systemctl restart sideline"),
        ),
        None => Found::unused("there is no sideline.service"),
    }
}

fn has_name(file: &str, name: &str) -> bool {
    file.lines().any(|line| named(line, name))
}

/// `name:x:…`
fn named(line: &str, name: &str) -> bool {
    line.split(':').next() == Some(name)
}
