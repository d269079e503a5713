"""What packaging/ssm makes, in a cloud of somebody else's (fakecloud): documents, associations, the Distributor package.

`tests/run cloud` runs it. What it does not show: fakecloud looks into no document, copies no attachment, has no managed
instances, and takes the resources of a stack for made that it does not make. What a document may hold and does is tested
in tests/packaging.
"""

import base64
import json
import os
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

import double

sys.path.append(str(double.ROOT / "tests/packaging"))
import pipeline_test  # noqa: E402
from documents_test import NAMES, associations  # noqa: E402
from extensionless import distributor, publish, roll  # noqa: E402
from generated import SSM  # noqa: E402
from roles_test import TEMPLATE as PUBLISHER  # noqa: E402
from ssm_node import DOCUMENTS, package, read  # noqa: E402

RINGS = {"CanaryVersion": "0.2.0-1", "EarlyVersion": "0.1.0-1", "AllVersion": "0.1.0-1", "GatherInventory": "true"}


def setUpModule():
    global clients, URL
    URL = double.start()
    clients = lambda service: double.client(URL, service)


class Documents(unittest.TestCase):
    def test_each_is_created_and_updated(self):
        ssm = clients("ssm")
        for name in NAMES:
            text = (DOCUMENTS / f"{name}.yaml").read_text(encoding="utf-8")
            request = {"Name": f"Try-{name}", "Content": text, "DocumentFormat": "YAML"}
            made = ssm.create_document(**request, DocumentType="Command", TargetType="/AWS::SSM::ManagedInstance")
            about = made["DocumentDescription"]
            self.assertEqual((about["Status"], about["SchemaVersion"]), ("Active", "2.2"))
            self.assertEqual(
                {one["Name"]: one["DefaultValue"] for one in about.get("Parameters", [])},
                {key: about["default"] for key, about in read(name).get("parameters", {}).items()})
            with self.assertRaises(ssm.exceptions.DuplicateDocumentContent):
                ssm.update_document(**request, DocumentVersion="$LATEST")
            changed = ssm.update_document(**request | {"Content": text + "# again\n"}, DocumentVersion="$LATEST")
            self.assertEqual(changed["DocumentDescription"]["DocumentVersion"], "2")
            told = ssm.get_document(Name=f"Try-{name}", DocumentVersion="1", DocumentFormat="JSON")
            self.assertEqual(json.loads(told["Content"]), read(name))

    def test_associations_are_created(self):
        ssm = clients("ssm")
        severities = ssm.meta.service_model.shape_for("AssociationComplianceSeverity")
        made = associations(RINGS)
        self.assertEqual(sorted(made), ["sideline-all", "sideline-canary", "sideline-early", "sideline-inventory"])
        for name, about in made.items():
            # In a stack the document's name comes from its resource.
            request = about | {"Name": about["Name"].replace("<Install>", "Sideline-Install")}
            if "ComplianceSeverity" in request:
                self.assertIn(request["ComplianceSeverity"], severities.enum)
                # fakecloud writes it otherwise than AWS.
                request["ComplianceSeverity"] = request["ComplianceSeverity"].title()
            found = ssm.create_association(**request)["AssociationDescription"]
            self.assertEqual({key: found[key] for key in request}, request, name)

    def test_the_stack_is_taken_and_a_ring_rolled(self):
        cloudformation = clients("cloudformation")
        template = SSM.read_text(encoding="utf-8")
        cloudformation.validate_template(TemplateBody=template)
        given = [{"ParameterKey": key, "ParameterValue": value} for key, value in RINGS.items()]
        cloudformation.create_stack(StackName="sideline-ssm", TemplateBody=template, Parameters=given)
        self.assertTrue(roll.update(cloudformation, "sideline-ssm", "early", "0.2.0-1", True))
        self.assertFalse(roll.update(cloudformation, "sideline-ssm", "early", "0.2.0-1", True))
        (stack,) = cloudformation.describe_stacks(StackName="sideline-ssm")["Stacks"]
        found = {one["ParameterKey"]: one["ParameterValue"] for one in stack["Parameters"]}
        self.assertEqual(stack["StackStatus"], "UPDATE_COMPLETE")
        for key, value in {**RINGS, "EarlyVersion": "0.2.0-1", "EarlyDowngrade": "true", "AllDowngrade": "false"}.items():
            self.assertEqual(found[key], value, key)
        self.assertTrue(roll.association(cloudformation, "sideline-ssm", "early"))


class Package(unittest.TestCase):
    def test_versions_are_published_once_and_never_replaced(self):
        ssm, s3 = clients("ssm"), clients("s3")
        s3.create_bucket(Bucket="packages", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})

        def run(folder, default=False):
            return list(publish.publish(ssm, s3, folder, "packages", "sideline", "Sideline", default))

        with tempfile.TemporaryDirectory() as scratch:
            scratch = Path(scratch)
            folders = {}
            for version in ("0.1.0-1", "0.2.0-1"):
                folders[version] = scratch / version
                debs = [package(scratch, version, architecture=one) for one in ("amd64", "arm64")]
                distributor.build(debs, folders[version])
            self.assertEqual(run(folders["0.1.0-1"]), [
                "s3://packages/sideline/0.1.0-1/manifest.json",
                "s3://packages/sideline/0.1.0-1/sideline_0.1.0-1_amd64.zip",
                "s3://packages/sideline/0.1.0-1/sideline_0.1.0-1_arm64.zip",
                "Sideline 0.1.0-1: Active"])
            self.assertEqual(run(folders["0.1.0-1"]), ["Sideline 0.1.0-1 is published already"])
            self.assertEqual(roll.versions(ssm, "Sideline"), {"0.1.0-1"})
            self.assertEqual(roll.versions(ssm, "Absent"), set())
            self.assertEqual(run(folders["0.2.0-1"])[-1], "Sideline 0.2.0-1: Active")
            self.assertEqual(ssm.describe_document(Name="Sideline")["Document"]["DefaultVersion"], "1")
            self.assertEqual(run(folders["0.2.0-1"], True), [
                "Sideline 0.2.0-1 is published already", "Sideline 0.2.0-1 is the default"])
            self.assertEqual(ssm.describe_document(Name="Sideline")["Document"]["DefaultVersion"], "2")

            # What can be fetched is what was built, byte by byte.
            fetched = scratch / "fetched"
            fetched.mkdir()
            for path in folders["0.2.0-1"].iterdir():
                stored = s3.get_object(Bucket="packages", Key=f"sideline/0.2.0-1/{path.name}")["Body"].read()
                (fetched / path.name).write_bytes(stored)
            self.assertEqual(distributor.verify(fetched), "0.2.0-1")
            content = ssm.get_document(Name="Sideline", VersionName="0.1.0-1")["Content"]
            self.assertEqual(json.loads(content), json.loads((folders["0.1.0-1"] / "manifest.json").read_text()))

            distributor.build([scratch / "sideline_0.1.0-1_amd64.deb"], folders["0.1.0-1"])
            with self.assertRaisesRegex(distributor.Wrong, "0.1.0-1 is published already, with another content"):
                run(folders["0.1.0-1"])
            (folders["0.2.0-1"] / "manifest.json").write_text("{}")
            with self.assertRaises(distributor.Wrong):
                run(folders["0.2.0-1"])


class Pipeline(unittest.TestCase):
    """The publish job as GitLab runs it, with the roles of publisher.yaml. fakecloud holds a token against the trust
    policy, but checks no signature of it, and does not look at the rights that the role has."""

    @classmethod
    def setUpClass(cls):
        cloudformation = clients("cloudformation")
        cloudformation.create_stack(
            StackName="sideline-publisher", TemplateBody=PUBLISHER.read_text(encoding="utf-8"),
            Capabilities=["CAPABILITY_IAM"], Parameters=[
                {"ParameterKey": "Project", "ParameterValue": "field/sideline"},
                {"ParameterKey": "Bucket", "ParameterValue": "releases"}])
        (stack,) = cloudformation.describe_stacks(StackName="sideline-publisher")["Stacks"]
        cls.outputs = {one["OutputKey"]: one["OutputValue"] for one in stack["Outputs"]}

    def test_neither_role_can_do_what_the_other_does_nor_send_a_command(self):
        publish, move = self.outputs["PublishRoleArn"], self.outputs["RollRoleArn"]
        ours = "arn:aws:ssm:eu-west-1:123456789012"
        stack = "arn:aws:cloudformation:eu-west-1:123456789012:stack/{}/1"
        for action, resource, allowed in [
            ("ssm:UpdateDocument", f"{ours}:document/Sideline", {publish}),
            ("ssm:UpdateDocument", f"{ours}:document/Sideline-Install", set()),
            ("s3:PutObject", "arn:aws:s3:::releases/sideline/0.1.0-1/manifest.json", {publish}),
            ("s3:PutObject", "arn:aws:s3:::others/x", set()),
            ("s3:DeleteObject", "arn:aws:s3:::releases/x", set()),
            ("cloudformation:UpdateStack", stack.format("sideline-ssm"), {move}),
            ("cloudformation:UpdateStack", stack.format("sideline-publisher"), set()),
            ("ssm:UpdateAssociation", f"{ours}:association/1", {move}),
            ("ssm:CreateAssociation", f"{ours}:document/Sideline-Install", {move}),
            ("ssm:CreateAssociation", f"{ours}:document/AWS-RunShellScript", set()),
            ("ssm:SendCommand", f"{ours}:document/Sideline-Status", set()),
            ("cloudwatch:GetMetricData", "*", {move}),
            ("iam:PassRole", publish, set()),
        ]:
            found = set()
            for role in (publish, move):
                answer = clients("iam").simulate_principal_policy(
                    PolicySourceArn=role, ActionNames=[action], ResourceArns=[resource])
                if [one["EvalDecision"] for one in answer["EvaluationResults"]] == ["allowed"]:
                    found.add(role)
            self.assertEqual(found, allowed, f"{action} on {resource}")

    def test_a_release_tags_token_publishes_and_no_other_does(self):
        ssm = clients("ssm")
        for subject, version, told in [
            ("field/sideline:ref_type:branch:ref:main", "0.3.0-1", "AccessDenied"),
            ("field/sideline:ref_type:tag:ref:nightly", "0.3.0-1", "AccessDenied"),
            ("field/sideline-fork:ref_type:tag:ref:v0.3.0", "0.3.0-1", "AccessDenied"),
            ("field/sideline:ref_type:tag:ref:v0.3.0", "0.3.0-1", None),
        ]:
            with self.subTest(subject=subject):
                done = self.publish(f"project_path:{subject}", version)
                self.assertEqual(done.returncode, 1 if told else 0, done.stderr)
                self.assertIn(told or "Sideline 0.3.0-1: Active", done.stderr if told else done.stdout)
                self.assertEqual(version in roll.versions(ssm, "Sideline"), told is None)

    def publish(self, subject, version):
        """Runs the job's lines with a token of this subject."""
        _, jobs = pipeline_test.jobs()
        job = jobs["publish"]
        claims = {"iss": "https://gitlab.com", "aud": "https://gitlab.com", "sub": subject, "exp": int(time.time()) + 600}
        token = [base64.urlsafe_b64encode(json.dumps(one).encode()).rstrip(b"=").decode() for one in ({"alg": "RS256"}, claims)]
        with tempfile.TemporaryDirectory() as scratch:
            built = Path(scratch) / "built"
            distributor.build([package(scratch, version)], built)
            # What the image has, and where the package job has left its work, are another here.
            lines = [line for line in pipeline_test.lines(job) if not line.startswith("pip install")]
            script = "\n".join(lines).replace("target/distributor", str(built))
            variables = {
                "AWS_DEFAULT_REGION": double.REGION, "AWS_ROLE_SESSION_NAME": "sideline-1",
                "AWS_ROLE_ARN": self.outputs["PublishRoleArn"]}
            self.assertEqual(set(variables), set(job["variables"]))
            return subprocess.run(
                ["sh", "-euc", script], cwd=double.ROOT, text=True, capture_output=True, env=variables | {
                    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": scratch, "TMPDIR": scratch,
                    "AWS_ENDPOINT_URL": URL, "SIDELINE_TOKEN": ".".join([*token, "c2ln"]),
                    "SIDELINE_BUCKET": self.outputs["BucketName"]})


if __name__ == "__main__":
    unittest.main()
