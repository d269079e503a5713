"""A node and somebody else's Systems Manager (fakecloud): parameters that configure it, Compliance and Inventory that are
told of it. The agent is the real one, as `tests/run cloud` has built it.

What this does not show: fakecloud has no SSM agent, which would carry the inventory's files to it. Here the test does.
"""

import json
import os
import signal
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

import double

NODE = "mi-0123456789abcdef0"
FLEET, SITE = "/sideline/fleet", "/sideline/site/north"
SIDELINE = double.ROOT / "target/debug/sideline"
# The agent asks every minute, and a sixth more.
PATIENCE = 100

FILE = """\
[node]
site = "north"
slots = 18
[paths]
state = "{folder}/state"
run = "{folder}/run"
[gpu]
enabled = "never"
[kernel_log]
path = "{folder}/kmsg"
[aws]
registration = "{folder}/ssm/registration"
credentials = "{folder}/credentials"
[cloudwatch]
enabled = "never"
[ssm]
parameters = ["/sideline/fleet", "/sideline/site/north"]
every = "1m"
"""


def setUpModule():
    global URL, ssm
    URL = double.start()
    ssm = double.client(URL, "ssm")


class Node(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        (self.folder / "kmsg").touch()
        (self.folder / "ssm").mkdir()
        (self.folder / "sideline.toml").write_text(FILE.format(folder=self.folder))
        (self.folder / "credentials").write_text("[default]\naws_access_key_id = test\naws_secret_access_key = test\n")
        (self.folder / "ssm/registration").write_text(json.dumps({"ManagedInstanceID": NODE, "Region": double.REGION}))
        self.agent = None
        self.addCleanup(self.end)

    def start(self):
        with open(self.folder / "log", "a") as log:
            self.agent = subprocess.Popen(
                [SIDELINE, "--config", self.folder / "sideline.toml", "run"], stdout=log, stderr=log,
                env={"PATH": os.environ["PATH"], "AWS_ENDPOINT_URL": URL})

    def end(self):
        """Tells the agent to stop, and waits."""
        if self.agent.poll() is None:
            self.agent.terminate()
            self.agent.wait(20)

    def ask(self, *words):
        done = subprocess.run(
            [SIDELINE, "--config", self.folder / "sideline.toml", *words, "--json"], text=True, capture_output=True)
        try:
            return json.loads(done.stdout)
        except ValueError:
            return {}

    def until(self, what, holds):
        """Waits until something holds; a second a look."""
        end = time.monotonic() + PATIENCE
        while not (found := holds()):
            self.assertIsNone(self.agent.poll(), (self.folder / "log").read_text())
            if time.monotonic() > end:
                self.fail(f"no {what}: {self.ask('status')}\n{(self.folder / 'log').read_text()}")
            time.sleep(1)
        return found

    def rejected(self):
        """The evidence of `agent.config_rejected`."""
        found = [one["evidence"] for one in self.ask("status").get("findings", [])
                 if one["code"] == "agent.config_rejected"]
        return found[0] if found else None

    def slots(self):
        return self.ask("status").get("capacity", {}).get("slots")

    def origin(self, key):
        return self.ask("config", "show")["origins"][key]

    def compliance(self):
        told = ssm.list_compliance_items(
            ResourceIds=[NODE], ResourceTypes=["ManagedInstance"],
            Filters=[{"Key": "ComplianceType", "Values": ["Custom:Sideline"], "Type": "EQUAL"}])
        return told["ComplianceItems"]

    def test_a_node_is_configured_and_told_of(self):
        put = lambda name, value: ssm.put_parameter(Name=name, Value=value, Type="SecureString", Overwrite=True)
        put(FLEET, "[node]\nslots = 12\n")
        self.start()
        self.until("12 slots", lambda: self.slots() == 12)
        self.assertEqual(self.origin("node.slots"), "parameter /sideline/fleet:2")
        self.assertIsNone(self.rejected())

        # A wrong one is left out whole, the one before stays; another one beside it counts.
        put(FLEET, "[node]\nslots = 7\nslot = 8\n")
        put(SITE, "[judge]\nmemory_percent = 97\n")
        why = self.until("refusal", self.rejected)
        self.assertIn("parameter /sideline/fleet (version 2):3:1: unknown key", why)
        self.until("layer of the site", lambda: self.origin("judge.memory_percent") == f"parameter {SITE}:2")
        self.assertEqual((self.slots(), self.origin("node.slots")), (12, "parameter /sideline/fleet:2"))

        # Compliance and Inventory of it.
        told = lambda: [one for one in self.compliance() if one["Id"].startswith("agent.config_rejected")]
        (item,) = self.until("compliance", told)
        self.assertEqual(item["Status"], "NON_COMPLIANT")
        custom = self.folder / "ssm" / NODE / "inventory/custom"
        self.until("inventory", lambda: (custom / "sideline-node.json").exists())
        for path in sorted(custom.iterdir()):
            said = json.loads(path.read_text())
            self.assertEqual(set(said), {"SchemaVersion", "TypeName", "Content"})
            ssm.put_inventory(InstanceId=NODE, Items=[said | {"CaptureTime": "2026-11-23T10:00:00Z"}])
            entries = ssm.list_inventory_entries(InstanceId=NODE, TypeName=said["TypeName"])["Entries"]
            self.assertEqual(entries, said["Content"])
        (node,) = ssm.list_inventory_entries(InstanceId=NODE, TypeName="Custom:SidelineNode")["Entries"]
        self.assertEqual((node["Site"], node["Slots"]), ("north", "12"))

        # The agent does not live through the five minutes on trial: what was good before counts again, the file.
        self.agent.send_signal(signal.SIGKILL)
        self.agent.wait()
        self.start()
        why = self.until("way back", self.rejected)
        self.assertIn("was taken back: the agent ended with it", why)
        self.assertEqual((self.slots(), self.origin("judge.memory_percent")), (18, "default"))

        # Never tried again until it changes.
        put(FLEET, "[node]\nslots = 9\n")
        self.until("9 slots", lambda: self.slots() == 9)
        self.until("end of the refusal", lambda: self.rejected() is None)


if __name__ == "__main__":
    unittest.main()
