"""Somebody else's cloud, fakecloud, for one file of tests."""

import re
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

import boto3

ROOT = Path(__file__).parents[2]
REGION = "eu-west-1"


def start():
    """Starts a cloud with nothing in it, ended after the file's tests. Returns its address."""
    home = tempfile.TemporaryDirectory()
    unittest.addModuleCleanup(home.cleanup)
    log = Path(home.name) / "log"
    with open(log, "w") as out:
        cloud = subprocess.Popen(
            # It would listen on every interface.
            [ROOT / "target/tools/bin/fakecloud", "--addr", "127.0.0.1:0", "--region", REGION, "--log-level", "error"],
            env={"HOME": home.name, "TMPDIR": home.name}, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    unittest.addModuleCleanup(cloud.wait)
    unittest.addModuleCleanup(cloud.kill)
    end = time.monotonic() + 60
    while not (said := re.search(r"^FAKECLOUD_PORT=(\d+)$", log.read_text(), re.MULTILINE)):
        assert cloud.poll() is None and time.monotonic() < end, log.read_text()
        time.sleep(0.1)
    return f"http://127.0.0.1:{said[1]}"


def client(url, service):
    return boto3.client(
        service, endpoint_url=url, region_name=REGION, aws_access_key_id="test", aws_secret_access_key="test")
