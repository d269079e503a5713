//! The layers of the house, and the habits that no lint knows.

use std::fs;
use std::path::{Path, PathBuf};

/// Longest file that one can still hold in mind.
const MAX_LINES: usize = 600;

/// Which modules each module may import; what is not listed may import nothing of ours.
const LAYERS: [(&str, &[&str]); 14] = [
    ("config", &[]),
    ("domain", &["config"]),
    ("clock", &["domain"]),
    ("supervisor", &[]),
    ("store", &["domain"]),
    ("clients", &["config", "clock", "domain"]),
    ("collect", &["config", "domain", "clock", "clients"]),
    ("ship", &["config", "domain", "clock", "clients", "store"]),
    ("status", &["config", "domain"]),
    ("control", &["config", "domain", "clock", "clients"]),
    (
        "doctor",
        &[
            "config", "domain", "clock", "clients", "collect", "control", "store", "status",
        ],
    ),
    (
        "agent",
        &[
            "config",
            "domain",
            "clock",
            "clients",
            "collect",
            "control",
            "doctor",
            "ship",
            "status",
            "store",
            "supervisor",
        ],
    ),
    // The GPU probe is a program of its own that happens to live in the same file. `outbox` looks into the store without
    // an agent, and what a record says only its outlet can read.
    (
        "cli",
        &[
            "agent", "config", "doctor", "domain", "status", "collect", "store", "ship",
        ],
    ),
    ("main", &["cli"]),
];

#[test]
fn no_file_imports_against_the_layers() {
    let mut wrong = Vec::new();
    for file in sources("src") {
        let module = module_of(&file);
        if module == "lib" {
            continue;
        }
        let allowed = LAYERS
            .iter()
            .find(|(name, _)| *name == module)
            .map(|(_, allowed)| *allowed);
        let allowed = allowed.unwrap_or_else(|| panic!("{} is in no layer", file.display()));
        let text = fs::read_to_string(&file).unwrap();
        for (number, line) in (1..).zip(text.lines()) {
            let code = line.split("//").next().unwrap_or_default();
            for import in code.split("crate::").skip(1) {
                let names = import.trim_start_matches('{');
                let name: String = names
                    .chars()
                    .take_while(|c| c.is_alphanumeric() || *c == '_')
                    .collect();
                if name != module && !allowed.contains(&name.as_str()) && !name.is_empty() {
                    wrong.push(format!(
                        "{}:{number}: {module} may not import {name}",
                        file.display()
                    ));
                }
            }
            if code.contains("use crate::{") {
                wrong.push(format!(
                    "{}:{number}: one `use` a module, so that the layers can be read",
                    file.display()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_file_says_what_it_is_and_stays_short() {
    let mut wrong = Vec::new();
    let folders = [
        "src",
        "tests",
        "examples",
        "benches",
        "fuzz/src",
        "fuzz/fuzz_targets",
    ];
    for file in folders.into_iter().flat_map(sources) {
        let text = fs::read_to_string(&file).unwrap();
        if !text.starts_with("//! ") {
            wrong.push(format!(
                "{} does not say in its first line what it is",
                file.display()
            ));
        }
        let lines = text.lines().count();
        if lines > MAX_LINES {
            wrong.push(format!(
                "{} has {lines} lines, at most {MAX_LINES}",
                file.display()
            ));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn no_folder_is_called_core() {
    // Git tools and ignore files take `core` for a crash dump.
    assert!(
        sources("src")
            .iter()
            .all(|file| file.components().all(|part| part.as_os_str() != "core"))
    );
}

fn module_of(file: &Path) -> String {
    let below = file.strip_prefix("src").expect("files are searched there");
    let first = below.components().next().expect("a file has a name");
    let first = first.as_os_str().to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

/// Every Rust file below a folder.
fn sources(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries.map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found
}
