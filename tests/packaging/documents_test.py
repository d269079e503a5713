"""The Command documents: whole, safe against what a parameter may hold, and doing what they say on a node."""

import hashlib
import os
import re
import subprocess
import tempfile
import unittest
import zipfile
from pathlib import Path

import boto3
import yaml
from moto import mock_aws

from extensionless import distributor
from generated import SSM
from ssm_node import DOCUMENTS, MENTION, Bucket, Node, package, put, read, values_of
from template import Resolver, load

ROOT = Path(__file__).parents[2]
NAMES = sorted(path.stem for path in DOCUMENTS.glob("*.yaml"))
# A value for each parameter whose default is empty.
EXAMPLES = {
    "version": "0.1.0-1", "sha256": "0" * 64,
    "url": "https://b.s3.eu-west-1.amazonaws.com:443/a/sideline_0.1.0-1_amd64.deb?X-Amz-Signature=0a&X=b%2Fc",
    "upload": "https://b.s3.amazonaws.com/x.tar.gz?X-Amz-Expires=600&X-Amz-Signature=0a~_.-+",
}
# What would end a word between single quotes, or begin something in any other place.
DANGEROUS = "'\"`$\\\n\r\t|<>*?[]{}!\0"


def scripts(name, **given):
    """Each script of a document, as it would run."""
    content = read(name)
    values = values_of(content, given)
    for step in content["mainSteps"]:
        if step["action"] == "aws:runShellScript":
            yield step["name"], "\n".join(put(step["inputs"]["runCommand"], values))


class Documents(unittest.TestCase):
    def test_they_are_these(self):
        self.assertEqual(NAMES, [f"Sideline-{name}" for name in [
            "Doctor", "Drain", "Drill", "Install", "Remove", "Return", "Status"]])

    def test_they_are_of_schema_2_2_and_have_nothing_else(self):
        allowed = {"aws:runShellScript": {"runCommand", "timeoutSeconds", "onFailure"},
                   "aws:configurePackage": {"name", "version", "action", "installationType"}}
        for name in NAMES:
            content = read(name)
            self.assertLessEqual(set(content), {"schemaVersion", "description", "parameters", "mainSteps"}, name)
            self.assertEqual(content["schemaVersion"], "2.2")
            self.assertGreaterEqual(len(content["description"]), 40, name)
            steps = [step["name"] for step in content["mainSteps"]]
            self.assertEqual(len(steps), len(set(steps)))
            for step in content["mainSteps"]:
                self.assertEqual(set(step), {"action", "name", "precondition", "inputs"}, name)
                self.assertLessEqual(set(step["inputs"]), allowed[step["action"]], name)
                self.assertLessEqual(int(step["inputs"].get("timeoutSeconds", 1)), 172_800)
                # One operator with two words is all that an agent knows.
                self.assertEqual(set(step["precondition"]), {"StringEquals"})
                self.assertEqual(len(step["precondition"]["StringEquals"]), 2)

    def test_every_parameter_is_explained_used_and_limited(self):
        for name in NAMES:
            content = read(name)
            used = set(MENTION.findall(yaml.safe_dump(content["mainSteps"])))
            self.assertEqual(used, set(content.get("parameters", {})), name)
            for key, about in content.get("parameters", {}).items():
                self.assertLessEqual(set(about), {"type", "description", "default", "allowedPattern", "allowedValues"})
                self.assertEqual(about["type"], "String")
                self.assertGreaterEqual(len(about["description"]), 20, f"{name} {key}")
                self.assertEqual(len({"allowedPattern", "allowedValues"} & set(about)), 1, f"{name} {key}")
                self.assertRegex(about.get("allowedPattern", "^x$"), r"^\^.*\$$")
                values_of(content, {key: about["default"]})

    def test_no_pattern_lets_through_what_a_shell_would_obey(self):
        tried = 0
        for name in NAMES:
            content = read(name)
            for key, about in content.get("parameters", {}).items():
                good = about["default"] or EXAMPLES[key]
                values_of(content, {key: good})
                for letter in DANGEROUS:
                    # Between single quotes a question mark is a letter, and a URL has one.
                    if letter == "?" and key in ("url", "upload"):
                        continue
                    for at in range(len(good) + 1):
                        # Python's `$` stands before a last newline, too. Between quotes it does no harm.
                        if letter == "\n" and at == len(good):
                            continue
                        with self.assertRaises(ValueError, msg=f"{name} {key} {letter!r} at {at}"):
                            values_of(content, {key: good[:at] + letter + good[at:]})
                        tried += 1
        self.assertGreater(tried, 1000)

    def test_parameters_stand_between_single_quotes_alone(self):
        for name in NAMES:
            for step in read(name)["mainSteps"]:
                if step["action"] != "aws:runShellScript":
                    continue
                for line in "\n".join(step["inputs"]["runCommand"]).splitlines():
                    if MENTION.search(line):
                        self.assertRegex(line, r"^[a-z0-9_]+='\{\{ \w+ \}\}'$", f"{name} {step['name']}")

    def test_shellcheck_finds_nothing(self):
        files = sorted((ROOT / "packaging/ssm/package").glob("*.sh"))
        with tempfile.TemporaryDirectory() as folder:
            for name in NAMES:
                for step, script in scripts(name):
                    path = Path(folder) / f"{name}-{step}.sh"
                    # What a parameter was put into looks like a constant that is compared with another one.
                    path.write_text(re.sub(r"^([a-z0-9_]+)='.*'$", r"\1=${\1?}", script, flags=re.MULTILINE))
                    files.append(path)
            done = subprocess.run(["shellcheck", "--shell=sh", *files], text=True, capture_output=True)
            self.assertEqual(done.stdout + done.stderr, "")
        self.assertGreaterEqual(len(files), 13)

    def test_the_template_has_each_of_them(self):
        resources = load(SSM)["Resources"]
        found = {about["Properties"]["Name"]: about["Properties"]["Content"] for about in resources.values()
                 if about["Type"] == "AWS::SSM::Document"}
        self.assertEqual(found, {name: read(name) for name in NAMES})


class Template(unittest.TestCase):
    """sideline-ssm.yaml."""

    def test_a_ring_without_a_version_has_no_association(self):
        for parameters, rings in [({}, []), ({"CanaryVersion": "0.1.0-1"}, ["canary"]),
                                  ({"EarlyVersion": "0.1.0-1", "AllVersion": "0.0.9-1"}, ["all", "early"])]:
            found = associations(parameters)
            self.assertEqual(sorted(found), [f"sideline-{ring}" for ring in rings])

    def test_an_association_gives_the_document_what_it_takes(self):
        about = associations({"EarlyVersion": "0.1.0-1", "EarlyDowngrade": "true", "RingTag": "Ring"})["sideline-early"]
        self.assertEqual(about["Name"], "<Install>")
        self.assertEqual(about["Targets"], [{"Key": "tag:Ring", "Values": ["early"]}])
        self.assertEqual((about["MaxConcurrency"], about["MaxErrors"]), ("10%", "5%"))
        given = {name: value for name, (value,) in about["Parameters"].items()}
        values = values_of(read("Sideline-Install"), given)
        self.assertEqual(values["source"], "distributor")
        self.assertEqual((values["version"], values["allowDowngrade"], values["package"]), ("0.1.0-1", "true", "Sideline"))

    def test_the_first_ring_goes_one_by_one_and_stops_at_the_first_failure(self):
        about = associations({"CanaryVersion": "0.1.0-1"})["sideline-canary"]
        self.assertEqual((about["MaxConcurrency"], about["MaxErrors"]), ("1", "0"))

    def test_it_is_explained_and_fits_into_a_request(self):
        template = load(SSM)
        groups = template["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
        self.assertEqual(sorted(name for group in groups for name in group["Parameters"]), sorted(template["Parameters"]))
        for name, about in template["Parameters"].items():
            self.assertGreaterEqual(len(about["Description"]), 40, name)
            if "AllowedPattern" in about:
                self.assertRegex(about["Default"], f"^(?:{about['AllowedPattern']})$", name)
        self.assertLessEqual(SSM.stat().st_size, 51_200)
        self.assertNotIn("cfn-lint", SSM.read_text(encoding="utf-8"))


def packages(folder, *versions):
    """The Distributor packages of these versions, unpacked as the SSM agent does."""
    made = {}
    for version in versions:
        built, unpacked = folder / version / "built", folder / version / "unpacked"
        built.mkdir(parents=True)
        distributor.build([package(folder, version)], built)
        distributor.verify(built)
        (archive,) = built.glob("*.zip")
        with zipfile.ZipFile(archive) as archive:
            archive.extractall(unpacked)
        made["Sideline", version] = unpacked
    return made


def associations(parameters):
    """The rings' associations of a stack, by name."""
    resources = Resolver(load(SSM), parameters).resources()
    return {about["Properties"]["AssociationName"]: about["Properties"] for about in resources.values()
            if about["Type"] == "AWS::SSM::Association"}


class Accepted(unittest.TestCase):
    """By somebody else's Systems Manager: moto. fakecloud takes them, too (tests/cloud)."""

    @mock_aws
    def test_documents_are_created_and_updated(self):
        os.environ.update(AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="test")
        ssm = boto3.client("ssm", region_name="eu-west-1")
        for name in NAMES:
            text = (DOCUMENTS / f"{name}.yaml").read_text(encoding="utf-8")
            request = {"Name": name, "Content": text, "DocumentFormat": "YAML"}
            made = ssm.create_document(**request, DocumentType="Command", TargetType="/AWS::SSM::ManagedInstance")
            about = made["DocumentDescription"]
            self.assertEqual((about["Status"], about["SchemaVersion"]), ("Active", "2.2"))
            self.assertEqual({one["Name"] for one in about.get("Parameters", [])}, set(read(name).get("parameters", {})))
            changed = ssm.update_document(**request | {"Content": text + "# again\n"}, DocumentVersion="$LATEST")
            self.assertEqual(changed["DocumentDescription"]["DocumentVersion"], "2", name)
            with self.assertRaises(ssm.exceptions.InvalidDocumentContent):
                ssm.create_document(**request | {"Name": f"{name}-torn", "Content": text + "\n  - ["})


class OnANode(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.known = packages(Path(folder.name), "0.1.0-1", "0.2.0-1", "0.9.0-1")

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        (self.folder / "node").mkdir()
        self.node = Node(self.folder / "node")

    def installed(self):
        return re.findall(r"^Version: (.*)$", (self.folder / "node/dpkg/status").read_text(), re.MULTILINE)

    def means_something(self, called):
        """Whether the real program takes these arguments: `--help` gives no help for what is wrong before it."""
        real = subprocess.run([ROOT / "target/debug/sideline", *called, "--help"], text=True, capture_output=True)
        self.assertEqual(real.returncode, 0, real.stderr)

    def test_install_from_distributor(self):
        for had, version, downgrade, verdicts, accept, status, has, said in [
            (None, "0.1.0-1", "false", "0", "failing", 0, "0.1.0-1", "installed: nothing; wanted: 0.1.0-1"),
            ("0.1.0-1", "0.2.0-1", "false", "0", "failing", 0, "0.2.0-1", "installed: 0.1.0-1; wanted: 0.2.0-1"),
            ("0.2.0-1", "0.2.0-1", "false", "0", "failing", 0, "0.2.0-1", "verdict 0"),
            ("0.10.0-1", "0.9.0-1", "false", "0", "failing", 1, "0.10.0-1", "refused: 0.10.0-1 is newer than 0.9.0-1"),
            ("0.10.0-1", "0.9.0-1", "true", "0", "failing", 0, "0.9.0-1", "verdict 0"),
            (None, "0.1.0-1", "false", "3 3 0", "failing", 0, "0.1.0-1", "verdict 0"),
            (None, "0.1.0-1", "false", "3 2", "failing", 0, "0.1.0-1", "verdict 2"),
            (None, "0.1.0-1", "false", "3 2 1", "degraded", 0, "0.1.0-1", "verdict 1"),
            (None, "0.1.0-1", "false", "2", "degraded", 2, "0.1.0-1", "still worse than degraded after 0 s"),
            (None, "0.1.0-1", "false", "1", "healthy", 1, "0.1.0-1", "still worse than healthy"),
            (None, "0.1.0-1", "false", "3", "failing", 3, "0.1.0-1", "still worse than failing"),
            (None, "0.3.0-1", "false", "0", "failing", 1, None, "no such package"),
            (None, "", "false", "0", "failing", 1, None, "version is missing"),
        ]:
            with self.subTest(had=had, version=version, verdicts=verdicts), tempfile.TemporaryDirectory() as folder:
                self.folder = Path(folder)
                (self.folder / "node").mkdir()
                self.node = Node(self.folder / "node")
                if had:
                    self.node.has(had)
                verdicts = verdicts.split()
                # The last one is shown, after it was waited for.
                self.node.says(*verdicts)
                # With a time to wait, a stand-in's sleep takes none.
                wait = "30" if status == 0 else "0"
                found, told = self.node.run(
                    "Sideline-Install", self.known, version=version, allowDowngrade=downgrade, accept=accept, wait=wait)
                self.assertEqual(found, status, told)
                self.assertEqual(self.installed(), [has] if has else [], told)
                self.assertIn(said, told)

    def test_an_upgrade_is_not_done_while_the_agent_before_answers(self):
        self.node.has("0.1.0-1")
        (self.folder / "node/stuck").touch()
        found, told = self.node.run("Sideline-Install", self.known, version="0.2.0-1", wait="0")
        self.assertEqual(found, 3, told)
        self.assertIn("the agent that answers is 0.1.0; installed is sideline 0.2.0", told)

    def test_what_was_removed_by_hand_is_not_believed(self):
        self.assertEqual(self.node.run("Sideline-Install", self.known, version="0.1.0-1")[0], 0)
        (self.folder / "node/dpkg/status").write_text(
            "Package: sideline\nStatus: deinstall ok config-files\nVersion: 0.1.0-1\nArchitecture: amd64\n")
        status, told = self.node.shell("sh validate.sh", self.known["Sideline", "0.1.0-1"])
        self.assertEqual((status, told), (1, "sideline is config-files 0.1.0-1, not 0.1.0-1\n"))
        found, told = self.node.run("Sideline-Install", self.known, version="0.1.0-1")
        self.assertEqual(found, 0, told)
        self.assertIn("installed: nothing", told)

    def test_an_installation_touches_nothing_of_others(self):
        self.node.run("Sideline-Install", self.known, version="0.1.0-1")
        told = self.node.apt()
        for word in ["--no-install-recommends", "Dpkg::Options::=--force-confold", "DPkg::Lock::Timeout=300",
                     "suspended=1", "frontend=noninteractive"]:
            self.assertIn(word, told)

    def test_an_installation_that_fails_is_told(self):
        (self.folder / "node/apt-fails").touch()
        found, told = self.node.run("Sideline-Install", self.known, version="0.1.0-1", wait="0")
        self.assertEqual(found, 100, told)
        self.assertIn("installed: nothing; wanted: 0.1.0-1", told)

    def test_install_from_a_bucket(self):
        bucket = Bucket(self.node)
        self.addCleanup(bucket.close)
        files = {version: package(self.folder, version).read_bytes() for version in ("0.1.0-1", "0.2.0-1")}
        files["other"] = package(self.folder, "1.0-1", "other").read_bytes()
        bucket.files = {f"/{name}.deb?signature=a%2Fb": content for name, content in files.items()}
        for had, name, given, status, has, said in [
            (None, "0.1.0-1", {}, 0, "0.1.0-1", "installed: nothing; offered: 0.1.0-1"),
            ("0.1.0-1", "0.2.0-1", {"version": "0.2.0-1"}, 0, "0.2.0-1", "verdict 0"),
            ("0.2.0-1", "0.1.0-1", {}, 1, "0.2.0-1", "refused: 0.2.0-1 is newer than 0.1.0-1"),
            ("0.2.0-1", "0.1.0-1", {"allowDowngrade": "true"}, 0, "0.1.0-1", "verdict 0"),
            (None, "0.1.0-1", {"version": "0.2.0-1"}, 1, None, "refused: it is version 0.1.0-1, not 0.2.0-1"),
            (None, "0.1.0-1", {"sha256": "f" * 64}, 1, None, f"not {'f' * 64}"),
            (None, "0.1.0-1", {"sha256": ""}, 1, None, "url or sha256 is missing"),
            (None, "other", {}, 1, None, "refused: it is the package other, not sideline"),
            (None, "missing", {}, 22, None, "404"),
        ]:
            with self.subTest(had=had, name=name, given=given):
                (self.folder / "node/dpkg/status").write_text("")
                if had:
                    self.node.has(had)
                digest = hashlib.sha256(files.get(name, b"")).hexdigest()
                given = {"sha256": digest, "wait": "0"} | given
                found, told = self.node.run(
                    "Sideline-Install", source="bucket", url=f"{bucket.url}/{name}.deb?signature=a%2Fb", **given)
                self.assertEqual(found, status, told)
                self.assertEqual(self.installed(), [has] if has else [], told)
                self.assertIn(said, told)
                self.assertNotIn("signature", told)
                self.assertEqual(list(self.folder.glob("node/tmp.*")), [])

    def test_plain_http_is_no_bucket(self):
        with self.assertRaises(ValueError):
            self.node.run("Sideline-Install", source="bucket", url="http://example.com/a.deb", sha256="0" * 64)

    def test_what_is_called(self):
        for name, given, called in [
            ("Status", {}, ["status"]),
            ("Status", {"format": "json"}, ["status", "--json"]),
            ("Doctor", {}, ["doctor"]),
            ("Drain", {}, ["maintenance", "on", "--for=2h", "--reason=by Systems Manager"]),
            ("Drain", {"for": "1h30m", "reason": "-new PSU (#3), hall 2"},
             ["maintenance", "on", "--for=1h30m", "--reason=-new PSU (#3), hall 2"]),
            ("Return", {}, ["maintenance", "off"]),
            ("Drill", {}, ["drill", "--for=10m", "--slots=0"]),
            ("Drill", {"for": "90s", "slots": "9"}, ["drill", "--for=90s", "--slots=9"]),
            ("Drill", {"action": "end"}, ["drill", "--end"]),
        ]:
            with self.subTest(name=name, given=given):
                self.node.has("0.1.0-1")
                found, told = self.node.run(f"Sideline-{name}", **given)
                self.assertEqual(found, 0, told)
                self.assertEqual(self.node.calls()[-1], called)
                self.means_something(called)

    def test_status_exits_as_sideline_does(self):
        for verdict in range(4):
            self.node.says(verdict)
            self.assertEqual(self.node.run("Sideline-Status"), (verdict, f"verdict {verdict}\n"))

    def test_remove_and_purge(self):
        for purge, word in (("false", "remove"), ("true", "purge")):
            self.node.has("0.1.0-1")
            found, told = self.node.run("Sideline-Remove", purge=purge)
            self.assertEqual(found, 0, told)
            self.assertEqual(self.node.apt()[-5:-2], [word, "--yes", "sideline"])
            self.assertEqual(self.installed(), [])

    def test_a_bundle_stays_on_the_node(self):
        (self.folder / "node/doctor").write_text("fail  config\n")
        found, told = self.node.run("Sideline-Doctor", bundle="true")
        self.assertEqual(found, 1, told)
        (bundle,) = re.findall(r"^bundle: (/var/tmp/sideline-doctor\.\w+/\S+\.tar\.gz)$", told, re.MULTILINE)
        bundle = Path(bundle)
        self.addCleanup(bundle.parent.rmdir)
        self.addCleanup(bundle.unlink)
        self.assertEqual((bundle.stat().st_mode & 0o777, bundle.parent.stat().st_mode & 0o777), (0o600, 0o700))
        self.assertEqual(self.node.calls()[-1], ["doctor", "--bundle", str(bundle)])
        self.means_something(self.node.calls()[-1])

    def test_a_bundle_is_uploaded(self):
        bucket = Bucket(self.node)
        self.addCleanup(bucket.close)
        url = f"{bucket.url}/x.tar.gz?X-Amz-Signature=0a"
        found, told = self.node.run("Sideline-Doctor", upload=url)
        self.assertEqual(found, 0, told)
        self.assertEqual(bucket.files, {"/x.tar.gz?X-Amz-Signature=0a": b"bundle\n"})
        self.assertNotIn("Signature", told)
        self.assertFalse(Path(self.node.calls()[-1][-1]).parent.exists())

    def test_a_bundle_that_is_not_uploaded_is_kept(self):
        bucket = Bucket(self.node)
        self.addCleanup(bucket.close)
        bucket.refuses = True
        found, told = self.node.run("Sideline-Doctor", upload=f"{bucket.url}/x?X-Amz-Signature=0a")
        bundle = Path(self.node.calls()[-1][-1])
        self.addCleanup(bundle.parent.rmdir)
        self.addCleanup(bundle.unlink)
        self.assertEqual(found, 3, told)
        self.assertIn(f"not uploaded; the bundle stays: {bundle}\n", told)
        self.assertNotIn("Signature", told)
        self.assertEqual(bundle.read_text(), "bundle\n")

    def test_no_bundle_is_said(self):
        (self.folder / "node/no-bundle").touch()
        found, told = self.node.run("Sideline-Doctor", bundle="true")
        self.assertEqual(found, 3, told)
        self.assertIn("no bundle was written", told)

    def test_secrets_are_in_no_argument(self):
        for name, given in [("Sideline-Doctor", {"upload": EXAMPLES["upload"]}),
                            ("Sideline-Install", {"source": "bucket", "url": EXAMPLES["url"], "sha256": "0" * 64})]:
            curl = self.node.bin / "curl"
            curl.write_text('#!/bin/sh\nprintf "%s\\n" "$@" >>"$NODE/curl"; cat >>"$NODE/curl-input"; exit 7\n')
            curl.chmod(0o755)
            _, told = self.node.run(name, **given)
            for kept in re.findall(r"the bundle stays: (.*)", told):
                Path(kept).unlink()
                Path(kept).parent.rmdir()
            self.assertNotIn("Signature", (self.folder / "node/curl").read_text())
            self.assertIn("Signature", (self.folder / "node/curl-input").read_text())


if __name__ == "__main__":
    unittest.main()
