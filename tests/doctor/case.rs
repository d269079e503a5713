//! A set-up that is broken in one way: which check says so, how bad it is, and how it is mended.

use std::process::Command;

use serde_json::Value;

use crate::setup::Setup;

/// Without an agent `socket` fails everywhere here, and whether the clock is kept is the machine's own affair.
const ASIDE: [&str; 2] = ["socket", "clock"];

/// How a set-up is broken.
type Breaking = Box<dyn FnOnce(&mut Setup)>;

/// A way to break a set-up, and what comes of it.
pub(crate) struct Case {
    what: &'static str,
    /// The checks that say so, the first of which is looked at; `warn` and `fail` alike.
    checks: &'static str,
    state: &'static str,
    says: &'static str,
    mend: &'static str,
    breaking: Breaking,
}

/// A way to break a set-up.
pub(crate) fn case(
    what: &'static str,
    checks: &'static str,
    state: &'static str,
    says: &'static str,
    mend: &'static str,
    breaking: impl FnOnce(&mut Setup) + 'static,
) -> Case {
    Case {
        what,
        checks,
        state,
        says,
        mend,
        breaking: Box::new(breaking),
    }
}

/// Breaks a set-up in each way, and holds what doctor says against what it should.
pub(crate) async fn all(cases: Vec<Case>) {
    let mut wrong = Vec::new();
    for case in cases {
        let mut setup = Setup::new().await;
        (case.breaking)(&mut setup);
        let (status, found) = setup.examine().await;
        let checks = found["checks"].as_array().expect("a list");
        let meant: Vec<&str> = case.checks.split(' ').collect();
        let check = checks.iter().find(|check| check["name"] == meant[0]);
        let Some(check) = check else {
            wrong.push(format!("{}: there is no check {}", case.what, meant[0]));
            continue;
        };
        let text = |key: &str| check[key].as_str().unwrap_or_default();
        let right = text("state") == case.state
            && text("says").contains(case.says)
            && text("mend").contains(case.mend);
        if !right {
            wrong.push(format!(
                "{}: expected {} … {} … {}, is {check:#}",
                case.what, case.state, case.says, case.mend
            ));
        }
        for other in checks.iter().filter(|other| other["state"] != "ok") {
            let name = other["name"].as_str().unwrap_or_default();
            if !meant.contains(&name) && !ASIDE.contains(&name) {
                wrong.push(format!("{}: {name} should not mind: {other:#}", case.what));
            }
            let mend = other["mend"].as_str().unwrap_or_default();
            if !mend.lines().all(can_be_used) || mend.is_empty() {
                wrong.push(format!("{}: {name}: no mend: {mend:?}", case.what));
            }
        }
        assert_eq!(status, 1, "no agent runs");
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// Whether a mend is a line to write (a setting, a statement of a policy, a rule of an ACL) or a command that a shell reads.
fn can_be_used(mend: &str) -> bool {
    let line = mend.split("   # ").next().unwrap_or_default();
    let is_setting = line.starts_with('[') || line.split(' ').nth(1) == Some("=");
    let is_statement = serde_json::from_str::<Value>(line).is_ok();
    let is_rule = line.starts_with("topic ");
    let first = line.split([' ', ';']).next().unwrap_or_default();
    let is_command = COMMANDS.split(' ').any(|command| command == first)
        && Command::new("bash")
            .args(["-n", "-c", line])
            .status()
            .is_ok_and(|status| status.success());
    is_setting || is_statement || is_rule || is_command
}

/// What a mend may begin with.
const COMMANDS: &str = "aws chmod curl df echo getent journalctl ls lspci nc nvidia-smi openssl printf sideline sudo sudoedit \
                        systemctl systemd-analyze unset";

/// A check by its name.
pub(crate) fn find<'a>(found: &'a Value, name: &str) -> &'a Value {
    let mut checks = found["checks"].as_array().into_iter().flatten();
    checks
        .find(|check| check["name"] == name)
        .unwrap_or_else(|| panic!("no {name}"))
}
