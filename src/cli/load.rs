//! Reads the configuration and the environment, which `config` itself must not.

use std::ffi::OsString;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};

use crate::config::decode;
use crate::config::effective::{Effective, Environment};
use crate::config::layers::Base;
use crate::domain::settings::{Kept, Refused, Trial};
use crate::store::settings;

/// The file that is read if there is one and no other is named.
pub const FILE: &str = "/etc/sideline/sideline.toml";

/// A configuration is read up to this size.
const LARGEST: u64 = 1 << 20;

/// The configuration that counts: of the file named, else of [`FILE`] if it exists, else the defaults; completed by the
/// environment; and over it the parameters that SSM gave the agent last.
///
/// # Errors
/// A file that cannot be read, or the problems of its text, a line each.
pub fn load(file: Option<&Path>) -> anyhow::Result<Effective> {
    let base = base(file)?;
    if base.config.ssm.parameters.is_empty() {
        return Ok(base.lay(&[], &[]).effective);
    }
    let folder = &base.config.paths.state;
    match settings::read(folder) {
        Ok(kept) => Ok(over(&base, &kept.unwrap_or_default())),
        Err(error) => {
            let mut effective = base.lay(&[], &[]).effective;
            let copy = folder.join(settings::FILE);
            let is_denied = error.kind() == ErrorKind::PermissionDenied;
            let mend = if is_denied { "; run this as root" } else { "" };
            let note = format!(
                "without the parameters: {} can't be read: {error}{mend}",
                copy.display()
            );
            effective.notes.push(note);
            Ok(effective)
        }
    }
}

/// With the parameters that the agent kept, and what there is to tell of them.
fn over(base: &Base, kept: &Kept) -> Effective {
    let in_force = kept.in_force();
    let laid = base.lay(in_force, &[]);
    let mut effective = laid.effective;
    let notes = &mut effective.notes;
    for name in &base.config.ssm.parameters {
        if in_force.iter().all(|parameter| parameter.name != *name) {
            notes.push(format!("parameter {name}: none is in force"));
        }
    }
    if let Some(Trial { since, .. }) = &kept.trial {
        notes.push(format!("the parameters are on trial since {since:.0}"));
    }
    let unfit = laid.refused.iter();
    let unfit = unfit.map(|(parameter, problems)| Refused::of(parameter, problems));
    let refused = unfit.chain(kept.refused.iter().cloned());
    notes.extend(refused.map(|refused| format!("refused: {refused}")));
    effective
}

/// The configuration without what SSM gave.
///
/// # Errors
/// As [`load`].
pub fn base(file: Option<&Path>) -> anyhow::Result<Base> {
    let environment = environment();
    match file {
        Some(file) => base_of(file, environment),
        None if is_missing(Path::new(FILE)) => Ok(Base::without_file(environment)),
        None => base_of(Path::new(FILE), environment),
    }
}

fn base_of(file: &Path, environment: Environment) -> anyhow::Result<Base> {
    let text = read(file)?;
    let name = file.display().to_string();
    let base = Base::of_file(file.into(), text, environment);
    base.map_err(|problems| anyhow!(problems.lines(&name)))
}

/// Reads one file; what is right is not looked at.
///
/// # Errors
/// It cannot be read, or is no text.
pub fn read(file: &Path) -> anyhow::Result<String> {
    let name = file.display();
    let mut bytes = Vec::new();
    File::open(file)
        .and_then(|opened| opened.take(LARGEST + 1).read_to_end(&mut bytes))
        .with_context(|| format!("{name} cannot be read"))?;
    if bytes.len() as u64 > LARGEST {
        bail!("{name} must have at most 1 MiB");
    }
    match decode(&bytes) {
        Ok(text) => Ok(text.to_owned()),
        Err(problems) => Err(anyhow!(problems.lines(&name.to_string()))),
    }
}

/// Only a file that is not there is passed over: one that cannot be read would be missed in silence.
fn is_missing(file: &Path) -> bool {
    std::fs::metadata(file).is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

fn environment() -> Environment {
    let path = |name| std::env::var_os(name).map(PathBuf::from);
    let text = |name| std::env::var_os(name).and_then(|value: OsString| value.into_string().ok());
    Environment {
        aws_region: text("AWS_REGION"),
        aws_default_region: text("AWS_DEFAULT_REGION"),
        aws_shared_credentials_file: text("AWS_SHARED_CREDENTIALS_FILE"),
        xdg_state_home: path("XDG_STATE_HOME"),
        xdg_runtime_dir: path("XDG_RUNTIME_DIR"),
        home: path("HOME"),
        root: rustix::process::geteuid().is_root(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_told_in_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("f.toml");
        let name = file.display();
        for (bytes, wanted) in [
            (
                None,
                format!("{name} cannot be read: No such file or directory (os error 2)"),
            ),
            (
                Some(b"[host]\nevery = \"\xff\"".to_vec()),
                format!("{name}:2:10: byte 17 is 0xff: no UTF-8 text"),
            ),
            (
                Some(vec![b'#'; (1 << 20) + 1]),
                format!("{name} must have at most 1 MiB"),
            ),
            (
                Some(b"[host]\nevry = 1".to_vec()),
                format!("{name}:2:1: unknown key \"evry\" in [host]; did you mean \"every\"?"),
            ),
        ] {
            if let Some(bytes) = bytes {
                std::fs::write(&file, bytes).unwrap();
            }
            assert_eq!(format!("{:#}", load(Some(&file)).unwrap_err()), wanted);
        }
        std::fs::write(&file, "[host]\nevery = '3s'").unwrap();
        let loaded = load(Some(&file)).unwrap();
        assert_eq!(loaded.config.host.every.as_secs(), 3);
        assert_eq!(loaded.file, Some(file));
    }
}
