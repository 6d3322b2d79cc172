"""Runs MiniStack with three things that AWS does and MiniStack 1.5.33 does not: the transform AWS::LanguageExtensions in the
template of a nested stack, which alarms.yaml is: of stacks that are not nested it expands them itself; alarms on
expressions, which are made here but never evaluated; and Application Auto Scaling, which does nothing here. And without the port 443,
which it would take besides its own for a service that is not used here."""

from ministack import app
from ministack.core import router
from ministack.services.cloudformation import engine, language_extensions, provisioners

resolve_parameters = engine._resolve_parameters
alarm_record = provisioners._cw_metric_alarm_record


def expand_and_resolve_parameters(template, provided, *previous):
    """The nested stack's template is read, and then its parameters are resolved: the expansion belongs between."""
    resolved = resolve_parameters(template, provided, *previous)
    if language_extensions.TRANSFORM in engine.declared_transforms(template):
        values = {name: entry["Value"] for name, entry in resolved.items()}
        expanded = engine._without_transform(language_extensions.apply(template, values), language_extensions.TRANSFORM)
        template.clear()
        template.update(expanded)
    return resolved


def record_of_any_alarm(name, properties):
    """An alarm on an expression becomes one on a metric that has no values."""
    if "Metrics" in properties:
        expression = next(query["Expression"] for query in properties["Metrics"] if "Expression" in query)
        properties = {key: value for key, value in properties.items() if key != "Metrics"}
        properties |= {"Namespace": "Expressions", "MetricName": expression}
    return alarm_record(name, properties)


def made(logical_id, properties, stack):
    return f"{stack}-{logical_id}", {}


def removed(*_):
    pass


async def answered(*_):
    return 200, {"Content-Type": "application/x-amz-json-1.1"}, b"{}"


engine._resolve_parameters = expand_and_resolve_parameters
provisioners._cw_metric_alarm_record = record_of_any_alarm
for kind in ("ScalableTarget", "ScalingPolicy"):
    provisioners._RESOURCE_HANDLERS[f"AWS::ApplicationAutoScaling::{kind}"] = {"create": made, "delete": removed}
router.SERVICE_PATTERNS["application-autoscaling"] = {"target_prefixes": ["AnyScaleFrontendService"]}
app.SERVICE_HANDLERS["application-autoscaling"] = answered
app._port_is_bindable = lambda *_: False

if __name__ == "__main__":
    app.main()
