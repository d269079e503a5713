//! The probe's process as the agent holds it: started, asked, listened to, ended. Nothing here waits for a
//! process that may never go.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child as Process, ChildStdin, ChildStdout, Command};

use super::wire::{LONGEST_LINE, Line, Question};

/// A probe that is asked to end gets so long before it is killed.
const GRACE: Duration = Duration::from_millis(200);

/// Room for one read of the probe's output.
const READ: usize = 4096;

/// How to start the probe.
#[derive(Debug, Clone)]
pub struct ProbeCommand {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
}

impl ProbeCommand {
    /// `sideline probe gpus`, of the very program that runs now, also when an upgrade has replaced its file.
    #[must_use]
    pub fn this_program(library: &str) -> Self {
        let mut args = vec!["probe".into(), "gpus".into()];
        if !library.is_empty() {
            args.extend(["--library".into(), library.into()]);
        }
        ProbeCommand {
            program: "/proc/self/exe".into(),
            args,
        }
    }
}

/// A running probe.
pub(super) struct Child {
    process: Process,
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    /// What has been read of lines that have not been taken.
    buffer: Vec<u8>,
}

impl Child {
    /// Starts a probe.
    ///
    /// # Errors
    /// The system's, when the program can't be started.
    pub(super) fn start(command: &ProbeCommand) -> io::Result<Self> {
        let mut process = Command::new(&command.program)
            .arg0("sideline")
            .args(&command.args)
            // Threads that hardly allocate need no arena of their own.
            .env("MALLOC_ARENA_MAX", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdin = process.stdin.take();
        let stdout = process.stdout.take();
        Ok(Child {
            process,
            stdin,
            stdout: stdout.ok_or_else(|| io::Error::other("the probe has no standard output"))?,
            buffer: Vec::new(),
        })
    }

    /// Asks for a reading. A probe that is gone is told by the end of its lines, not here.
    pub(super) async fn ask(&mut self, question: &Question) {
        if let Some(stdin) = &mut self.stdin {
            // One short line at a time always fits into the pipe.
            let _ = stdin.write_all(question.encode().as_bytes()).await;
        }
    }

    /// The next line; `None` at the end. May be dropped and called anew without loss.
    ///
    /// # Errors
    /// Says what was no line of a probe.
    pub(super) async fn next_line(&mut self) -> Result<Option<Line>, String> {
        let mut looked = 0;
        loop {
            if let Some(end) = self.line_end(looked) {
                let line = Line::decode(self.buffer.get(..end).unwrap_or_default());
                self.buffer.drain(..=end);
                return line.map(Some);
            }
            looked = self.buffer.len();
            if LONGEST_LINE < looked {
                return Err(format!("spoke nonsense: a line over {LONGEST_LINE} bytes"));
            }
            self.buffer.reserve(READ);
            match self.stdout.read_buf(&mut self.buffer).await {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(why) => return Err(format!("can't be read: {why}")),
            }
        }
    }

    /// Whether a whole line has been read already.
    pub(super) fn has_line(&self) -> bool {
        self.line_end(0).is_some()
    }

    fn line_end(&self, from: usize) -> Option<usize> {
        let rest = self.buffer.get(from..)?;
        rest.iter()
            .position(|byte| *byte == b'\n')
            .map(|at| from + at)
    }

    /// Kills the probe; it may take its time to go.
    pub(super) fn kill(&mut self) {
        // It fails only for a process that has gone.
        let _ = self.process.start_kill();
    }

    /// Waits until the process is gone, which may be never: to be dropped at will.
    pub(super) async fn gone(&mut self) -> Gone {
        match self.process.wait().await {
            Ok(status) => Gone {
                how: words(status),
                status: status.code(),
            },
            Err(why) => Gone {
                how: format!("went without a word: {why}"),
                status: None,
            },
        }
    }

    /// Asks the probe to end, kills it if it doesn't, and waits no longer.
    pub(super) async fn stop(mut self) {
        drop(self.stdin.take());
        if tokio::time::timeout(GRACE, self.process.wait())
            .await
            .is_err()
        {
            self.kill();
        }
    }
}

/// How a process ended.
pub(super) struct Gone {
    /// For a person.
    pub(super) how: String,
    /// Its exit status, unless a signal ended it.
    pub(super) status: Option<i32>,
}

fn words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with status {code}"),
        (None, Some(signal)) => match signal_name(signal) {
            Some(name) => format!("killed by signal {signal} ({name})"),
            None => format!("killed by signal {signal}"),
        },
        (None, None) => status.to_string(),
    }
}

/// The signals that programs die of.
fn signal_name(signal: i32) -> Option<&'static str> {
    let names = [
        (Signal::HUP, "SIGHUP"),
        (Signal::INT, "SIGINT"),
        (Signal::ILL, "SIGILL"),
        (Signal::TRAP, "SIGTRAP"),
        (Signal::ABORT, "SIGABRT"),
        (Signal::BUS, "SIGBUS"),
        (Signal::FPE, "SIGFPE"),
        (Signal::KILL, "SIGKILL"),
        (Signal::SEGV, "SIGSEGV"),
        (Signal::PIPE, "SIGPIPE"),
        (Signal::TERM, "SIGTERM"),
        (Signal::XCPU, "SIGXCPU"),
        (Signal::SYS, "SIGSYS"),
    ];
    let named = names.iter().find(|(named, _)| named.as_raw() == signal);
    named.map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::super::wire::At;
    use super::*;

    #[test]
    fn endings_have_words() {
        for (raw, expected) in [
            (3 << 8, "exited with status 3"),
            (0, "exited with status 0"),
            (6, "killed by signal 6 (SIGABRT)"),
            (11 | 0x80, "killed by signal 11 (SIGSEGV)"),
            (9, "killed by signal 9 (SIGKILL)"),
            (40, "killed by signal 40"),
        ] {
            assert_eq!(words(ExitStatus::from_raw(raw)), expected);
        }
    }

    #[test]
    fn the_library_is_named_only_where_it_is_set() {
        let args = |library| ProbeCommand::this_program(library).args;
        assert_eq!(args(""), ["probe", "gpus"]);
        assert_eq!(args("/x.so"), ["probe", "gpus", "--library", "/x.so"]);
    }

    #[tokio::test]
    async fn lines_are_taken_whole() {
        let script =
            r#"printf '{"at":{"call":"a"}}\n{"at":{'; printf '"call":"b"}}\n'; printf 'half a li'"#;
        let mut child = Child::start(&sh(script)).unwrap();
        for expected in ["a", "b"] {
            let at = At {
                call: Some(expected.into()),
                ..At::default()
            };
            assert_eq!(child.next_line().await, Ok(Some(Line::At(at))));
        }
        assert_eq!(child.next_line().await, Ok(None));
        assert_eq!(child.gone().await.status, Some(0));
    }

    #[tokio::test]
    async fn an_endless_line_is_nonsense() {
        let mut child = Child::start(&sh(
            "while :; do printf xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done",
        ));
        let child = child.as_mut().unwrap();
        let why = child.next_line().await.unwrap_err();
        assert!(why.contains("a line over 1048576 bytes"), "{why}");
        child.kill();
        assert_eq!(child.gone().await.how, "killed by signal 9 (SIGKILL)");
    }

    fn sh(script: &str) -> ProbeCommand {
        ProbeCommand {
            program: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
        }
    }
}
