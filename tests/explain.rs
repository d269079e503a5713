//! `sideline explain`, as a person and a script see it.

use std::process::Output;

use sideline::config::codes::CODES;

fn explain(arguments: &[&str]) -> Output {
    std::process::Command::new(env!("CARGO_BIN_EXE_sideline"))
        .arg("explain")
        .args(arguments)
        .output()
        .expect("sideline starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

#[test]
fn a_dead_card() {
    let told = explain(&["gpu.xid.79"]);
    assert_eq!(told.status.code(), Some(0));
    insta::assert_snapshot!(text(&told.stdout), @r"
    gpu.xid.79: GPU has fallen off the bus

    means     The driver reported Xid 79: GPU has fallen off the bus. NVIDIA's
              immediate action: restart the machine.
    fault     the hardware
    here      Failing. On consumer cards it comes idle and without warning. Near an
              unclean restart, or at each heavy load, suspect the power supply and
              its cables.
    opens     With the kernel's line or NVML's event, at once.
    clears    When the driver is loaded again, the machine has restarted, or the
              card was gone and answers again. Silence is no proof.
    do        Restart the machine. If the card is still gone, cut the power for a
              minute; then check slot, riser and power cables; then replace the
              card.
    others    gpud: reboot, then inspect the hardware
              EKS node monitoring agent: fatal
              DCGM health: fail
              NVSentinel: restart the machine
    sources   https://docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html
              https://github.com/leptonai/gpud/tree/4a8de33/components/accelerator/nvidia/xid
              https://github.com/aws/eks-node-monitoring-agent/tree/51af549/monitors/nvidia
              https://github.com/NVIDIA/DCGM/blob/72fa3fe/modules/health/DcgmHealthWatch.cpp
              https://github.com/rupalis-nv/NVSentinel/tree/0f60731/health-monitors/syslog-health-monitor
    ");
}

#[test]
fn a_fault_of_a_program() {
    let told = explain(&["gpu.xid.68"]);
    assert_eq!(told.status.code(), Some(0));
    insta::assert_snapshot!(text(&told.stdout), @r"
    gpu.xid.68: NVDEC0 exception

    means     The driver reported Xid 68: NVDEC0 exception. NVIDIA's immediate
              action: restart the program.
    fault     the program
    here      Info. From 3 different processes on one card within 24 hours:
              degraded, inspect. One process as often as it likes changes nothing,
              but each start of a program is another process.
    opens     With the kernel's line or NVML's event, at once.
    clears    After judge.forget_after (10 minutes) without another one.
    do        Restart the program, if it has not restarted by itself.
    others    gpud: fatal: reboot
              EKS node monitoring agent: warning
              NVSentinel: none
    sources   https://docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html
              https://github.com/leptonai/gpud/tree/4a8de33/components/accelerator/nvidia/xid
              https://github.com/aws/eks-node-monitoring-agent/tree/51af549/monitors/nvidia
              https://github.com/NVIDIA/DCGM/blob/72fa3fe/modules/health/DcgmHealthWatch.cpp
              https://github.com/rupalis-nv/NVSentinel/tree/0f60731/health-monitors/syslog-health-monitor
    ");
}

#[test]
fn an_unknown_code_names_the_nearest() {
    for (code, message) in [
        (
            "gpu.los",
            r#"sideline: unknown finding code "gpu.los"; did you mean "gpu.lost"?"#,
        ),
        (
            "gpu.xid.079",
            r#"sideline: unknown finding code "gpu.xid.079"; did you mean "gpu.xid"?"#,
        ),
        (
            "",
            r#"sideline: unknown finding code ""; `sideline explain` lists all"#,
        ),
    ] {
        let told = explain(&[code]);
        assert_eq!(told.status.code(), Some(3), "{code}");
        assert_eq!(text(&told.stderr).trim_end(), message);
        assert!(told.stdout.is_empty());
    }
}

#[test]
fn the_list_has_every_code() {
    let told = text(&explain(&[]).stdout);
    let listed: Vec<&str> = told
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert_eq!(listed[0], "gpu.xid.<N>");
    assert_eq!(listed[1..], CODES);
    assert!(told.lines().all(|line| line.chars().count() <= 80));
}

#[test]
fn every_code_has_a_page_and_an_object() {
    for code in CODES.into_iter().chain(["gpu.xid", "gpu.xid.13"]) {
        let told = explain(&[code]);
        assert_eq!(told.status.code(), Some(0), "{code}");
        assert!(text(&told.stdout).starts_with(&format!("{code}: ")));
        let told = explain(&[code, "--json"]);
        let told: serde_json::Value = serde_json::from_slice(&told.stdout).expect("JSON");
        assert_eq!(told["code"], code);
        for key in ["title", "meaning", "severity", "opens", "clears", "todo"] {
            assert!(
                told[key].as_str().is_some_and(|said| !said.is_empty()),
                "{code}: {key}"
            );
        }
        assert!(
            told["sources"]
                .as_array()
                .is_some_and(|sources| !sources.is_empty())
        );
    }
}
