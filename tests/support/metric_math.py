"""CloudWatch's metric math and its alarms, as far as alarms.yaml uses them.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/using-metric-math.html
"""

import operator

COMPARISONS = {"GreaterThanThreshold": operator.gt}


def value(expression, metrics):
    """What an expression is in one period; None, where a metric that it needs has no value."""
    functions = {"FILL": lambda metric, other: other if metric is None else metric,
                 "IF": lambda condition, one, other: one if condition else other}
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
