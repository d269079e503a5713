//! The receiving ends of the collectors.

use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::{FutureExt, LocalBoxFuture};
use tokio::sync::watch::{self, Receiver};

use super::part::Part;
use crate::clock::Clock;
use crate::collect::drives::Asking;
use crate::collect::{cameras, checks, drives, gpus, host, kernel_log, ups};
use crate::config::{self, Config};
use crate::domain::inventory::Accepted;
use crate::domain::judge::{Judge, Judgement, Surroundings};
use crate::domain::memory::Memory;
use crate::domain::moment::{Moment, Now};
use crate::domain::reading::Reading;
use crate::domain::record::{Said, Word};
use crate::domain::snapshot::{CameraSource, Check, Drives, Gpus, Host, KernelLog, Snapshot, Ups};

type Source<K, T> = Part<K, Receiver<Reading<T>>>;
type CameraPart = Source<(config::Source, usize), CameraSource>;

/// One part a source of readings.
#[derive(Debug, Default)]
pub(super) struct Sources {
    host: Option<Source<Duration, Host>>,
    gpus: Option<Source<config::Gpu, Gpus>>,
    kernel: Option<Source<PathBuf, KernelLog>>,
    drives: Option<Source<Asking, Drives>>,
    ups: Option<Source<config::Ups, Vec<Ups>>>,
    checks: Option<Source<Vec<config::Check>, Vec<Check>>>,
    cameras: Vec<CameraPart>,
}

impl Sources {
    /// Starts what the configuration asks for; what runs with the same settings goes on undisturbed.
    pub(super) async fn furnish(&mut self, config: &Config, memory: &Memory, clock: &Clock) {
        let last = said_last(self.host.as_ref());
        Part::renew(&mut self.host, config.host.every, |every, tasks| {
            let (sender, receiver) = watch::channel(last);
            tasks.spawn(
                "the host",
                host::run(*every, sender, clock.clone(), tasks.token()),
            );
            receiver
        })
        .await;
        let last = said_last(self.gpus.as_ref());
        Part::renew(&mut self.gpus, config.gpu.clone(), |settings, tasks| {
            let (sender, receiver) = watch::channel(last);
            let known = memory.inventory.clone();
            let task = gpus::run(
                settings.clone(),
                known,
                sender,
                clock.clone(),
                tasks.token(),
            );
            tasks.spawn("the GPUs", task);
            receiver
        })
        .await;
        let last = said_last(self.kernel.as_ref());
        Part::renew(
            &mut self.kernel,
            config.kernel_log.path.clone(),
            |path, tasks| {
                let (sender, receiver) = watch::channel(last);
                let known = memory.kernel.clone();
                let task =
                    kernel_log::run(path.clone(), known, sender, clock.clone(), tasks.token());
                tasks.spawn("the kernel log", task);
                receiver
            },
        )
        .await;
        self.furnish_programs(config, clock).await;
        self.furnish_cameras(&config.cameras, clock).await;
    }

    /// What foreign programs tell of the server.
    async fn furnish_programs(&mut self, config: &Config, clock: &Clock) {
        let last = said_last(self.drives.as_ref());
        Part::renew(&mut self.drives, Asking::default(), |asking, tasks| {
            let (sender, receiver) = watch::channel(last);
            let task = drives::run(asking.clone(), sender, clock.clone(), tasks.token());
            tasks.spawn("the disks' health", task);
            receiver
        })
        .await;
        let last = said_last(self.ups.as_ref());
        Part::renew(&mut self.ups, config.ups.clone(), |settings, tasks| {
            let (sender, receiver) = watch::channel(last);
            let task = ups::run(settings.clone(), sender, clock.clone(), tasks.token());
            tasks.spawn("the UPS", task);
            receiver
        })
        .await;
        let last = said_last(self.checks.as_ref());
        Part::renew(&mut self.checks, config.check.clone(), |settings, tasks| {
            let (sender, receiver) = watch::channel(last);
            let task = checks::run(settings.clone(), sender, clock.clone(), tasks.token());
            tasks.spawn("the checks", task);
            receiver
        })
        .await;
    }

    async fn furnish_cameras(&mut self, wanted: &config::Cameras, clock: &Clock) {
        let mut running = std::mem::take(&mut self.cameras);
        for source in &wanted.source {
            let key = (source.clone(), wanted.max);
            let part = match running.iter().position(|part| part.is(&key)) {
                Some(at) => running.swap_remove(at),
                None => Part::start(key, |(source, max), tasks| {
                    let (sender, receiver) = watch::channel(Reading::Pending);
                    let task =
                        cameras::run(source.clone(), *max, sender, clock.clone(), tasks.token());
                    tasks.spawn("a camera source", task);
                    receiver
                }),
            };
            self.cameras.push(part);
        }
        for part in running {
            part.stop().await;
        }
    }

    /// Waits until a source says something new, or ends badly.
    pub(super) fn stir(&mut self) -> Vec<LocalBoxFuture<'_, anyhow::Result<()>>> {
        let mut waits = Vec::with_capacity(6 + self.cameras.len());
        waits.extend(self.host.as_mut().map(|part| part.stir().boxed_local()));
        waits.extend(self.gpus.as_mut().map(|part| part.stir().boxed_local()));
        waits.extend(self.kernel.as_mut().map(|part| part.stir().boxed_local()));
        waits.extend(self.drives.as_mut().map(|part| part.stir().boxed_local()));
        waits.extend(self.ups.as_mut().map(|part| part.stir().boxed_local()));
        waits.extend(self.checks.as_mut().map(|part| part.stir().boxed_local()));
        waits.extend(
            self.cameras
                .iter_mut()
                .map(|part| part.stir().boxed_local()),
        );
        waits
    }

    /// Shows the judge what the sources say now.
    pub(super) fn judge(&mut self, judge: &mut Judge, around: Surroundings, now: Now) -> Judgement {
        self.show(|seen| judge.judge(seen, around, now))
    }

    /// Shows the judge what the sources say now, for what the node should have.
    pub(super) fn accept_inventory(&mut self, judge: &mut Judge, now: Moment) -> Accepted {
        self.show(|seen| judge.accept_inventory(seen, now))
    }

    fn show<T>(&mut self, look: impl FnOnce(Snapshot<'_>) -> T) -> T {
        let host = self
            .host
            .as_mut()
            .map(|part| part.value.borrow_and_update());
        let gpus = self
            .gpus
            .as_mut()
            .map(|part| part.value.borrow_and_update());
        let kernel = self
            .kernel
            .as_mut()
            .map(|part| part.value.borrow_and_update());
        let drives = self
            .drives
            .as_mut()
            .map(|part| part.value.borrow_and_update());
        let ups = self.ups.as_mut().map(|part| part.value.borrow_and_update());
        let checks = self
            .checks
            .as_mut()
            .map(|part| part.value.borrow_and_update());
        let cameras: Vec<_> = self
            .cameras
            .iter_mut()
            .map(|part| part.value.borrow_and_update())
            .collect();
        let cameras: Vec<&Reading<CameraSource>> = cameras.iter().map(|camera| &**camera).collect();
        let seen = Snapshot {
            host: host.as_deref().unwrap_or(&Reading::Pending),
            gpus: gpus.as_deref().unwrap_or(&Reading::Pending),
            kernel: kernel.as_deref().unwrap_or(&Reading::Pending),
            drives: drives.as_deref().unwrap_or(&Reading::Pending),
            ups: ups.as_deref().unwrap_or(&Reading::Pending),
            checks: checks.as_deref().unwrap_or(&Reading::Pending),
            cameras: &cameras,
        };
        look(seen)
    }

    /// What has been said since this was last asked, to be recorded.
    pub(super) fn said(&mut self) -> Vec<Said> {
        let mut said = Vec::new();
        said.extend(news(self.host.as_mut()).map(Said::Host));
        said.extend(news(self.gpus.as_mut()).map(Said::Gpus));
        said.extend(news(self.kernel.as_mut()).map(Said::Kernel));
        said.extend(news(self.drives.as_mut()).map(Said::Drives));
        said.extend(news(self.ups.as_mut()).map(Said::Ups));
        said.extend(news(self.checks.as_mut()).map(Said::Checks));
        for source in &mut self.cameras {
            said.extend(news(Some(source)).map(Said::Cameras));
        }
        said
    }

    /// What the kernel log has brought, to be remembered.
    pub(super) fn kernel(&self) -> Option<watch::Ref<'_, Reading<KernelLog>>> {
        self.kernel.as_ref().map(|part| part.value.borrow())
    }

    /// Stops all.
    pub(super) async fn stop(&mut self) {
        Part::remove(&mut self.host).await;
        Part::remove(&mut self.gpus).await;
        Part::remove(&mut self.kernel).await;
        Part::remove(&mut self.drives).await;
        Part::remove(&mut self.ups).await;
        Part::remove(&mut self.checks).await;
        for part in self.cameras.drain(..) {
            part.stop().await;
        }
    }
}

/// What a source has said since it was last asked.
fn news<K, T: Clone>(source: Option<&mut Source<K, T>>) -> Option<Word<T>> {
    let part = source?;
    let is_new = part.value.has_changed().unwrap_or(false);
    is_new.then(|| Word::of(&part.value.borrow_and_update()))
}

/// What a source said last holds until its successor speaks: a reload must not close a finding.
fn said_last<K, T: Clone>(source: Option<&Source<K, T>>) -> Reading<T> {
    source.map_or(Reading::Pending, |part| part.value.borrow().clone())
}
