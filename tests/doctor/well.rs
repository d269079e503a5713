//! Where all is well doctor says so; what it prints, and that its manual knows every check.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

use crate::setup::Setup;

fn checks(found: &Value) -> &[Value] {
    found["checks"].as_array().expect("a list of checks")
}

#[tokio::test]
async fn all_is_well_but_what_this_machine_lacks() {
    let setup = Setup::new().await;
    let _agent = setup.start_agent().await;
    let (status, found) = setup.examine().await;
    let bad: Vec<&Value> = checks(&found)
        .iter()
        .filter(|check| check["state"] != "ok")
        .collect();
    // Whether somebody keeps the clock is the machine's own affair.
    let others: Vec<_> = bad
        .iter()
        .filter(|check| check["name"] != "clock")
        .collect();
    assert!(others.is_empty(), "{others:#?}");
    assert_eq!(status, 0);
    assert_eq!(found["version"], 1);
    let says = |name: &str| {
        let check = checks(&found).iter().find(|check| check["name"] == name);
        check.unwrap_or_else(|| panic!("{name}"))["says"].clone()
    };
    for (name, part) in [
        ("service", "active, enabled"),
        ("socket", "answers at"),
        ("identity.registration", "mi-0123456789abcdef0 in eu-west-1"),
        ("identity.credentials", "expire in 49 min"),
        (
            "identity.ssm_agent",
            "runs, renewed the credentials 10 min ago",
        ),
        ("clock", "it agrees with AWS's"),
        (
            "aws.cloudwatch",
            "PutMetricData is allowed in namespace Sideline",
        ),
        ("aws.ssm", "GetParameters is allowed"),
        ("aws.ssm.compliance", "PutComplianceItems is allowed"),
        ("aws.ecs", "1 external nodes"),
        ("aws.ecs.drain", "may be drained and brought back"),
        ("ecs.agent", "cluster field"),
        ("mqtt.1", "lets us in and read frigate"),
        ("mqtt.relay", "lets us in"),
        ("gpu.nvml", "2 cards, driver 550.90.07"),
        ("gpu.devices", "nvidia0, nvidia1"),
        ("gpu.ecs", "ECS knows the 2 GPUs"),
        ("kernel_log", "can be read"),
        ("inside.state", "can be written"),
        ("inside.kernel_log", "can be read"),
        ("inside.identity.credentials", "temporary"),
    ] {
        let says = says(name).to_string();
        assert!(says.contains(part), "{name}: {says}");
    }
    // Nothing was changed by asking: no datum, no attribute, nobody drained.
    assert_eq!(setup.aws.cluster(|cluster| cluster.instances.len()), 1);
    let attributes = setup.aws.cluster(|cluster| {
        let all = cluster
            .instances
            .values()
            .flat_map(|one| one.attributes.keys().cloned());
        all.filter(|name| name.contains("doctor")).count()
    });
    assert_eq!(attributes, 0);
    let data = setup.aws.requests();
    assert!(
        data.iter()
            .flat_map(|request| &request.data)
            .all(|datum| datum.name != "Doctor")
    );
}

#[tokio::test]
async fn every_check_stands_in_the_manual() {
    let setup = Setup::new().await;
    let _agent = setup.start_agent().await;
    let (_, found) = setup.examine().await;
    let manual = include_str!("../../docs/doctor.md");
    let named: BTreeSet<&str> = checks(&found)
        .iter()
        .filter_map(|check| check["name"].as_str())
        .collect();
    let section = manual
        .split("\n## ")
        .find(|section| section.starts_with("The checks"));
    let told: BTreeSet<&str> = section
        .expect("the table of checks")
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    for name in &named {
        let row = match (name.strip_prefix("inside."), name.starts_with("mqtt.1")) {
            (Some(inside), _) => inside,
            (None, true) => "mqtt.N",
            (None, false) => name,
        };
        assert!(
            told.contains(row),
            "{name} does not stand in docs/doctor.md"
        );
    }
    for row in told {
        let made = named.contains(row) || row == "mqtt.N" || row == "inside";
        assert!(made, "docs/doctor.md tells of {row}, which is no check");
    }
}

#[tokio::test]
async fn a_person_reads_a_line_a_check_and_80_columns() {
    let mut setup = Setup::new().await;
    setup.set("parameters = [\"/sideline/fleet\"]", "parameters = []");
    let (status, out, err) = setup.doctor(&[]).await;
    assert_eq!((status, err.as_str()), (1, ""), "no agent runs");
    let mends = out
        .lines()
        .filter(|line| line.starts_with("      mend: "))
        .count();
    assert!(mends >= 1, "{out}");
    for line in out.lines().filter(|line| !line.starts_with("      mend: ")) {
        assert!(line.chars().count() <= 80, "{line}");
    }
    assert!(
        out.lines().any(|line| line.starts_with("fail  socket ")),
        "{out}"
    );
    assert!(
        out.lines()
            .any(|line| line.starts_with("ok    config.layers ")),
        "{out}"
    );
    assert!(out.ends_with(" not used\n"), "{out}");
}

#[test]
fn help_says_what_it_does() {
    let help = Command::new(env!("CARGO_BIN_EXE_sideline"))
        .args(["doctor", "--help"])
        .output();
    let help = String::from_utf8(help.expect("it starts").stdout).expect("UTF-8");
    assert!(
        help.contains("--bundle <FILE>") && help.contains("It changes nothing"),
        "{help}"
    );
    assert!(!help.contains("--root"), "{help}");
}
