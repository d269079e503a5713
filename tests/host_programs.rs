//! The real programs that hosts are watched with: NUT's upsd, monitoring plugins and smartctl, from Debian's packages.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sideline::clock::Clock;
use sideline::collect::{checks, drives, ups};
use sideline::config;
use sideline::domain::reading::Reading;
use sideline::domain::snapshot::{Check, CheckState, DriveHealth, Drives, Helper, Ups, UpsPower};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

#[path = "servers/nut.rs"]
mod nut;

/// Nothing here takes longer; a machine that is busy with other tests may need half of it.
const PATIENCE: Duration = Duration::from_secs(60);

const PLUGINS: &str = "/usr/lib/nagios/plugins";

/// Ends what it stands for when the test is over.
struct Ended(CancellationToken);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// The first reading that is as wanted.
async fn soon<T: Clone + std::fmt::Debug>(
    what: &str,
    seen: &mut watch::Receiver<Reading<T>>,
    wanted: impl FnMut(&Reading<T>) -> bool,
) -> Reading<T> {
    let waited = tokio::time::timeout(PATIENCE, seen.wait_for(wanted)).await;
    let found = waited.map(|found| found.expect("the collector runs").clone());
    found.unwrap_or_else(|_| panic!("{what}: not seen; last: {:?}", seen.borrow()))
}

fn program(path: &str, package: &str) {
    assert!(
        Path::new(path).exists(),
        "{path} is missing; `tests/run` installs it, or: apt-get install {package}"
    );
}

mod power {
    use super::*;
    use nut::Nut;

    fn collect(enabled: config::Enabled, nut: &Nut) -> (watch::Receiver<Reading<Vec<Ups>>>, Ended) {
        let config = config::Ups {
            enabled,
            address: nut.address(),
            every: Duration::from_millis(100),
        };
        let (out, seen) = watch::channel(Reading::Pending);
        let cancel = CancellationToken::new();
        tokio::spawn(ups::run(config, out, Clock::start(None), cancel.clone()));
        (seen, Ended(cancel))
    }

    fn office(reading: &Reading<Vec<Ups>>) -> Option<&Ups> {
        reading.value()?.iter().find(|ups| ups.name == "office")
    }

    #[tokio::test]
    async fn a_supply_on_battery_is_seen_and_one_without_a_driver_is_not_known() {
        let mut nut = Nut::new();
        let (mut seen, _ended) = collect(config::Enabled::Auto, &nut);
        soon("no upsd", &mut seen, |reading| *reading == Reading::Off).await;

        nut.start_driver();
        nut.start_daemon();
        for (status, charge, power, low) in [
            ("OL", 100, UpsPower::Line, false),
            ("OB DISCHRG", 60, UpsPower::Battery, false),
            ("OB DISCHRG LB", 9, UpsPower::Battery, true),
            ("OL CHRG", 15, UpsPower::Line, false),
        ] {
            nut.says(status, charge);
            let reading = soon(status, &mut seen, |reading| {
                office(reading).is_some_and(|ups| ups.status == status && ups.model.is_some())
            });
            let reading = reading.await;
            let ups = office(&reading).expect("it was just seen");
            assert_eq!(
                (ups.power, ups.low_battery, ups.stale),
                (power, low, false),
                "{ups:?}"
            );
            assert_eq!(ups.charge_percent, Some(f64::from(charge)));
            assert_eq!(ups.runtime_s, Some(f64::from(charge * 12)));
            assert_eq!(ups.load_percent, Some(30.0));
            assert_eq!(ups.model.as_deref(), Some("ACME Back-UPS 700"));
            let lost = reading
                .value()
                .expect("a reading")
                .iter()
                .find(|ups| ups.name == "lost");
            let lost = lost.expect("upsd lists it");
            assert!(lost.stale && lost.power == UpsPower::Unknown, "{lost:?}");
            assert_eq!(lost.why.as_deref(), Some("DRIVER-NOT-CONNECTED"));
        }

        nut.kill_first();
        soon("a dead driver", &mut seen, |reading| {
            office(reading).is_some_and(|ups| ups.stale)
        })
        .await;
        // Once seen, an upsd that is gone is trouble.
        nut.kill_first();
        let gone = soon("a dead upsd", &mut seen, |reading| {
            matches!(reading, Reading::Failed { .. })
        });
        let Reading::Failed { why, .. } = gone.await else {
            unreachable!("that was waited for")
        };
        assert_eq!(
            why,
            format!(
                "upsd at {}: Connection refused (os error 111)",
                nut.address()
            )
        );
        nut.start_daemon();
        soon("upsd is back", &mut seen, |reading| {
            office(reading).is_some()
        })
        .await;
    }

    #[tokio::test]
    async fn where_a_supply_has_to_be_none_is_a_failure() {
        let nut = Nut::new();
        let (mut seen, _ended) = collect(config::Enabled::Always, &nut);
        soon("no upsd", &mut seen, |reading| {
            matches!(reading, Reading::Failed { .. })
        })
        .await;
        let (mut seen, _ended) = collect(config::Enabled::Never, &nut);
        soon("not asked", &mut seen, |reading| *reading == Reading::Off).await;
    }
}

mod plugins {
    use super::*;

    fn check(name: &str, command: &[&str]) -> config::Check {
        config::Check {
            name: name.into(),
            command: command.iter().map(|&word| word.to_owned()).collect(),
            every: Duration::from_millis(500),
            timeout: Duration::from_secs(10),
            user: "nobody".into(),
        }
    }

    fn plugin(name: &str, arguments: &[&str]) -> config::Check {
        let path = format!("{PLUGINS}/{name}");
        program(&path, "monitoring-plugins-basic");
        let command = [&[path.as_str()], arguments].concat();
        check(&name.replace("check_", ""), &command)
    }

    fn collect(checks: Vec<config::Check>) -> (watch::Receiver<Reading<Vec<Check>>>, Ended) {
        let (out, seen) = watch::channel(Reading::Pending);
        let cancel = CancellationToken::new();
        tokio::spawn(checks::run(checks, out, Clock::start(None), cancel.clone()));
        (seen, Ended(cancel))
    }

    #[tokio::test]
    async fn what_plugins_say_is_understood() {
        use CheckState::{Critical, Ok, Unknown, Warning};
        let dummy = |name: &str, status: &str| config::Check {
            name: name.into(),
            ..plugin("check_dummy", &[status, "said\u{1b} so|a=1"])
        };
        let table = [
            (
                plugin(
                    "check_load",
                    &["-w", "9999,9999,9999", "-c", "9999,9999,9999"],
                ),
                Ok,
                "LOAD OK - ",
            ),
            (
                plugin("check_procs", &["-w", "0:0", "-c", "0:999999"]),
                Warning,
                "PROCS WARNING: ",
            ),
            (
                plugin("check_disk", &["-w", "100%", "-c", "100%", "-p", "/"]),
                Critical,
                "DISK CRITICAL",
            ),
            (dummy("ok", "0"), Ok, "OK: said  so"),
            (dummy("warning", "1"), Warning, "WARNING: said  so"),
            (dummy("critical", "2"), Critical, "CRITICAL: said  so"),
            (dummy("unknown", "3"), Unknown, "UNKNOWN: said  so"),
            (
                dummy("other", "77"),
                Unknown,
                "UNKNOWN: Status 77 is not a supported error state",
            ),
            (
                check("absent", &["/nonexistent/check"]),
                Unknown,
                "can't be started: /nonexistent/check: ",
            ),
            (
                config::Check {
                    user: "no-such-user".into(),
                    ..check("user", &["/bin/true"])
                },
                if_root(Unknown, Ok),
                if rustix::process::geteuid().is_root() {
                    "can't be started: user \"no-such-user\" is not in /etc/passwd"
                } else {
                    "exited with status 0"
                },
            ),
            (
                config::Check {
                    timeout: Duration::from_millis(300),
                    ..check(
                        "hanging",
                        &["/bin/sh", "-c", "trap '' TERM; sleep 600 & wait"],
                    )
                },
                Unknown,
                "did not end in 300ms",
            ),
        ];
        let (mut seen, _ended) = collect(table.iter().map(|(check, ..)| check.clone()).collect());
        let all = soon("every check", &mut seen, |reading| {
            reading
                .value()
                .is_some_and(|checks| checks.len() == table.len())
        });
        let all = all.await;
        for (said, (check, state, text)) in all.value().expect("a reading").iter().zip(&table) {
            assert_eq!(said.name, check.name);
            assert_eq!(said.state, *state, "{said:?}");
            assert!(
                said.text.starts_with(text) && !said.text.contains('|'),
                "{said:?}"
            );
            assert!(
                said.took < PATIENCE && said.at.since_boot() > said.took,
                "{said:?}"
            );
        }
    }

    fn if_root(root: CheckState, other: CheckState) -> CheckState {
        if rustix::process::geteuid().is_root() {
            root
        } else {
            other
        }
    }

    #[tokio::test]
    async fn checks_have_nothing_of_ours() {
        let script = "id -un; id -Gn; grep -c . /proc/self/environ; readlink /proc/self/fd/0; pwd; ps -o pgid= -p $$; echo $$";
        let command = format!("set -- $({script}); echo \"$@\"");
        let (mut seen, _ended) = collect(vec![check("who", &["/bin/sh", "-c", &command])]);
        let said = soon("the check", &mut seen, |reading| reading.value().is_some()).await;
        let said = &said.value().expect("a reading")[0];
        let words: Vec<&str> = said.text.split(' ').collect();
        let [user, groups, _, stdin, folder, group, pid] = words.as_slice() else {
            panic!("{said:?}");
        };
        if rustix::process::geteuid().is_root() {
            assert_eq!((*user, *groups), ("nobody", "nogroup"));
        }
        assert_eq!((*stdin, *folder), ("/dev/null", "/"));
        assert_eq!(group, pid, "it leads a group of its own");
    }

    #[tokio::test]
    async fn at_most_four_run_at_once_and_never_two_of_one() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777))
            .expect("its owner may");
        let folder = folder.path().display();
        // Each leaves a file while it runs, and tells how many there are, and whether its own was there.
        let script =
            format!("cd {folder}; [ -e $0 ] && exit 2; : > $0; ls | wc -l; sleep 0.7; rm $0");
        let checks = (0..9).map(|number| {
            check(
                &format!("n{number}"),
                &["/bin/sh", "-c", &script, &number.to_string()],
            )
        });
        let (mut seen, _ended) = collect(checks.collect());
        let mut most = 0;
        for _ in 0..30 {
            soon("a check", &mut seen, |_| true).await;
            tokio::time::timeout(PATIENCE, seen.changed())
                .await
                .expect("another one")
                .expect("it runs");
            for check in seen.borrow_and_update().value().expect("a reading") {
                assert_eq!(check.state, CheckState::Ok, "{check:?}");
                most = most.max(check.text.parse::<usize>().expect("a number"));
            }
        }
        assert!((2..=4).contains(&most), "{most} at once");
    }
}

mod disks {
    use super::*;

    fn collect(
        program: String,
        folder: PathBuf,
        deadline: Duration,
    ) -> (watch::Receiver<Reading<Drives>>, Ended) {
        let (out, seen) = watch::channel(Reading::Pending);
        let cancel = CancellationToken::new();
        let asking = drives::Asking {
            program,
            every: Duration::from_millis(300),
            deadline,
            folder,
        };
        tokio::spawn(drives::run(asking, out, Clock::start(None), cancel.clone()));
        (seen, Ended(cancel))
    }

    /// A folder like /sys/block with these disks.
    fn block(root: &Path, disks: &[&str]) -> PathBuf {
        for disk in disks {
            let folder = root.join("block").join(disk);
            fs::create_dir_all(&folder).expect("a folder");
            fs::write(folder.join("size"), "8\n").expect("a file");
        }
        root.join("block")
    }

    #[tokio::test]
    async fn the_real_smartctl_says_why_it_can_not_ask_this_machines_disks() {
        program("/usr/sbin/smartctl", "smartmontools");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let real = Path::new("/sys/block").to_owned();
        let (mut seen, _ended) = collect("smartctl".into(), real, PATIENCE);
        let seen = soon("this machine's disks", &mut seen, |reading| {
            reading.value().is_some()
        })
        .await;
        for drive in &seen.value().expect("a reading").drives {
            // A real disk answers; a virtual one can't, and that is told.
            assert_ne!(drive.health.is_some(), drive.why.is_some(), "{drive:?}");
        }
        // One that is certainly not there.
        let (mut seen, _ended) =
            collect("smartctl".into(), block(folder.path(), &["sdzz"]), PATIENCE);
        let seen = soon("no disk", &mut seen, |reading| reading.value().is_some()).await;
        let seen = seen.value().expect("a reading");
        assert_eq!(seen.helper, Helper::Ok);
        let why = seen.drives[0].why.as_deref().unwrap_or_default();
        assert!(
            why.contains("No such device") || why.contains("Unable to detect"),
            "{seen:?}"
        );
        assert_eq!(seen.drives[0].health, None);
    }

    #[tokio::test]
    async fn every_kind_of_answer_is_read_and_a_disk_that_hangs_does_not_hold_the_others() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let answers = [
            ("nvme0n1", "nvme-worn"),
            ("sda", "ata-failing"),
            ("sdb", "scsi-defects"),
            ("sdc", "forbidden"),
            ("sdd", "asleep"),
            ("vda", "unsupported"),
        ];
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/smartctl");
        let cases = answers.map(|(disk, file)| {
            format!(
                "/dev/{disk}) exec cat {}/{file}.json;;\n",
                fixtures.display()
            )
        });
        let log = folder.path().join("asked");
        let script = format!(
            "#!/bin/sh\n[ \"$1 $2 $3\" = '--json=c --all --nocheck=standby,3' ] || exit 1\necho $4 >> {}\n\
             case $4 in\n{}/dev/sde) exec sleep 600;;\nesac\n",
            log.display(),
            cases.concat()
        );
        let program = folder.path().join("smartctl");
        fs::write(&program, script).expect("a script");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("its owner may");
        let names = ["nvme0n1", "sda", "sdb", "sdc", "sdd", "sde", "vda"];
        let disks = block(folder.path(), &names);
        let program = program.display().to_string();
        let (mut seen, _ended) = collect(program, disks, Duration::from_secs(2));
        let seen = soon("all disks", &mut seen, |reading| reading.value().is_some()).await;
        let seen = seen.value().expect("a reading");
        assert_eq!(seen.helper, Helper::Ok);
        let told: Vec<String> = seen.drives.iter().map(tell).collect();
        assert_eq!(
            told,
            [
                "sda: passed false, reallocated 1975, pending 8, uncorrectable 2, failing Reallocated_Sector_Ct, 36 °C",
                "sdb: passed true, used 11 %, media errors 4, reallocated 56, 34 °C",
                "sdc: Smartctl open device: /dev/sdc failed: Permission denied",
                "sdd: it sleeps",
                "sde: no answer within 2s",
                "vda: /dev/vda: Unable to detect device type",
                "nvme0n1: passed false, warning 5, spare 4 of 10 %, used 112 %, media errors 7, 52 °C",
            ]
        );
        let asked = fs::read_to_string(log).expect("the script ran");
        let order = ["sda", "sdb", "sdc", "sdd", "sde", "vda", "nvme0n1"];
        let asked: Vec<_> = asked.lines().take(order.len()).collect();
        assert_eq!(
            asked,
            order.map(|disk| format!("/dev/{disk}")),
            "each once a round"
        );
    }

    #[tokio::test]
    async fn without_smartctl_nothing_is_known_and_nothing_is_wrong() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let disks = block(folder.path(), &["sda", "sdb"]);
        let (mut seen, _ended) = collect("/nonexistent/smartctl".into(), disks, PATIENCE);
        let seen = soon("a round", &mut seen, |reading| reading.value().is_some()).await;
        let seen = seen.value().expect("a reading");
        let why = "/nonexistent/smartctl: No such file or directory (os error 2)".to_owned();
        assert_eq!(seen.helper, Helper::Missing { why: why.clone() });
        for drive in &seen.drives {
            assert_eq!((&drive.health, drive.why.as_ref()), (&None, Some(&why)));
        }
        assert_eq!(seen.drives.len(), 2);
    }

    /// What a disk said, in a line.
    fn tell(drive: &DriveHealth) -> String {
        let Some(smart) = &drive.health else {
            return format!(
                "{}: {}",
                drive.name,
                drive.why.as_deref().unwrap_or("nothing")
            );
        };
        let mut words = Vec::new();
        words.extend(smart.passed.map(|passed| format!("passed {passed}")));
        words.extend(smart.critical_warning.map(|bits| format!("warning {bits}")));
        let spare = smart
            .available_spare_percent
            .zip(smart.available_spare_threshold_percent);
        words.extend(spare.map(|(left, least)| format!("spare {left} of {least} %")));
        words.extend(smart.used_percent.map(|used| format!("used {used} %")));
        words.extend(
            smart
                .media_errors
                .map(|errors| format!("media errors {errors}")),
        );
        words.extend(
            smart
                .reallocated
                .map(|count| format!("reallocated {count}")),
        );
        words.extend(smart.pending.map(|count| format!("pending {count}")));
        words.extend(
            smart
                .uncorrectable
                .map(|count| format!("uncorrectable {count}")),
        );
        words.extend(
            smart
                .failing_attributes
                .iter()
                .map(|name| format!("failing {name}")),
        );
        words.extend(smart.temperature_c.map(|celsius| format!("{celsius} °C")));
        format!("{}: {}", drive.name, words.join(", "))
    }
}
