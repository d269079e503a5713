"""The template as a whole: what every parameter must say, and what must be whole in every variant of a stack."""

import json
import re
import unittest

from generated import PACKAGING, files
from template import TEMPLATE, Resolver, load

BARE = {"Site": "north", "Cluster": "field", "RequiredSlots": 18}
FULL = BARE | {
    "NodeRoleName": "node", "DenyOtherClusters": "true", "AllowSsm": "true", "FastDetection": "true", "WarmPoolSize": 1,
    "ParameterKeyArn": "arn:aws:kms:eu-west-1:123456789012:key/0a1b",
    "QueueName": "clips", "QueueTaskDefinition": "worker", "NotificationEmail": "a@example.com",
}
# CloudFormation takes no longer template in the request itself; beyond, it would have to lie in a bucket.
LONGEST = 51_200


class Template(unittest.TestCase):
    def setUp(self):
        self.template = load()
        self.parameters = self.template["Parameters"]

    def test_every_parameter_is_explained(self):
        for name, about in self.parameters.items():
            self.assertGreaterEqual(len(about.get("Description", "")), 20, f"{name} is not explained")

    def test_every_parameter_is_in_one_group(self):
        groups = self.template["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
        grouped = [name for group in groups for name in group["Parameters"]]
        self.assertEqual(sorted(grouped), sorted(self.parameters))

    def test_no_check_is_switched_off(self):
        self.assertNotIn("cfn-lint", TEMPLATE.read_text(encoding="utf-8"))
        self.assertEqual(list(PACKAGING.parent.glob(".cfnlintrc*")), [])

    def test_it_fits_into_a_request(self):
        self.assertLessEqual(TEMPLATE.stat().st_size, LONGEST)

    def test_the_example_is_a_stack(self):
        pairs = json.loads((PACKAGING / "aws/parameters.example.json").read_text(encoding="utf-8"))
        given = {pair["ParameterKey"]: pair["ParameterValue"] for pair in pairs}
        required = {name for name, about in self.parameters.items() if "Default" not in about}
        self.assertLessEqual(required, set(given))
        for name, value in given.items():
            about = self.parameters[name]
            self.assertRegex(value, f"^(?:{about.get('AllowedPattern', '.*')})$")
            if about["Type"] == "Number":
                self.assertGreaterEqual(int(value), about.get("MinValue", 0))
                self.assertLessEqual(int(value), about.get("MaxValue", 10**9))

    def test_defaults_are_allowed(self):
        for name, about in self.parameters.items():
            if "AllowedPattern" in about and "Default" in about:
                self.assertRegex(about["Default"], f"^(?:{about['AllowedPattern']})$", name)

    def test_a_bare_stack_has_none_of_what_is_optional(self):
        bare = Resolver(self.template, BARE).resources()
        full = Resolver(self.template, FULL).resources()
        optional = {"NodePolicy", "WarmPool", "TopicEmail", "QueueAlarm", "NoBacklogAlarm", "QueueService", "QueueTarget",
                    "QueuePolicy", "NoBacklogPolicy"}
        self.assertEqual(set(full) - set(bare), optional)
        self.assertEqual(set(full), set(self.template["Resources"]))

    def test_the_dashboard_is_json_that_does_not_widen_periods(self):
        for parameters, widgets in [(BARE, 8), (FULL, 9)]:
            body = Resolver(self.template, parameters).resources()["Dashboard"]["Properties"]["DashboardBody"]
            body = json.loads(body)
            self.assertEqual(len(body["widgets"]), widgets)
            self.assertEqual(body["periodOverride"], "inherit")

    def test_alarms_are_told_apart_by_site(self):
        for name, about in Resolver(self.template, FULL).resources().items():
            if about["Type"] == "AWS::CloudWatch::Alarm":
                self.assertTrue(about["Properties"]["AlarmName"].startswith("sideline-north-"), name)

    def test_no_word_of_the_template_is_left_unresolved(self):
        for parameters in (BARE, FULL):
            text = json.dumps(Resolver(self.template, parameters).resources())
            self.assertIsNone(re.search(r'\$\{|"Fn::|"Ref"', text))

    def test_generated_files_are_current(self):
        for path, text in files().items():
            self.assertEqual(path.read_text(encoding="utf-8"), text, f"{path}: run `packaging/check --write`")


if __name__ == "__main__":
    unittest.main()
