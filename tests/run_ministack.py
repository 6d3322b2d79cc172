"""Runs MiniStack with one thing that AWS does and MiniStack 1.5.33 does not: the transform AWS::LanguageExtensions in the
template of a nested stack, which alarms.yaml is. Of stacks that are not nested it expands them itself. And without the
port 443, which it would take besides its own for a service that is not used here."""

from ministack import app
from ministack.services.cloudformation import engine, language_extensions

resolve_parameters = engine._resolve_parameters


def expand_and_resolve_parameters(template, provided, *previous):
    """The nested stack's template is read, and then its parameters are resolved: the expansion belongs between."""
    resolved = resolve_parameters(template, provided, *previous)
    if language_extensions.TRANSFORM in engine.declared_transforms(template):
        values = {name: entry["Value"] for name, entry in resolved.items()}
        expanded = engine._without_transform(language_extensions.apply(template, values), language_extensions.TRANSFORM)
        template.clear()
        template.update(expanded)
    return resolved


engine._resolve_parameters = expand_and_resolve_parameters
app._port_is_bindable = lambda *_: False

if __name__ == "__main__":
    app.main()
