#!/usr/bin/env python3
"""A site's half in the cloud, as its operator makes it with AWS's own SDK: site.py ENDPOINT.

Reads one JSON request a line, `{"do": METHOD, ...its arguments}`, and answers each with one line of JSON.
"""

import datetime
import json
import re
import sys
import urllib.request
from pathlib import Path

import boto3
import botocore
from gate import Gate

sys.path.append(str(Path(__file__).parents[1] / "packaging"))
from template import load

REGION = "eu-west-1"
CLUSTER = "sheds"
ROLE = "shed-node"
# What an alarm keeps when its metric math goes.
KEPT = [
    "AlarmName", "AlarmDescription", "ActionsEnabled", "AlarmActions", "OKActions", "InsufficientDataActions",
    "EvaluationPeriods", "DatapointsToAlarm"]
# What a scalable target and its policies both say.
SCALED = ["ServiceNamespace", "ScalableDimension", "ResourceId"]


class Site:
    def __init__(self, endpoint):
        self.endpoint = endpoint
        self.template = load()
        # `test` is fakecloud's word for the account's root.
        self.aws = Sdk(endpoint, "test", "test")
        self.account = self.aws.sts.get_caller_identity()["Account"]

    def deploy(self, stack, nodes, parameters):
        """Makes what a site has before sideline: a cluster with external instances, their role, the work's task
        definition, a network. Then the template, as a stack. Returns the container instances' ARNs, one a node."""
        aws = self.aws
        aws.ecs.create_cluster(clusterName=CLUSTER)
        arns = [self.external_instance(node) for node in nodes]
        # Systems Manager hands the nodes the role's credentials. Here STS does: to whom the trust policy says.
        root = {"AWS": f"arn:aws:iam::{self.account}:root"}
        trust = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": root}
        trust = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
        aws.iam.create_role(RoleName=ROLE, AssumeRolePolicyDocument=trust)
        aws.ecs.register_task_definition(family="pictures", requiresCompatibilities=["EC2"], containerDefinitions=[{
            "name": "pictures", "image": "pictures:1", "memory": 4096,
            "resourceRequirements": [{"type": "GPU", "value": "1"}]}])
        network = aws.ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        subnet = aws.ec2.create_subnet(VpcId=network, CidrBlock="10.0.0.0/24")["Subnet"]["SubnetId"]
        group = aws.ec2.create_security_group(VpcId=network, GroupName="gpus", Description="GPUs")["GroupId"]
        given = {
            "Cluster": CLUSTER, "NodeRoleName": ROLE, "TwinTaskDefinition": "pictures",
            "Subnets": subnet, "SecurityGroups": group, **parameters}
        aws.cloudformation.create_stack(
            StackName=stack, Capabilities=["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM"],
            TemplateBody=json.dumps(for_fakecloud(self.template, given)),
            Parameters=[{"ParameterKey": key, "ParameterValue": str(value)} for key, value in given.items()])
        made = aws.cloudformation.describe_stacks(StackName=stack)["Stacks"][0]
        assert made["StackStatus"] == "CREATE_COMPLETE", made
        resources = aws.cloudformation.describe_stack_resources(StackName=stack)["StackResources"]
        self.resources = {one["LogicalResourceId"]: one["PhysicalResourceId"] for one in resources}
        return arns

    def external_instance(self, node):
        identity = json.dumps({"instanceId": node, "region": REGION})
        made = self.aws.ecs.register_container_instance(
            cluster=CLUSTER, instanceIdentityDocument=identity, attributes=[{"name": "ecs.capability.external"}])
        return made["containerInstance"]["containerInstanceArn"]

    def plain_alarms(self, back):
        """Puts in the place of the site's two alarms, whose metric math fakecloud keeps but never evaluates, alarms on
        the metric alone that mean the same. Nothing else changes, but that coming back takes `back` periods, not ten
        minutes. Returns a line about each.

        CEIL((required - FILL(sum, 0)) / slots) >= 1 is sum < required, where a missing sum breaches; and <= 0 is
        sum >= required, where a missing one does not.
        """
        return [
            self.plain_alarm("ShortageAlarm", "GreaterThanOrEqualToThreshold", 1, {
                "ComparisonOperator": "LessThanThreshold", "TreatMissingData": "breaching"}),
            self.plain_alarm("WholeAlarm", "LessThanOrEqualToThreshold", 0, {
                "ComparisonOperator": "GreaterThanOrEqualToThreshold", "TreatMissingData": "notBreaching",
                "EvaluationPeriods": back, "DatapointsToAlarm": back - 1}),
        ]

    def plain_alarm(self, name, comparison, threshold, changes):
        alarm = self.alarm(self.resources[name])
        queries = {one["Id"]: one for one in alarm["Metrics"]}
        told = [one["Expression"] for one in alarm["Metrics"] if one.get("ReturnData")]
        required = re.fullmatch(r"CEIL\(\((\d+) - capacity\) / \d+\)", told[0])
        # Where the template has come to say something else, this has to be thought over.
        assert (alarm["ComparisonOperator"], alarm["Threshold"]) == (comparison, threshold), alarm
        assert len(told) == 1 and required and queries["capacity"]["Expression"] == "FILL(c, 0)", alarm
        stat = queries["c"]["MetricStat"]
        self.aws.cloudwatch.put_metric_alarm(**{
            **{key: alarm[key] for key in KEPT if key in alarm}, **stat["Metric"], "Period": stat["Period"],
            "Statistic": stat["Stat"], "Threshold": float(required[1]), **changes})
        new = self.alarm(alarm["AlarmName"])
        return (
            f"{new['AlarmName']}: {new['Statistic']} of {new['MetricName']} {new['ComparisonOperator']} "
            f"{new['Threshold']:g} in {new['DatapointsToAlarm']} of {new['EvaluationPeriods']} periods of "
            f"{new['Period']} s, missing data {new['TreatMissingData']}")

    def alarm(self, name):
        return self.aws.cloudwatch.describe_alarms(AlarmNames=[name])["MetricAlarms"][0]

    def gate(self, container_instance):
        """Opens a gate for the node of this container instance. Returns its address, and credentials of the role."""
        role = self.aws.iam.get_role(RoleName=ROLE)["Role"]["Arn"]
        place = {"Cluster": CLUSTER, "ContainerInstanceArn": container_instance, "Version": "1.105.1"}
        self.opened = Gate(self.endpoint, self.aws.iam, role, place, {"id": self.account, "region": REGION})
        given = self.aws.sts.assume_role(RoleArn=role, RoleSessionName="node")["Credentials"]
        self.keys = [given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"]]
        self.container_instance = container_instance
        return {"url": self.opened.url, "keys": self.keys, "container_instance": container_instance}

    def calls(self):
        """What the node has called through the gate."""
        return self.opened.calls

    def as_node(self, call, keys):
        """Calls as the node would, with its own keys or a forged secret: nothing where it may, else the error."""
        service, action, arguments = call
        key, secret, token = self.keys
        node = Sdk(self.opened.url, key, {"own": secret, "forged": "forged"}[keys], token)
        try:
            getattr(getattr(node, service), action)(**arguments)
        except botocore.exceptions.ClientError as error:
            return error.response["Error"]["Code"]

    def look(self, site, node):
        """What the site's operator sees in the cloud just now.

        fakecloud evaluates alarms when they are described, and lets policies act every 15 s. With CloudWatch they act
        as soon as an alarm goes off, and so they do here.
        """
        alarms = {
            one["AlarmName"]: one["StateValue"] for one in self.aws.cloudwatch.describe_alarms()["MetricAlarms"]}
        urllib.request.urlopen(self.endpoint + "/_fakecloud/application-autoscaling/tick", data=b"").read()
        described = self.aws.ecs.describe_container_instances(
            cluster=CLUSTER, containerInstances=[self.container_instance])["containerInstances"][0]
        claims = [one["value"] for one in described["attributes"] if one["name"] == "sideline.claim"]
        twin = self.aws.ecs.describe_services(
            cluster=self.resources["CloudCluster"], services=[self.resources["TwinService"]])["services"][0]
        return {
            "instance": described["status"],
            "claim": claims[0] if claims else None,
            "capacity": self.newest("Capacity", 10, 3, "Sum", Site=site),
            "health": next(iter(self.newest("Health", 1, 30, "Maximum", Site=site, Node=node)), None),
            "alarm": alarms[self.resources["ShortageAlarm"]],
            "desired": twin["desiredCount"],
        }

    def newest(self, metric, period, periods, statistic, **dimensions):
        """The values, newest first, of a metric that has whole values only, in this period and some before it."""
        now = datetime.datetime.now(datetime.timezone.utc)
        begun = datetime.datetime.fromtimestamp(now.timestamp() // period * period, now.tzinfo)
        points = self.aws.cloudwatch.get_metric_statistics(
            Namespace="Sideline", MetricName=metric, Period=period, Statistics=[statistic],
            Dimensions=[{"Name": name, "Value": value} for name, value in dimensions.items()],
            StartTime=begun - (periods - 1) * datetime.timedelta(seconds=period),
            EndTime=begun + datetime.timedelta(seconds=period))["Datapoints"]
        points.sort(key=lambda one: one["Timestamp"], reverse=True)
        return [int(one[statistic]) for one in points]


class Sdk:
    """Clients of AWS's services by name, made when they are first used."""

    def __init__(self, endpoint, key, secret, token=None):
        self._session = boto3.Session(key, secret, token, REGION)
        self._endpoint = endpoint

    def __getattr__(self, service):
        # No retries: what is refused once is refused.
        config = botocore.config.Config(retries={"total_max_attempts": 1})
        client = self._session.client(service, endpoint_url=self._endpoint, config=config)
        setattr(self, service, client)
        return client


def for_fakecloud(template, given):
    """The template in words that fakecloud understands, and that mean the same."""
    numbers = {
        name: int(given.get(name, one.get("Default")))
        for name, one in template["Parameters"].items() if one["Type"] == "Number"}

    def written(value):
        match value:
            # A number that comes by reference it takes for text.
            case {"Ref": name} if name in numbers:
                return numbers[name]
            # A policy has to say itself what it scales.
            case {"ScalingTargetId": {"Ref": target}, **rest}:
                scaled = template["Resources"][target]["Properties"]
                return written({**rest, **{key: scaled[key] for key in SCALED}})
            # An adjustment of 0 it takes for none.
            case {"AdjustmentType": "ExactCapacity", "StepAdjustments": [{"ScalingAdjustment": 0, **where}], **rest}:
                step = {**where, "ScalingAdjustment": -100}
                return {**rest, "AdjustmentType": "PercentChangeInCapacity", "StepAdjustments": [step]}
            case dict():
                return {key: written(below) for key, below in value.items()}
            case list():
                return [written(below) for below in value]
        return value

    return {**template, "Resources": written(template["Resources"])}


def main():
    site = Site(*sys.argv[1:])
    for line in sys.stdin:
        request = json.loads(line)
        answer = getattr(site, request.pop("do"))(**request)
        print(json.dumps(answer, default=str), flush=True)


if __name__ == "__main__":
    main()
