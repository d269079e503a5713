"""CloudWatch's alarms and Application Auto Scaling's steps, by the rules of AWS's documentation, fed from the template.

Taken as given, because AWS does not say: the aggregation of a step policy goes over the alarm's own points, and a fewer
number of tasks waits for the cooldown after any change.
"""

import ast
import math

from template import Resolver, load

# A metric's points, oldest first; None where nothing was sent.
FUNCTIONS = {"FILL": lambda value, fill: fill if value is None else value, "CEIL": math.ceil}


class Missing(Exception):
    """A point that an expression has no value for."""


def evaluate(metrics, points):
    """The value of the expression that an alarm watches at one moment; None where it has none.

    `points` holds the metrics' values by id. Metric math is read as Python, which it looks like.
    """
    values = dict(points)
    for metric in metrics:
        if "Expression" in metric:
            values[metric["Id"]] = arithmetic(metric["Expression"], values)
        if metric["ReturnData"]:
            watched = metric["Id"]
    return values[watched]


def arithmetic(expression, values):
    def value(node):
        match node:
            case ast.Expression(body):
                return value(body)
            case ast.Constant(number):
                return number
            case ast.Name(name):
                return values[name]
            case ast.Call(ast.Name("FILL"), [series, fill]):
                return FUNCTIONS["FILL"](value(series), value(fill))
            case ast.Call(ast.Name(name), arguments):
                return FUNCTIONS[name](*map(known, arguments))
            case ast.BinOp(left, ast.Sub(), right):
                return known(left) - known(right)
            case ast.BinOp(left, ast.Div(), right):
                return known(left) / known(right)
        raise NotImplementedError(ast.dump(node))

    def known(node):
        found = value(node)
        if found is None:
            raise Missing
        return found

    try:
        return value(ast.parse(expression, mode="eval"))
    except Missing:
        return None


def breaches(alarm, value):
    if value is None:
        return alarm["TreatMissingData"] == "breaching"
    threshold = alarm["Threshold"]
    return {
        "GreaterThanOrEqualToThreshold": value >= threshold,
        "LessThanOrEqualToThreshold": value <= threshold,
    }[alarm["ComparisonOperator"]]


def step(policy, threshold, value):
    """The step that a value calls for; None where none does. Bounds count from the threshold."""
    above = value >= threshold
    for adjustment in policy["StepScalingPolicyConfiguration"]["StepAdjustments"]:
        lower = adjustment.get("MetricIntervalLowerBound", -math.inf)
        upper = adjustment.get("MetricIntervalUpperBound", math.inf)
        breach = value - threshold
        # Above the threshold the lower bound belongs to a step, below it the upper one. The threshold itself is both.
        if (above and lower <= breach < upper) or (breach <= 0 and lower < breach <= upper):
            return adjustment["ScalingAdjustment"]
    return None


class Site:
    """A stack through time: one call a period, answered by the desired count."""

    def __init__(self, parameters, out="Shortage", back="Whole", target="TwinTarget"):
        resources = Resolver(load(), parameters).resources()
        properties = lambda name: resources[name]["Properties"]
        self.pairs = [(properties(f"{name}Alarm"), properties(f"{name}Policy")) for name in (out, back)]
        self.most = properties(target)["MaxCapacity"]
        self.points = []
        self.count = 0
        self.now = 0
        self.changed = -math.inf

    @property
    def alarms(self):
        return [alarm for alarm, _ in self.pairs]

    def period(self, **points):
        """One period with these values of the metrics is over. Returns the desired count after it."""
        self.points.append(points)
        self.now += 60
        for alarm, policy in self.pairs:
            values, alarming = self.look(alarm)
            known = [value for value in values if value is not None]
            if alarming and known:
                self.act(alarm, policy, known)
        return self.count

    def look(self, alarm):
        recent = self.points[-alarm["EvaluationPeriods"]:]
        values = [evaluate(alarm["Metrics"], points) for points in recent]
        return values, sum(breaches(alarm, value) for value in values) >= alarm["DatapointsToAlarm"]

    def act(self, alarm, policy, values):
        settings = policy["StepScalingPolicyConfiguration"]
        aggregate = {"Average": lambda v: sum(v) / len(v), "Minimum": min}[settings["MetricAggregationType"]]
        wanted = step(policy, alarm["Threshold"], aggregate(values))
        if wanted is None:
            return
        wanted = min(wanted, self.most)
        if wanted < self.count and self.now - self.changed < settings["Cooldown"]:
            return
        if wanted != self.count:
            self.count, self.changed = wanted, self.now
