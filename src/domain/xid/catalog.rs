//! The rows of the Xid catalog, in the order of their numbers.

use super::{Class, Fault, Repeats, Row};
use crate::domain::finding::{Advice, Severity};

pub(super) static UNLISTED: Row = unstated(0, "not in NVIDIA's catalog");

const fn row(
    number: u32,
    name: &'static str,
    class: Class,
    fault: Fault,
    severity: Severity,
    advice: Advice,
) -> Row {
    Row {
        number,
        name,
        class,
        fault,
        severity,
        advice,
        repeats: Repeats::Nothing,
    }
}

/// The same row, with somebody else to blame.
const fn by(fault: Fault, row: Row) -> Row {
    Row { fault, ..row }
}

const fn ignore(number: u32, name: &'static str) -> Row {
    row(
        number,
        name,
        Class::Ignore,
        Fault::None,
        Severity::Info,
        Advice::None,
    )
}

const fn app(number: u32, name: &'static str) -> Row {
    Row {
        repeats: Repeats::DifferentProcesses,
        ..row(
            number,
            name,
            Class::RestartApp,
            Fault::Application,
            Severity::Info,
            Advice::RestartApp,
        )
    }
}

const fn reset(number: u32, name: &'static str) -> Row {
    row(
        number,
        name,
        Class::ResetGpu,
        Fault::Hardware,
        Severity::Failing,
        Advice::ResetGpu,
    )
}

const fn nvlink(number: u32, name: &'static str) -> Row {
    row(
        number,
        name,
        Class::Decode,
        Fault::Link,
        Severity::Degraded,
        Advice::Inspect,
    )
}

const fn support(number: u32, name: &'static str) -> Row {
    row(
        number,
        name,
        Class::ContactSupport,
        Fault::NotStated,
        Severity::Degraded,
        Advice::ContactSupport,
    )
}

const fn unused(number: u32) -> Row {
    support(number, "unused")
}

const fn unstated(number: u32, name: &'static str) -> Row {
    row(
        number,
        name,
        Class::Unstated,
        Fault::NotStated,
        Severity::Degraded,
        Advice::Inspect,
    )
}

/// Sorted by number.
pub(super) static CATALOG: [Row; 172] = [
    unused(1),
    unused(2),
    unused(3),
    unused(4),
    unused(5),
    unused(6),
    unused(7),
    app(8, "GPU stopped processing"),
    unused(9),
    unused(10),
    app(11, "invalid or corrupted push buffer stream"),
    unused(12),
    app(13, "graphics engine exception"),
    ignore(14, "unused"),
    unused(15),
    unused(16),
    unused(17),
    unused(18),
    unused(19),
    unused(20),
    unused(21),
    unused(22),
    unused(23),
    unused(24),
    app(25, "invalid or illegal push buffer stream"),
    unused(26),
    unused(27),
    unused(28),
    unused(29),
    unused(30),
    app(31, "GPU memory page fault"),
    app(32, "invalid or corrupted push buffer stream"),
    unused(33),
    unused(34),
    unused(35),
    unused(36),
    by(Fault::Driver, ignore(37, "driver firmware error")),
    by(Fault::Driver, ignore(38, "driver firmware error")),
    app(39, "copy engine exception"),
    app(40, "copy engine exception"),
    app(41, "copy engine exception"),
    unused(42),
    by(Fault::Application, ignore(43, "GPU stopped processing")),
    ignore(44, "graphics engine fault during context switch"),
    row(
        45,
        "preemptive cleanup, due to previous errors",
        Class::FollowOther,
        Fault::None,
        Severity::Info,
        Advice::None,
    ),
    reset(46, "GPU stopped processing"),
    // 47, 65 and 73 are the encoders of cards before Ampere, whose catalog treats them as the decoders
    // are treated now; on newer cards NVIDIA calls them unused.
    app(47, "NVENC0 error"),
    reset(48, "double-bit ECC error"),
    unused(49),
    unused(50),
    unused(51),
    unused(52),
    unused(53),
    // Not an early warning: a card without its power plug runs clamped, if it runs.
    row(
        54,
        "auxiliary power is not connected to the GPU board",
        Class::CheckMechanicals,
        Fault::Power,
        Severity::Failing,
        Advice::Inspect,
    ),
    unused(55),
    unused(56),
    unused(57),
    unused(58),
    unused(59),
    app(60, "video processor exception"),
    unused(61),
    reset(62, "internal micro-controller halt"),
    by(Fault::Hardware, ignore(63, "GPU memory remapping event")),
    reset(64, "GPU memory remapping failure"),
    app(65, "NVENC1 error"),
    by(Fault::Driver, ignore(66, "illegal access by driver")),
    by(Fault::Driver, ignore(67, "illegal access by driver")),
    app(68, "NVDEC0 exception"),
    app(69, "graphics engine class error"),
    app(70, "copy engine 3 error"),
    app(71, "copy engine 4 error"),
    app(72, "copy engine 5 error"),
    app(73, "NVENC2 error"),
    nvlink(74, "NVLink error"),
    app(75, "copy engine 6 error"),
    app(76, "copy engine 7 error"),
    app(77, "copy engine 8 error"),
    by(Fault::Driver, support(78, "vGPU start error")),
    row(
        79,
        "GPU has fallen off the bus",
        Class::Reboot,
        Fault::Hardware,
        Severity::Failing,
        Advice::Reboot,
    ),
    app(80, "corrupted data sent to GPU"),
    unused(81),
    app(82, "NVJPG0 error"),
    app(83, "NVDEC1 error"),
    app(84, "NVDEC2 error"),
    app(85, "copy engine 9 error"),
    app(86, "OFA exception"),
    unused(87),
    app(88, "NVDEC3 error"),
    app(89, "NVDEC4 error"),
    unused(90),
    unused(91),
    by(
        Fault::Hardware,
        ignore(92, "high single-bit ECC error rate"),
    ),
    by(
        Fault::Hardware,
        ignore(93, "non-fatal violation of provisioned InfoROM wear limit"),
    ),
    by(Fault::Hardware, app(94, "contained memory error")),
    reset(95, "uncontained memory error"),
    app(96, "NVDEC5 error"),
    app(97, "NVDEC6 error"),
    app(98, "NVDEC7 error"),
    app(99, "NVJPG1 error"),
    app(100, "NVJPG2 error"),
    app(101, "NVJPG3 error"),
    app(102, "NVJPG4 error"),
    app(103, "NVJPG5 error"),
    app(104, "NVJPG6 error"),
    app(105, "NVJPG7 error"),
    ignore(106, "SMBPBI test message"),
    ignore(107, "SMBPBI test message silent"),
    ignore(108, "unused"),
    // NVIDIA says reset, its Kubernetes device plugin says application. A program alone can cause it, and
    // where a dead GSP does, a 119, 120 or 154 says so too.
    Row {
        severity: Severity::Degraded,
        fault: Fault::Application,
        ..reset(109, "context switch timeout")
    },
    by(Fault::NotStated, reset(110, "security fault error")),
    unused(111),
    unused(112),
    unused(113),
    unused(114),
    unused(115),
    unused(116),
    unused(117),
    unused(118),
    by(Fault::Driver, reset(119, "GSP RPC timeout")),
    by(Fault::Driver, reset(120, "GSP error")),
    by(Fault::Link, ignore(121, "C2C error")),
    unused(122),
    unused(123),
    unused(124),
    unused(125),
    app(126, "copy engine 10 error"),
    app(127, "copy engine 11 error"),
    app(128, "copy engine 12 error"),
    app(129, "copy engine 13 error"),
    app(130, "copy engine 14 error"),
    app(131, "copy engine 15 error"),
    app(132, "copy engine 16 error"),
    app(133, "copy engine 17 error"),
    app(134, "copy engine 18 error"),
    app(135, "copy engine 19 error"),
    by(Fault::Link, reset(136, "NVLink training failed")),
    by(Fault::Link, ignore(137, "NVLink privilege error")),
    unused(138),
    app(139, "OFA1 error"),
    reset(140, "ECC unrecovered error"),
    ignore(141, "CUDA fast path error"),
    support(142, "NVENC3 error"),
    reset(143, "GPU initialization error"),
    nvlink(144, "NVLink SAW error"),
    nvlink(145, "NVLink RLW error"),
    nvlink(146, "NVLink TLW error"),
    nvlink(147, "NVLink TREX error"),
    nvlink(148, "NVLink NVLPW_CTRL error"),
    nvlink(149, "NVLink NETIR error"),
    nvlink(150, "NVLink MSE error"),
    // NVIDIA: restart the virtual machine. There is none here.
    by(Fault::Driver, support(151, "key rotation error")),
    ignore(152, "DLA SMMU error"),
    ignore(153, "DLA timeout error"),
    row(
        154,
        "GPU recovery action changed",
        Class::FollowText,
        Fault::NotStated,
        Severity::Degraded,
        Advice::Inspect,
    ),
    by(Fault::Link, reset(155, "NVLink software-defined error")),
    reset(156, "resource retirement event"),
    by(Fault::Hardware, ignore(157, "resource retirement failure")),
    reset(158, "GPU fatal timeout"),
    support(159, "CHI non-data error"),
    ignore(160, "channel retirement event"),
    ignore(161, "channel retirement failure"),
    by(
        Fault::Power,
        unstated(162, "power smoothing capability reengaged"),
    ),
    by(
        Fault::Power,
        unstated(163, "power smoothing capability disengaged"),
    ),
    by(
        Fault::Power,
        unstated(164, "power smoothing low lifetime reached"),
    ),
    by(
        Fault::Power,
        unstated(165, "power smoothing lifetime exhausted"),
    ),
    unstated(
        166,
        "traffic seen before the link was set up for encryption",
    ),
    by(Fault::Link, unstated(167, "PCIe fatal timeout")),
    by(
        Fault::Hardware,
        unstated(168, "reduced GPU memory capacity"),
    ),
    by(
        Fault::Hardware,
        unstated(169, "internal micro-controller halt"),
    ),
    unstated(170, "interrupt seen in confidential-computing mode"),
    // Details of a 48, which is judged by itself.
    by(Fault::Hardware, unstated(171, "uncorrectable DRAM error")),
    by(Fault::Hardware, unstated(172, "uncorrectable SRAM error")),
];
