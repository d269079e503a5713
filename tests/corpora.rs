//! Every input that fuzzing has kept, through the same functions, without a fuzzer.

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

#[expect(
    unreachable_pub,
    reason = "it is the library of the fuzz targets, which use it from outside"
)]
#[path = "../fuzz/src/lib.rs"]
mod fuzz;

/// Inputs of one target: what was kept for the ground it covers, and what once was a finding.
const FOLDERS: [&str; 2] = ["corpus", "crashes"];

#[test]
fn every_kept_input_is_still_taken() {
    let mut wrong = Vec::new();
    for (target, _) in fuzz::TARGETS {
        for file in FOLDERS
            .map(|folder| kept(folder, target))
            .into_iter()
            .flatten()
        {
            let input = fs::read(&file).unwrap();
            if catch_unwind(|| fuzz::run(target, &input)).is_err() {
                wrong.push(format!("{}: panics, see above", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_target_has_a_fuzzer_and_a_small_corpus() {
    let of = |list: &[PathBuf]| -> BTreeSet<String> {
        let names = list.iter().filter_map(|path| path.file_stem());
        names.map(|name| name.to_string_lossy().into()).collect()
    };
    let targets = fuzz::TARGETS.map(|(name, _)| name.to_owned());
    let targets = BTreeSet::from(targets);
    assert_eq!(of(&files(Path::new("fuzz/fuzz_targets"))), targets);
    let manifest = fs::read_to_string("fuzz/Cargo.toml").unwrap();
    let mut bytes = 0;
    for target in &targets {
        assert!(
            manifest.contains(&format!("name = \"{target}\"")),
            "{target}"
        );
        let corpus = kept("corpus", target);
        assert!(
            (1..=200).contains(&corpus.len()),
            "{target}: {}",
            corpus.len()
        );
        let sizes = corpus.iter().map(|file| fs::metadata(file).unwrap().len());
        bytes += sizes.sum::<u64>();
    }
    assert!(bytes <= 1_500_000, "{bytes} bytes of corpora");
    for folder in FOLDERS {
        let targets_of = of(&entries(&Path::new("fuzz").join(folder)));
        assert!(targets_of.is_subset(&targets), "{folder}: {targets_of:?}");
    }
}

fn kept(folder: &str, target: &str) -> Vec<PathBuf> {
    files(&Path::new("fuzz").join(folder).join(target))
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = entries(folder);
    files.retain(|path| path.is_file());
    files
}

/// What is in a folder, in order; nothing if there is none.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}
