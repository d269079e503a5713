//! What is fuzzed: one function a target. The fuzzer calls them through [`run`], and `tests/corpora.rs` calls them
//! with every input that was kept.
//!
//! A function takes any bytes. It panics where the code under it does, and where what comes out could not be
//! lived with: a camera that is up without evidence, a configuration that `config show` can't write.

mod cameras;
mod config;
mod files;
mod foreign;
mod kernel;
mod record;
mod spool;

/// What a target does with an input.
pub type Run = fn(&[u8]);

/// Every target: its name, which is also that of its file and of its folder of inputs, and what it does.
pub const TARGETS: [(&str, Run); 10] = [
    ("config", config::run),
    ("credentials", files::credentials),
    ("kernel_line", kernel::run),
    ("mqtt_frigate", cameras::frigate),
    ("mqtt_json", cameras::json),
    ("record", record::run),
    ("registration", files::registration),
    ("smartctl", foreign::smartctl),
    ("spool_row", spool::run),
    ("upsd", foreign::upsd),
];

/// Runs one target on one input.
///
/// # Panics
/// On a target that is not in the table, and on a finding.
pub fn run(target: &str, input: &[u8]) {
    let found = TARGETS.iter().find(|(name, _)| *name == target);
    let (_, run) = found.unwrap_or_else(|| panic!("there is no target {target}"));
    run(input);
}

/// The parts of an input that has several, divided by lines `--`.
fn parts(mut input: &[u8]) -> Vec<&[u8]> {
    const BETWEEN: &[u8] = b"\n--\n";
    let mut parts = Vec::new();
    while let Some(at) = input.windows(BETWEEN.len()).position(|at| at == BETWEEN) {
        parts.push(&input[..at]);
        input = &input[at + BETWEEN.len()..];
    }
    parts.push(input);
    parts
}
