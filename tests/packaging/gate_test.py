"""The gate before the next ring: by tables, and against somebody else's CloudWatch (moto)."""

import argparse
import contextlib
import io
import os
import unittest
from datetime import datetime, timedelta, timezone
from unittest import mock

import boto3
import botocore.client
from moto import mock_aws

from extensionless import gate

SINCE = datetime.now(timezone.utc).replace(second=0, microsecond=0) - timedelta(minutes=20)
REAL = botocore.client.BaseClient._make_api_call


def minutes(text):
    """`0 2 -`: a Health a minute, `-` is silence."""
    return [None if word == "-" else float(word) for word in text.split()]


class Judge(unittest.TestCase):
    def test_a_node(self):
        for health, wrong in [
            ("0 0 0 0 0 0", None),
            ("1 1 1 1 1 1", None),
            ("0 0 2 0 0 0", "failing in 1 of 6 minutes"),
            ("0 0 2 3 0 0", "unknown in 2 of 6 minutes"),
            ("0 - - - - 0", None),
            ("0 - - - - -", "silent for 5 minutes"),
            ("- - - - - 0", "silent for 5 minutes"),
            ("2 - - - - -", "silent for 5 minutes"),
            ("0 - - 0 - - -", None),
            ("", None),
        ]:
            self.assertEqual(gate.judge(minutes(health), 5), wrong, health)

    def test_before(self):
        for health, bad in [("2 2 3", True), ("- - -", True), ("2 - 2", True), ("2 0 2", False), ("0 - -", False), ("", True)]:
            self.assertEqual(gate.was_bad(minutes(health)), bad, health)


class Ring(unittest.TestCase):
    """Rings of nodes as CloudWatch has them: before the roll-out | after it, 10 minutes each."""

    def check(self, ring, status, said, strict=False, now=timedelta(minutes=14)):
        slept = []
        time = [SINCE + now]

        def sleep(seconds):
            slept.append(seconds)
            time[0] += timedelta(seconds=seconds)

        def call(client, operation, arguments):
            # moto has no managed instances.
            if operation == "DescribeInstanceInformation":
                self.assertEqual(arguments["Filters"], [{"Key": "tag:SidelineRing", "Values": ["canary"]}])
                return {"InstanceInformationList": [{"InstanceId": name} for name in ring]}
            return REAL(client, operation, arguments)

        given = argparse.Namespace(
            ring="canary", minutes=10, silent=5, strict=strict, namespace="Sideline", ring_tag="SidelineRing")
        keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "eu-west-1"}
        out = io.StringIO()
        with mock.patch.dict(os.environ, keys), mock_aws(), contextlib.redirect_stdout(out), \
                mock.patch.object(botocore.client.BaseClient, "_make_api_call", call):
            cloudwatch = boto3.client("cloudwatch")
            # Somebody else's node is none of this ring's.
            for name, health in {**ring, "mi-other": "2 " * 10 + "| " + "2 " * 10}.items():
                for at, value in enumerate(minutes(health.replace("|", ""))):
                    if value is not None:
                        cloudwatch.put_metric_data(Namespace="Sideline", MetricData=[{
                            "MetricName": "Health", "Value": value, "Timestamp": SINCE + timedelta(minutes=at - 10, seconds=7),
                            "Dimensions": [{"Name": "Site", "Value": "north"}, {"Name": "Node", "Value": name}]}])
            found = gate.watch(
                boto3.client("ssm"), cloudwatch, given, SINCE, SINCE + timedelta(minutes=10), lambda: time[0], sleep)
        self.assertEqual(found, status, out.getvalue())
        self.assertIn(said, out.getvalue())
        return slept

    def test_rings(self):
        well = "0 0 0 0 0 0 0 0 0 0 | 0 0 0 0 0 0 0 0 0 0"
        broke = "0 0 0 0 0 0 0 0 0 0 | 0 0 0 2 2 2 2 2 2 2"
        quiet = "0 0 0 0 0 0 0 0 0 0 | 0 0 - - - - - - - -"
        sick = "2 2 2 2 2 2 2 2 2 2 | 2 2 2 2 2 2 2 2 2 2"
        away = "- - - - - - - - - - | - - - - - - - - - -"
        new = "- - - - - - - - - - | 0 0 0 0 0 0 0 0 0 0"
        torn = "0 0 0 0 0 0 0 0 0 0 | 0 - - 0 0 0 - 0 0 0"
        for ring, status, said in [
            ({"mi-a": well}, 0, "canary: well for 10 minutes"),
            ({"mi-a": well, "mi-b": torn}, 0, "canary: 2 of 2 well"),
            ({"mi-a": well, "mi-b": broke}, 1, "mi-b: failing in 7 of 10 minutes"),
            ({"mi-a": well, "mi-b": quiet}, 1, "mi-b: silent for 8 minutes"),
            ({"mi-a": well, "mi-b": sick}, 0, "mi-b: failing in 10 of 10 minutes, as it was before: does not count"),
            ({"mi-a": well, "mi-b": away}, 0, "mi-b: silent for 10 minutes, as it was before: does not count"),
            ({"mi-a": sick, "mi-b": away}, 1, "no node of canary is well: nobody has tried the version"),
            ({"mi-a": new}, 0, "canary: 1 of 1 well"),
            ({}, 1, "no managed instance has the tag SidelineRing=canary"),
        ]:
            with self.subTest(ring=ring):
                self.check(ring, status, said)
        for ring, status, said in [
            ({"mi-a": new}, 0, "canary: 1 of 1 well"),
            ({"mi-a": new, "mi-b": away}, 1, "mi-b: silent for 10 minutes"),
            ({"mi-a": well, "mi-b": sick}, 1, "mi-b: failing in 10 of 10 minutes"),
        ]:
            with self.subTest(ring=ring, strict=True):
                self.check(ring, status, said, strict=True)

    def test_it_waits_for_the_time_to_be_over_and_ends_at_the_first_that_is_bad(self):
        well = "0 0 0 0 0 0 0 0 0 0 | 0 0 0 0 0 0 0 0 0 0"
        self.assertEqual(self.check({"mi-a": well}, 0, "well for 10 minutes", now=timedelta(0)), [60] * 13)
        broke = "0 0 0 0 0 0 0 0 0 0 | 0 0 0 2 2 2 2 2 2 2"
        self.assertEqual(self.check({"mi-a": well, "mi-b": broke}, 1, "failing in 1 of 4", now=timedelta(0)), [60] * 7)


if __name__ == "__main__":
    unittest.main()
