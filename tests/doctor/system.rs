//! What is broken on the machine: configuration, service, state, kernel log, UPS; and who may look.

use crate::case::{all, case, find};
use crate::setup::Setup;

#[tokio::test]
async fn configuration() {
    all(vec![
        case(
            "a wrong key",
            // The rest is checked with the defaults, under which hardly anything is as it was.
            "config kernel_log state identity.credentials identity.registration aws.region gpu.nvml gpu.ecs \
             ecs.agent ups aws.cloudwatch state.space state.outbox",
            "fail",
            "unknown key \"colour\"",
            "sudoedit",
            |setup| setup.config += "[host]\ncolour = 1\n",
        ),
        case(
            "a password for everybody's eyes",
            "config",
            "warn",
            "holds a password, and every user may read it",
            "sudo chmod o-rwx",
            |setup| {
                let broker = setup.broker.url().replace("mqtt://", "mqtt://me:secret@");
                setup.set("[relay]\nurl = \"{broker}\"", &format!("[relay]\nurl = \"{broker}\""));
            },
        ),
        case(
            "a damaged copy of the parameters",
            "config.layers",
            "fail",
            "settings.json, is damaged",
            "sudo rm ",
            |setup| setup.write("state/settings.json", "{\"good\": ["),
        ),
        case(
            "a parameter that was refused",
            "config.layers",
            "fail",
            "refused: parameter /sideline/fleet (version 4):1:1: unknown key",
            "sideline explain agent.config_rejected",
            |setup| {
                setup.write(
                    "state/settings.json",
                    &serde_json::json!({"version": 1, "good": [], "trial": null, "refused": [
                        {"why": "parameter /sideline/fleet (version 4):1:1: unknown key \"colour\"", "more": 0, "digest": null},
                    ]})
                    .to_string(),
                );
            },
        ),
        case(
            "a check whose program is gone",
            "service.checks service.sandbox",
            "fail",
            "check disk: /nonexistent/check: No such file",
            "ls -l /nonexistent/check",
            |setup| setup.config += "[[check]]\nname = \"disk\"\ncommand = [\"/nonexistent/check\"]\n",
        ),
        case(
            "checks that the sandbox does not let run",
            "service.sandbox",
            "fail",
            "does not give cap_setuid cap_setgid cap_kill",
            "checks.conf",
            |setup| setup.config += "[[check]]\nname = \"true\"\ncommand = [\"/bin/true\"]\n",
        ),
    ])
    .await;
}

#[tokio::test]
async fn service() {
    all(vec![
        case(
            "a service that has failed",
            "service",
            "fail",
            "has failed: watchdog",
            "journalctl -u sideline",
            |setup| {
                setup.write(
                    "root/units/sideline.service",
                    &crate::setup::UNIT
                        .replace("ActiveState=active", "ActiveState=failed")
                        .replace("Result=success", "Result=watchdog"),
                );
            },
        ),
        case(
            "a service that was never started",
            "service",
            "fail",
            "the service is inactive",
            "sudo systemctl enable --now sideline",
            |setup| setup.unit("ActiveState=active", "ActiveState=inactive"),
        ),
        case(
            "a masked unit",
            "service",
            "fail",
            "the unit is masked",
            "sudo systemctl unmask sideline",
            |setup| setup.unit("LoadState=loaded", "LoadState=masked"),
        ),
        case(
            "a service that will not come back after a reboot",
            "service",
            "warn",
            "will not start with the machine",
            "sudo systemctl enable sideline",
            |setup| setup.unit("UnitFileState=enabled", "UnitFileState=disabled"),
        ),
        case(
            "a unit that systemd has not read again",
            "service",
            "warn",
            "has changed since systemd read it",
            "GPUs from running containers",
            |setup| setup.unit("NeedDaemonReload=no", "NeedDaemonReload=yes"),
        ),
        case(
            "a service that keeps falling over",
            "service",
            "warn",
            "restarted it 7 times",
            "journalctl",
            |setup| setup.unit("NRestarts=0", "NRestarts=7"),
        ),
        case(
            "a unit that does not hand over the kernel log",
            "service.sandbox",
            "fail",
            "neither hands over /dev/kmsg nor gives cap_syslog",
            "StandardInput=file:/dev/kmsg",
            |setup| {
                setup.set("[kernel_log]\npath = \"{folder}/kernel.log\"\n", "");
                setup.unit("StandardInput=file", "StandardInput=null");
            },
        ),
        case(
            "a unit without a sandbox",
            "service.sandbox",
            "warn",
            "its sandbox is off",
            "systemctl cat sideline",
            |setup| setup.unit("ProtectSystem=strict", "ProtectSystem=no"),
        ),
        case(
            "no group for the status",
            "service.group",
            "warn",
            "no group sideline",
            "sudo groupadd --system sideline",
            |setup| setup.write("root/etc/group", "root:x:0:\n"),
        ),
        case(
            "a kernel log that is not there",
            "kernel_log",
            "fail",
            "does not exist",
            "path = \"/dev/kmsg\"",
            |setup| setup.remove("kernel.log"),
        ),
        case(
            "a state folder that others may write",
            "state",
            "fail",
            "others than its owner may write",
            "sudo chmod 700",
            |setup| setup.mode("state", 0o777),
        ),
        case(
            "a state folder that is a file",
            "state state.outbox config.layers",
            "fail",
            "is no folder",
            "sudo mv",
            |setup| {
                setup.remove("state");
                setup.write("state", "");
            },
        ),
        case(
            "no state folder",
            "state config.layers",
            "warn",
            "not there yet",
            "sudo systemctl enable --now sideline",
            |setup| {
                setup.remove("state");
            },
        ),
        case(
            "another program's database",
            "state.outbox",
            "fail",
            "sideline.db",
            "sudo systemctl restart sideline",
            |setup| {
                setup.write(
                    "state/sideline.db",
                    &"no database at all, but long enough ".repeat(200),
                );
            },
        ),
        case(
            "a store that was set aside",
            "state.outbox",
            "warn",
            "was set aside",
            "sudo rm",
            |setup| {
                let output = std::process::Command::new("python3")
                    .args(["-c", "0"])
                    .output();
                assert!(output.is_ok());
                setup.write("state/sideline.db.corrupt-20261123", "");
            },
        ),
        case(
            "a UPS whose daemon is gone",
            "ups",
            "fail",
            "Connection refused",
            "sudo systemctl restart nut-server",
            |setup| {
                setup.set(
                    "enabled = \"never\"",
                    "enabled = \"always\"\naddress = \"127.0.0.1:9\"",
                );
            },
        ),
    ])
    .await;
}

#[tokio::test]
async fn an_ordinary_user_is_sent_to_root() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let mut setup = Setup::new().await;
    setup.mode("", 0o755);
    setup.mode("ssm", 0o700);
    setup.user = Some(65_534);
    setup
        .command(&["--version"])
        .output()
        .await
        .expect("it starts");
    setup.mode("sideline.toml", 0o644);
    let (_, found) = setup.examine().await;
    for name in ["identity.registration", "identity.ssm_agent", "state"] {
        let check = find(&found, name);
        assert_eq!(check["state"], "warn", "{check:#}");
        assert_eq!(check["mend"], "sudo sideline doctor", "{check:#}");
    }
}

#[tokio::test]
async fn what_the_sandbox_hides_from_the_service_is_told() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let setup = Setup::new().await;
    let hidden = setup.path("credentials");
    // As a sandbox does it: the service's own view of the files, in which something else lies over one.
    let script = format!("mount --bind /dev/null {} && exec \"$@\"", hidden.display());
    let wrapper = ["unshare", "--mount", "sh", "-c", &script, "sh"];
    let _agent = setup.start_agent_in(&wrapper).await;
    let (status, found) = setup.examine().await;
    assert_eq!(status, 1);
    assert_eq!(find(&found, "identity.credentials")["state"], "ok");
    let inside = find(&found, "inside.identity.credentials");
    assert_eq!(inside["state"], "fail", "{inside:#}");
    let mend = inside["mend"].as_str().unwrap_or_default();
    assert!(mend.contains("home.conf"), "{mend}");
}
