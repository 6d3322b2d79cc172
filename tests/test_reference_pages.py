"""docs/CONFIGURATION.md and docs/METRICS.md name what template.yaml, alarms.yaml and the code have, with the same numbers.
Metrics of our own are compared in shared/tests/metrics_doc.rs."""

import re

import pytest

from support.stack import REPOSITORY
from support.template import document, expanded

CONFIGURATION = (REPOSITORY / "docs/CONFIGURATION.md").read_text()
METRICS = (REPOSITORY / "docs/METRICS.md").read_text()
PARAMETERS = document()["Parameters"]


def tables(page):
    """The rows of each table: dictionaries by the names of its columns."""
    rows, heading = [], None
    for line in page.splitlines():
        if not line.startswith("|"):
            heading = None
            continue
        cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if heading is None:
            heading = cells
        elif not set(line) <= set("|-: "):
            assert len(cells) == len(heading), line
            rows.append(dict(zip(heading, cells)))
    return rows


def names(cell):
    return re.findall(r"`([^`]+)`", cell)


def parameter_rows():
    """Rows by parameter: of the deployment's table, and of the functions' variables that a parameter sets."""
    found = {}
    for row in tables(CONFIGURATION):
        for name in names(row.get("parameter", "")):
            found.setdefault(name, []).append(row)
    return found


def numbers(text):
    return {float(number.replace(",", "")) for number in re.findall(r"\d[\d,]*(?:\.\d+)?", text)}


def test_every_parameter_is_on_the_page_and_no_other():
    assert parameter_rows().keys() == PARAMETERS.keys()


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_parameter_has_its_default_and_its_limits_on_the_page(name):
    declared = PARAMETERS[name]
    rows, default = parameter_rows()[name], declared["Default"]
    text = " ".join(cell for row in rows for cell in row.values())
    # A variable has a default of its own; so the parameter's stands in the deployment's table, where it is there too.
    stated = next((row for row in rows if "variable" not in row), rows[0])["default"]
    if stated != "required" and isinstance(default, int):
        assert default in numbers(stated), rows
    elif stated != "required":
        assert (default or "none") in stated, rows
    for bound in ("MinValue", "MaxValue"):
        if bound in declared:
            assert declared[bound] in numbers(text), f"{bound} {declared[bound]} is not in {text}"
    for value in declared.get("AllowedValues", []):
        assert value in numbers(text) if isinstance(value, int) else f"`{value}`" in text, f"{value} is not in {text}"


def test_every_variable_of_the_template_is_on_the_page_with_the_parameter_that_sets_it():
    rows = [row for row in tables(CONFIGURATION) if "variable" in row]
    found = {(variable, parameter) for row in rows for variable in names(row["variable"])
             for parameter in names(row.get("parameter", "")) or [None]}
    variables = set()
    for resource in document()["Resources"].values():
        environment = resource.get("Properties", {}).get("Environment", {}).get("Variables", {})
        for variable, value in environment.items():
            set_by = value.get("Ref") if isinstance(value, dict) else None
            variables.add((variable, set_by if set_by in PARAMETERS else None))
    assert len(variables) >= 20
    assert variables <= found, variables - found


def test_every_variable_of_the_server_is_on_the_page():
    task, = document("nested/server.yaml")["Resources"]["TaskDefinition"]["Properties"]["ContainerDefinitions"]
    on_page = {variable for row in tables(CONFIGURATION) if "variable" in row for variable in names(row["variable"])}
    given = {one["Name"] for one in task["Environment"]}
    assert len(given) >= 10 and given <= on_page, given - on_page


def test_every_variable_that_the_code_reads_is_on_the_page():
    read = set()
    for crate in ("ingest-lambda", "kinesis-to-s3-lambda", "monitoring-lambdas", "loader-lambdas", "lambda-setup"):
        for file in (REPOSITORY / crate / "src").rglob("*.rs"):
            read |= set(re.findall(r'\b(?:required|optional|choice|number|list)\(\s*"([A-Z][A-Z_]+)"', file.read_text()))
    assert len(read) >= 25
    on_page = {variable for row in tables(CONFIGURATION) if "variable" in row for variable in names(row["variable"])}
    assert read <= on_page, read - on_page


def used_of_aws():
    """AWS's own metrics that an alarm or the dashboard looks at; of a choice by a condition, both."""
    found = set()

    def choices(node):
        return node["Fn::If"][1:] if isinstance(node, dict) else [node]

    def walk(node):
        if isinstance(node, dict) and {"Namespace", "MetricName"} <= node.keys():
            found.update(zip(choices(node["Namespace"]), choices(node["MetricName"]), strict=True))
        if isinstance(node, dict) and "metrics" in node:
            namespace = name = None
            for line in node["metrics"]:
                namespace, name = (before if part == "." else part for before, part in zip((namespace, name), line))
                found.add((namespace, name))
        for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            walk(child)

    walk(expanded())
    walk(document("nested/server.yaml")["Resources"])
    return {metric for metric in found if metric[0].startswith("AWS/")}


def test_every_metric_of_aws_that_is_looked_at_is_on_the_page():
    on_page = {(row["namespace"], metric) for row in tables(METRICS) if "namespace" in row for metric in names(row["metric"])}
    assert len(used_of_aws()) >= 15
    assert used_of_aws() <= on_page, used_of_aws() - on_page
