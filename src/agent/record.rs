//! Recording: the collectors run, and what they say is written down for `sideline replay`.

use std::time::Duration;

use anyhow::Context;
use futures_util::future::select_all;
use tokio::time::Instant;

use super::sources::Sources;
use super::{Signals, identify};
use crate::clock::Clock;
use crate::config::Config;
use crate::domain::memory::Memory;
use crate::domain::record::Record;

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
        for said in sources.said() {
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
