"""CloudWatch's metric math and its alarms, as far as alarms.yaml and nested/server.yaml use them.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/using-metric-math.html
"""

import operator
from dataclasses import dataclass
from statistics import mean

COMPARISONS = {"GreaterThanThreshold": operator.gt, "GreaterThanOrEqualToThreshold": operator.ge,
               "LessThanThreshold": operator.lt}
# Of less than a hundred values, the largest is the 99th percentile.
STATISTICS = {"Sum": sum, "Maximum": max, "Average": mean, "p99": max}


def value(expression, metrics):
    """What an expression is in one period; None, where a metric that it needs has no value."""
    functions = {"FILL": lambda metric, other: other if metric is None else metric,
                 "IF": lambda condition, one, other: one if condition else other, "MAX": max}
    try:
        return eval(expression, {"__builtins__": {}}, functions | metrics)
    except (TypeError, ZeroDivisionError):
        return None


def state(alarm, threshold, periods):
    """The state of an alarm on metric math, after periods that each have the values of its metrics by their ids."""
    calculated, = (query for query in alarm["Metrics"] if "Expression" in query)
    values = [value(calculated["Expression"], metrics) for metrics in periods[-alarm["EvaluationPeriods"]:]]
    breaches = COMPARISONS[alarm["ComparisonOperator"]]
    # What is missing is not breaching.
    assert alarm["TreatMissingData"] == "notBreaching"
    breaching = sum(one is not None and breaches(one, threshold) for one in values)
    return "ALARM" if breaching >= alarm["DatapointsToAlarm"] else "OK"


@dataclass(frozen=True)
class Value:
    """A metric's value: of when it is, and when CloudWatch gets it, both in seconds."""
    at: float
    seen: float
    number: float


def run(began, seconds, number):
    """A value of an invocation: Lambda dates it to the beginning, and sends it at the end."""
    return Value(began, began + seconds, number)


def state_at(alarm, values, now):
    """The state of an alarm on one metric, at a full minute. Its periods slide with it:
    https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarm-evaluation-window.html"""
    assert alarm["TreatMissingData"] == "notBreaching" and now % 60 == 0
    period, statistic = alarm["Period"], STATISTICS[alarm.get("Statistic") or alarm["ExtendedStatistic"]]
    breaches = COMPARISONS[alarm["ComparisonOperator"]]
    breaching = 0
    for end in (now - number * period for number in range(alarm["EvaluationPeriods"])):
        found = [value.number for value in values if value.seen <= now and end - period <= value.at // 60 * 60 < end]
        breaching += bool(found) and breaches(statistic(found), alarm["Threshold"])
    return "ALARM" if breaching >= alarm.get("DatapointsToAlarm", alarm["EvaluationPeriods"]) else "OK"


def states(alarm, values, minutes):
    """Its state at each of these minutes."""
    return [state_at(alarm, values, 60 * minute) for minute in minutes]
