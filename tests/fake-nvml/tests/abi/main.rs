//! The library as nvml-wrapper sees it: every value of every preset, and every fault.
//!
//! `FAKE_NVML_STATE` belongs to the process, so all scenarios run in turn within one test.
#![expect(
    unsafe_code,
    reason = "sets the environment and calls what nvml-wrapper does not wrap"
)]

mod faults;
mod presets;

use std::ffi::CStr;
use std::fmt::Debug;
use std::path::PathBuf;
use std::process::Command;
use std::{env, fs, mem, ptr};

use nvml_wrapper::bitmasks::InitFlags;
use nvml_wrapper::enum_wrappers::device::*;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::structs::device::FieldId;
use nvml_wrapper::{Device, Nvml};
use nvml_wrapper_sys::bindings as c;

#[test]
fn the_library_behaves_as_its_state_file_says() {
    let folder = tempfile::tempdir().expect("a folder");
    let stage = Stage {
        library: library(),
        state: folder.path().join("state.json"),
    };

    // SAFETY: no other thread of this process runs yet that reads the environment.
    unsafe { env::remove_var("FAKE_NVML_STATE") };
    check(
        "no variable",
        stage.nvml().map(drop),
        "Err(DriverNotLoaded)",
    );
    // SAFETY: as above.
    unsafe { env::set_var("FAKE_NVML_STATE", &stage.state) };
    check("no file", stage.nvml().map(drop), "Err(DriverNotLoaded)");

    presets::read_all(&stage);
    initialisation(&stage);
    enumeration(&stage);
    changes_while_running(&stage);
    faults::lost(&stage);
    faults::errors_and_sentinels(&stage);
    fields(&stage);
    lists(&stage);
    raw_calls(&stage);
    faults::xids(&stage);
    faults::hang(&stage);
    faults::one_card_hangs(&stage);
    faults::crash(&stage);
}

fn initialisation(stage: &Stage) {
    for (init, expected) in [
        ("\"driver_not_loaded\"", "Err(DriverNotLoaded)"),
        ("\"lib_rm_version_mismatch\"", "Err(LibRmVersionMismatch)"),
        ("\"no_permission\"", "Err(NoPermission)"),
        ("\"unknown\"", "Err(Unknown)"),
        ("11", "Err(IrqIssue)"),
        ("\"ok\"", "Ok(())"),
    ] {
        stage.write(&format!(r#"{{"init": {init}}}"#));
        check(init, stage.nvml().map(drop), expected);
        check(init, stage.nvml().and_then(Nvml::shutdown), expected);
    }
    stage
        .write(r#"{"driver_version": "470.1", "nvml_version": "11.470.1", "cuda_version": 11040}"#);
    let nvml = Nvml::builder()
        .lib_path(stage.library.as_os_str())
        .flags(InitFlags::NO_GPUS)
        .init()
        .expect("a driver");
    check("driver", nvml.sys_driver_version(), r#"Ok("470.1")"#);
    check("nvml", nvml.sys_nvml_version(), r#"Ok("11.470.1")"#);
    check("cuda", nvml.sys_cuda_driver_version(), "Ok(11040)");
    check("cards", nvml.device_count(), "Ok(0)");
    // SAFETY: the library is loaded, and the wrapper's own shutdown then fails harmlessly.
    unsafe { nvml.lib().nvmlShutdown() };
    check("shut down", nvml.device_count(), "Err(Uninitialized)");
}

fn enumeration(stage: &Stage) {
    stage.write(
        r#"{"gpus": [{"uuid": "GPU-a"}, {"uuid": "GPU-b", "pci_bus_id": "00000001:C1:00.0"}]}"#,
    );
    let nvml = stage.nvml().expect("a driver");
    check("both", nvml.device_count(), "Ok(2)");
    check(
        "by uuid",
        nvml.device_by_uuid("GPU-b").and_then(|card| card.index()),
        "Ok(1)",
    );
    check(
        "wrong uuid",
        nvml.device_by_uuid("GPU-c").map(drop),
        "Err(NotFound)",
    );
    for bus_id in ["00000001:C1:00.0", "0001:c1:00.0"] {
        check(
            bus_id,
            nvml.device_by_pci_bus_id(bus_id)
                .and_then(|card| card.uuid()),
            r#"Ok("GPU-b")"#,
        );
    }
    check(
        "wrong bus",
        nvml.device_by_pci_bus_id("0000:C1:00.0").map(drop),
        "Err(NotFound)",
    );
    check(
        "no bus",
        nvml.device_by_pci_bus_id("over there").map(drop),
        "Err(InvalidArg)",
    );
    check(
        "wrong index",
        nvml.device_by_index(2).map(drop),
        "Err(InvalidArg)",
    );

    let gone = nvml.device_by_index(0).expect("a card");
    stage.write(r#"{"gpus": [{"uuid": "GPU-a", "missing": true}, {"uuid": "GPU-b"}]}"#);
    check("one left", nvml.device_count(), "Ok(1)");
    check(
        "moved up",
        nvml.device_by_index(0).and_then(|card| card.uuid()),
        r#"Ok("GPU-b")"#,
    );
    check(
        "its index",
        nvml.device_by_uuid("GPU-b").and_then(|card| card.index()),
        "Ok(0)",
    );
    check(
        "no uuid",
        nvml.device_by_uuid("GPU-a").map(drop),
        "Err(NotFound)",
    );
    check("old handle", gone.power_usage(), "Err(GpuLost)");
}

fn changes_while_running(stage: &Stage) {
    stage.write(r#"{"gpus": [{"preset": "l4", "temperature": 40}]}"#);
    let nvml = stage.nvml().expect("a driver");
    let card = nvml.device_by_index(0).expect("a card");
    for (change, read, expected) in [
        (
            r#"{"temperature": 91}"#,
            (|d| told(d.temperature(TemperatureSensor::Gpu))) as fn(&Device) -> String,
            "91",
        ),
        (
            r#"{"temperature": null}"#,
            |d| told(d.temperature(TemperatureSensor::Gpu)),
            "NotSupported",
        ),
        (
            r#"{"clocks": {"sm": 210}}"#,
            |d| told(d.clock_info(Clock::SM)),
            "210",
        ),
        (
            r#"{"clocks": {"sm": 210}}"#,
            |d| told(d.clock_info(Clock::Memory)),
            "6250",
        ),
        (
            r#"{"throttle_reasons": 64}"#,
            |d| told(d.current_throttle_reasons().map(|bits| bits.bits())),
            "64",
        ),
        (
            r#"{"throttle_reasons": 1024}"#,
            |d| told(d.current_throttle_reasons().map(|bits| bits.bits())),
            "0",
        ),
        (
            r#"{"throttle_reasons": 1024}"#,
            |d| told(d.current_throttle_reasons_strict()),
            "IncorrectBits(U64(1024))",
        ),
        (
            r#"{"architecture": 11}"#,
            |d| told(d.architecture()),
            "UnexpectedVariant(11)",
        ),
        (
            r#"{"power_source": 2}"#,
            |d| told(d.power_source()),
            "UnexpectedVariant(2)",
        ),
        (
            r#"{"ecc": {"uncorrected_volatile": 3}}"#,
            |d| told(d.total_ecc_errors(MemoryError::Uncorrected, EccCounter::Volatile)),
            "3",
        ),
        (
            r#"{"ecc": null, "remapped_rows": {"uncorrected": 2, "failure": true}}"#,
            |d| told(remapped_rows(d)),
            "(0, 2, 0, 1)",
        ),
        (
            r#"{"ecc": null}"#,
            |d| told(d.is_ecc_enabled()),
            "NotSupported",
        ),
        (
            r#"{"memory": {"used": 24152899584, "reserved": 0}}"#,
            |d| told(d.memory_info().map(|m| m.free)),
            "0",
        ),
        (
            r#"{"memory": {"free": 7}}"#,
            |d| told(d.memory_info().map(|m| m.free)),
            "7",
        ),
        (
            r#"{"pcie": {"width": 8}}"#,
            |d| told(d.current_pcie_link_width()),
            "8",
        ),
    ] {
        stage.write(&format!(r#"{{"gpus": [{change}]}}"#));
        assert_eq!(read(&card), expected, "{change}");
    }
    // A torn or wrong file changes nothing.
    for wrong in [
        "",
        "{",
        r#"{"gpu": []}"#,
        r#"{"gpus": [{"tempreature": 1}]}"#,
        r#"{"hang": ["nvmlTypo"]}"#,
    ] {
        stage.write(wrong);
        check(wrong, card.current_pcie_link_width(), "Ok(8)");
    }
    fs::remove_file(&stage.state).expect("the file goes");
    check("no file", card.current_pcie_link_width(), "Ok(8)");
}

fn fields(stage: &Stage) {
    stage.write(
        r#"{"driver_version": "580.95.05", "gpus": [{
            "preset": "t4", "total_energy_mj": 5000000000, "recovery_action": 2,
            "pcie": {"replays": 12, "replay_rollovers": 1}, "ecc": {"corrected_aggregate": 9},
            "remapped_rows": {"corrected": 1, "uncorrected": 2, "pending": true},
            "retired_pages": {"sbe": [4096], "dbe": [8192, 12288], "pending": true},
            "fields": {
                "80": null, "81": "gpu_is_lost", "84": 1.5, "85": {"i64": -3}, "86": {"u16": 3},
                "87": -3, "194": 4, "269": 7
            }
        }]}"#,
    );
    let nvml = stage.nvml().expect("a driver");
    let card = nvml.device_by_index(0).expect("a card");
    for (id, expected) in [
        (1, "Ok(U32(1))"),
        (5, "Ok(U32(9))"),
        (29, "Ok(U32(1))"),
        (30, "Ok(U32(2))"),
        (31, "Ok(U32(1))"),
        (80, "Err(NotSupported)"),
        (81, "Err(GpuLost)"),
        (82, "Err(NotSupported)"),
        (83, "Ok(U64(5000000000))"),
        (84, "Ok(F64(1.5))"),
        (85, "Ok(I64(-3))"),
        (86, "Err(UnexpectedVariant(6))"),
        (87, "Err(UnexpectedVariant(5))"),
        (94, "Ok(U32(12))"),
        (95, "Ok(U32(1))"),
        (142, "Ok(U32(1))"),
        (143, "Ok(U32(2))"),
        (144, "Ok(U32(1))"),
        (145, "Ok(U32(0))"),
        (194, "Err(UnexpectedVariant(5))"),
        (230, "Ok(U32(2))"),
        // From driver 580.82 on, nvml-wrapper asks for 269 where its caller says 251.
        (251, "Ok(U32(7))"),
    ] {
        check(&format!("field {id}"), field(&card, id), expected);
    }
}

fn lists(stage: &Stage) {
    stage.write(
        r#"{"gpus": [{
            "preset": "t4", "retired_pages": {"sbe": [4096, 8192]},
            "processes": [{"pid": 7, "used_memory": 1024}, {"pid": 8}], "graphics_processes": null
        }]}"#,
    );
    let nvml = stage.nvml().expect("a driver");
    let card = nvml.device_by_index(0).expect("a card");
    check(
        "processes",
        card.running_compute_processes().map(|list| {
            list.into_iter()
                .map(|p| (p.pid, p.used_gpu_memory))
                .collect::<Vec<_>>()
        }),
        "Ok([(7, Used(1024)), (8, Unavailable)])",
    );
    check(
        "graphics",
        card.running_graphics_processes(),
        "Err(NotSupported)",
    );
    check(
        "pages",
        card.retired_pages(RetirementCause::MultipleSingleBitEccErrors)
            .map(|pages| {
                pages
                    .into_iter()
                    .map(|page| page.address)
                    .collect::<Vec<_>>()
            }),
        "Ok([4096, 8192])",
    );
    check(
        "other pages",
        card.retired_pages(RetirementCause::DoubleBitEccError),
        "Ok([])",
    );
}

/// What nvml-wrapper does not wrap, or would not do.
fn raw_calls(stage: &Stage) {
    stage.write(r#"{"gpus": [{"preset": "l4"}]}"#);
    let nvml = stage.nvml().expect("a driver");
    let card = nvml.device_by_index(0).expect("a card");
    let lib = nvml.lib();
    let mut count = 0;
    // SAFETY: the pointers are good or null, and the handles the library's own or null.
    unsafe {
        let device = card.handle();
        assert_eq!(lib.nvmlDeviceGetTemperature(device, 0, ptr::null_mut()), 2);
        assert_eq!(
            lib.nvmlDeviceGetTemperature(ptr::null_mut(), 0, &mut count),
            2
        );
        assert_eq!(lib.nvmlDeviceGetTemperature(device, 1, &mut count), 2);
        assert_eq!(lib.nvmlDeviceGetUUID(device, [0; 8].as_mut_ptr(), 8), 7);
        assert_eq!(lib.nvmlDeviceGetName(device, ptr::null_mut(), 96), 2);
        assert_eq!(
            lib.nvmlDeviceGetComputeRunningProcesses_v3(device, &mut count, ptr::null_mut()),
            7
        );
        assert_eq!(count, 1);
        assert_eq!(
            lib.nvmlDeviceGetComputeRunningProcesses_v3(device, &mut count, ptr::null_mut()),
            2
        );
        assert_eq!(lib.nvmlDeviceGetFieldValues(device, 1, ptr::null_mut()), 2);

        let mut memory: c::nvmlMemory_v2_t = mem::zeroed();
        assert_eq!(lib.nvmlDeviceGetMemoryInfo_v2(device, &mut memory), 25);

        let mut temperature: c::nvmlTemperature_t = mem::zeroed();
        temperature.version = 1 << 24 | 12;
        assert_eq!(lib.nvmlDeviceGetTemperatureV(device, &mut temperature), 0);
        assert_eq!(temperature.temperature, 56);

        let mut margin: c::nvmlMarginTemperature_t = mem::zeroed();
        margin.version = 1 << 24 | 8;
        assert_eq!(lib.nvmlDeviceGetMarginTemperature(device, &mut margin), 0);
        assert_eq!(margin.marginTemperature, 29);

        let mut limit: c::nvmlFieldValue_t = mem::zeroed();
        limit.fieldId = 194;
        assert_eq!(lib.nvmlDeviceGetFieldValues(device, 1, &mut limit), 0);
        assert_eq!(
            (limit.nvmlReturn, limit.valueType, limit.value.siVal),
            (0, 5, -2)
        );

        let mut reasons = 0;
        assert_eq!(
            lib.nvmlDeviceGetCurrentClocksEventReasons(device, &mut reasons),
            0
        );
        assert_eq!(CStr::from_ptr(lib.nvmlErrorString(15)), c"GPU is lost");
    }
}

#[test]
#[ignore = "run by the other test, in a process that may crash"]
fn reads_the_load() {
    if env::var_os("FAKE_NVML_STATE").is_none() {
        return;
    }
    let library = library();
    let nvml = Nvml::builder()
        .lib_path(library.as_os_str())
        .init()
        .expect("a driver");
    nvml.device_by_index(0)
        .and_then(|card| card.utilization_rates())
        .expect("a load");
}

/// The library and the file that it reads.
struct Stage {
    library: PathBuf,
    state: PathBuf,
}

impl Stage {
    fn nvml(&self) -> Result<Nvml, NvmlError> {
        Nvml::builder().lib_path(self.library.as_os_str()).init()
    }

    fn write(&self, state: &str) {
        let new = self.state.with_extension("new");
        fs::write(&new, state).expect("written");
        fs::rename(new, &self.state).expect("renamed");
    }
}

/// The library above this executable's folder. Cargo does not build it for its own tests.
fn library() -> PathBuf {
    let me = env::current_exe().expect("a path");
    let profile = me.ancestors().nth(2).expect("target/debug");
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--package", "fake-nvml", "--target-dir"])
        .arg(profile.parent().expect("target"))
        .args(profile.ends_with("release").then_some("--release"))
        .status();
    assert!(
        built.is_ok_and(|status| status.success()),
        "the library is not built"
    );
    profile.join("libnvidia_ml.so")
}

/// One field by its number.
fn field(card: &Device, id: u32) -> Result<nvml_wrapper::enums::device::SampleValue, NvmlError> {
    card.field_values_for(&[FieldId(id)])?.remove(0)?.value
}

/// nvml-wrapper has no such call.
fn remapped_rows(card: &Device) -> Result<(u32, u32, u32, u32), NvmlError> {
    let [mut corrected, mut uncorrected, mut pending, mut failure] = [0; 4];
    // SAFETY: the handle is the library's own and the pointers are good.
    let code = unsafe {
        let (lib, device) = (card.nvml().lib(), card.handle());
        lib.nvmlDeviceGetRemappedRows(
            device,
            &mut corrected,
            &mut uncorrected,
            &mut pending,
            &mut failure,
        )
    };
    nvml_wrapper::error::nvml_try(code).map(|()| (corrected, uncorrected, pending, failure))
}

/// A value or the name of an error.
fn told<T: Debug>(answer: Result<T, NvmlError>) -> String {
    match answer {
        Ok(value) => format!("{value:?}").trim_matches('"').to_owned(),
        Err(why) => format!("{why:?}"),
    }
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "each check makes its own answer"
)]
fn check<T: Debug>(what: &str, answer: Result<T, NvmlError>, expected: &str) {
    assert_eq!(format!("{answer:?}"), expected, "{what}");
}
