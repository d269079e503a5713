#!/usr/bin/env python3
"""Measures memory and CPU of sideline beside collectd and prometheus-node-exporter, in one run.

Both run as on a camera server: host figures every 10 s, two (fake) GPUs, 18 cameras of Frigate 0.17 over MQTT,
everything told over HTTPS and over MQTT with TLS. Host names are resolved, certificates checked, and the
system's authorities loaded, as they are in the field. After a warm-up all are measured over the same time.

Memory is /proc/<pid>/smaps_rollup; CPU is the process's own CPU clock, which has nanoseconds and counts threads
that have ended. Exit status 1: a bound is broken.
"""

import argparse
import http.client
import http.server
import json
import os
import pathlib
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
MIB = 1024 * 1024
BINARY_BOUND = 10_000_000
PSS_BOUND = 12 * MIB
CAMERAS = [f"hole{number:02}" for number in range(1, 19)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=300, help="measured time (default 300)")
    parser.add_argument("--warm-up", type=int, default=60, help="time before it (default 60)")
    parser.add_argument("--keep", type=pathlib.Path, help="keep logs and smaps in this folder")
    parser.add_argument("--binary", type=pathlib.Path, default=ROOT / "target/release/sideline")
    options = parser.parse_args()

    folder = pathlib.Path(tempfile.mkdtemp(prefix="sideline-footprint-"))
    crew = Crew(folder)
    try:
        with crew:
            rows = measure(crew, folder, options)
    finally:
        if options.keep:
            shutil.copytree(folder, options.keep, dirs_exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
    size = options.binary.stat().st_size
    print(table(rows, options.seconds))
    print(f"\nrelease binary: {size:,} bytes")
    broken = broken_bounds(rows, size)
    for bound in broken:
        print(f"BROKEN: {bound}")
    if not broken:
        print("all bounds hold")
    return 1 if broken else 0


def measure(crew, folder, options):
    """Starts everything, waits for the steady state, and returns a row a subject."""
    pki = make_authority(folder)
    broker = Broker(crew, folder, pki)
    intake = Intake(pki)
    agent = start_agent(crew, folder, options.binary, broker, intake, pki)
    collectd = start_collectd(crew, folder, broker, intake, pki)
    exporter, exporter_port = start_exporter(crew)
    publisher = Publisher(broker)
    scraper = Scraper(exporter_port)
    for helper in (intake, publisher, scraper):
        helper.start()

    crew.sleep(options.warm_up)
    probe = child_of(agent.pid)
    pids = {"agent": agent.pid, "probe": probe, "collectd": collectd.pid, "exporter": exporter.pid}
    before = {name: cpu_seconds(pid) for name, pid in pids.items()}
    asked = dict(intake.answered)
    started = time.monotonic()
    crew.sleep(options.seconds)
    lasted = time.monotonic() - started
    cpu = {name: cpu_seconds(pid) - before[name] for name, pid in pids.items()}
    memory = {name: rollup(pid) for name, pid in pids.items()}
    if options.keep:
        for name, pid in pids.items():
            for file in ("smaps", "status"):
                (folder / f"{name}.{file}").write_text(pathlib.Path(f"/proc/{pid}/{file}").read_text())

    told = {who: count - asked.get(who, 0) for who, count in intake.answered.items()}
    check_that_all_worked(told, lasted, folder, publisher, scraper, probe, agent)
    print(f"measured {lasted:.0f} s after {options.warm_up} s of warm-up; HTTPS requests: {told};"
          f" MQTT messages from the agent: {publisher.heard('sideline/')},"
          f" from collectd: {publisher.heard('collectd/')}", file=sys.stderr)

    def row(title, *names):
        return {
            "title": title,
            "rss": sum(memory[name]["Rss"] for name in names),
            "pss": sum(memory[name]["Pss"] for name in names),
            "private": sum(memory[name]["Private_Clean"] + memory[name]["Private_Dirty"] for name in names),
            "threads": sum(threads(pids[name]) for name in names),
            "cpu": sum(cpu[name] for name in names),
        }

    return {
        "agent": row("sideline", "agent"),
        "probe": row("its GPU probe", "probe"),
        "both": row("sideline and probe", "agent", "probe"),
        "collectd": row("collectd", "collectd"),
        "exporter": row("prometheus-node-exporter", "exporter"),
    }


def check_that_all_worked(told, lasted, folder, publisher, scraper, probe, agent):
    """A program that does nothing is small: whoever was idle makes the whole measurement void."""
    report = subprocess.run(
        [os.readlink(f"/proc/{agent.pid}/exe"), "status", "--json", "--config", folder / "sideline.toml"],
        capture_output=True, text=True, check=False)
    report = json.loads(report.stdout)
    outlets = {outlet["name"]: outlet["state"] for outlet in report["outlets"]}
    up = [camera["id"] for camera in report["cameras"] if camera["state"] == "up"]
    complaints = []
    if told.get("agent", 0) < max(1, int(lasted // 60)):
        complaints.append(f"the agent sent {told.get('agent', 0)} PutMetricData in {lasted:.0f} s")
    if told.get("collectd", 0) < 1:
        complaints.append("collectd posted nothing")
    if not publisher.heard("sideline/") or not publisher.heard("collectd/"):
        complaints.append("nothing was heard over MQTT")
    if probe is None or len(report["gpus"]) != 2 or any(gpu["state"] != "ok" for gpu in report["gpus"]):
        complaints.append(f"the GPUs are not read: {report['gpus']}")
    if up != CAMERAS:
        complaints.append(f"cameras that are up: {up}")
    if outlets.get("cloudwatch") != "ok" or outlets.get("relay") != "ok":
        complaints.append(f"outlets: {outlets}")
    if scraper.pages == 0:
        complaints.append("the exporter was never scraped")
    if complaints:
        logs = "\n".join(f"--- {log.name}\n{log.read_text()[-2000:]}" for log in folder.glob("*.log"))
        raise SystemExit("nothing was measured: " + "; ".join(complaints) + "\n" + logs)


def broken_bounds(rows, size):
    bounds = [
        ("the agent's RSS is at most collectd's", rows["agent"]["rss"], rows["collectd"]["rss"]),
        ("agent and probe take at most 12 MiB (PSS)", rows["both"]["pss"], PSS_BOUND),
        ("agent and probe take at most collectd's CPU", rows["both"]["cpu"], rows["collectd"]["cpu"]),
        ("the release binary has at most 10,000,000 bytes", size, BINARY_BOUND),
    ]
    return [f"{what}: {got:,} > {most:,}" for what, got, most in bounds if got > most]


def table(rows, seconds):
    def kib(count):
        return f"{count // 1024:,}"

    lines = [
        f"| | RSS KiB | PSS KiB | private KiB | threads | CPU s in {seconds} s |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {row['title']} | {kib(row['rss'])} | {kib(row['pss'])} | {kib(row['private'])} |"
        f" {row['threads']} | {row['cpu']:.3f} |"
        for row in rows.values()
    ]
    return "\n".join(lines)


# Reading /proc


def rollup(pid):
    lines = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    fields = (line.split() for line in lines)
    return {name.rstrip(":"): int(kib) * 1024 for name, kib, *_ in fields}


def threads(pid):
    return len(os.listdir(f"/proc/{pid}/task"))


def cpu_seconds(pid):
    """The process's CPU clock: clock_getcpuclockid(3) as the kernel numbers it."""
    cpuclock_sched = 2
    return time.clock_gettime((~pid << 3) | cpuclock_sched)


def child_of(pid):
    children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    if len(children) != 1:
        raise SystemExit(f"the agent should have one child, the GPU probe; it has {children}")
    return int(children[0])


# What runs


class Crew:
    """The processes of this run: ended by their ids when it ends."""

    def __init__(self, folder):
        self.folder = folder
        self.processes = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in reversed(self.processes):
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def start(self, name, command, environment=None):
        with open(self.folder / f"{name}.log", "wb") as log:
            process = subprocess.Popen(
                [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**os.environ, **(environment or {})})
        process.name = name
        self.processes.append(process)
        return process

    def sleep(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(min(1, max(0, end - time.monotonic())))
            for process in self.processes:
                if process.poll() is not None:
                    log = (self.folder / f"{process.name}.log").read_text()
                    raise SystemExit(f"{process.name} ended with {process.returncode}:\n{log[-3000:]}")


def program(name):
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    return shutil.which(name, path=path) or name


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for_port(port):
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def make_authority(folder):
    """An authority, a certificate of localhost, and the system's authorities with ours among them."""
    pki = folder / "pki"
    pki.mkdir()

    def openssl(*arguments):
        subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, cwd=pki)

    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl("req", "-x509", *new_key, "-days", "2", "-subj", "/CN=footprint authority",
            "-keyout", "ca.key", "-out", "ca.pem")
    openssl("req", *new_key, "-subj", "/CN=localhost", "-keyout", "server.key", "-out", "server.csr")
    (pki / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    openssl("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
            "-days", "2", "-extfile", "names", "-out", "server.pem")
    system = pathlib.Path("/etc/ssl/certs/ca-certificates.crt")
    if not system.exists():
        print("no ca-certificates here: only our own authority is loaded", file=sys.stderr)
    authorities = system.read_text() if system.exists() else ""
    (pki / "all.pem").write_text(authorities + (pki / "ca.pem").read_text())
    # mosquitto drops root's rights, and then could not read them.
    for path in (folder, pki):
        path.chmod(0o755)
    (pki / "server.key").chmod(0o644)
    return pki


class Broker:
    """mosquitto: plain on one port for the camera program beside it, TLS on another."""

    def __init__(self, crew, folder, pki):
        self.port, self.tls_port = free_port(), free_port()
        config = folder / "mosquitto.conf"
        config.write_text(
            f"allow_anonymous true\npersistence false\nlistener {self.port} 127.0.0.1\n"
            f"listener {self.tls_port} 127.0.0.1\ncafile {pki}/ca.pem\n"
            f"certfile {pki}/server.pem\nkeyfile {pki}/server.key\n")
        crew.start("mosquitto", [program("mosquitto"), "-c", config])
        wait_for_port(self.port)
        wait_for_port(self.tls_port)


def start_agent(crew, folder, binary, broker, intake, pki):
    library = ROOT / "target/release/libnvidia_ml.so"
    # To wait for Xids the fake library reads its state file 50 times a second, where a driver sleeps. With no Xids
    # to wait for, the probe wakes every 5 s, as it does with a driver.
    card = {"preset": "l4", "event_types": 0}
    gpus = [{**card, "temperature": 61}, {**card, "temperature": 58}]
    (folder / "gpus.json").write_text(json.dumps({"gpus": gpus}))
    expected = "\n".join(f"{camera} = {{ fps = 5 }}" for camera in CAMERAS)
    (folder / "sideline.toml").write_text(f"""
[node]
id = "mi-0footprint"
site = "north"
slots = 18
[paths]
state = "{folder}/state"
run = "{folder}/run"
[gpu]
library = "{library}"
[[cameras.source]]
kind = "frigate"
url = "mqtt://127.0.0.1:{broker.port}"
[cameras.expect]
{expected}
[aws]
region = "eu-west-1"
[relay]
url = "mqtts://localhost:{broker.tls_port}"
ca = "{pki}/ca.pem"
""")
    return crew.start("sideline", [binary, "run", "--config", folder / "sideline.toml"], {
        "AWS_ENDPOINT_URL": f"https://localhost:{intake.port}/agent",
        "AWS_ACCESS_KEY_ID": "AKIAFOOTPRINT",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "SSL_CERT_FILE": str(pki / "all.pem"),
        "FAKE_NVML_STATE": str(folder / "gpus.json"),
        **unit_environment(),
    })


def unit_environment():
    """What systemd/sideline.service sets in the agent's environment."""
    lines = (ROOT / "systemd/sideline.service").read_text(encoding="utf-8").splitlines()
    settings = [line.removeprefix("Environment=") for line in lines if line.startswith("Environment=")]
    return dict(setting.split("=", 1) for setting in settings)


def start_collectd(crew, folder, broker, intake, pki):
    (folder / "collectd").mkdir()
    (folder / "collectd.conf").write_text(f"""
Hostname "camera-server"
FQDNLookup false
BaseDir "{folder}/collectd"
PIDFile "{folder}/collectd/pid"
PluginDir "/usr/lib/collectd"
TypesDB "/usr/share/collectd/types.db"
Interval 10
LoadPlugin cpu
LoadPlugin memory
LoadPlugin df
LoadPlugin disk
LoadPlugin interface
LoadPlugin mqtt
LoadPlugin write_http
<Plugin df>
  FSType "ext4"
  FSType "xfs"
  FSType "btrfs"
  FSType "vfat"
</Plugin>
<Plugin mqtt>
  <Publish "up">
    Host "localhost"
    Port {broker.tls_port}
    CACert "{pki}/ca.pem"
    ClientId "collectd-up"
    Prefix "collectd"
    QoS 1
  </Publish>
  <Subscribe "cameras">
    Host "localhost"
    Port {broker.tls_port}
    CACert "{pki}/ca.pem"
    ClientId "collectd-cameras"
    Topic "cameras/#"
    QoS 0
  </Subscribe>
</Plugin>
<Plugin write_http>
  <Node "cloud">
    URL "https://localhost:{intake.port}/collectd"
    CACert "{pki}/all.pem"
    VerifyPeer true
    VerifyHost true
    Format "JSON"
  </Node>
</Plugin>
""")
    return crew.start("collectd", [program("collectd"), "-f", "-C", folder / "collectd.conf"])


def start_exporter(crew):
    port = free_port()
    command = [program("prometheus-node-exporter"), f"--web.listen-address=127.0.0.1:{port}"]
    process = crew.start("prometheus-node-exporter", command)
    wait_for_port(port)
    return process, port


class Intake:
    """CloudWatch's and collectd's receiver over HTTPS: takes everything and counts who sent it."""

    def __init__(self, pki):
        answered = self.answered = {}

        class Answer(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 300

            def do_POST(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                who = self.path.split("/")[1]
                answered[who] = answered.get(who, 0) + 1
                empty_map = b"\xa0"
                self.send_response(200)
                self.send_header("x-amzn-requestid", f"footprint-{answered[who]}")
                self.send_header("smithy-protocol", "rpc-v2-cbor")
                self.send_header("content-type", "application/cbor")
                self.send_header("content-length", str(len(empty_map)))
                self.end_headers()
                self.wfile.write(empty_map)

            def log_message(self, *_):
                pass

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pki / "server.pem", pki / "server.key")
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.server.daemon_threads = True
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]

    def start(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


class Publisher(threading.Thread):
    """Frigate 0.17 with 18 cameras, and the same cameras as collectd reads them; listens to both programs too.

    Each camera's word comes every 10 s, one after the other as Frigate's processes send them; the stats message
    every 60 s.
    """

    def __init__(self, broker):
        super().__init__(daemon=True)
        stats = json.loads((ROOT / "tests/fixtures/frigate/stats-0.17.json").read_text())
        if sorted(stats["cameras"]) != CAMERAS:
            raise SystemExit(f"the fixture has other cameras: {sorted(stats['cameras'])}")
        # One camera of the fixture is dark; here all deliver.
        stats["cameras"] = {camera: stats["cameras"]["hole01"] for camera in CAMERAS}
        self.stats = json.dumps(stats).encode()
        self.mqtt = Mqtt(broker.port, ["sideline/#", "collectd/#"])

    def heard(self, prefix):
        return self.mqtt.heard.get(prefix.split("/")[0], 0)

    def run(self):
        self.mqtt.publish("frigate/available", b"online", retain=True)
        for camera in CAMERAS:
            self.mqtt.publish(f"frigate/{camera}/enabled/state", b"ON", retain=True)
        turns = 0
        begun = time.monotonic()
        step = 10 / len(CAMERAS)
        while True:
            camera = CAMERAS[turns % len(CAMERAS)]
            if turns % (6 * len(CAMERAS)) == 0:
                self.mqtt.publish("frigate/stats", self.stats)
            self.mqtt.publish(f"frigate/{camera}/status/detect", b"online")
            value = f"{time.time():.3f}:5.1".encode()
            self.mqtt.publish(f"cameras/{camera}/frigate/gauge-fps", value)
            turns += 1
            time.sleep(max(0, begun + turns * step - time.monotonic()))


class Mqtt:
    """As much of MQTT 3.1.1 as it takes to publish with QoS 0 and to count what comes back."""

    def __init__(self, port, filters):
        self.heard = {}
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.lock = threading.Lock()
        clean_session, keep_alive_off = 2, 0
        self.send(0x10, text("MQTT") + bytes([4, clean_session]) + keep_alive_off.to_bytes(2, "big")
                  + text("footprint"))
        packet_id = (1).to_bytes(2, "big")
        self.send(0x82, packet_id + b"".join(text(filter) + b"\0" for filter in filters))
        threading.Thread(target=self.listen, daemon=True).start()

    def publish(self, topic, payload, retain=False):
        self.send(0x31 if retain else 0x30, text(topic) + payload)

    def send(self, kind, body):
        length, rest = b"", len(body)
        while True:
            rest, digit = rest >> 7, rest & 0x7F
            length += bytes([digit | (0x80 if rest else 0)])
            if not rest:
                break
        with self.lock:
            self.socket.sendall(bytes([kind]) + length + body)

    def listen(self):
        stream = self.socket.makefile("rb")
        while kind := read_until_closed(stream):
            length = shift = 0
            while True:
                digit = stream.read(1)[0]
                length |= (digit & 0x7F) << shift
                shift += 7
                if digit < 0x80:
                    break
            body = stream.read(length)
            if kind[0] >> 4 == 3:
                topic = body[2:2 + int.from_bytes(body[:2], "big")].decode()
                first = topic.split("/")[0]
                self.heard[first] = self.heard.get(first, 0) + 1


def read_until_closed(stream):
    try:
        return stream.read(1)
    except ConnectionResetError:
        return b""


def text(string):
    return len(string).to_bytes(2, "big") + string.encode()


class Scraper(threading.Thread):
    """Prometheus, every 10 s."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.port = port
        self.pages = 0

    def run(self):
        while True:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
            connection.request("GET", "/metrics")
            if connection.getresponse().read():
                self.pages += 1
            connection.close()
            time.sleep(10)


if __name__ == "__main__":
    sys.exit(main())
