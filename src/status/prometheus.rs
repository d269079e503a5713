//! The report as Prometheus text (exposition format 0.0.4).

use std::fmt::Write;

use crate::domain::report::{CameraState, Report};

/// The report as Prometheus text; what is not known is left out.
#[must_use]
pub fn text(report: &Report) -> String {
    let mut page = Page::default();
    page.family(
        "sideline_health",
        "0 healthy, 1 degraded, 2 failing, 3 unknown",
    );
    page.sample(
        "sideline_health",
        &[],
        Some(f64::from(report.verdict.state.code())),
    );
    page.family(
        "sideline_slots",
        "pieces of work that the healthy node can carry",
    );
    page.sample(
        "sideline_slots",
        &[],
        Some(f64::from(report.capacity.slots)),
    );
    page.family(
        "sideline_capacity",
        "pieces of work that the node can carry now",
    );
    page.sample(
        "sideline_capacity",
        &[],
        Some(f64::from(report.capacity.available)),
    );
    page.family(
        "sideline_failover",
        "where the node stands between in service and drained",
    );
    let failover = &report.failover;
    let labels = [("mode", failover.mode), ("state", failover.state.name())];
    page.sample("sideline_failover", &labels, Some(1.0));
    page.family("sideline_drill", "whether a rehearsal goes on");
    let drilling = f64::from(u8::from(failover.drill.is_some()));
    page.sample("sideline_drill", &[], Some(drilling));
    page.family(
        "sideline_credentials_expire_seconds",
        "time until the credentials expire, where the SSM agent says",
    );
    #[expect(
        clippy::cast_precision_loss,
        reason = "Prometheus has no other numbers"
    )]
    let left = report
        .identity
        .credentials
        .expires_in_s
        .map(|left| left as f64);
    page.sample("sideline_credentials_expire_seconds", &[], left);
    page.family("sideline_finding", "open findings");
    for finding in &report.findings {
        let severity = format!("{:?}", finding.severity).to_lowercase();
        let (code, subject) = (finding.code.to_string(), finding.subject.to_string());
        page.sample(
            "sideline_finding",
            &[
                ("code", &code),
                ("subject", &subject),
                ("severity", &severity),
            ],
            Some(1.0),
        );
    }
    host(&mut page, report);
    gpus(&mut page, report);
    cameras(&mut page, report);
    outlets(&mut page, report);
    page.0
}

fn host(page: &mut Page, report: &Report) {
    let Some(host) = &report.host else { return };
    page.family("sideline_cpu_percent", "busy share of all CPUs");
    page.sample("sideline_cpu_percent", &[], host.cpu_percent);
    page.family("sideline_memory_used_percent", "memory in use");
    page.sample(
        "sideline_memory_used_percent",
        &[],
        host.memory_used_percent,
    );
    page.family("sideline_disk_used_percent", "space in use");
    for disk in &host.disks {
        page.sample(
            "sideline_disk_used_percent",
            &[("mount", &disk.mount)],
            Some(disk.used_percent),
        );
    }
}

fn gpus(page: &mut Page, report: &Report) {
    type Value = fn(&crate::domain::snapshot::Gpu) -> Option<f64>;
    #[expect(
        clippy::cast_precision_loss,
        reason = "Prometheus has no other numbers"
    )]
    let families: [(&str, &str, Value); 5] = [
        (
            "sideline_gpu_temperature_celsius",
            "core temperature",
            |gpu| gpu.temperature_c,
        ),
        (
            "sideline_gpu_utilization_percent",
            "share of time in which a kernel ran",
            |gpu| gpu.utilization_percent,
        ),
        ("sideline_gpu_decoder_percent", "NVDEC utilization", |gpu| {
            gpu.decoder_percent
        }),
        ("sideline_gpu_memory_used_bytes", "memory in use", |gpu| {
            gpu.memory_used_bytes.map(|bytes| bytes as f64)
        }),
        ("sideline_gpu_power_watts", "power drawn", |gpu| gpu.power_w),
    ];
    for (name, help, value) in families {
        page.family(name, help);
        for gpu in &report.gpus {
            page.sample(name, &[("gpu", &gpu.id)], value(gpu));
        }
    }
}

fn cameras(page: &mut Page, report: &Report) {
    page.family("sideline_camera_up", "1 while the camera delivers");
    for camera in &report.cameras {
        let up = f64::from(u8::from(camera.state == CameraState::Up));
        page.sample(
            "sideline_camera_up",
            &[("camera", &camera.id), ("state", camera.state.name())],
            Some(up),
        );
    }
    page.family("sideline_camera_fps", "frames a second that arrive");
    for camera in &report.cameras {
        page.sample("sideline_camera_fps", &[("camera", &camera.id)], camera.fps);
    }
}

fn outlets(page: &mut Page, report: &Report) {
    #[expect(
        clippy::cast_precision_loss,
        reason = "Prometheus has no other numbers"
    )]
    for (name, help, value) in [
        (
            "sideline_outlet_pending",
            "records that wait",
            (|outlet| outlet.pending as f64) as fn(&crate::domain::report::Outlet) -> f64,
        ),
        (
            "sideline_outlet_oldest_pending_seconds",
            "age of the oldest",
            |outlet| outlet.oldest_pending_s as f64,
        ),
        ("sideline_outlet_dropped_total", "records lost", |outlet| {
            outlet.dropped as f64
        }),
    ] {
        page.family(name, help);
        for outlet in &report.outlets {
            page.sample(name, &[("outlet", outlet.name)], Some(value(outlet)));
        }
    }
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, help: &str) {
        let kind = if name.ends_with("_total") {
            "counter"
        } else {
            "gauge"
        };
        // Writing to a string can't fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: Option<f64>) {
        let Some(value) = value else { return };
        let labels: Vec<String> = labels
            .iter()
            .map(|(key, value)| format!("{key}=\"{}\"", escape(value)))
            .collect();
        let labels = if labels.is_empty() {
            String::new()
        } else {
            format!("{{{}}}", labels.join(","))
        };
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }
}

fn escape(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}
