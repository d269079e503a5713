//! A camera server as the judge sees it: two cards that carry any number of cameras.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use sideline::config::{Config, Expect};
use sideline::domain::ecs::Place;
use sideline::domain::judge::{Judge, Judgement, Surroundings};
use sideline::domain::memory::Memory;
use sideline::domain::moment::{Moment, Now};
use sideline::domain::reading::Reading;
use sideline::domain::report::{Node, Outlet, OutletState};
use sideline::domain::snapshot::{
    CameraSeen, CameraSource, Disk, Gpu, GpuState, Gpus, Host, Ingest, KernelLog, Kind, Network,
    Pressure, Probe, Snapshot, StreamStatus, Temperature,
};

/// When the first look is.
const START: Duration = Duration::from_secs(1_000);

/// What the collectors would say, and the judge that looks at it.
pub(crate) struct Server {
    host: Reading<Host>,
    gpus: Reading<Gpus>,
    kernel: Reading<KernelLog>,
    cameras: Reading<CameraSource>,
    judge: Judge,
    looks: u32,
    ticks: u32,
}

impl Server {
    /// Two cards and so many cameras, all of which deliver `fps` of the 5 frames a second that are expected.
    pub(crate) fn new(cameras: usize, fps: f64) -> Self {
        let start = Moment::after_boot(START);
        let mut config = Config::default();
        config.node.slots = Some(18);
        config.cameras.expect = (0..cameras)
            .map(|number| (name(number), Expect { fps: Some(5.0) }))
            .collect();
        let node = Node {
            id: "mi-0123456789abcdef0".into(),
            site: "north".into(),
            hostname: "camera-server-1".into(),
            agent: "0.1.0".into(),
            boot: "3f2b1c1e-7d0a-4a53-9d4b-0b6e6f1a2b3c".into(),
            ..Node::default()
        };
        Server {
            host: Reading::ok(host(), start),
            gpus: Reading::ok(gpus(start), start),
            kernel: Reading::ok(KernelLog::default(), start),
            cameras: Reading::ok(source(cameras, fps, start), start),
            judge: Judge::new(config, node, &Memory::default(), start),
            looks: 0,
            ticks: 0,
        }
    }

    /// One tick, ten seconds after the one before, with fresh readings of everything.
    #[allow(
        dead_code,
        reason = "each bench that shares this file needs other parts of it"
    )]
    pub(crate) fn live(&mut self) -> Judgement {
        self.ticks += 1;
        let since = Duration::from_secs(10) * self.ticks;
        let moment = Moment::after_boot(START) + since;
        if let Reading::Ok { value, at } = &mut self.host {
            *at = moment;
            value.uptime_s = Some(moment.since_boot().as_secs());
        }
        if let Reading::Ok { value, at } = &mut self.gpus {
            *at = moment;
            value.cards_at = Some(moment);
        }
        if let Reading::Ok { value, at } = &mut self.cameras {
            *at = moment;
            for seen in value.cameras.values_mut() {
                seen.measured = Some(moment);
            }
        }
        self.judge_at(Now {
            moment,
            wall: Timestamp::UNIX_EPOCH + since,
            sure: true,
        })
    }

    /// One tick. Time hardly goes on, so that no reading grows old however often this is done.
    pub(crate) fn look(&mut self) -> Judgement {
        self.looks += 1;
        let since = Duration::from_micros(self.looks.into());
        self.judge_at(Now {
            moment: Moment::after_boot(START) + since,
            wall: Timestamp::UNIX_EPOCH + since,
            sure: true,
        })
    }

    fn judge_at(&mut self, now: Now) -> Judgement {
        let outlet = |name| Outlet {
            state: OutletState::Ok,
            last_success: Some(Timestamp::UNIX_EPOCH),
            ..Outlet::off(name)
        };
        self.judge.judge(
            Snapshot {
                host: &self.host,
                gpus: &self.gpus,
                kernel: &self.kernel,
                drives: &Reading::Off,
                ups: &Reading::Off,
                checks: &Reading::Off,
                cameras: &[&self.cameras],
            },
            Surroundings {
                in_memory: None,
                identity: sideline::domain::identity::Seen::default(),
                heard: None,
                outlets: vec![
                    outlet("cloudwatch"),
                    outlet("relay"),
                    Outlet::off("ssm"),
                    Outlet::off("ecs"),
                ],
                clock_offset: Some(SignedDuration::ZERO),
                place: Some(Place {
                    cluster: "cameras".into(),
                    container_instance: "3f2b1c1e7d0a4a53".into(),
                    tasks: Some(18),
                }),
                ..Surroundings::default()
            },
            now,
        )
    }
}

fn name(number: usize) -> String {
    format!("hole{number:05}")
}

fn source(cameras: usize, fps: f64, at: Moment) -> CameraSource {
    let seen = CameraSeen {
        fps: Some(fps),
        expected_fps: None,
        enabled: Some(true),
        status: Some((StreamStatus::Online, at)),
        measured: Some(at),
        every: Some(Duration::from_secs(60)),
        last_frame: None,
        first_heard: at,
    };
    let cameras: BTreeMap<_, _> = (0..cameras)
        .map(|number| (name(number), seen.clone()))
        .collect();
    CameraSource {
        kind: Kind::Frigate,
        name: "frigate:frigate".into(),
        ingest: Ingest::Online,
        cameras,
        malformed: 0,
        over_limit: 0,
    }
}

fn gpus(at: Moment) -> Gpus {
    let card = |number: u32| Gpu {
        id: format!("GPU-{number:08x}-5ced-4e11-8e5c-{number:012x}"),
        name: Some("NVIDIA L4".into()),
        pci: Some(format!("0000:{number:02x}:00")),
        state: GpuState::Ok,
        temperature_c: Some(61.0),
        utilization_percent: Some(42.0),
        memory_used_bytes: Some(5_368_709_120),
        memory_total_bytes: Some(24_152_899_584),
        power_w: Some(41.25),
        power_limit_w: Some(72.0),
        slowdown_c: Some(87.0),
        shutdown_c: Some(90.0),
        throttle_reasons: Some(0),
        ecc_enabled: Some(true),
        ecc_corrected: Some(0),
        ecc_uncorrected: Some(0),
        remapped_rows: Some(0),
        remap_pending: Some(false),
        remap_failed: Some(false),
        pcie_generation: Some(4),
        pcie_generation_max: Some(4),
        pcie_width: Some(16),
        pcie_width_max: Some(16),
        serial: Some(format!("165032300{number:04}")),
        vbios: Some("95.04.29.00.06".into()),
        driver: Some("550.90.07".into()),
        ..Gpu::default()
    };
    Gpus {
        probe: Probe::Answering,
        cards: vec![card(1), card(2)],
        cards_at: Some(at),
        xids: Vec::new(),
        pci: vec!["0000:01:00".into(), "0000:02:00".into()],
        driver: Some("550.90.07".into()),
        ..Gpus::default()
    }
}

fn host() -> Host {
    let disk = |mount: &str, device: &str| Disk {
        mount: mount.into(),
        device: device.into(),
        filesystem: "ext4".into(),
        total_bytes: 500_000_000_000,
        available_bytes: 300_000_000_000,
        used_percent: 40.0,
        read_only: false,
        remounts_on_error: true,
    };
    let network = |name: &str| Network {
        name: name.into(),
        up: Some(true),
        received_bytes_per_s: Some(9e6),
        sent_bytes_per_s: Some(3e5),
        errors_total: Some(0),
        ..Network::default()
    };
    let sensor = |label: &str| Temperature {
        label: label.into(),
        temperature_c: 51.0,
        critical_c: Some(100.0),
    };
    Host {
        cpu_percent: Some(31.0),
        cpu_count: Some(16),
        load: Some([4.0, 3.5, 3.0]),
        memory_used_percent: Some(38.0),
        memory_total_bytes: Some(68_719_476_736),
        memory_available_bytes: Some(42_000_000_000),
        swap_total_bytes: Some(0),
        swap_used_bytes: Some(0),
        disks: vec![
            disk("/", "/dev/nvme0n1p2"),
            disk("/rec", "/dev/nvme1n1p1"),
            disk("/boot/efi", "/dev/nvme0n1p1"),
        ],
        networks: vec![network("eno1"), network("eno2")],
        temperatures: vec![sensor("coretemp Package id 0"), sensor("acpitz")],
        pressure: Some(Pressure {
            cpu_some_percent: Some(1.2),
            memory_full_percent: Some(0.0),
            io_full_percent: Some(0.3),
        }),
        uptime_s: Some(86_400),
        ..Host::default()
    }
}
