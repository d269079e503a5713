//! Every value of every preset.

use nvml_wrapper::Device;
use nvml_wrapper::enum_wrappers::device::*;

use crate::{Stage, field, remapped_rows, told};

/// Every value that sideline may read, of each preset.
pub(crate) fn read_all(stage: &Stage) {
    let columns = ["l4", "a10", "t4", "rtx4090", "gtx1060"];
    stage.write(&format!(
        r#"{{"gpus": [{}]}}"#,
        columns
            .map(|preset| format!(r#"{{"preset": "{preset}"}}"#))
            .join(", ")
    ));
    let nvml = stage.nvml().expect("a driver");
    let cards: Vec<Device> = (0..5)
        .map(|index| nvml.device_by_index(index).expect("a card"))
        .collect();

    let row = |name: &str, read: &dyn Fn(&Device) -> String, expected: [&str; 5]| {
        for ((card, preset), expected) in cards.iter().zip(columns).zip(expected) {
            assert_eq!(read(card), expected, "{name} of {preset}");
        }
    };
    macro_rules! rows {
        ($($read:expr => $($expected:literal)+;)+) => {
            $(row(stringify!($read), &|card| told(($read as fn(&Device) -> _)(card)), [$($expected),+]);)+
        };
    }
    use EccCounter as Since;
    use MemoryError::{Corrected, Uncorrected};
    use TemperatureThreshold as Limit;
    rows! {
        |d| d.name() => "NVIDIA L4" "NVIDIA A10" "Tesla T4" "NVIDIA GeForce RTX 4090" "NVIDIA GeForce GTX 1060 6GB";
        |d| d.serial() => "1650323000001" "1324321000002" "1323321070003" "NotSupported" "NotSupported";
        |d| d.vbios_version() => "95.04.29.00.06" "94.02.5C.00.04" "90.04.96.00.9F" "95.02.3C.40.B8" "86.06.0E.00.A1";
        |d| d.uuid().map(|uuid| uuid[..12].to_owned()) =>
            "GPU-00000001" "GPU-00000002" "GPU-00000003" "GPU-00000004" "GPU-00000005";
        |d| d.pci_info().map(|info| info.bus_id) =>
            "00000000:01:00.0" "00000000:02:00.0" "00000000:03:00.0" "00000000:04:00.0" "00000000:05:00.0";
        |d| d.pci_info().map(|info| format!("{:08X}", info.pci_device_id)) =>
            "27B810DE" "223610DE" "1EB810DE" "268410DE" "1C0310DE";
        |d| d.pci_info().map(|info| (info.domain, info.bus, info.device)) =>
            "(0, 1, 0)" "(0, 2, 0)" "(0, 3, 0)" "(0, 4, 0)" "(0, 5, 0)";
        |d| d.brand() => "Nvidia" "Nvidia" "Nvidia" "GeForce" "GeForce";
        |d| d.architecture() => "Ada" "Ampere" "Turing" "Ada" "Pascal";
        |d| d.cuda_compute_capability().map(|cc| (cc.major, cc.minor)) => "(8, 9)" "(8, 6)" "(7, 5)" "(8, 9)" "(6, 1)";
        |d| d.index() => "0" "1" "2" "3" "4";
        |d| d.minor_number() => "0" "1" "2" "3" "4";
        |d| d.utilization_rates().map(|load| (load.gpu, load.memory)) =>
            "(42, 21)" "(38, 17)" "(51, 29)" "(27, 12)" "(44, 31)";
        |d| d.encoder_utilization().map(|load| load.utilization) => "0" "0" "0" "0" "0";
        |d| d.decoder_utilization().map(|load| (load.utilization, load.sampling_period)) =>
            "(37, 167000)" "(44, 167000)" "(62, 167000)" "(33, 167000)" "(58, 167000)";
        |d| d.memory_info().map(|memory| memory.total >> 20) => "23034" "23028" "15360" "24564" "6144";
        |d| d.memory_info().map(|memory| memory.used >> 20) => "5120" "6144" "4096" "7168" "2048";
        |d| d.memory_info().map(|memory| memory.total - memory.used - memory.free - memory.reserved) =>
            "0" "0" "0" "0" "0";
        |d| d.bar1_memory_info().map(|bar1| (bar1.total >> 20, (bar1.total - bar1.free) >> 20)) =>
            "(32768, 1)" "(32768, 1)" "(256, 2)" "(256, 6)" "(256, 5)";
        |d| d.temperature(TemperatureSensor::Gpu) => "56" "58" "61" "54" "62";
        |d| d.temperature_threshold(Limit::Shutdown) => "90" "98" "96" "91" "102";
        |d| d.temperature_threshold(Limit::Slowdown) => "87" "95" "93" "86" "99";
        |d| d.temperature_threshold(Limit::GpuMax) => "85" "88" "85" "84" "NotSupported";
        |d| d.temperature_threshold(Limit::MemoryMax) =>
            "NotSupported" "95" "NotSupported" "NotSupported" "NotSupported";
        |d| d.temperature_threshold(Limit::AcousticMax) =>
            "NotSupported" "NotSupported" "NotSupported" "NotSupported" "NotSupported";
        |d| d.power_usage() => "41250" "78400" "47900" "112300" "48700";
        |d| d.power_management_limit() => "72000" "150000" "70000" "450000" "120000";
        |d| d.power_management_limit_default() => "72000" "150000" "70000" "450000" "120000";
        |d| d.enforced_power_limit() => "72000" "150000" "70000" "450000" "120000";
        |d| d.power_management_limit_constraints().map(|power| (power.min_limit, power.max_limit)) =>
            "(40000, 72000)" "(100000, 150000)" "(60000, 70000)" "(150000, 600000)" "(60000, 140000)";
        |d| d.total_energy_consumption() =>
            "98765432100" "187654321000" "123456789000" "76543210000" "NotSupported";
        |d| d.power_source() => "Ac" "Ac" "Ac" "Ac" "NotSupported";
        |d| d.clock_info(Clock::Graphics) => "2040" "1695" "1590" "2520" "1506";
        |d| d.clock_info(Clock::SM) => "2040" "1695" "1590" "2520" "1506";
        |d| d.clock_info(Clock::Memory) => "6250" "6250" "5000" "10501" "4006";
        |d| d.clock_info(Clock::Video) => "1770" "1515" "1470" "1950" "1354";
        |d| d.max_clock_info(Clock::SM) => "2040" "1695" "1590" "3105" "1961";
        |d| d.max_clock_info(Clock::Video) => "1770" "1530" "1470" "2415" "1708";
        |d| d.performance_state() => "Zero" "Zero" "Zero" "Two" "Zero";
        |d| d.current_throttle_reasons_strict().map(|reasons| reasons.bits()) => "0" "0" "0" "0" "0";
        |d| d.supported_throttle_reasons_strict().map(|reasons| reasons.bits()) => "511" "511" "511" "511" "511";
        |d| d.num_fans() => "NotSupported" "NotSupported" "NotSupported" "2" "1";
        |d| d.fan_speed(0) => "NotSupported" "NotSupported" "NotSupported" "34" "38";
        |d| d.fan_speed(1) => "NotSupported" "NotSupported" "NotSupported" "34" "InvalidArg";
        |d| d.fan_speed_rpm(0) => "NotSupported" "NotSupported" "NotSupported" "1230" "NotSupported";
        |d| d.is_ecc_enabled().map(|ecc| (ecc.currently_enabled, ecc.pending_enabled)) =>
            "(true, true)" "(true, true)" "(true, true)" "(false, false)" "NotSupported";
        |d| d.total_ecc_errors(Corrected, Since::Volatile) => "0" "0" "0" "NotSupported" "NotSupported";
        |d| d.total_ecc_errors(Uncorrected, Since::Aggregate) => "0" "0" "0" "NotSupported" "NotSupported";
        |d| d.memory_error_counter(Uncorrected, Since::Volatile, MemoryLocation::Device) =>
            "0" "0" "0" "NotSupported" "NotSupported";
        |d| d.retired_pages(RetirementCause::DoubleBitEccError) =>
            "NotSupported" "NotSupported" "[]" "NotSupported" "NotSupported";
        |d| d.are_pages_pending_retired() => "NotSupported" "NotSupported" "false" "NotSupported" "NotSupported";
        remapped_rows => "(0, 0, 0, 0)" "(0, 0, 0, 0)" "NotSupported" "(0, 0, 0, 0)" "NotSupported";
        |d| d.current_pcie_link_gen() => "4" "4" "3" "4" "3";
        |d| d.max_pcie_link_gen() => "4" "4" "3" "4" "3";
        |d| d.current_pcie_link_width() => "16" "16" "16" "16" "16";
        |d| d.max_pcie_link_width() => "16" "16" "16" "16" "16";
        |d| d.pcie_replay_counter() => "0" "0" "0" "0" "0";
        |d| d.pcie_throughput(PcieUtilCounter::Send) => "12000" "15000" "9000" "11000" "8000";
        |d| d.pcie_throughput(PcieUtilCounter::Receive) => "84000" "96000" "71000" "79000" "52000";
        |d| d.is_in_persistent_mode() => "true" "true" "true" "false" "false";
        |d| d.compute_mode() => "Default" "Default" "Default" "Default" "Default";
        |d| d.is_display_active() => "false" "false" "false" "false" "true";
        |d| d.is_display_connected() => "false" "false" "false" "false" "true";
        |d| d.running_compute_processes().map(|list| list.len()) => "1" "1" "1" "1" "1";
        |d| d.running_graphics_processes().map(|list| list.len()) => "0" "0" "0" "1" "1";
        |d| d.supported_event_types_strict().map(|types| types.bits()) => "287" "287" "31" "28" "28";
        |d| field(d, 230) => "U32(0)" "U32(0)" "U32(0)" "U32(0)" "NotSupported";
        // nvml-wrapper does not know the type of temperature limits, a signed int.
        |d| field(d, 194) => "UnexpectedVariant(5)" "NotSupported" "NotSupported" "UnexpectedVariant(5)" "NotSupported";
    }
}
