"""The settings of template.yaml that exactly-once rests on."""

import pytest
import yaml

from failed_batches import template_with
from stack import REPOSITORY
from test_shutdown import run_to_the_end


class Loader(yaml.SafeLoader):
    """Reads CloudFormation's short functions as their arguments."""


Loader.add_multi_constructor("!", lambda loader, _, node: loader.construct_scalar(node)
                             if isinstance(node, yaml.ScalarNode) else loader.construct_sequence(node))


def template():
    return yaml.load((REPOSITORY / "template.yaml").read_text(), Loader)


def test_what_must_not_be_changed_is_as_it_must_be():
    """The settings that exactly-once rests on are as they must be in the template, and the one-machine stack refuses others."""
    resources = template()["Resources"]
    mappings = [
        event["Properties"] for resource in resources.values()
        for event in resource["Properties"].get("Events", {}).values() if event["Type"] == "Kinesis"
    ]
    mapping, = mappings
    assert mapping["ParallelizationFactor"] == 1
    assert mapping["BisectBatchOnFunctionError"] is False
    assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert mapping["MaximumRetryAttempts"] == -1
    assert mapping["StartingPosition"] == "TRIM_HORIZON"
    assert mapping["DestinationConfig"]["OnFailure"]["Type"] == "S3"
    age = template()["Parameters"][mapping["MaximumRecordAgeInSeconds"]]
    retention = resources["EventStream"]["Properties"]["RetentionPeriodHours"] * 3600
    assert age["MaxValue"] <= retention - 24 * 3600
    encryption = resources["LandingBucket"]["Properties"]["BucketEncryption"]
    rules = encryption["ServerSideEncryptionConfiguration"]
    assert [rule["ServerSideEncryptionByDefault"]["SSEAlgorithm"] for rule in rules] == ["AES256"]


@pytest.mark.parametrize(
    "old, new, named",
    [
        ("ParallelizationFactor: 1", "ParallelizationFactor: 2", "ParallelizationFactor"),
        ("BisectBatchOnFunctionError: false", "BisectBatchOnFunctionError: true", "BisectBatchOnFunctionError"),
        ("FunctionResponseTypes: [ReportBatchItemFailures]", "FunctionResponseTypes: []", "FunctionResponseTypes"),
    ],
)
def test_the_one_machine_stack_refuses_what_would_break_exactly_once(tmp_path, old, new, named):
    """A template with a setting that the write protocol can't live with does not start, and is told which."""
    code, output = run_to_the_end(tmp_path, template=template_with(tmp_path, {old: new}))
    assert code == 1 and named in output, output
