//! Healthy cards as they come: the values a card has where the state file says nothing else.

use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

use crate::state::Gpu;

/// The cards of the state file, each laid over its preset.
pub(crate) fn cards<'de, D: Deserializer<'de>>(file: D) -> Result<Vec<Gpu>, D::Error> {
    let written = Vec::<Map<String, Value>>::deserialize(file)?;
    written
        .into_iter()
        .enumerate()
        .map(|(position, card)| {
            self::card(position, card)
                .map_err(|why| D::Error::custom(format!("gpus[{position}]: {why}")))
        })
        .collect()
}

fn card(position: usize, mut written: Map<String, Value>) -> Result<Gpu, String> {
    let preset = written.remove("preset").unwrap_or_else(|| "l4".into());
    let mut card = PRESETS
        .iter()
        .find(|(name, _)| preset == *name)
        .map(|(_, values)| {
            serde_json::from_str(values).map_err(|why| format!("preset {preset}: {why}"))
        })
        .ok_or_else(|| format!("no preset {preset}"))??;
    let identity = identity(position, &card);
    overlay(&mut card, identity);
    overlay(&mut card, Value::Object(written));
    serde_json::from_value(card).map_err(|why| why.to_string())
}

/// What no two cards share.
fn identity(position: usize, preset: &Value) -> Value {
    let number = position + 1;
    let mut identity = json!({
        "uuid": format!("GPU-{number:08x}-5ced-4e11-8e5c-{number:012x}"),
        "pci_bus_id": format!("00000000:{number:02X}:00.0"),
        "minor_number": position,
    });
    if let Some(serial) = preset["serial"].as_str() {
        identity["serial"] = format!("{serial}{number:04}").into();
    }
    identity
}

/// Objects are merged; anything else replaces what was there.
fn overlay(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                overlay(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over,
    }
}

/// Figures as such cards report them while they decode a few dozen cameras.
const PRESETS: &[(&str, &str)] = &[
    (
        "l4",
        r#"{
        "name": "NVIDIA L4", "serial": "165032300", "vbios": "95.04.29.00.06",
        "pci_device_id": 666374366, "pci_subsystem_id": 381293790,
        "brand": 14, "architecture": 8, "compute_capability": [8, 9],
        "utilization": {"gpu": 42, "memory": 21}, "encoder": 0, "decoder": 37,
        "memory": {"total": 24152899584, "reserved": 515899392, "used": 5368709120},
        "bar1": {"total": 34359738368, "used": 1048576},
        "temperature": 56, "margin_temperature": 29,
        "temperature_limits": {"shutdown": 90, "slowdown": 87, "gpu_max": 85},
        "fields": {"193": -5, "194": -2, "196": 0},
        "power_mw": 41250, "power_limit_mw": 72000, "power_default_limit_mw": 72000,
        "power_enforced_limit_mw": 72000, "power_min_limit_mw": 40000, "power_max_limit_mw": 72000,
        "total_energy_mj": 98765432100, "power_source": 0,
        "clocks": {"graphics": 2040, "sm": 2040, "memory": 6250, "video": 1770},
        "max_clocks": {"graphics": 2040, "sm": 2040, "memory": 6251, "video": 1770},
        "pstate": 0, "throttle_reasons": 0, "supported_throttle_reasons": 511,
        "ecc": {"enabled": true}, "remapped_rows": {},
        "pcie": {"gen": 4, "max_gen": 4, "width": 16, "max_width": 16},
        "pcie_throughput": {"tx": 12000, "rx": 84000},
        "persistence": true, "compute_mode": 0, "display_active": false, "display_connected": false,
        "processes": [{"pid": 4711, "used_memory": 5242880000}], "graphics_processes": [],
        "event_types": 287, "recovery_action": 0
    }"#,
    ),
    (
        "a10",
        r#"{
        "name": "NVIDIA A10", "serial": "132432100", "vbios": "94.02.5C.00.04",
        "pci_device_id": 573968606, "pci_subsystem_id": 341446878,
        "brand": 14, "architecture": 7, "compute_capability": [8, 6],
        "utilization": {"gpu": 38, "memory": 17}, "encoder": 0, "decoder": 44,
        "memory": {"total": 24146608128, "reserved": 475004928, "used": 6442450944},
        "bar1": {"total": 34359738368, "used": 1048576},
        "temperature": 58,
        "temperature_limits": {"shutdown": 98, "slowdown": 95, "gpu_max": 88, "mem_max": 95},
        "power_mw": 78400, "power_limit_mw": 150000, "power_default_limit_mw": 150000,
        "power_enforced_limit_mw": 150000, "power_min_limit_mw": 100000, "power_max_limit_mw": 150000,
        "total_energy_mj": 187654321000, "power_source": 0,
        "clocks": {"graphics": 1695, "sm": 1695, "memory": 6250, "video": 1515},
        "max_clocks": {"graphics": 1695, "sm": 1695, "memory": 6251, "video": 1530},
        "pstate": 0, "throttle_reasons": 0, "supported_throttle_reasons": 511,
        "ecc": {"enabled": true}, "remapped_rows": {},
        "pcie": {"gen": 4, "max_gen": 4, "width": 16, "max_width": 16},
        "pcie_throughput": {"tx": 15000, "rx": 96000},
        "persistence": true, "compute_mode": 0, "display_active": false, "display_connected": false,
        "processes": [{"pid": 4711, "used_memory": 6291456000}], "graphics_processes": [],
        "event_types": 287, "recovery_action": 0
    }"#,
    ),
    (
        "t4",
        r#"{
        "name": "Tesla T4", "serial": "132332107", "vbios": "90.04.96.00.9F",
        "pci_device_id": 515379422, "pci_subsystem_id": 312611038,
        "brand": 14, "architecture": 6, "compute_capability": [7, 5],
        "utilization": {"gpu": 51, "memory": 29}, "encoder": 0, "decoder": 62,
        "memory": {"total": 16106127360, "reserved": 455081984, "used": 4294967296},
        "bar1": {"total": 268435456, "used": 2097152},
        "temperature": 61,
        "temperature_limits": {"shutdown": 96, "slowdown": 93, "gpu_max": 85},
        "power_mw": 47900, "power_limit_mw": 70000, "power_default_limit_mw": 70000,
        "power_enforced_limit_mw": 70000, "power_min_limit_mw": 60000, "power_max_limit_mw": 70000,
        "total_energy_mj": 123456789000, "power_source": 0,
        "clocks": {"graphics": 1590, "sm": 1590, "memory": 5000, "video": 1470},
        "max_clocks": {"graphics": 1590, "sm": 1590, "memory": 5001, "video": 1470},
        "pstate": 0, "throttle_reasons": 0, "supported_throttle_reasons": 511,
        "ecc": {"enabled": true}, "retired_pages": {},
        "pcie": {"gen": 3, "max_gen": 3, "width": 16, "max_width": 16},
        "pcie_throughput": {"tx": 9000, "rx": 71000},
        "persistence": true, "compute_mode": 0, "display_active": false, "display_connected": false,
        "processes": [{"pid": 4711, "used_memory": 4194304000}], "graphics_processes": [],
        "event_types": 31, "recovery_action": 0
    }"#,
    ),
    (
        "rtx4090",
        r#"{
        "name": "NVIDIA GeForce RTX 4090", "serial": null, "vbios": "95.02.3C.40.B8",
        "pci_device_id": 646189278, "pci_subsystem_id": 1086263384,
        "brand": 5, "architecture": 8, "compute_capability": [8, 9],
        "utilization": {"gpu": 27, "memory": 12}, "encoder": 0, "decoder": 33,
        "memory": {"total": 25757220864, "reserved": 379584512, "used": 7516192768},
        "bar1": {"total": 268435456, "used": 6291456},
        "temperature": 54, "margin_temperature": 30,
        "temperature_limits": {"shutdown": 91, "slowdown": 86, "gpu_max": 84},
        "fields": {"193": -7, "194": -2, "196": 0},
        "power_mw": 112300, "power_limit_mw": 450000, "power_default_limit_mw": 450000,
        "power_enforced_limit_mw": 450000, "power_min_limit_mw": 150000, "power_max_limit_mw": 600000,
        "total_energy_mj": 76543210000, "power_source": 0,
        "clocks": {"graphics": 2520, "sm": 2520, "memory": 10501, "video": 1950},
        "max_clocks": {"graphics": 3105, "sm": 3105, "memory": 10501, "video": 2415},
        "pstate": 2, "throttle_reasons": 0, "supported_throttle_reasons": 511,
        "fans": [34, 34], "fan_rpm": 1230,
        "ecc": {"enabled": false}, "remapped_rows": {},
        "pcie": {"gen": 4, "max_gen": 4, "width": 16, "max_width": 16},
        "pcie_throughput": {"tx": 11000, "rx": 79000},
        "persistence": false, "compute_mode": 0, "display_active": false, "display_connected": false,
        "processes": [{"pid": 4711, "used_memory": 7340032000}],
        "graphics_processes": [{"pid": 1290, "used_memory": 9437184}],
        "event_types": 28, "recovery_action": 0
    }"#,
    ),
    (
        "gtx1060",
        r#"{
        "name": "NVIDIA GeForce GTX 1060 6GB", "serial": null, "vbios": "86.06.0E.00.A1",
        "pci_device_id": 469962974, "pci_subsystem_id": 1631195203,
        "brand": 5, "architecture": 4, "compute_capability": [6, 1],
        "utilization": {"gpu": 44, "memory": 31}, "encoder": 0, "decoder": 58,
        "memory": {"total": 6442450944, "reserved": 80740352, "used": 2147483648},
        "bar1": {"total": 268435456, "used": 5242880},
        "temperature": 62,
        "temperature_limits": {"shutdown": 102, "slowdown": 99},
        "power_mw": 48700, "power_limit_mw": 120000, "power_default_limit_mw": 120000,
        "power_enforced_limit_mw": 120000, "power_min_limit_mw": 60000, "power_max_limit_mw": 140000,
        "clocks": {"graphics": 1506, "sm": 1506, "memory": 4006, "video": 1354},
        "max_clocks": {"graphics": 1961, "sm": 1961, "memory": 4004, "video": 1708},
        "pstate": 0, "throttle_reasons": 0, "supported_throttle_reasons": 511,
        "fans": [38],
        "pcie": {"gen": 3, "max_gen": 3, "width": 16, "max_width": 16},
        "pcie_throughput": {"tx": 8000, "rx": 52000},
        "persistence": false, "compute_mode": 0, "display_active": true, "display_connected": true,
        "processes": [{"pid": 4711, "used_memory": 2097152000}],
        "graphics_processes": [{"pid": 1290, "used_memory": 41943040}],
        "event_types": 28
    }"#,
    ),
];
