//! Cards that are lost, that fail, that tell nonsense, hang or crash, and the Xids they report.

use std::process::Command;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;
use std::{env, thread};

use nvml_wrapper::EventSet;
use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::structs::device::FieldId;

use crate::{Stage, check, field, told};

/// Long enough for anything but a hang.
const SOON: Duration = Duration::from_secs(10);

/// Many polls of the state file: a call that has not returned by then is blocked.
const BLOCKED: Duration = Duration::from_millis(200);

/// For waiting on events: longer than the poll of the state file.
const EVENT_MS: u32 = 10_000;

pub(crate) fn lost(stage: &Stage) {
    stage.write(r#"{"gpus": [{}, {}]}"#);
    let nvml = stage.nvml().expect("a driver");
    let cards = [0, 1].map(|index| nvml.device_by_index(index).expect("a card"));
    stage.write(r#"{"gpus": [{"lost": true}, {}]}"#);
    check("count", nvml.device_count(), "Ok(2)");
    check("handle", nvml.device_by_index(0).map(drop), "Err(GpuLost)");
    check(
        "temperature",
        cards[0].temperature(TemperatureSensor::Gpu),
        "Err(GpuLost)",
    );
    check("name", cards[0].name(), "Err(GpuLost)");
    check(
        "fields",
        cards[0].field_values_for(&[FieldId(94)]).map(drop),
        "Err(GpuLost)",
    );
    check(
        "the other",
        cards[1].temperature(TemperatureSensor::Gpu),
        "Ok(56)",
    );
    stage.write(r#"{"gpus": [{}, {}]}"#);
    check(
        "back",
        cards[0].temperature(TemperatureSensor::Gpu),
        "Ok(56)",
    );
}

pub(crate) fn errors_and_sentinels(stage: &Stage) {
    stage.write(
        r#"{"gpus": [{
            "preset": "rtx4090",
            "errors": {
                "nvmlDeviceGetPowerUsage": "not_supported", "nvmlDeviceGetTemperature": "timeout",
                "nvmlDeviceGetName": 16, "nvmlDeviceGetMemoryInfo": "unknown", "nvmlDeviceGetSerial": 31
            },
            "sentinels": [
                "nvmlDeviceGetFanSpeed", "nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetUUID",
                "nvmlDeviceGetUtilizationRates", "nvmlDeviceGetPerformanceState", "nvmlDeviceGetPciInfo",
                "nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetFieldValues", "nvmlDeviceGetFanSpeedRPM"
            ]
        }]}"#,
    );
    let nvml = stage.nvml().expect("a driver");
    let card = nvml.device_by_index(0).expect("a card");
    check("power", card.power_usage(), "Err(NotSupported)");
    check(
        "temperature",
        card.temperature(TemperatureSensor::Gpu),
        "Err(Timeout)",
    );
    check("name", card.name(), "Err(ResetRequired)");
    check("memory", card.memory_info(), "Err(Unknown)");
    check("serial", card.serial(), "Err(UnexpectedVariant(31))");

    check("fan", card.fan_speed(0), "Ok(4294967295)");
    check("rpm", card.fan_speed_rpm(0), "Ok(4294967295)");
    check(
        "energy",
        card.total_energy_consumption(),
        "Ok(18446744073709551615)",
    );
    check(
        "load",
        card.utilization_rates(),
        "Ok(Utilization { gpu: 4294967295, memory: 4294967295 })",
    );
    check(
        "pstate",
        card.performance_state(),
        "Err(UnexpectedVariant(4294967295))",
    );
    assert!(matches!(card.uuid(), Err(NvmlError::Utf8Error(_))));
    assert!(matches!(card.pci_info(), Err(NvmlError::Utf8Error(_))));
    check(
        "processes",
        card.running_compute_processes().map(|list| list[0].pid),
        "Ok(4294967295)",
    );
    check("field", field(&card, 94), "Ok(U32(4294967295))");
}

pub(crate) fn xids(stage: &Stage) {
    let write = |faults: &str| {
        stage.write(&format!(
            r#"{{"gpus": [{{{faults}}}, {{"uuid": "GPU-other"}}]}}"#
        ));
    };
    write(r#""xid_events": [{"seq": 1, "xid": 13}]"#);
    let nvml = stage.nvml().expect("a driver");
    let card = nvml.device_by_index(0).expect("a card");
    let set = nvml.create_event_set().expect("a set");
    let set = card
        .register_events(EventTypes::CRITICAL_XID_ERROR, set)
        .expect("registered");
    check("an old one", wait(&set, 0), "Err(Timeout)");

    let two =
        r#""xid_events": [{"seq": 1, "xid": 13}, {"seq": 2, "xid": 94}, {"seq": 3, "xid": 999}]"#;
    write(two);
    check("a new one", wait(&set, EVENT_MS), "Ok(Some(Value(94)))");
    check("the next", wait(&set, EVENT_MS), "Ok(Some(Unknown))");
    check("no more", wait(&set, 30), "Err(Timeout)");

    write(r#""lost": true, "xid_events": [{"seq": 4, "xid": 79}]"#);
    check("last words", wait(&set, EVENT_MS), "Ok(Some(Value(79)))");
    check("lost", wait(&set, EVENT_MS), "Err(GpuLost)");
    check(
        "no set for it",
        nvml.device_by_index(0).map(drop),
        "Err(GpuLost)",
    );
    check("released", set.release_events(), "Ok(())");

    write(two);
    let set = nvml.create_event_set().expect("a set");
    let set = card
        .register_events(EventTypes::CLOCK_CHANGE, set)
        .expect("registered");
    write(r#""xid_events": [{"seq": 5, "xid": 79}]"#);
    check("not asked for", wait(&set, 0), "Err(Timeout)");
    let refused = card
        .register_events(EventTypes::POWER_SOURCE_CHANGE, set)
        .map(drop)
        .map_err(|why| why.error);
    check("not supported", refused, "Err(NotSupported)");

    // One that arrives while the call waits.
    let set = nvml.create_event_set().expect("a set");
    let set = card
        .register_events(EventTypes::CRITICAL_XID_ERROR, set)
        .expect("registered");
    thread::scope(|threads| {
        let waiting = threads.spawn(move || wait(&set, EVENT_MS).map_err(|why| why.to_string()));
        write(r#""xid_events": [{"seq": 6, "xid": 48}]"#);
        assert_eq!(
            waiting.join().expect("no panic"),
            Ok(Some(XidError::Value(48)))
        );
    });
}

/// A card that hangs keeps nobody from the others.
pub(crate) fn one_card_hangs(stage: &Stage) {
    stage.write(r#"{"gpus": [{"hang": ["*"]}, {"temperature": 55}]}"#);
    let nvml = stage.nvml().expect("a driver");
    check("count", nvml.device_count(), "Ok(2)");
    let card = nvml.device_by_index(1).expect("a card");
    let temperature = card.temperature(TemperatureSensor::Gpu);
    check("the other", temperature, "Ok(55)");
}

pub(crate) fn hang(stage: &Stage) {
    stage.write(r#"{"gpus": [{}]}"#);
    let nvml = stage.nvml().expect("a driver");
    let card = nvml.device_by_index(0).expect("a card");
    let listed = [
        r#""hang": ["nvmlDeviceGetTemperature"], "gpus": [{"temperature": 71}]"#,
        r#""hang": ["*"], "gpus": [{"temperature": 71}]"#,
        r#""gpus": [{"temperature": 71, "hang": ["nvmlDeviceGetTemperature"]}]"#,
    ];
    for listed in listed {
        stage.write(&format!("{{{listed}}}"));
        thread::scope(|threads| {
            let (tell, heard) = mpsc::channel();
            let card = &card;
            threads.spawn(move || tell.send(told(card.temperature(TemperatureSensor::Gpu))));
            assert_eq!(
                heard.recv_timeout(BLOCKED),
                Err(RecvTimeoutError::Timeout),
                "{listed}"
            );
            stage.write(r#"{"gpus": [{"temperature": 72}]}"#);
            assert_eq!(heard.recv_timeout(SOON).as_deref(), Ok("72"), "{listed}");
        });
    }
}

/// The crash takes a process along, so it is another run of this test executable.
pub(crate) fn crash(stage: &Stage) {
    for (state, survives) in [
        (
            r#"{"crash": ["nvmlDeviceGetUtilizationRates"], "gpus": [{}]}"#,
            false,
        ),
        (
            r#"{"gpus": [{"crash": ["nvmlDeviceGetUtilizationRates"]}]}"#,
            false,
        ),
        (r#"{"crash": ["nvmlDeviceGetSerial"], "gpus": [{}]}"#, true),
    ] {
        stage.write(state);
        let run = Command::new(env::current_exe().expect("a path"))
            .args(["--ignored", "--exact", "reads_the_load"])
            .output()
            .expect("a second run");
        assert_eq!(run.status.success(), survives, "{run:?}");
    }
}

fn wait(set: &EventSet, timeout_ms: u32) -> Result<Option<XidError>, NvmlError> {
    set.wait(timeout_ms).map(|event| event.event_data)
}
