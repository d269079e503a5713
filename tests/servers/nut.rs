//! The real daemon of Network UPS Tools, with a supply that says what a test wants.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// A upsd of its own, with two supplies: `office` has a driver that says what a file says, `lost` has none.
pub(crate) struct Nut {
    folder: TempDir,
    port: u16,
    running: Vec<Child>,
}

impl Nut {
    /// Nothing runs yet; the supply is on line.
    ///
    /// # Panics
    /// Where NUT is not installed.
    pub(crate) fn new() -> Self {
        // /usr/sbin/upsd asks /etc/nut whether it may.
        for path in ["/lib/nut/upsd", "/lib/nut/dummy-ups"] {
            assert!(
                Path::new(path).exists(),
                "{path} is missing; `tests/run` installs it, or: apt-get install nut-server"
            );
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("its number").port();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let device = |name: &str| {
            let file = folder.path().join(name).with_extension("dev");
            format!(
                "[{name}]\n driver = dummy-ups\n mode = dummy-once\n port = {}\n",
                file.display()
            )
        };
        let drivers = format!("pollinterval = 1\n{}{}", device("office"), device("lost"));
        for (file, text) in [
            ("ups.conf", drivers),
            ("upsd.conf", format!("LISTEN 127.0.0.1 {port}\n")),
            ("upsd.users", String::new()),
        ] {
            fs::write(folder.path().join(file), text).expect("a configuration");
        }
        let nut = Nut {
            folder,
            port,
            running: Vec::new(),
        };
        nut.says("OL", 100);
        nut
    }

    /// For `ups.address`.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn start(&mut self, program: &str, arguments: &[&str]) {
        let folder = self.folder.path();
        let user = if rustix::process::geteuid().is_root() {
            vec!["-u", "root"]
        } else {
            vec![]
        };
        let child = Command::new(program)
            .args(arguments)
            .args(user)
            .args(["-F"])
            .envs(["NUT_CONFPATH", "NUT_STATEPATH", "NUT_ALTPIDPATH"].map(|name| (name, folder)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.running.push(child.expect("NUT's program starts"));
    }

    /// Starts the driver of `office`.
    pub(crate) fn start_driver(&mut self) {
        self.start("/lib/nut/dummy-ups", &["-a", "office"]);
    }

    /// Starts upsd.
    pub(crate) fn start_daemon(&mut self) {
        self.start("/lib/nut/upsd", &[]);
    }

    /// Kills what was started first of all that runs.
    pub(crate) fn kill_first(&mut self) {
        let mut child = self.running.remove(0);
        child.kill().expect("our own child can be killed");
        child.wait().expect("our own child can be waited for");
    }

    /// What the UPS says from now on.
    pub(crate) fn says(&self, status: &str, charge: u32) {
        let text = format!(
            "ups.status: {status}\nbattery.charge: {charge}\nbattery.runtime: {}\nups.load: 30\n\
             ups.mfr: ACME\nups.model: Back-UPS 700\n",
            charge * 12
        );
        let file = self.folder.path().join("office.dev");
        fs::write(file.with_extension("new"), text).expect("a device file");
        fs::rename(file.with_extension("new"), file).expect("a device file");
    }
}

impl Drop for Nut {
    fn drop(&mut self) {
        while !self.running.is_empty() {
            self.kill_first();
        }
    }
}
