//! A foreign program, run once: in a process group of its own, with nothing of ours, bounded in time and output.
//!
//! It is started from a thread beside the agent's: its file may lie on the very disk or server that hangs, and then
//! even the start never comes back. Whatever hangs is left alone, killed if it can be, and never waited for.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

/// Where programs are looked for.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A killed program is usually gone within milliseconds; one that is not is in the kernel's hands.
const GRACE: Duration = Duration::from_secs(1);

/// What a program wrote before it ended is in the pipe already. Who still holds the pipe then is a child of it.
const REST: Duration = Duration::from_millis(200);

/// What to run.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    /// The program and its arguments.
    pub(crate) command: Vec<String>,
    /// Who it runs as, where we are root; else it runs as we do.
    pub(crate) user: Option<String>,
    /// When it is killed.
    pub(crate) timeout: Duration,
    /// So many bytes of its output are kept; it may write more.
    pub(crate) output: usize,
}

/// What became of it.
pub(crate) enum Ran {
    /// It ended by itself.
    Ended {
        status: ExitStatus,
        /// The beginning of its standard output.
        output: Vec<u8>,
    },
    /// It could not be started, and why.
    NotStarted(String),
    /// It was killed for taking too long.
    TimedOut {
        /// What would not even be killed.
        left: Option<Leftover>,
    },
}

/// A program that hangs where no signal reaches it.
pub(crate) enum Leftover {
    /// Its start has not come back.
    Starting(JoinHandle<Result<Running, String>>),
    /// It does not go.
    Running(Box<Running>),
}

impl Leftover {
    /// Waits until it is gone, which may be never. May be dropped and called anew.
    pub(crate) async fn gone(&mut self) {
        if let Leftover::Starting(start) = self {
            match start.await {
                // Too late: it is killed as soon as it has started.
                Ok(Ok(running)) => {
                    running.kill();
                    *self = Leftover::Running(Box::new(running));
                }
                Ok(Err(_)) | Err(_) => return,
            }
        }
        if let Leftover::Running(running) = self {
            let _ = running.child.wait().await;
        }
    }
}

/// A program that has been started, ended with all that it started when this is dropped.
pub(crate) struct Running {
    child: Child,
    group: Option<Pid>,
}

/// Runs a program. Dropped, it kills it.
pub(crate) async fn run(program: Program) -> Ran {
    let deadline = Instant::now() + program.timeout;
    let output = program.output;
    let mut start = tokio::task::spawn_blocking(move || Running::start(&program));
    let mut running = match timeout_at(deadline, &mut start).await {
        Ok(Ok(Ok(running))) => running,
        Ok(Ok(Err(why))) => return Ran::NotStarted(why),
        Ok(Err(broken)) => return Ran::NotStarted(broken.to_string()),
        Err(_) => {
            return Ran::TimedOut {
                left: Some(Leftover::Starting(start)),
            };
        }
    };
    match timeout_at(deadline, running.end(output)).await {
        Ok(Ok((status, output))) => Ran::Ended { status, output },
        Ok(Err(why)) => Ran::NotStarted(why.to_string()),
        Err(_) => {
            running.kill();
            let gone = timeout(GRACE, running.child.wait()).await.is_ok();
            Ran::TimedOut {
                left: (!gone).then(|| Leftover::Running(Box::new(running))),
            }
        }
    }
}

/// How a program ended, for a person.
pub(crate) fn words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with status {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// A line of a program's output that a terminal, a log and a message can show.
pub(crate) fn printable(line: &str, most: usize) -> String {
    let line = line.replace(|c: char| c.is_control(), " ");
    line.trim().chars().take(most).collect()
}

impl Running {
    fn start(program: &Program) -> Result<Self, String> {
        let Some((file, args)) = program.command.split_first() else {
            return Err("no program".into());
        };
        // Of this thread, and of what it starts: no set-user-id program gives back what is taken here.
        rustix::thread::set_no_new_privs(true).map_err(|why| why.to_string())?;
        let mut command = Command::new(file);
        command
            .args(args)
            .env_clear()
            .envs([("PATH", PATH), ("LANG", "C")])
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0);
        if let Some(user) = &program.user
            && rustix::process::geteuid().is_root()
        {
            let (uid, gid) = ids(Path::new("/etc/passwd"), user)
                .ok_or_else(|| format!("user \"{user}\" is not in /etc/passwd"))?;
            // With the user, the standard library takes root's supplementary groups away too.
            command.gid(gid).uid(uid);
        }
        let child = command.spawn().map_err(|why| format!("{file}: {why}"))?;
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Ok(Running {
            group: id.and_then(Pid::from_raw),
            child,
        })
    }

    async fn end(&mut self, most: usize) -> io::Result<(ExitStatus, Vec<u8>)> {
        let Some(mut stdout) = self.child.stdout.take() else {
            return Err(io::Error::other("it has no standard output"));
        };
        let mut output = Vec::new();
        let mut open = true;
        let status = loop {
            tokio::select! {
                more = piece(&mut stdout, &mut output, most), if open => open = more,
                status = self.child.wait() => break status?,
            }
        };
        while open {
            match timeout(REST, piece(&mut stdout, &mut output, most)).await {
                Ok(more) => open = more,
                Err(_) => {
                    self.kill();
                    break;
                }
            }
        }
        Ok((status, output))
    }

    /// Kills it with all that it started, but for what has left its group.
    fn kill(&self) {
        if let Some(group) = self.group {
            // It fails only when all are gone, or when they run as another user and we may not.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Once it has been waited for, its number may be another's.
        if self.child.id().is_some() {
            self.kill();
        }
    }
}

/// Reads a piece, of which as much is kept as there is room for; whether there may be more.
async fn piece(from: &mut (impl AsyncRead + Unpin), into: &mut Vec<u8>, most: usize) -> bool {
    let mut piece = [0; 4096];
    match from.read(&mut piece).await {
        Ok(0) | Err(_) => false,
        Ok(read) => {
            let room = most.saturating_sub(into.len()).min(read);
            into.extend_from_slice(&piece[..room]);
            true
        }
    }
}

/// A user's number and group: `nobody:x:65534:65534:…` (passwd(5)). Users of a directory service are not looked for:
/// the question may hang with the network.
fn ids(passwd: &Path, user: &str) -> Option<(u32, u32)> {
    let passwd = std::fs::read_to_string(passwd).ok()?;
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next()? != user {
            return None;
        }
        Some((fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, timeout: Duration) -> Program {
        Program {
            command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            user: None,
            timeout,
            output: 64,
        }
    }

    fn told(ran: &Ran) -> String {
        match ran {
            Ran::Ended { status, output } => {
                format!("{}: {}", words(*status), String::from_utf8_lossy(output))
            }
            Ran::NotStarted(why) => format!("not started: {why}"),
            Ran::TimedOut { left } => format!("timed out, left: {}", left.is_some()),
        }
    }

    #[tokio::test]
    async fn endings() {
        const LONG: Duration = Duration::from_secs(20);
        const SHORT: Duration = Duration::from_millis(300);
        for (script, timeout, expected) in [
            ("echo a; exit 2", LONG, "exited with status 2: a\n"),
            ("kill -9 $$", LONG, "killed by signal 9: "),
            ("exec sleep 60", SHORT, "timed out, left: false"),
            // Its child holds the pipe, and is killed with it.
            ("sleep 60 & echo b", LONG, "exited with status 0: b\n"),
            (
                "pwd; env | grep -v PWD | sort",
                LONG,
                "exited with status 0: /\nLANG=C\nPATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:",
            ),
            (
                "cat; head -c 300000 /dev/zero | tr '\\0' x",
                LONG,
                "exited with status 0: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            ),
            (
                "grep NoNewPrivs /proc/self/status",
                LONG,
                "exited with status 0: NoNewPrivs:\t1\n",
            ),
        ] {
            let ran = run(sh(script, timeout)).await;
            assert_eq!(told(&ran), expected, "{script}");
        }
        let mut none = sh("", LONG);
        none.command = vec!["/nonexistent".into()];
        let expected = "not started: /nonexistent: No such file or directory (os error 2)";
        assert_eq!(told(&run(none).await), expected);
    }

    #[tokio::test]
    async fn what_is_dropped_is_killed_with_its_children() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let script = format!(
            "sleep 60 & echo $! > {}.new; mv {0}.new {0}; wait",
            file.display()
        );
        let running = run(sh(&script, Duration::from_secs(60)));
        let written = async {
            while !file.exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            ran = running => panic!("{}", told(&ran)),
            () = written => {}
        }
        let pid = std::fs::read_to_string(&file).unwrap();
        let stat = format!("/proc/{}/stat", pid.trim());
        let gone = async {
            // A zombie that nobody has reaped yet is dead.
            while std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(20), gone).await.unwrap();
    }

    #[test]
    fn users_are_found_by_their_whole_name() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "root:x:0:0:root:/root:/bin/sh\nbad:x:y:1::\nnobody:x:65534:65533:n:/:/usr/sbin/nologin\n";
        std::fs::write(&file, text).unwrap();
        for (user, expected) in [
            ("nobody", Some((65_534, 65_533))),
            ("root", Some((0, 0))),
            ("nob", None),
            ("bad", None),
            ("", None),
        ] {
            assert_eq!(ids(file.path(), user), expected, "{user}");
        }
    }

    #[test]
    fn lines_are_made_fit_to_show() {
        for (line, most, expected) in [
            (" a\tb\u{1b}[31m ", 80, "a b [31m"),
            ("äöü", 2, "äö"),
            ("", 5, ""),
        ] {
            assert_eq!(printable(line, most), expected);
        }
    }
}
