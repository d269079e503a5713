//! The fake NVML library of tests/fake-nvml, built where it is not yet.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The library's file. Cargo does not build it for tests, benchmarks and examples of another package.
///
/// # Panics
/// Where it can't be built.
pub(crate) fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let me = std::env::current_exe().expect("a path");
        // This executable lies in target/debug/deps or target/debug/examples.
        let profile = me.ancestors().nth(2).expect("target/debug");
        let built = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--package", "fake-nvml", "--target-dir"])
            .arg(profile.parent().expect("target"))
            .args(profile.ends_with("release").then_some("--release"))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status();
        let built = built.is_ok_and(|status| status.success());
        assert!(built, "the fake NVML library is not built");
        profile.join("libnvidia_ml.so")
    })
}
