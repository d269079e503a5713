//! Recording: the collectors run, and what they say is written down for `sideline replay`.

use std::time::Duration;

use anyhow::Context;
use futures_util::future::select_all;
use tokio::sync::watch::Receiver;
use tokio::time::Instant;

use super::sources::Sources;
use super::{Signals, identify};
use crate::clock::Clock;
use crate::config::Config;
use crate::domain::memory::Memory;
use crate::domain::reading::Reading;
use crate::domain::record::{Record, Said, Word};
use crate::domain::snapshot::{CameraSource, Check, Drives, Gpus, Host, KernelLog, Ups};

/// What is written reaches the disk so often.
const FLUSH: Duration = Duration::from_secs(10);

const UNWRITTEN: &str = "the recording can't be written";

/// Where records go.
pub trait Sink {
    /// Takes one in.
    ///
    /// # Errors
    /// It can't be written.
    fn write(&mut self, record: &Record) -> std::io::Result<()>;

    /// Everything that was taken in can be read from now on.
    ///
    /// # Errors
    /// It can't be written.
    fn flush(&mut self) -> std::io::Result<()>;
}

/// Records for so long, or until INT or TERM. Returns how many readings were written. A running agent is not needed
/// and not disturbed.
///
/// # Errors
/// A collector broke, or the sink can't be written.
pub async fn record(
    config: &Config,
    length: Duration,
    sink: &mut impl Sink,
) -> anyhow::Result<u64> {
    let mut signals = Signals::new()?;
    let boot = identify(config).boot;
    let clock = Clock::start(None);
    let mut sources = Sources::default();
    sources.furnish(config, &Memory::default(), &clock).await;
    let mut ears = sources.ears();
    let ends = Instant::now() + length;
    let mut flush = tokio::time::interval(FLUSH);
    let mut count = 0;
    let outcome = loop {
        tokio::select! {
            _ = signals.next() => break Ok(()),
            () = tokio::time::sleep_until(ends) => break Ok(()),
            (stirred, ..) = select_all(sources.stir()) => if let Err(error) = stirred {
                break Err(error);
            },
            _ = flush.tick() => sink.flush().context(UNWRITTEN)?,
        }
        let now = clock.now();
        for said in ears.said() {
            let record = Record {
                at: now.wall,
                up: now.moment.since_boot().as_secs_f64(),
                boot: boot.clone(),
                said,
            };
            sink.write(&record).context(UNWRITTEN)?;
            count += 1;
        }
    };
    sources.stop().await;
    sink.flush().context(UNWRITTEN)?;
    outcome.map(|()| count)
}

/// What every source says, once each.
pub(super) struct Ears {
    pub(super) host: Option<Receiver<Reading<Host>>>,
    pub(super) gpus: Option<Receiver<Reading<Gpus>>>,
    pub(super) kernel: Option<Receiver<Reading<KernelLog>>>,
    pub(super) drives: Option<Receiver<Reading<Drives>>>,
    pub(super) ups: Option<Receiver<Reading<Vec<Ups>>>>,
    pub(super) checks: Option<Receiver<Reading<Vec<Check>>>>,
    pub(super) cameras: Vec<Receiver<Reading<CameraSource>>>,
}

impl Ears {
    fn said(&mut self) -> Vec<Said> {
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
}

/// What a source has said since it was last asked; that it has not answered yet is no news.
fn news<T: Clone>(ear: Option<&mut Receiver<Reading<T>>>) -> Option<Word<T>> {
    let ear = ear?;
    if !ear.has_changed().unwrap_or(false) {
        return None;
    }
    let reading = ear.borrow_and_update();
    reading.is_settled().then(|| Word::of(&reading))
}
