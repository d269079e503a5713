"""A node as a Command document sees it: what the SSM agent does with a document, and a machine that it does it to.

The shell runs for real, with the real dpkg, dpkg-deb, dpkg-query and curl; apt-get and sideline are stand-ins, which keep
what they were called with.
"""

import http.server
import json
import os
import re
import ssl
import stat
import subprocess
import tempfile
import threading
from pathlib import Path

import yaml

DOCUMENTS = Path(__file__).parents[2] / "packaging/ssm/documents"
# A parameter, where it stands in a document.
MENTION = re.compile(r"\{\{ ?(\w+) ?\}\}")

STAND_INS = {
    "dpkg-query": 'exec /usr/bin/dpkg-query --admindir="$NODE/dpkg" "$@"',
    # Installs by writing down that it is installed; the agent is restarted unless $NODE/stuck is there.
    "apt-get": """
        for last; do :; done
        printf '%s\\n' "$@" "suspended=$NEEDRESTART_SUSPEND frontend=$DEBIAN_FRONTEND" >>"$NODE/apt-get"
        if [ -e "$NODE/apt-fails" ]; then echo 'E: it fails' >&2; exit 100; fi
        case " $* " in
          *' remove '* | *' purge '*) : >"$NODE/dpkg/status"; rm -f "$NODE/binary" "$NODE/agent"; exit 0 ;;
        esac
        [ -f "$last" ] || exit 100
        version=$(dpkg-deb --field "$last" Version)
        printf 'Package: sideline\\nStatus: install ok installed\\nVersion: %s\\nArchitecture: amd64\\n' "$version" \\
          >"$NODE/dpkg/status"
        echo "${version%-*}" >"$NODE/binary"
        [ -e "$NODE/stuck" ] || echo "${version%-*}" >"$NODE/agent"
        """,
    # Its verdicts come from $NODE/verdicts, one a call of `status`, the last for ever.
    "sideline": """
        printf '%s\\0' "$@" >>"$NODE/sideline"
        printf '\\n' >>"$NODE/sideline"
        case "$*" in
          --version) echo "sideline $(cat "$NODE/binary")" ;;
          'status --json')
            printf '{\\n "node": {"id": "mi-0",\\n  "agent": "%s"},\\n "x": {"agent": "9"}\\n}\\n' "$(cat "$NODE/agent")" ;;
          status)
            verdict=$(head -n 1 "$NODE/verdicts")
            if [ "$(wc -l <"$NODE/verdicts")" -gt 1 ]; then sed -i 1d "$NODE/verdicts"; fi
            echo "verdict $verdict"
            exit "$verdict" ;;
          doctor*)
            for file; do :; done
            [ "$file" = doctor ] || [ -e "$NODE/no-bundle" ] || echo bundle >"$file"
            cat "$NODE/doctor" 2>/dev/null && exit 1
            echo 'ok  config' ;;
        esac
        """,
    # A document that waits does not make a test wait.
    "sleep": 'echo "$1" >>"$NODE/slept"',
}


class Node:
    """One machine. `folder` holds what its stand-ins keep; `documents` are the texts to run instead of the files'."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.bin = self.folder / "bin"
        for made in (self.bin, self.folder / "dpkg", self.folder / "dpkg/updates", self.folder / "dpkg/info"):
            made.mkdir()
        (self.folder / "dpkg/status").write_text("")
        (self.folder / "verdicts").write_text("0\n")
        self.environment = {
            "PATH": f"{self.bin}:/usr/sbin:/usr/bin:/sbin:/bin", "NODE": str(self.folder), "LC_ALL": "C",
            "TMPDIR": str(self.folder), "HOME": str(self.folder)}
        for name, body in STAND_INS.items():
            path = self.bin / name
            path.write_text(f"#!/bin/sh\n{body}\n")
            path.chmod(0o755)

    def has(self, version, agent=None):
        """Puts a version there, and the agent that runs."""
        (self.folder / "dpkg/status").write_text(
            f"Package: sideline\nStatus: install ok installed\nVersion: {version}\nArchitecture: amd64\n")
        (self.folder / "binary").write_text(version.split("-")[0] + "\n")
        (self.folder / "agent").write_text((agent or version.split("-")[0]) + "\n")

    def says(self, *verdicts):
        (self.folder / "verdicts").write_text("".join(f"{verdict}\n" for verdict in verdicts))

    def calls(self):
        """The arguments of each call of sideline."""
        path = self.folder / "sideline"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line.split("\0")[:-1] for line in lines]

    def apt(self):
        path = self.folder / "apt-get"
        return path.read_text().split() if path.exists() else []

    def run(self, document, packages=None, **given):
        """Runs a document as the SSM agent does. Returns the exit status of the step that failed, else 0, and what was
        printed. `packages` are the folders of the Distributor packages that can be installed, by name and version."""
        content = read(document)
        values = values_of(content, given)
        told, worst = "", 0
        for step in content["mainSteps"]:
            left, right = (put(item, values) for item in step["precondition"]["StringEquals"])
            if (left == "platformType" and right != "Linux") or (left != "platformType" and left != right):
                continue
            inputs = put(step["inputs"], values)
            if step["action"] == "aws:configurePackage":
                status, printed = self.configure(inputs, packages or {})
            else:
                status, printed = self.shell("\n".join(inputs["runCommand"]))
            told += printed
            worst = worst or status
            if status and inputs.get("onFailure") == "exit":
                break
        return worst, told

    def shell(self, script, cwd=None):
        """A script as the SSM agent runs it: a file of mode 0700 for sh, without a line that names an interpreter."""
        path = self.folder / "_script.sh"
        path.write_text(script)
        path.chmod(0o700)
        done = subprocess.run(
            ["sh", "-c", str(path)], env=self.environment, cwd=cwd, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, timeout=60)
        return done.returncode, done.stdout

    def configure(self, inputs, packages):
        """What aws:configurePackage does in place: install.sh where nothing is remembered, else update.sh, then
        validate.sh."""
        assert inputs["action"] == "Install" and inputs["installationType"] == "In-place update", inputs
        folder = packages.get((inputs["name"], inputs["version"]))
        if folder is None:
            return 1, "no such package\n"
        remembered = self.folder / "remembered"
        script = "update.sh" if remembered.exists() else "install.sh"
        status, told = self.shell(f"sh {script} && sh validate.sh", folder)
        remembered.touch()
        return status, told


def read(document):
    """A document, by its name."""
    return yaml.safe_load((DOCUMENTS / f"{document}.yaml").read_text(encoding="utf-8"))


def values_of(content, given):
    """The parameters' values. Refuses what Systems Manager refuses."""
    values = {}
    for name, value in given.items():
        about = content["parameters"][name]
        if "allowedValues" in about and value not in about["allowedValues"]:
            raise ValueError(f"{name}: {value!r} is none of {about['allowedValues']}")
        if "allowedPattern" in about and not re.search(about["allowedPattern"], value):
            raise ValueError(f"{name}: {value!r} does not match {about['allowedPattern']}")
        values[name] = value
    return {name: about["default"] for name, about in content.get("parameters", {}).items()} | values


def put(value, values):
    """Puts parameters into a document's part, as text."""
    if isinstance(value, list):
        return [put(item, values) for item in value]
    if isinstance(value, dict):
        return {key: put(item, values) for key, item in value.items()}
    return MENTION.sub(lambda match: values[match[1]], value) if isinstance(value, str) else value


def package(folder, version, name="sideline", architecture="amd64"):
    """A small .deb of this name and version."""
    with tempfile.TemporaryDirectory() as made:
        control = Path(made) / "DEBIAN/control"
        control.parent.mkdir()
        control.write_text(
            f"Package: {name}\nVersion: {version}\nArchitecture: {architecture}\nMaintainer: nobody <nobody@example.com>\n"
            "Description: a stand-in\n")
        os.utime(control, (0, 0))
        target = Path(folder) / f"{name}_{version}_{architecture}.deb"
        # The times in it are this: two packages of the same content are the same bytes.
        subprocess.run(
            ["dpkg-deb", "--build", "--root-owner-group", made, target], check=True, capture_output=True,
            env={**os.environ, "SOURCE_DATE_EPOCH": "0"})
    return target


class Bucket:
    """An https server with a certificate that only the node trusts. GET gives `files`, PUT puts into them."""

    def __init__(self, node):
        certificate, key = node.folder / "certificate.pem", node.folder / "key.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
             "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate],
            check=True, capture_output=True)
        node.environment["CURL_CA_BUNDLE"] = str(certificate)
        self.files, self.refuses = {}, False
        bucket = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                content = bucket.files.get(self.path)
                self.send_response(404 if content is None else 200)
                self.end_headers()
                self.wfile.write(content or b"")

            def do_PUT(self):
                if self.headers.get("Transfer-Encoding"):
                    self.send_response(411)
                else:
                    content = self.rfile.read(int(self.headers["Content-Length"]))
                    if not bucket.refuses:
                        bucket.files[self.path] = content
                    self.send_response(403 if bucket.refuses else 200)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"https://localhost:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
