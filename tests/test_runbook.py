"""docs/RUNBOOK.md: its commands parse, name only what there is, and run against a deployment as they are pasted."""

import bz2
import json
import os
import re
import shlex
import subprocess
import time
import tomllib
from datetime import UTC, datetime, timedelta

import boto3
import pytest

from support.cloud import REGION, MiniStack
from support.deployment import Deployment, binaries, script
from support.redrive import BINARY as REDRIVE
from support.stack import REPOSITORY, wait_for, without_aws
from support.template import document, metrics, translated
from support.traffic import JSON

RUNBOOK = (REPOSITORY / "docs/RUNBOOK.md").read_text()
TOP = "The tools"
OPS = script("ops")
# What `metric` takes besides functions.
MEASURED = {"EventStream", "LandingFunctionStream", "NotifyFunctionReminders", "FailedBatchesBucket", "Hours", "Dates",
            "LandedTopic", "SealedTopic"}
# Names of AWS's that texts use and that the templates have no use for.
OTHERS = {"ReadOnlyAccess"}


def blocks(text):
    return re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def section(title):
    """The text under a heading, up to the next one of its level or a higher one."""
    marks, rest = re.split(rf"^(##+) {re.escape(title)}$", RUNBOOK, maxsplit=1, flags=re.MULTILINE)[1:]
    return re.split(rf"^#{{2,{len(marks)}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


COMMANDS = "\n".join(blocks(RUNBOOK))
ENTRIES = re.findall(r"^### (\S+)$", RUNBOOK, re.MULTILINE)
# What `ops look` is given besides the alarm.
LOOKS = dict(re.findall(r"`ops look ([a-z0-9-]+)(?: (\S+?))?`", RUNBOOK.split("## Alarms", 1)[1]))


# ---- What the commands are ----

def test_every_block_parses():
    for block in blocks(RUNBOOK):
        done = subprocess.run(["bash", "-n"], input=block, text=True, stderr=subprocess.PIPE, check=False)
        assert done.returncode == 0 and not done.stderr, f"{done.stderr}\n{block}"


def test_each_entry_says_what_it_means_and_what_to_look_at_and_to_do():
    """It has one command that shows what there is to look at, which tools/scripts/diagnostics.txt knows."""
    assert len(RUNBOOK.splitlines()) <= 450
    for entry in ENTRIES:
        assert re.findall(r"\*\*(Means|Look|Do)\.\*\*", section(entry)) == ["Means", "Look", "Do"], entry
        assert f"**Look.** `ops look {entry}" in section(entry), entry
    assert set(ENTRIES) | {"tuning"} == OPS.diagnostics().keys()


def test_diagnostics_name_only_what_the_templates_have():
    """Metrics and what they are of, functions, and whether an hour or a function has to be named."""
    functions = {name.removesuffix("Function") for name in binaries()}
    for alarm, commands in OPS.diagnostics().items():
        of = LOOKS.get(alarm, "")
        assert ("$OF" in "".join(commands)) == bool(of), alarm
        for given in (OPS.arguments().parse_args(shlex.split(command.replace("$OF", of))) for command in commands):
            if given.run is OPS.metric:
                assert (given.namespace, given.name) in metrics(), given.name
                assert given.of in functions | MEASURED, given.of
            if given.run in (OPS.log, OPS.errors):
                assert given.function in functions, given.function


def test_commands_name_only_what_the_templates_have():
    """Outputs, logical ids, functions, metrics and parameters that commands name are there."""
    template, resources = document(), translated(Rollout="Canary")
    functions = {name.removesuffix("Function") for name in binaries()}
    assert named(r"ops output (\w+)", RUNBOOK) <= template["Outputs"].keys()
    assert named(r"ops physical (\w+)", RUNBOOK) <= resources.keys()
    for namespace, name, of in re.findall(r"ops metric (\S+) (\w+) (\w+)", RUNBOOK):
        assert (namespace, name) in metrics() and of in functions | MEASURED, name
    for pairs in re.findall(r'PARAMETERS="([^"]*)"', RUNBOOK):
        for name, value in (pair.split("=") for pair in pairs.split()):
            declared = template["Parameters"][name]
            assert value in map(str, declared.get("AllowedValues", [value]))
    listed, = re.findall(r"functions are called as in template.yaml: ([\w, \n]+)\.", RUNBOOK)
    assert set(re.split(r",\s+", listed)) == functions


def test_commands_name_only_what_the_project_has():
    """Scripts, functions' names, make's targets and their variables, and binaries with their options."""
    makefile = (REPOSITORY / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", makefile, re.MULTILINE))
    environments = tomllib.loads((REPOSITORY / "samconfig.toml").read_text()).keys() - {"version", "default"}
    used = re.findall(r"(?:^|`|&& |\" )make ([a-z][a-z-]*)(?: ENV=(\w+))?", RUNBOOK, re.MULTILINE)
    assert len(used) >= 3
    for target, environment in used:
        assert target in targets and environment in {*environments, ""}, (target, environment)
    for path in named(r"(tools/(?:scripts|cost)/[\w.-]+)", RUNBOOK):
        assert (REPOSITORY / path).exists(), path
    assert named(r"\bops ([a-z]+)", RUNBOOK) <= OPS.COMMANDS.keys()
    assert named(r"\binvoke (\S+?)(?:`|\s)", RUNBOOK) <= set(binaries().values())
    for command, arguments in re.findall(r"^redrive (\w+)((?: (?:\\\n +)?\S+)*)", COMMANDS, re.MULTILINE):
        help_text = subprocess.run([REDRIVE, command, "--help"], text=True, stdout=subprocess.PIPE, check=True).stdout
        assert re.findall(r"--[a-z-]+", arguments), arguments
        assert set(re.findall(r"--[a-z-]+", arguments)) <= set(re.findall(r"--[a-z-]+", help_text)), arguments


def test_texts_name_only_what_exists():
    """Names in CamelCase are parameters, resources, outputs, metrics, or members that the templates have."""
    text = "".join((REPOSITORY / name).read_text() for name in ("template.yaml", "alarms.yaml", "shared/src/metric.rs"))
    known = set(re.findall(r"\w+", text)) | {name for _, name in metrics()} | OTHERS
    words = {word for code in re.findall(r"`([^`\n]+)`", without_code(RUNBOOK))
             for word in re.findall(r"(?<![\w$/:-])[A-Z][a-z]+[A-Z]\w+", code)}
    assert len(words) > 30
    assert words <= known, words - known


PAGES = [REPOSITORY / path for path in subprocess.run(
    ["git", "ls-files", "*.md"], cwd=REPOSITORY, check=True, text=True, stdout=subprocess.PIPE).stdout.split() if path != "CHANGELOG.md"]


def anchors(page):
    headings = re.findall(r"^#+ (.*)$", without_code(page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_lead_somewhere(page):
    """Each link into this page or to another leads to a file, and to a heading of it; each file that a command reads is there."""
    text = page.read_text()
    for path, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)", text):
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), path
        assert not anchor or anchor in anchors(target), f"{path}#{anchor}"
    for path in re.findall(r"fileb://(\S+)", text):
        assert (REPOSITORY / path).exists(), path


def test_the_first_deployment_names_only_what_exists():
    """docs/FIRST_DEPLOYMENT.md: its commands parse, and what they name is in the templates and the project."""
    page = (REPOSITORY / "docs/FIRST_DEPLOYMENT.md").read_text().replace("\\|", "|")
    template, resources = document(), translated(Rollout="Canary")
    spans = re.findall(r"`([^`\n]+)`", page)
    tools = ("aws ", "curl ", "make ", "for ", "sleep ", "ops ", "invoke ", "redrive ", "cargo ")
    commands = [span for span in spans if span.startswith(tools)]
    assert len(commands) > 30
    for command in commands:
        done = subprocess.run(["bash", "-n"], input=command.replace("…", "x"), text=True, stderr=subprocess.PIPE, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}"
    text = "\n".join(spans)
    assert named(r"ops output (\w+)", text) <= template["Outputs"].keys()
    assert named(r"ops physical (\w+)", text) <= resources.keys()
    assert named(r"\bops ([a-z]+)", text) <= OPS.COMMANDS.keys()
    assert {(namespace, name) for namespace, name in re.findall(r"ops metric (\S+) ([\w.]+)", text)} <= metrics()
    for pairs in re.findall(r'PARAMETERS="([^"]*)"', text):
        assert {pair.split("=")[0] for pair in pairs.split()} <= template["Parameters"].keys()


def without_code(text):
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def named(pattern, text=COMMANDS):
    found = set(re.findall(pattern, text))
    assert found, pattern
    return found


# ---- What they do ----

class Shell:
    """A terminal with a deployment's name in it, where somebody has pasted the names that the runbook's commands use."""

    def __init__(self, dev, hour, directory):
        self.directory, self.dev, self.hour = directory, dev, hour
        # What `make build` leaves beside the packages.
        (directory / "redrive").symlink_to(REDRIVE)
        self.pasted = ""
        _, names = blocks(section(TOP))
        self.pasted = self.paste(f"{names}\ndeclare -p HOUR LANDING_BUCKET FAILED_BATCHES_BUCKET STREAM", HOUR=hour)

    def environment(self):
        cloud = self.dev.cloud
        return without_aws() | {
            "AWS_ENDPOINT_URL": cloud.address, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": REGION, "AWS_REGION": REGION, "AWS_CA_BUNDLE": str(cloud.certificate),
            "SSL_CERT_FILE": str(cloud.certificate), "TMPDIR": str(self.directory), "STACK": self.dev.stack,
            "PATH": f"{self.directory}:{REPOSITORY}/tools/scripts:{REPOSITORY}/.venv/bin:{os.environ['PATH']}",
        }

    def paste(self, commands, **variables):
        """Runs commands; what they print. The variables get these values where the text sets them."""
        for name, value in variables.items():
            setting = rf"^((?:\w+=\S+ )*){name}=\S+"
            commands, count = re.subn(setting, rf"\g<1>{name}={value}", commands, flags=re.MULTILINE)
            assert count == 1, f"{name} is set {count} times"
        # A command that fails ends it, also in front of a pipe.
        done = subprocess.run(["bash", "-euo", "pipefail"], input=f"{self.pasted}\n{commands}", cwd=REPOSITORY,
                              env=self.environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False,
                              timeout=60)
        said = f"{commands}\n{done.stdout}\n{done.stderr}"
        assert done.returncode == 0, said
        assert "error" not in done.stderr.lower() and "not found" not in done.stderr, said
        return done.stdout

    def seal(self):
        """seal-partition, as of the time at which the hour is due: no sooner, as MiniStack has no values of the stream."""
        at = datetime.strptime(self.hour, "dt=%Y-%m-%d/hour=%H") + timedelta(hours=1, minutes=40)
        self.dev.invoke("SealPartitionFunction", {"source": "aws.events", "time": f"{at:%Y-%m-%dT%H:%M:%SZ}"})


@pytest.fixture(scope="module")
def shell(tmp_path_factory):
    cloud = MiniStack(tmp_path_factory.mktemp("ministack"))
    try:
        dev = Deployment(cloud, "dev", "playhead-dev", "BatchingWindowSeconds=0")
        # The schedules run by the real clock, and their runs are not this test's.
        for rule in cloud.client("events").list_rules()["Rules"]:
            cloud.client("events").disable_rule(Name=rule["Name"])
        # All in one hour.
        left = 3600 - time.time() % 3600
        time.sleep(left if left < 120 else 0)
        for post in range(2):
            # Events and what is rejected between them.
            body = json.dumps([{"id": f"{post}-{n}", "session_id": f"s-{n}"} for n in range(4)] + [7])
            assert dev.post(body=body.encode(), headers=JSON).status == 200
        dev.wait_for_lines(lambda line: True, 8)
        dev.wait_for_lines(lambda line: True, 2, "rejected/")
        shell = Shell(dev, f"{datetime.now(UTC):dt=%Y-%m-%d/hour=%H}", tmp_path_factory.mktemp("shell"))
        shell.seal()
        yield shell
    finally:
        cloud.stop()


def test_every_look_works_in_aws(shell, monkeypatch, capsys):
    """Each look runs to its end, and complains about nothing."""
    for name, value in shell.environment().items():
        monkeypatch.setenv(name, value)
    boto3.setup_default_session()
    stack, said = OPS.stacks.deployed(shell.dev.stack), {}
    for alarm, of in LOOKS.items():
        of = shell.hour if "=" in of else of
        OPS.run(stack, OPS.arguments().parse_args(["look", alarm, *filter(None, [of])]))
        said[alarm], complaints = capsys.readouterr()
        assert complaints == "", alarm
    # They show what there is.
    hour = shell.hour
    assert f'"partition": "{hour}"' in said["late-objects"]
    assert '"State": "Enabled"' in said["landing-behind"] and '"ParallelizationFactor": 1' in said["overlapping-objects"]
    # Schedules, and the rule of alarms that are deleted.
    assert said["did-not-run"].count("DISABLED") == 7 and said["did-not-run"].count("jsonl.bz2") == 2
    assert "PROVISIONED" in said["stream-throttled"]
    assert "s3:PutObject" in said["dropped"] and "AES256" in said["overlapping-objects"]
    assert "broken/" not in said["broken-objects"].replace("$ show broken/", "").replace("$ files broken/", "")


def test_the_tools_work_beside_a_deployment(shell):
    """Names, logs, metrics and files of the deployment, by the commands that all else uses."""
    dev = shell.dev
    function = dev.resources["CheckRecencyFunction"]
    datum = {"MetricName": "MissingPartitions", "Value": 3, "Unit": "Count", "Timestamp": time.time() - 60,
             "Dimensions": [{"Name": "FunctionName", "Value": function}]}
    dev.cloud.client("cloudwatch").put_metric_data(Namespace="Playhead", MetricData=[datum])
    size = lambda: shell.paste("ops metric Playhead TotalFileSize Hours Maximum --hours 24")
    wait_for(lambda: size().endswith("Bytes\n"), 30, "the hour's size")
    names = [dev.outputs["EventsUrl"], dev.resources["LandingFunctionStream"]]
    assert shell.paste("ops output EventsUrl; ops physical LandingFunctionStream").split() == names
    assert shell.paste("ops metric Playhead MissingPartitions CheckRecency Maximum").split()[1:] == ["3", "Count"]
    line = shell.paste("""ops log CheckSize "size checked" """)
    assert f'partition="{shell.hour}"' in line and re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ ", line)
    keys = [line.split()[2] for line in shell.paste('ops files "events/$HOUR/"').splitlines()]
    assert keys == dev.keys(f"events/{shell.hour}/") and len(keys) >= 3
    shown = shell.paste('ops show "events/$HOUR/_SUCCESS"').split("\n", 1)[1]
    assert json.loads(shown)["totals"]["events"] == 8
    assert re.search(r"^ +2 not_an_object ", shell.paste('ops rejected "$HOUR"'), re.MULTILINE)
    # MiniStack takes patterns for something else than CloudWatch: that `errors` finds lines is tried on the one-machine stack.
    assert shell.paste("ops errors Landing") == ""


def landed(dev, hour):
    """What is in the landed files of an hour, by their keys."""
    keys = [key for kind in ("events", "rejected") for key in dev.keys(f"{kind}/{hour}/") if key.endswith(".jsonl.bz2")]
    return {key: bz2.decompress(dev.object(key)["Body"].read()) for key in keys}


def test_deleted_and_overwritten_files_are_restored(shell):
    """What somebody deleted or overwrote is there again, byte for byte, and check-object finds nothing wrong with it."""
    dev, hour = shell.dev, shell.hour
    before = landed(dev, hour)
    s3 = dev.cloud.client("s3")
    key, *_ = (key for key in before if key.startswith("events/"))
    for gone in [gone for gone in before if gone.startswith("rejected/")]:
        s3.delete_object(Bucket=dev.bucket, Key=gone)
    s3.put_object(Bucket=dev.bucket, Key=key, Body=b"nothing")
    assert wait_for(lambda: dev.keys("broken/"), 30, "a verdict") == [f"broken/{key}.json"]
    assert "metadata" in shell.paste("ops look broken-objects")
    gone = [gone for gone in before if gone.startswith("rejected/")]
    assert [line.split()[1] for line in shell.paste('ops deleted "rejected/$HOUR/"').splitlines()] == gone
    # What seal-partition writes is no landed file.
    s3.delete_object(Bucket=dev.bucket, Key=f"events/{hour}/_MANIFEST.json")
    said = [shell.paste(f"ops restore {kind}/$HOUR/").count("restored") for kind in ("events", "rejected")]
    assert said == [0, len(gone)]
    shell.paste(f"ops revert {key}")
    assert landed(dev, hour) == before
    # check-object finds nothing wrong with it, after the copy and by hand.
    shell.paste(f"ops check {key}")
    assert dev.keys("broken/") == []
    seal_anew(shell)
    assert f"events/{hour}/_MANIFEST.json" in dev.keys("events/")


def seal_anew(shell):
    """The command that puts the hour's marker, and the next run of seal-partition."""
    shell.paste('ops reseal "$HOUR"')
    assert shell.dev.keys("late/") == [f"late/{shell.hour}"]
    shell.seal()
    assert shell.dev.keys("late/") == []


def replay(shell):
    """The command that lands an hour again from the stream."""
    _, command = blocks(section("Replay an hour"))
    return shell.paste(command)


def test_files_that_are_gone_for_good_are_landed_again_from_the_stream(shell):
    """With all versions of an hour's files deleted, the files that are made of the stream have the same names, lines and
    metadata, and no other file comes."""
    dev, hour = shell.dev, shell.hour
    before = landed(dev, hour)
    metadata = {key: counted(dev.object(key)["Metadata"]) for key in before}
    s3 = dev.cloud.client("s3")
    # The format of events is read from what landed around the hour.
    neighbour = next(iter(before)).replace(hour, f"{datetime.now(UTC) + timedelta(hours=1):dt=%Y-%m-%d/hour=%H}")
    s3.copy_object(Bucket=dev.bucket, Key=neighbour, CopySource=f"{dev.bucket}/{next(iter(before))}")
    for key in before:
        for version in s3.list_object_versions(Bucket=dev.bucket, Prefix=key)["Versions"]:
            s3.delete_object(Bucket=dev.bucket, Key=key, VersionId=version["VersionId"])
    assert landed(dev, hour) == {}
    # check-object sees that it is in the wrong hour.
    verdict = f"broken/{neighbour}.json"
    wait_for(lambda: verdict in dev.keys("broken/"), 30, "a verdict on it")
    replay(shell)
    for key in (neighbour, verdict):
        s3.delete_object(Bucket=dev.bucket, Key=key)
    assert landed(dev, hour) == before
    assert {key: counted(dev.object(key)["Metadata"]) for key in before} == metadata


def counted(metadata):
    """What an object's metadata says, but for who wrote it."""
    return {name: value for name, value in metadata.items() if not name.startswith("attempt-")}


def test_batches_that_were_dropped_are_landed_from_the_stream(shell):
    """What nobody kept is read from the stream, and nothing else lands."""
    dev = shell.dev
    before = landed(dev, shell.hour)
    key = max(key for key in before if key.startswith("rejected/"))
    dev.cloud.client("s3").delete_object(Bucket=dev.bucket, Key=key)
    assert f"{key}: " in replay(shell)
    assert landed(dev, shell.hour) == before


def test_an_hour_is_sealed_and_checked_again(shell):
    """The marker has the hour sealed again, with the same totals; check-object and check-size look at what is named."""
    dev, success = shell.dev, f"events/{shell.hour}/_SUCCESS"
    first = dev.object(success)["LastModified"], dev.object(success)["Body"].read()
    seal_anew(shell)
    again = dev.object(success)["LastModified"], dev.object(success)["Body"].read()
    assert again[1] == first[1] and again[0] >= first[0]
    prefixes = [f"{kind}/{shell.hour}/" for kind in ("events", "rejected")]
    looked_at = shell.paste("; ".join(f"ops check {prefix}" for prefix in [*prefixes, success]))
    assert looked_at.splitlines() == [f"checked {key}" for key in [*landed(dev, shell.hour), success]]
    assert dev.keys("broken/") == []


def test_a_disabled_mapping_and_schedules_are_enabled(shell):
    """A mapping and rules that somebody disabled run again."""
    dev = shell.dev
    uuid = dev.resources["LandingFunctionStream"]
    dev.cloud.client("lambda").update_event_source_mapping(UUID=uuid, Enabled=False)
    shell.paste("ops enable")
    assert dev.cloud.client("lambda").get_event_source_mapping(UUID=uuid)["State"] in ("Enabled", "Enabling")
    assert {rule["State"] for rule in dev.cloud.client("events").list_rules()["Rules"]} == {"ENABLED"}
