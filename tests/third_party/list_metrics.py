#!/usr/bin/env python3
"""Reads metrics back from CloudWatch as an operator would, with boto3: list_metrics.py ENDPOINT START END.

START and END are seconds since 1970. Prints one JSON object: every metric there is with its dimensions, the
statistics of each (GetMetricStatistics), and the values of Capacity (GetMetricData).
"""

import datetime
import json
import sys

import boto3

STATISTICS = ["SampleCount", "Sum", "Minimum", "Maximum"]


def main():
    endpoint, start, end = sys.argv[1:]
    client = boto3.client(
        "cloudwatch", endpoint_url=endpoint, region_name="eu-west-1",
        aws_access_key_id="AKIAREADER", aws_secret_access_key="secret")
    span = {"StartTime": moment(start), "EndTime": moment(end)}
    metrics = [
        metric
        for page in client.get_paginator("list_metrics").paginate()
        for metric in page["Metrics"]
    ]
    print(json.dumps({
        "metrics": [
            {
                "namespace": metric["Namespace"],
                "name": metric["MetricName"],
                "dimensions": {one["Name"]: one["Value"] for one in metric["Dimensions"]},
            }
            for metric in metrics
        ],
        "statistics": {metric["MetricName"]: statistics(client, metric, span) for metric in metrics},
        "capacity": capacity(client, metrics, span),
    }))


def moment(seconds):
    return datetime.datetime.fromtimestamp(int(seconds), datetime.timezone.utc)


def statistics(client, metric, span):
    answer = client.get_metric_statistics(**metric, **span, Period=1, Statistics=STATISTICS)
    return [
        {name: point[name] for name in [*STATISTICS, "Unit"]}
        for point in answer["Datapoints"]
    ]


def capacity(client, metrics, span):
    """A value a second: what the site can carry, and how many nodes say so."""
    metric = next(metric for metric in metrics if metric["MetricName"] == "Capacity")
    queries = [
        {"Id": name.lower(), "MetricStat": {"Metric": metric, "Period": 1, "Stat": name}}
        for name in ("Sum", "SampleCount")
    ]
    answer = client.get_metric_data(MetricDataQueries=queries, **span)
    return {result["Id"]: result["Values"] for result in answer["MetricDataResults"]}


if __name__ == "__main__":
    main()
