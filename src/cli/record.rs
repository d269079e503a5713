//! `sideline record`: writes this node's readings into a file, compressed, for `sideline replay`.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::agent;
use crate::agent::record::Sink;
use crate::config::units;
use crate::domain::record::Record;

/// For `--help`.
pub const ABOUT: &str = "\
The file is gzip of one JSON object a line: a reading of the server, its GPUs, disks, power supplies, checks or cameras, \
or what the kernel has said so far. It holds host names, serial numbers and camera names, no passwords. A running agent is \
neither needed nor disturbed. Ctrl-C ends it early; what was written so far can be replayed.

Examples:
  sideline record --for 24h night.rec.gz
  zcat night.rec.gz | jq -c 'select(.gpus)'
  sideline replay night.rec.gz";

/// How long, and where to.
#[derive(Debug, Args)]
pub struct Options {
    /// How long: 10m, 24h
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    length: Duration,
    /// The file to write; it must not exist
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

fn duration(text: &str) -> Result<Duration, String> {
    match units::parse_duration(text)? {
        Duration::ZERO => Err("must be longer than nothing".to_owned()),
        length => Ok(length),
    }
}

/// Records, and says how much.
///
/// # Errors
/// The configuration is wrong, the file is there already or can't be written, or a collector broke.
pub fn main(options: &Options, config: Option<&Path>) -> anyhow::Result<ExitCode> {
    super::log::quiet();
    let config = super::load::load(config)?.config;
    let path = options.file.display();
    let file = File::create_new(&options.file).with_context(|| format!("can't write {path}"))?;
    let mut sink = Compressed(GzEncoder::new(BufWriter::new(file), Compression::default()));
    let runtime = super::runtime()?;
    let recorded = runtime.block_on(agent::record::record(&config, options.length, &mut sink));
    runtime.shutdown_background();
    let ended = sink.0.finish().and_then(|mut file| file.flush());
    let count = recorded.with_context(|| path.to_string())?;
    ended.with_context(|| format!("can't write {path}"))?;
    eprintln!("{path}: {count} readings");
    Ok(ExitCode::SUCCESS)
}

/// Gzip, a line a record.
struct Compressed(GzEncoder<BufWriter<File>>);

impl Sink for Compressed {
    fn write(&mut self, record: &Record) -> io::Result<()> {
        serde_json::to_writer(&mut self.0, record)?;
        self.0.write_all(b"\n")
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
