"""Bringing a version to a ring: against a Systems Manager that is told what its nodes do."""

import argparse
import contextlib
import io
import unittest
from datetime import datetime, timedelta, timezone

from extensionless import roll

PARAMETERS = {"PackageName": "Sideline", "CanaryVersion": "0.1.0-1", "CanaryDowngrade": "false", "EarlyVersion": "",
              "EarlyDowngrade": "false", "AllVersion": "0.0.9-1", "AllDowngrade": "false", "RingTag": "SidelineRing"}


class Stack:
    """CloudFormation with one stack. `updates` is what it was asked for."""

    def __init__(self, **parameters):
        self.parameters = PARAMETERS | parameters
        self.updates = []

    def describe_stacks(self, StackName):
        pairs = [{"ParameterKey": key, "ParameterValue": value} for key, value in self.parameters.items()]
        return {"Stacks": [{"StackName": StackName, "Parameters": pairs}]}

    def update_stack(self, StackName, UsePreviousTemplate, Parameters):
        assert UsePreviousTemplate and StackName == "sideline-ssm"
        self.updates.append({one["ParameterKey"]: one.get("ParameterValue") for one in Parameters})

    def get_waiter(self, name):
        assert name == "stack_update_complete"
        return argparse.Namespace(wait=lambda **_: None)


class Manager:
    """Systems Manager: the nodes of a ring, and what became of them, a step each time that somebody waits.

    A node is `Success`, `Failed`, `InProgress` or `-` where its run has not begun, after `online` or `offline`.
    """

    def __init__(self, steps, version="0.2.0-1"):
        self.steps = steps
        self.version = version

    def get_paginator(self, name):
        return argparse.Namespace(paginate=lambda **given: [getattr(self, name)(**given)])

    def describe_instance_information(self, Filters):
        assert Filters == [{"Key": "tag:SidelineRing", "Values": ["canary"]}]
        states = {"online": "Online", "offline": "ConnectionLost"}
        return {"InstanceInformationList": [
            {"InstanceId": name, "PingStatus": states[text.split()[0]]} for name, text in self.steps[0].items()]}

    def describe_association(self, AssociationId):
        return {"AssociationDescription": {"AssociationVersion": "2", "Parameters": {"version": [self.version]}}}

    def describe_association_executions(self, AssociationId):
        now = datetime.now(timezone.utc)
        return {"AssociationExecutions": [
            {"ExecutionId": "new", "AssociationVersion": "2", "CreatedTime": now},
            {"ExecutionId": "second", "AssociationVersion": "2", "CreatedTime": now - timedelta(hours=1)},
            {"ExecutionId": "old", "AssociationVersion": "1", "CreatedTime": now - timedelta(hours=2)},
        ]}

    def describe_association_execution_targets(self, AssociationId, ExecutionId):
        # Before the newest run a node may have failed; what an old version did says nothing.
        now = {name: text.split()[1] for name, text in self.steps[0].items() if not text.endswith("-")}
        was = {"second": {name: "Failed" for name in now}, "old": {name: "Success" for name in self.steps[0]}}
        found = now if ExecutionId == "new" else was[ExecutionId]
        return {"AssociationExecutionTargets": [
            {"ResourceId": name, "Status": status, "OutputSource": {"OutputSourceId": f"c-{ExecutionId}"}}
            for name, status in found.items()]}


class Roll(unittest.TestCase):
    def watch(self, *steps, minutes=1, version="0.2.0-1"):
        manager, clock = Manager(list(steps), version), [0.0]

        def sleep(seconds):
            clock[0] += seconds
            if len(manager.steps) > 1:
                manager.steps.pop(0)

        given = argparse.Namespace(ring="canary", version="0.2.0-1", minutes=minutes, ring_tag="SidelineRing")
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            status = roll.watch(manager, "association", given, lambda: clock[0], sleep)
        return status, out.getvalue()

    def test_only_the_rings_version_changes(self):
        for ring, version, downgrade, changed in [
            ("canary", "0.2.0-1", False, {"CanaryVersion": "0.2.0-1", "CanaryDowngrade": "false"}),
            ("early", "0.2.0-1", True, {"EarlyVersion": "0.2.0-1", "EarlyDowngrade": "true"}),
            ("all", "0.0.8-1", True, {"AllVersion": "0.0.8-1", "AllDowngrade": "true"}),
        ]:
            stack = Stack()
            self.assertTrue(roll.update(stack, "sideline-ssm", ring, version, downgrade))
            # None is the value before.
            self.assertEqual(stack.updates, [{key: changed.get(key) for key in PARAMETERS}])

    def test_the_same_again_changes_nothing(self):
        stack = Stack()
        self.assertFalse(roll.update(stack, "sideline-ssm", "canary", "0.1.0-1", False))
        self.assertEqual(stack.updates, [])
        self.assertTrue(roll.update(stack, "sideline-ssm", "canary", "0.1.0-1", True))

    def test_another_stack_is_refused(self):
        stack = Stack()
        del stack.parameters["EarlyDowngrade"]
        with self.assertRaisesRegex(roll.Wrong, "has no parameter EarlyDowngrade"):
            roll.update(stack, "sideline-ssm", "early", "0.2.0-1", False)

    def test_it_waits_for_those_that_are_online(self):
        status, told = self.watch(
            {"mi-a": "online -", "mi-b": "online -", "mi-c": "offline -"},
            {"mi-a": "online InProgress", "mi-b": "online -", "mi-c": "offline -"},
            {"mi-a": "online Success", "mi-b": "online InProgress", "mi-c": "offline -"},
            {"mi-a": "online Success", "mi-b": "online Success", "mi-c": "offline -"})
        self.assertEqual(status, 0)
        self.assertEqual(told.splitlines(), [
            "canary: 0 of 3 have 0.2.0-1, 1 are offline",
            "canary: 1 of 3 have 0.2.0-1, 1 are offline",
            "canary: 2 of 3 have 0.2.0-1, 1 are offline",
            "mi-c is offline, and gets it when it is back"])

    def test_what_goes_wrong_is_told(self):
        for steps, told in [
            (({"mi-a": "online Success", "mi-b": "online Failed"},), r"failed on mi-b \(command c-new\);"),
            (({"mi-a": "online InProgress"}, {"mi-a": "online TimedOut"}), r"failed on mi-a \(command c-new\);"),
            (({"mi-a": "online Success", "mi-b": "online -"},), "not done in 1 minutes: mi-b"),
            (({"mi-a": "offline -"},), "not done in 1 minutes: all are offline"),
            (({},), "no managed instance has the tag SidelineRing=canary"),
        ]:
            with self.assertRaisesRegex(roll.Wrong, told):
                self.watch(*steps)
        with self.assertRaisesRegex(roll.Wrong, "the association installs .*0.1.0-1.*, not 0.2.0-1"):
            self.watch({"mi-a": "online Success"}, version="0.1.0-1")


if __name__ == "__main__":
    unittest.main()
