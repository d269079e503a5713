"""The GitLab pipeline: of GitLab's own schema, with shell that shellcheck likes, in the order that it promises."""

import re
import shlex
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import yaml

import extensionless
from generated import PACKAGING

ROOT = PACKAGING.parent
PIPELINE = PACKAGING / "gitlab-ci.yml"
# What of the file is no job.
GLOBAL = {"workflow", "stages", "variables"}


# What variables hold when the pipeline runs.
VALUES = {"$RING": "canary", "$began": "2026-11-23T10:00:00+00:00", "$SIDELINE_WATCH": "15"}


def jobs():
    """Each job with what it extends, as GitLab merges it: maps key by key, anything else whole."""
    text = yaml.safe_load(PIPELINE.read_text(encoding="utf-8"))
    named = {name: about for name, about in text.items() if name not in GLOBAL}

    def whole(name):
        about = dict(named[name])
        return merged(whole(about.pop("extends")), about) if "extends" in about else about

    return text, {name: whole(name) for name in named if not name.startswith(".")}


def merged(base, over):
    made = dict(base)
    for key, value in over.items():
        made[key] = merged(made[key], value) if isinstance(value, dict) and isinstance(made.get(key), dict) else value
    return made


def lines(job):
    return job.get("before_script", []) + job["script"]


class Pipeline(unittest.TestCase):
    def setUp(self):
        self.text, self.jobs = jobs()

    def schema(self, path):
        return subprocess.run(
            [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.gitlab-ci", path],
            text=True, capture_output=True)

    def test_gitlab_takes_it(self):
        done = self.schema(PIPELINE)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        with tempfile.NamedTemporaryFile("w", suffix=".yml") as wrong:
            wrong.write(PIPELINE.read_text(encoding="utf-8").replace("script:", "scripts:"))
            wrong.flush()
            self.assertEqual(self.schema(wrong.name).returncode, 1)

    def test_the_order_is_build_test_package_publish_and_the_rings(self):
        self.assertEqual(self.text["stages"], ["build", "test", "package", "publish", "canary", "early", "all", "rollback"])
        self.assertEqual({job["stage"] for job in self.jobs.values()}, set(self.text["stages"]))
        before = {name: job.get("needs", []) for name, job in self.jobs.items()}
        self.assertIn("test", before["publish"])
        for name, needed in [("canary", "publish"), ("early", "canary"), ("all", "early"), ("latest", "all")]:
            self.assertIn(needed, before[name])
            # SIDELINE_VERSION comes from there.
            self.assertIn("package", before[name])
        for needs in before.values():
            self.assertLessEqual(set(needs), set(self.jobs))

    def test_a_ring_is_rolled_and_then_looked_at(self):
        for name in ("canary", "early", "all"):
            job = self.jobs[name]
            self.assertEqual(job["variables"]["RING"], name)
            programs = [line.split()[0] for line in job["script"] if line.startswith("packaging/")]
            self.assertEqual(programs, ["packaging/ssm/roll", "packaging/ssm/gate"])
            self.assertEqual((job["resource_group"], job["interruptible"]), ("sideline", False))

    def test_a_person_lets_the_last_ring_go_and_nothing_goes_without_a_tag(self):
        for name, job in self.jobs.items():
            if "rules" in job:
                (rule,) = job["rules"]
                self.assertEqual(rule["if"], "$CI_COMMIT_TAG =~ /^v[0-9]/")
                self.assertEqual(rule.get("when", "on_success"), "manual" if name in ("all", "rollback") else "on_success")
            else:
                self.assertIn(name, ("build", "test", "package"))
                self.assertNotIn("AWS", str(job))

    def test_credentials_are_short_lived(self):
        text = PIPELINE.read_text(encoding="utf-8")
        for word in ("ACCESS_KEY", "SECRET", "aws configure"):
            self.assertNotIn(word, text)
        roles = {name: job["variables"]["AWS_ROLE_ARN"] for name, job in self.jobs.items() if "id_tokens" in job}
        publish, roll = "$SIDELINE_PUBLISH_ROLE", "$SIDELINE_ROLL_ROLE"
        self.assertEqual(roles, {"publish": publish, "latest": publish, "canary": roll, "early": roll, "all": roll,
                                 "rollback": roll})

    def test_shellcheck_finds_nothing(self):
        with tempfile.TemporaryDirectory() as folder:
            files = []
            for name, job in self.jobs.items():
                files.append(Path(folder) / f"{name}.sh")
                files[-1].write_text("\n".join(lines(job)) + "\n")
            # A variable of GitLab's is set nowhere in the script.
            done = subprocess.run(["shellcheck", "--shell=sh", "--exclude=SC2154", *files], text=True, capture_output=True)
            self.assertEqual(done.stdout + done.stderr, "")

    def test_what_is_called_is_there_and_takes_its_arguments(self):
        called = set()
        for job in self.jobs.values():
            for line in lines(job):
                for program, arguments in re.findall(r"(?:^|[(;|]\s*)((?:packaging|tests)/\S+)([^;|)]*)", line):
                    called.add(program)
                    if program == "packaging/deb/build":
                        continue
                    self.assertTrue((ROOT / program).stat().st_mode & 0o100, program)
                    if program.startswith("packaging/ssm/"):
                        words = [VALUES.get(word, word) for word in shlex.split(arguments)]
                        self.assertTrue(getattr(extensionless, Path(program).name).arguments(words))
        self.assertLessEqual({"packaging/deb/build", "packaging/check", "tests/run"}, called)
        self.assertLessEqual({f"packaging/ssm/{name}" for name in ("distributor", "publish", "roll", "gate")}, called)

    def test_a_tag_names_the_version_that_it_publishes(self):
        (line,) = [line for line in self.jobs["package"]["script"] if "CI_COMMIT_TAG" in line]
        for tag, good in [("", True), ("v0.1.0", True), ("v0.1.1", False), ("0.1.0", False)]:
            done = subprocess.run(["sh", "-c", line], env={"CI_COMMIT_TAG": tag, "version": "0.1.0-1"})
            self.assertEqual(done.returncode == 0, good, tag)


if __name__ == "__main__":
    unittest.main()
