//! `sideline manual`: man pages and shell completions, made from the program itself.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, CommandFactory};
use clap_complete::{Generator, shells};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

use super::{AFTER_HELP, Arguments};
use crate::config::page;

/// Shown below the help.
pub(super) const ABOUT: &str = "\
It writes:
  FOLDER/man           sideline.1, a page for each command, sideline.toml.5
  FOLDER/completions   sideline (bash), _sideline (zsh), sideline.fish
What stands there under these names is replaced. The package has them already.

Examples:
  sideline manual /tmp/manual
  man /tmp/manual/man/sideline-status.1";

/// Where to write.
#[derive(Debug, Args)]
pub struct Options {
    /// The folder; it is made where there is none
    folder: PathBuf,
}

/// Writes the manual.
///
/// # Errors
/// A file that can't be written.
pub fn main(options: &Options) -> anyhow::Result<ExitCode> {
    write(&options.folder)
        .with_context(|| format!("can't write into {}", options.folder.display()))?;
    Ok(ExitCode::SUCCESS)
}

fn write(folder: &Path) -> io::Result<()> {
    let man = folder.join("man");
    fs::create_dir_all(&man)?;
    let mut program = shown();
    program.build();
    pages(&program, &man)?;
    fs::write(man.join("sideline.toml.5"), page::page())?;

    let completions = folder.join("completions");
    fs::create_dir_all(&completions)?;
    completion(shells::Bash, &completions.join("sideline"))?;
    completion(shells::Zsh, &completions.join("_sideline"))?;
    completion(shells::Fish, &completions.join("sideline.fish"))
}

/// The program without its hidden commands: clap's pages leave them out, its completions would not.
fn shown() -> clap::Command {
    let whole = Arguments::command();
    let commands = whole.get_subcommands().filter(|one| !one.is_hide_set());
    clap::Command::new("sideline")
        .version(env!("CARGO_PKG_VERSION"))
        .about(whole.get_about().cloned().unwrap_or_default())
        .after_help(AFTER_HELP)
        .disable_help_subcommand(true)
        .args(whole.get_arguments().cloned())
        .subcommands(commands.cloned())
}

fn completion(shell: impl Generator, file: &Path) -> io::Result<()> {
    let mut out = BufWriter::new(File::create(file)?);
    clap_complete::generate(shell, &mut shown(), "sideline", &mut out);
    out.flush()
}

/// The page of a command, and those of its own commands.
fn pages(command: &clap::Command, folder: &Path) -> io::Result<()> {
    let version = concat!("sideline ", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command.clone()).source(version).manual("sideline");
    let mut out = BufWriter::new(File::create(folder.join(man.get_filename()))?);
    man.render_title(&mut out)?;
    man.render_name_section(&mut out)?;
    man.render_synopsis_section(&mut out)?;
    man.render_description_section(&mut out)?;
    man.render_options_section(&mut out)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut out)?;
    }
    if let Some(notes) = command.get_after_help() {
        self::notes(&notes.to_string()).to_writer(&mut out)?;
    }
    out.flush()?;
    command
        .get_subcommands()
        .try_for_each(|below| pages(below, folder))
}

/// What stands below the help. Lines that are indented there are shown as they are: examples and tables.
fn notes(text: &str) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["NOTES"]);
    let mut as_is = false;
    for line in text.lines() {
        if line.starts_with(' ') != as_is {
            as_is = !as_is;
            roff.control(if as_is { "nf" } else { "fi" }, []);
        }
        if !as_is {
            roff.control("PP", []);
        }
        roff.text([roman(line)]);
    }
    roff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_and_nothing_hidden_shows() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path()).unwrap();
        let mut names = Vec::new();
        for part in ["man", "completions"] {
            for entry in fs::read_dir(folder.path().join(part)).unwrap() {
                let path = entry.unwrap().path();
                let text = fs::read_to_string(&path).unwrap();
                assert!(!text.contains("probe gpus"), "{}", path.display());
                assert!(!text.contains("libnvidia-ml"), "{}", path.display());
                names.push(path.file_name().unwrap().to_str().unwrap().to_owned());
            }
        }
        for command in shown().get_subcommands() {
            let page = format!("sideline-{}.1", command.get_name());
            assert!(names.contains(&page), "{page} of {names:?}");
        }
        for name in [
            "sideline.1",
            "sideline-config-check.1",
            "sideline.toml.5",
            "sideline",
            "_sideline",
            "sideline.fish",
        ] {
            assert!(names.iter().any(|one| one == name), "{name} of {names:?}");
        }
        assert!(!names.iter().any(|name| name.contains("probe")));
    }

    #[test]
    fn examples_keep_their_lines() {
        let roff = notes("Exit status: 0.\n\nExamples:\n  sideline check\n  .x\nEnd").render();
        let shown = roff.split_once(".SH NOTES").unwrap().1;
        for wanted in [".nf\n", "\n.fi\n", "sideline check\n"] {
            assert!(shown.contains(wanted), "{wanted:?} in {shown}");
        }
        // A line that starts with a dot is text, no request.
        assert!(!shown.contains("\n.x"), "{shown}");
    }
}
