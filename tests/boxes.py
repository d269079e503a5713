"""Releases of Debian and Ubuntu, bootstrapped once and booted by systemd-nspawn without a network."""

import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
HOME = ROOT / "target/install"
DEBIAN = "http://deb.debian.org/debian"
UBUNTU = "http://archive.ubuntu.com/ubuntu"
UBUNTU_KEYS = "pool/main/u/ubuntu-keyring/ubuntu-keyring_2021.03.26_all.deb"
UBUNTU_KEYS_SHA256 = "0d0e7ed6b112f5d03eabf3c7eb01ebdacf9c57714b279e90495cfc58c8c4520f"

# What is in each: systemd, and what the package depends on.
BASE = "systemd,systemd-sysv,dbus,ca-certificates"
RELEASES = {
    "bookworm": (DEBIAN, f"{BASE},mosquitto,mosquitto-clients"),
    "bullseye": (DEBIAN, BASE),
    "trixie": (DEBIAN, BASE),
    "jammy": (UBUNTU, BASE),
    "resolute": (UBUNTU, BASE),
}


def say(text):
    """Prints a text, and keeps it in the transcript."""
    print(text, flush=True)
    with open(HOME / "transcript.txt", "a", encoding="utf-8") as transcript:
        transcript.write(text + "\n")


def step(title):
    say(f"\n== {title}")


def check(holds, what):
    if not holds:
        say(f"FAILED: {what}")
        raise SystemExit(1)
    say(f"ok: {what}")


def run(*command, **options):
    """Runs a command on this machine; it must work."""
    return subprocess.run(command, check=True, cwd=ROOT, **options)


def wait(what, look, seconds=20.0):
    """Waits until `look` returns something true; returns that, and after how many seconds."""
    begun = time.monotonic()
    while time.monotonic() - begun < seconds:
        if seen := look():
            return seen, time.monotonic() - begun
        time.sleep(0.05)
    check(False, f"within {seconds:.0f} s: {what}")


def tools():
    wanted = {
        "debootstrap": "debootstrap",
        "systemd-nspawn": "systemd-container",
        "lintian": "lintian",
        "nsenter": "util-linux",
    }
    missing = sorted({package for tool, package in wanted.items() if not shutil.which(tool)})
    if not pathlib.Path("/usr/share/keyrings/debian-archive-keyring.gpg").exists():
        missing.append("debian-archive-keyring")
    if missing:
        say(f"installing: {' '.join(missing)}")
        run("apt-get", "update", "-qq")
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        run("apt-get", "install", "-qq", "-y", "--no-install-recommends", *missing, env=quiet, stdout=subprocess.DEVNULL)


def ubuntu_keys():
    """What Ubuntu's archive is signed by, which Debian does not have."""
    deb, folder = HOME / "ubuntu-keyring.deb", HOME / "ubuntu-keyring"
    if not folder.exists():
        with urllib.request.urlopen(f"{UBUNTU}/{UBUNTU_KEYS}", timeout=60) as answer:
            deb.write_bytes(answer.read())
        check(hashlib.sha256(deb.read_bytes()).hexdigest() == UBUNTU_KEYS_SHA256, "Ubuntu's keys are Ubuntu's")
        run("dpkg-deb", "--extract", deb, folder)
    return folder / "usr/share/keyrings/ubuntu-archive-keyring.gpg"


def bootstrapped(release):
    """The folder of a release, made once."""
    mirror, packages = RELEASES[release]
    folder, mark = HOME / release, HOME / f"{release}.packages"
    if not mark.exists() or mark.read_text() != packages:
        say(f"bootstrapping {release}")
        shutil.rmtree(folder, ignore_errors=True)
        options = ["--variant=minbase", f"--include={packages}"]
        # By the script of any release: debootstrap need not know one that is newer than itself.
        script = "/usr/share/debootstrap/scripts/sid"
        if mirror == UBUNTU:
            options.append(f"--keyring={ubuntu_keys()}")
            script = "/usr/share/debootstrap/scripts/gutsy"
        run("debootstrap", *options, release, folder, mirror, script, stdout=subprocess.DEVNULL)
        # systemd makes one at the first boot, as on a box that was just installed.
        (folder / "etc/machine-id").write_text("uninitialized\n")
        mark.write_text(packages)
    return folder


class Box:
    """A booted system without a network."""

    def __init__(self, release):
        self.name = f"sideline-{release}"
        self.folder = HOME / "box" / release
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.parent.mkdir(exist_ok=True)
        run("cp", "-a", "--reflink=auto", bootstrapped(release), self.folder)
        self.nspawn = self.pid = None

    def __enter__(self):
        command = [
            "systemd-nspawn", f"--directory={self.folder}", f"--machine={self.name}", "--boot", "--private-network",
            # This machine need not run systemd itself.
            "--register=no", "--keep-unit", "--console=pipe",
            # Device rules are programs in the kernel, which only this lets systemd in the box load.
            "--capability=all", "--system-call-filter=bpf",
            "--bind-ro=/dev/kmsg",
        ]
        unified = {**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}
        log = open(HOME / f"{self.name}.log", "w", encoding="utf-8")
        self.nspawn = subprocess.Popen(command, env=unified, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.pid, _ = wait(f"{self.name} boots, see {log.name}", self.first_process)
        wait(f"{self.name} is up, see {log.name}", self.is_up, 60)
        say(f"booted: {self.inside('systemctl', '--version').splitlines()[0]}")
        return self

    def __exit__(self, trouble, *_):
        if trouble:
            self.show("journalctl", "--unit=sideline", "--lines=40", "--no-pager")
            self.show("systemctl", "status", "sideline", "--no-pager")
        self.nspawn.terminate()
        try:
            self.nspawn.wait(20)
        except subprocess.TimeoutExpired:
            self.nspawn.kill()
            self.nspawn.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def first_process(self):
        if self.nspawn.poll() is not None:
            check(False, f"{self.name} runs")
        children = pathlib.Path(f"/proc/{self.nspawn.pid}/task/{self.nspawn.pid}/children").read_text().split()
        for child in children:
            # The first of its own: until then it is a part of nspawn.
            if pathlib.Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                return child
        return None

    def is_up(self):
        state = self.ask("systemctl", "is-system-running").stdout.strip()
        return state in ("running", "degraded")

    def command(self, *command):
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        enter = ("nsenter", f"--target={self.pid}", "--all", "--", "env", "-i", "--chdir=/", path)
        return (*enter, "DEBIAN_FRONTEND=noninteractive", "LANG=C.UTF-8", "HOME=/root", *command)

    def ask(self, *command):
        """Runs it inside; what it printed and how it ended."""
        return subprocess.run(self.command(*command), capture_output=True, text=True, check=False)

    def inside(self, *command):
        """Runs it inside; what it printed. It must work."""
        done = self.ask(*command)
        if done.returncode != 0:
            say(f"# {' '.join(command)}\n{done.stdout}{done.stderr}")
            check(False, f"it works: {' '.join(command)}")
        return done.stdout

    def show(self, *command):
        """Runs it inside and shows it as a transcript does; how it ended."""
        done = self.ask(*command)
        say(f"# {' '.join(command)}\n{done.stdout}{done.stderr}".rstrip())
        if done.returncode != 0:
            say(f"(exit {done.returncode})")
        return done

    def unit(self, name, unit="sideline.service"):
        """A property of a unit."""
        return self.inside("systemctl", "show", "--value", f"--property={name}", unit).strip()

    def path(self, name):
        return self.folder / name.lstrip("/")

    def apt(self, *words):
        return self.show("apt-get", "-qq", "-y", "-o", "Dpkg::Use-Pty=0", *words)

    def install(self, package, *options):
        shutil.copy(package, self.path("/opt"))
        done = self.apt("install", *options, f"/opt/{package.name}")
        check(done.returncode == 0, f"{package.name} is installed")

    def report(self):
        done = self.ask("sideline", "status", "--json")
        return json.loads(done.stdout) if done.stdout else None

    def reloads(self):
        """How often systemd has read its units again."""
        log = self.inside("journalctl", "--output=cat", "_PID=1")
        return len(re.findall(r"^Reloading", log, re.MULTILINE))
