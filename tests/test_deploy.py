"""The template in an AWS: the real `sam build` and `sam deploy`, to MiniStack, over TLS and with what roles allow enforced.

Where MiniStack is not AWS, and how that is checked instead, is in docs/DEPLOYING.md.
"""

import json
import os
import re
import struct
import subprocess
import sys
import tarfile
import time
import urllib.request
from collections import Counter
from contextlib import contextmanager
from datetime import datetime, timedelta

import pytest
from botocore.exceptions import ClientError

from support import landed
from support.cloud import MiniStack
from support.deployment import ARCHITECTURE, LANDING_SECONDS, PACKAGES, Deployment, binaries, script
from support.frames import is_frame, text_of
from support.sessions import event_texts, replay, requests
from support.stack import REPOSITORY, wait_for, without_aws
from support.traffic import JSON, Traffic

# Landing need not wait for a batch to fill.
QUICK = "BatchingWindowSeconds=0"
# All but what is deployed only if a parameter asks for it.
FUNCTIONS = {function: binary for function, binary in binaries().items()
             if function not in ("LoadSearchFunction", "LoadWarehouseFunction", "SendDigestFunction")}
# ingest gives up a call to S3 after 0.6 s, and one to Kinesis after 0.7: who was answered sooner met none that failed.
CALL_SECONDS = 0.6
OWN_DOMAIN = "DomainName=events.example.com CertificateArn=arn:aws:acm:us-east-1:000000000000:certificate/of-events"


@pytest.fixture(scope="module")
def cloud(tmp_path_factory):
    cloud = MiniStack(tmp_path_factory.mktemp("ministack"))
    yield cloud
    cloud.stop()


class History:
    """A repository of three commits, oldest first, beside this one."""

    def __init__(self, directory):
        self.variables = {"GIT_DIR": str(directory / "history.git"), "GIT_WORK_TREE": str(directory)}
        self.git("init", "--quiet")
        for number in range(3):
            self.git("-c", "user.name=test", "-c", "user.email=test@example.com", "commit", "--quiet", "--allow-empty",
                     "--message", str(number))
        self.commits = self.git("rev-list", "--reverse", "HEAD").split()

    def git(self, *arguments):
        return subprocess.run(["git", *arguments], env=os.environ | self.variables, check=True, text=True,
                              stdout=subprocess.PIPE).stdout

    def at(self, number):
        """What has git find a commit as its HEAD."""
        self.git("update-ref", "HEAD", self.commits[number])
        return self.variables


@pytest.fixture(scope="module")
def history(tmp_path_factory):
    return History(tmp_path_factory.mktemp("history"))


@pytest.fixture(scope="module")
def dev(cloud, history):
    dev = Deployment(cloud, "dev", "playhead-dev", QUICK, variables=history.at(1))
    # What lands until it is sealed is of one hour.
    left = 3600 - time.time() % 3600
    time.sleep(left if left < 90 else 0)
    return dev


def sections(elf):
    """The names of an ELF64 file's sections."""
    (table,), (size, count, names) = struct.unpack_from("<Q", elf, 0x28), struct.unpack_from("<HHH", elf, 0x3A)
    headers = [struct.unpack_from("<II16xQ", elf, table + size * number) for number in range(count)]
    texts = headers[names][2]
    return [elf[texts + name:elf.index(b"\0", texts + name)].decode() for name, _, _ in headers]


def test_each_package_is_small_and_holds_its_function_alone():
    """The zip of each function is under 6 MB, and holds one file, without debug information and symbols."""
    done = subprocess.run([sys.executable, "tools/scripts/packages", PACKAGES], cwd=REPOSITORY, check=False, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    print(done.stdout)
    assert done.returncode == 0, done.stdout
    sizes = {line.split()[0]: int(line.split()[1].replace(",", "")) for line in done.stdout.splitlines()[1:]}
    assert sizes.keys() == binaries().keys()
    assert max(sizes.values()) < 6_000_000
    for function in binaries():
        files = [path for path in (PACKAGES / function).rglob("*") if path.is_file()]
        assert [path.name for path in files] == ["bootstrap"]
        found = sections(files[0].read_bytes())
        assert ".text" in found and not [name for name in found if name.startswith((".debug", ".symtab"))], found


def test_redrive_is_beside_the_packages_and_runs():
    """Whoever is on call need not build it."""
    subprocess.run([PACKAGES / "redrive", "--version"], check=True)


def once(lines):
    """Without the spilled copies of what came by the stream, too: MiniStack at times takes longer than ingest waits for a call."""
    streamed = {line.json["id"] for line in lines if not line.is_spilled}
    return [line for line in lines if not line.is_spilled or line.json["id"] not in streamed]


def test_recorded_sessions_land_as_they_were_sent(dev):
    """What real players sent to the deployed Function URL is in the deployed bucket, unchanged and in order."""
    for name in ("mux-embed-session.jsonl", "dashjs-cmcd-v2-session.jsonl"):
        session = requests(name)
        before = len(once(dev.lines()))
        replay(dev, session)
        sent = sum(len(event_texts(one)) for one in session)
        wait_for(lambda: len(once(dev.lines())) >= before + sent, LANDING_SECONDS, dev.cloud.tail)
        assert len(once(dev.lines())) == before + sent
    mux = [text for one in requests("mux-embed-session.jsonl") for text in event_texts(one)]
    landed_mux = [line for line in once(dev.lines()) if line.json["event"].get("xid") == json.loads(mux[0])["xid"]]
    assert [line.event_text for line in landed_mux] == mux
    for key in dev.keys("events/"):
        if landed.KEY.fullmatch(key):
            found = dev.object(key)
            landed.verify_content(found["Metadata"], found["Body"].read())


def test_rejected_input_lands_in_the_deployed_bucket(dev):
    """Bad input posted to the deployed URL is answered with what to change, and lands under rejected/."""
    answer = dev.post(body=b"not json", headers=JSON)
    assert answer.status == 400 and answer.json["error"]["code"] == "invalid_json", answer.body
    line, = dev.wait_for_lines(lambda line: True, 1, "rejected/")
    assert landed.rejected([line])[0].body == b"not json"


@pytest.fixture(scope="module")
def sealed(dev):
    """An hour in which something landed, as its prefix, and the call of the schedule that sealed it: as soon as it is over."""
    assert dev.post(body=b'[{"session_id":"checked"}]', headers=JSON).status == 200
    dev.wait_for_lines(lambda line: line.json["event"].get("session_id") == "checked", 1)
    newest = [match for match in map(landed.KEY.fullmatch, dev.keys("events/")) if match][-1]
    hour = datetime.fromisoformat(f"{newest['date']}T{newest['hour']}:00:00+00:00")
    # No sooner than it is due: MiniStack has no values of the stream that would say what landing has read.
    # Other tests may have begun in the hour before.
    for started in (hour - timedelta(hours=1), hour):
        call = {"source": "aws.events", "time": (started + timedelta(hours=1, minutes=40)).strftime("%Y-%m-%dT%H:%M:%SZ")}
        dev.invoke("SealPartitionFunction", call)
    return hour.strftime("events/dt=%Y-%m-%d/hour=%H/"), call


def test_the_deployed_checks_count_what_landed(dev, sealed):
    """The hour that is over by the schedule's time is sealed, compared and balanced by the deployed checks, each with no
    more than its role allows."""
    hour, call = sealed
    manifest = json.loads(dev.object(f"{hour}_MANIFEST.json")["Body"].read())
    prefixes = (hour, hour.replace("events", "rejected", 1))
    keys = [key for prefix in prefixes for key in dev.keys(prefix) if landed.KEY.fullmatch(key)]
    assert sorted(entry["key"] for entry in manifest["objects"]) == sorted(keys)
    assert manifest["totals"]["events"] == len(dev.lines(hour))
    # check-size, by the _SUCCESS that it wrote.
    head = dev.cloud.client("s3").head_object
    size = sum(head(Bucket=dev.bucket, Key=key)["ContentLength"] for key in keys if key.startswith("events/"))
    dimensions = {"BucketName": dev.bucket, "Key": "events/dt=*/hour=*/", "FunctionName": dev.resources["CheckSizeFunction"]}
    measured = wait_for(lambda: dev.metric("TotalFileSize", "Maximum", **dimensions), 60, lambda: dev.log("CheckSizeFunction"))
    assert measured == [size]
    dev.invoke("CheckRecencyFunction", call)
    assert dev.metric("DataFreshness", "Minimum", FunctionName=dev.resources["CheckRecencyFunction"])
    dev.invoke("CheckCompletenessFunction", call)
    dev.invoke("CheckDeletionsFunction", call)
    dev.invoke("CompactPartitionFunction", call)
    compacted = json.loads(dev.object(f"{hour.replace('events', 'columnar', 1)}_SUCCESS")["Body"].read())
    assert compacted["totals"]["lines"] == manifest["totals"]["events"] and compacted["totals"]["rows"] > 0
    dev.invoke("NotifyFunction", call)
    # check-object looked at each, and had nothing to say.
    looked = lambda: dev.log("CheckObjectFunction").count("START RequestId")
    wait_for(lambda: looked() >= len(keys), 60, lambda: f"{len(keys)} objects to be looked at; {looked()} were")
    assert dev.keys("broken/") == []
    logs = {function: dev.log(function) for function in FUNCTIONS}
    assert not [log for log in logs.values() if "ERROR" in log or "AccessDenied" in log], logs
    assert all("START" in log for log in logs.values()), logs


@pytest.mark.parametrize("function", sorted(FUNCTIONS.values()))
@pytest.mark.usefixtures("sealed")
def test_each_function_can_be_invoked_by_hand(dev, function):
    """`tools/scripts/invoke` finds the deployed function, and its sample event does it no harm."""
    done = dev.run_by_hand("tools/scripts/invoke", function, "--stack", dev.stack)
    assert done.returncode == 0, done.stdout


def test_the_page_of_a_deployment_needs_the_rights_that_its_document_names_and_no_more(cloud, dev):
    """`make status`, but for the build, by somebody who may do what docs/STATUS.md says and nothing else. MiniStack refuses what
    is not allowed of S3 and CloudFormation; of CloudWatch it does not look."""
    assert dev.post(body=b'[{"id":"status/deployed","type":"play"}]', headers=JSON).status == 200
    with page(dev, user_who_may(cloud, rights_of_the_page(dev))) as ask:
        held = ask("wait?for=landed&q=status/deployed&timeout_seconds=60")["holds"]
        assert held["newest"]["id"] == "status/deployed"
        overview = wait_for(lambda: (found := ask("overview"))["metrics"] and found, 30, "metrics")
        assert overview["problems"] == {} and overview["alarms"]["state"] == "known", overview
        assert ask("hours?hours=2")["hours"] and ask("checks")["checks"]


def rights_of_the_page(dev):
    """IAM's statements for the actions that docs/STATUS.md names."""
    sentence, = re.findall(r"^The caller needs, and nothing else: (.*?)\n\n", (REPOSITORY / "docs/STATUS.md").read_text(), re.M | re.S)
    of_bucket, of_account = [], []
    for action in re.findall(r"`(\w+:\w+)`", sentence):
        (of_bucket if action.startswith("s3:") else of_account).append(action)
    bucket = f"arn:aws:s3:::{dev.bucket}"
    return [{"Effect": "Allow", "Action": of_bucket, "Resource": [bucket, f"{bucket}/*"]},
            {"Effect": "Allow", "Action": of_account, "Resource": "*"}]


def user_who_may(cloud, statements):
    """The variables that make somebody a new user with these rights."""
    iam = cloud.client("iam")
    iam.create_user(UserName="reader")
    iam.put_user_policy(UserName="reader", PolicyName="reader",
                        PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": statements}))
    key = iam.create_access_key(UserName="reader")["AccessKey"]
    return {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}


@contextmanager
def page(deployment, caller):
    """The status page of a deployment, as a caller; asks its API."""
    variables = without_aws() | Deployment.variables(deployment.cloud) | caller
    process = subprocess.Popen(
        [sys.executable, "tools/scripts/status", "--stack", deployment.stack], cwd=REPOSITORY, text=True, stdout=subprocess.PIPE,
        env=variables | {"SSL_CERT_FILE": str(deployment.cloud.certificate), "PORT": "0"})

    def ask(path):
        with urllib.request.urlopen(f"{address}api/{path}", timeout=90) as answer:
            return json.load(answer)

    try:
        address = process.stdout.readline().removeprefix("page: ").strip()
        assert address.startswith("http://127.0.0.1:"), address
        yield ask
    finally:
        process.terminate()
        process.wait(10)


def test_an_update_under_traffic_loses_nothing(dev, history):
    """While a newer commit is deployed players post on, each is answered, and each event that was accepted lands once."""
    version = dev.live_version("LandingFunction")
    with Traffic(dev, viewers=4, pause=0.05) as traffic:
        wait_for(lambda: len(traffic.answers) > 20, 30, "traffic")
        dev.deploy(f"{QUICK} LandingTimeoutSeconds=120 ClientIp=truncated", variables=history.at(2) | {"FORWARD_ONLY": "1"})
        after = len(traffic.answers)
        wait_for(lambda: len(traffic.answers) > after + 20, 30, "traffic after the update")
    lines = assert_nothing_is_lost(dev, traffic)
    # It was an update: of the functions that serve, and of what lands.
    assert dev.outputs["Commit"] == history.commits[2]
    assert dev.live_version("LandingFunction") != version
    configuration = dev.cloud.client("lambda").get_function_configuration(
        FunctionName=dev.resources["LandingFunction"], Qualifier="live")
    assert configuration["Timeout"] == 120
    assert [line for line in lines if "ip" in line.json["client"]]


def assert_nothing_is_lost(deployment, traffic):
    """What was answered 200 has landed, and each line that is on the stream once. While MiniStack installs functions it stands
    still, at times for longer than ingest waits for a call: then events are spilled, put twice or answered 503; never otherwise."""
    assert set(traffic.statuses) <= {200, 503}, traffic.statuses
    quick = [answer for answer in traffic.answers if answer.seconds < CALL_SECONDS]
    assert len(quick) > 40 and {answer.status for answer in quick} == {200}, traffic.answers
    accepted = set(traffic.accepted)
    found = lambda: [line for line in deployment.lines() if line.json["id"] in accepted]
    lines = wait_for(lambda: (lines := found()) and {line.json["id"] for line in lines} == accepted and lines, LANDING_SECONDS,
                     f"{len(accepted)} events landed")
    from_stream = lambda: Counter(line.text for line in found() if not line.is_spilled)
    on_stream = lambda: Counter(text for text in texts_on_stream(deployment) if json.loads(text).get("id") in accepted)
    wait_for(lambda: from_stream() == on_stream(), LANDING_SECONDS, lambda: f"landed twice: {from_stream() - on_stream()}")
    times = Counter(json.loads(text)["id"] for text in on_stream().elements())
    assert not [event for answer in quick for event in answer.ids if times[event] > 1], times
    return lines


def records(deployment):
    """The data of all records on the stream."""
    kinesis, stream = deployment.cloud.client("kinesis"), deployment.outputs["StreamName"]
    for shard in kinesis.list_shards(StreamName=stream)["Shards"]:
        position = kinesis.get_shard_iterator(StreamName=stream, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON")
        answer = kinesis.get_records(ShardIterator=position["ShardIterator"])
        while answer["Records"]:
            yield from (record["Data"] for record in answer["Records"])
            answer = kinesis.get_records(ShardIterator=answer["NextShardIterator"])


def texts_on_stream(deployment):
    return [text for data in records(deployment) for text in text_of(data).decode().removesuffix("\n").split("\n")]


def compressed_records(deployment):
    return sum(is_frame(data) for data in records(deployment))


@pytest.fixture
def older(cloud, monkeypatch):
    """A stack of a version that had no compressed records, deployed as that version was: its template lacks the parameter."""
    variables = Deployment.variables(cloud) | {"YES": "1", "STACK": "playhead-older", "PARAMETERS": QUICK}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    module = script("deploy")
    document = module.yaml_parse(module.BUILT.read_text())
    del document["Parameters"]["RecordCompression"]
    ingest = document["Resources"]["IngestFunction"]["Properties"]
    ingest["VersionDescription"]["Fn::Sub"] = ingest["VersionDescription"]["Fn::Sub"].replace(" ${RecordCompression}", "")
    # That version compressed nothing, and was another one.
    ingest["Environment"]["Variables"]["RECORD_COMPRESSION"] = "off"
    ingest["Timeout"] += 1
    template = module.BUILT.with_name("older.yaml")
    template.write_text(json.dumps(document))
    monkeypatch.setattr(module, "BUILT", template)
    monkeypatch.setattr(module, "let_landing_read_first", lambda stack, found, values: values)
    module.main("dev")
    template.unlink()
    return Deployment.existing(cloud, "dev", "playhead-older")


def test_a_stack_of_an_older_version_compresses_records_one_deployment_after_landing_reads_them(older):
    """Landing reads compressed records before ingest writes them, so under traffic none lands as rejected."""
    configured = lambda: {one["ParameterKey"]: one["ParameterValue"] for one in older.cloud.client("cloudformation").describe_stacks(
        StackName=older.stack)["Stacks"][0]["Parameters"]}
    assert "RecordCompression" not in configured()
    parameters = f"{QUICK} RecordCompression=zstd"
    with Traffic(older, viewers=4, pause=0.05) as traffic:
        for compression, says in (("off", "the next one turns zstd on"), ("zstd", "")):
            before = len(traffic.answers)
            wait_for(lambda: len(traffic.answers) > before + 20, 30, "traffic")
            older.deploy(parameters)
            assert configured()["RecordCompression"] == compression
            assert says in older.said and ("the next one turns" in older.said) == bool(says), older.said
            if compression == "off":
                wait_for(lambda: len(traffic.answers) > before + 40, 30, "traffic")
                assert not compressed_records(older)
        after = len(traffic.answers)
        wait_for(lambda: len(traffic.answers) > after + 20, 30, "traffic after the updates")
    assert compressed_records(older)
    assert_nothing_is_lost(older, traffic)
    assert older.lines("rejected/") == []


def test_a_new_stack_has_the_compression_that_the_template_says(dev, monkeypatch):
    """No landing of an older version runs there."""
    monkeypatch.setenv("ARCHITECTURE", ARCHITECTURE)
    deployed, = dev.cloud.client("cloudformation").describe_stacks(StackName=dev.stack)["Stacks"]
    values = {one["ParameterKey"]: one["ParameterValue"] for one in deployed["Parameters"]}
    assert values["RecordCompression"] == script("deploy").parameters([])["RecordCompression"]


def test_an_older_commit_does_not_replace_a_newer_one(dev, history):
    """With FORWARD_ONLY=1, as in CI, a commit that comes before the deployed one is refused, and nothing changes."""
    with pytest.raises(AssertionError, match=f"deployed from {dev.outputs['Commit']}"):
        dev.deploy(QUICK, variables=history.at(0) | {"FORWARD_ONLY": "1"})
    assert dev.cloud.outputs(dev.stack) == dev.outputs


def test_a_stack_of_one_environment_is_not_deployed_as_another(dev):
    """With STACK left over in a shell, staging's sizes would replace those of the stack that it names, without a question."""
    done = dev.run_by_hand("tools/scripts/deploy", "staging", variables={"STACK": dev.stack, "ARCHITECTURE": ARCHITECTURE})
    assert done.returncode == 1 and f"{dev.stack} is a dev stack" in done.stdout, done.stdout
    assert dev.cloud.outputs(dev.stack) == dev.outputs


@pytest.mark.parametrize(("deployed", "says"), [
    ("2", "does not descend from: a newer commit"), ("0" * 40, "git can't find here"), ("0", None), ("1", None)])
def test_a_refused_commit_prints_why(history, monkeypatch, deployed, says):
    """A commit that HEAD does not descend from is another case than one that this clone does not have; both have a way out."""
    for name, value in history.at(1).items():
        monkeypatch.setenv(name, value)
    module = script("deploy")
    commit = history.commits[int(deployed)] if len(deployed) == 1 else deployed
    found = {"Outputs": [{"OutputKey": "Commit", "OutputValue": commit}]}
    if not says:
        module.refuse_to_go_back("playhead-dev", found)
        return
    with pytest.raises(SystemExit) as ended:
        module.refuse_to_go_back("playhead-dev", found)
    assert says in ended.value.code and "once by hand without FORWARD_ONLY" in ended.value.code


def test_the_buckets_take_nothing_but_tls(dev):
    """Both buckets have the policy that refuses what could be read on its way. Here all requests are over TLS."""
    for bucket in (dev.bucket, dev.outputs["FailedBatchesBucketName"]):
        policy = json.loads(dev.cloud.client("s3").get_bucket_policy(Bucket=bucket)["Policy"])
        statement, = policy["Statement"]
        assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
        assert (statement["Effect"], statement["Action"], statement["Principal"]) == ("Deny", "s3:*", "*")
        assert statement["Resource"] == [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]


def test_athena_finds_the_files_where_the_table_says(dev):
    """The location that partition projection makes of a date and an hour is where such files are."""
    table, database = dev.outputs["TableName"].split(".")[::-1]
    found = dev.cloud.client("glue").get_table(DatabaseName=database, Name=table)["Table"]
    location = found["Parameters"]["storage.location.template"]
    for key in filter(None, map(landed.KEY.fullmatch, dev.keys("events/"))):
        projected = location.replace("${dt}", key["date"]).replace("${hour}", key["hour"])
        assert f"s3://{dev.bucket}/{key.string}".startswith(projected)
    columns = {column["Name"] for column in found["StorageDescriptor"]["Columns"]}
    # With write keys lines have it.
    assert columns == set(dev.lines()[0].json) | {"app"}


def unversioned(logical_id):
    """A version's logical id ends with a hash of what it is a version of."""
    return re.sub(r"Version[0-9a-f]{10}$", "Version", logical_id)


@pytest.fixture(scope="module")
def staging(cloud, dev):
    return Deployment(cloud, "staging", "playhead-staging", f"{QUICK} EventFormat=raw")


def test_a_second_environment_shares_nothing_with_the_first(cloud, dev, staging):
    """No resource of one is one of the other's, and what is posted to one lands there alone."""
    assert {unversioned(name) for name in dev.resources} == {unversioned(name) for name in staging.resources}
    # The tables have one name, each in its own database.
    assert set(dev.resources.values()) & set(staging.resources.values()) == {"events", "events_columnar"}
    alarms = [set(cloud.resources(one.resources["Alarms"].split("/")[1] if "/" in one.resources["Alarms"]
                                  else one.resources["Alarms"]).values()) for one in (dev, staging)]
    assert len(alarms[0]) == len(alarms[1]) >= 46 and not alarms[0] & alarms[1]
    assert dev.outputs["TableName"] != staging.outputs["TableName"]
    before = len(dev.lines())
    assert staging.post(body=b'[{"session_id":"of staging"}]', headers=JSON).status == 200
    lines = staging.wait_for_lines(lambda line: True, 1)
    assert [line.text for line in lines] == ['{"session_id":"of staging"}']
    assert len(dev.lines()) == before


def test_an_environment_is_removed_and_leaves_what_landed(cloud, dev, staging):
    """`make destroy` asks, lands what was taken, removes the stack, keeps the buckets unless it is told otherwise, and touches
    no other. MiniStack has no metrics of the stream, so nothing proves that it is empty: it is kept."""
    with pytest.raises(AssertionError, match="is left as it is"):
        staging.run("destroy", {}, answer="no\n")
    before = {line.text for line in staging.lines()}
    for number in range(50):
        assert staging.post(body=b'[{"session_id":"still there","n":%d}]' % number, headers=JSON).status == 200
    said = staging.run("destroy", {}, answer="yes\n")
    assert f"kept: s3://{staging.bucket}" in said
    stream = staging.outputs["StreamName"]
    assert f"aws kinesis delete-stream --stream-name {stream}\n" in said
    assert stream in cloud.client("kinesis").list_streams()["StreamNames"]
    with pytest.raises(ClientError, match="does not exist"):
        cloud.outputs("playhead-staging")
    assert len({line.text for line in staging.lines()} - before) == 50 and before <= {line.text for line in staging.lines()}
    assert [name for name in cloud.functions() if "playhead-staging" in name] == []
    # The first goes on.
    before = len(dev.lines())
    assert dev.post(body=b'[{"session_id":"on"}]', headers=JSON).status == 200
    dev.wait_for_lines(lambda line: True, before + 1)


def test_a_stack_that_is_deleted_without_being_drained_leaves_its_stream(cloud):
    """What was accepted is on the stream alone until it lands: with landing's mapping disabled `make destroy` does not begin,
    and a stack that goes without it leaves the stream behind."""
    one = Deployment(cloud, "dev", "playhead-undrained", QUICK)
    mapping, functions = one.resources["LandingFunctionStream"], cloud.client("lambda")
    functions.update_event_source_mapping(UUID=mapping, Enabled=False)
    wait_for(lambda: functions.get_event_source_mapping(UUID=mapping)["State"] == "Disabled", 30, "the mapping to be disabled")
    with pytest.raises(AssertionError, match="event source mapping is Disabled"):
        one.run("destroy", {"YES": "1"})
    cloudformation = cloud.client("cloudformation")
    cloudformation.delete_stack(StackName="playhead-undrained")
    cloudformation.get_waiter("stack_delete_complete").wait(StackName="playhead-undrained", WaiterConfig={"Delay": 1})
    assert one.outputs["StreamName"] in cloud.client("kinesis").list_streams()["StreamNames"]


def test_apps_that_are_named_get_an_alarm_each_and_need_write_keys(cloud):
    keys = "WriteKeys=web=web-key-0123456789,tv-app=tv-app-key-0123456789"
    Deployment(cloud, "dev", "playhead-apps", f"{QUICK} {keys} AlarmedApps=web,tv-app")
    named = cloud.client("cloudwatch").describe_alarms(AlarmNamePrefix="playhead-apps-app-")["MetricAlarms"]
    assert {alarm["AlarmName"] for alarm in named} == {f"playhead-apps-app-{app}-rejected-share" for app in ("web", "tv-app")}
    with pytest.raises(AssertionError, match="AlarmedApps has web, of which WriteKeys has no key"):
        Deployment(cloud, "dev", "playhead-no-apps", f"{QUICK} AlarmedApps=web")


@pytest.fixture(scope="module")
def other(cloud):
    return Deployment(cloud, "dev", "playhead-other", f"{QUICK} FrontDoor=HttpApi StreamMode=ON_DEMAND {OWN_DOMAIN}")


def test_the_other_front_door_leads_to_the_same_place(other):
    """Through an HTTP API and an on-demand stream events land as through a Function URL and a provisioned one."""
    assert ".execute-api." in other.host
    session = requests("mux-embed-session.jsonl")
    replay(other, session)
    sent = [text for one in session for text in event_texts(one)]
    events = lambda: [line.event_text for line in once(other.lines())]
    wait_for(lambda: len(events()) >= len(sent), LANDING_SECONDS, other.cloud.tail)
    assert events() == sent
    assert other.post(path="/nowhere", body=b"{}", headers=JSON).json["error"]["code"] == "unknown_path"
    stream = other.cloud.client("kinesis").describe_stream_summary(StreamName=other.outputs["StreamName"])
    assert stream["StreamDescriptionSummary"]["StreamModeDetails"] == {"StreamMode": "ON_DEMAND"}


def test_an_own_domain_leads_to_the_http_api(cloud, other):
    """With DomainName and CertificateArn the API is mapped to the name, and the outputs say where its DNS record must lead;
    half of it is refused with a sentence."""
    assert other.outputs["EventsUrl"] == "https://events.example.com/events"
    gateway = cloud.client("apigatewayv2")
    mapping, = gateway.get_api_mappings(DomainName="events.example.com")["Items"]
    assert mapping["ApiId"] == other.resources["HttpApi"]
    assert other.outputs["DomainTarget"]
    with pytest.raises(AssertionError, match="DomainName needs FrontDoor=HttpApi"):
        Deployment(cloud, "dev", "playhead-half", f"{QUICK} DomainName=events.example.com")


@pytest.fixture(scope="module")
def network(cloud):
    """What the server needs besides its image, which nobody fetches here."""
    ec2 = cloud.client("ec2")
    vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    subnets = [one["SubnetId"] for one in ec2.describe_subnets()["Subnets"]][:2]
    return f"{OWN_DOMAIN} ServerVpc={vpc} ServerSubnets={','.join(subnets)} ServerImage=sha256:{'0' * 64}"


@pytest.fixture(scope="module")
def moving(cloud, network):
    """On its way from a Function URL to the server: it has both."""
    return Deployment(cloud, "dev", "playhead-moving", f"{QUICK} SecondFrontDoor=Server {network}")


def service_of(deployment):
    """The server's service as ECS has it, and the nested stack's resources."""
    resources = deployment.cloud.resources(deployment.resources["Server"])
    found, = deployment.cloud.client("ecs").describe_services(
        cluster=resources["Cluster"], services=[resources["Service"]])["services"]
    return found, resources


def test_the_server_comes_beside_a_front_door_and_stays_when_that_goes(cloud, moving, network):
    """The Function URL takes events while both are there, and is gone once the server alone is asked for; the server is not
    replaced."""
    assert moving.post(body=b'[{"session_id":"moving"}]', headers=JSON).status == 200
    before, _ = service_of(moving)
    assert moving.outputs["EventsUrl"].endswith("/events") and "example.com" not in moving.outputs["EventsUrl"]
    assert ".elb." in moving.outputs["ServerTarget"]
    # To MiniStack, what changes conditions alone is no change; and it can't update a nested stack whose resources have attributes.
    moving.deploy(f"{QUICK} FrontDoor=Server MinimumHourBytes=1 {network}")
    after, _ = service_of(moving)
    assert after["serviceArn"] == before["serviceArn"]
    assert moving.outputs["EventsUrl"] == "https://events.example.com/events"
    assert "IngestFunctionUrl" not in moving.resources and "IngestFunction" in moving.resources
    moving.wait_for_lines(lambda line: line.json["event"].get("session_id") == "moving", 1)


def test_the_deployed_task_may_do_what_ingest_does_and_is_reached_by_the_load_balancer_alone(cloud, moving):
    service, resources = service_of(moving)
    task = cloud.client("ecs").describe_task_definition(taskDefinition=service["taskDefinition"])["taskDefinition"]
    one, = task["containerDefinitions"]
    variables = {pair["name"]: pair["value"] for pair in one["environment"]}
    assert (variables["STREAM_NAME"], variables["BUCKET_NAME"]) == (moving.outputs["StreamName"], moving.bucket)
    assert one["readonlyRootFilesystem"] is True and one["user"] == "65532:65532" and one["image"].endswith(f"/playhead@sha256:{'0' * 64}")
    group, = cloud.client("ec2").describe_security_groups(
        GroupIds=service["networkConfiguration"]["awsvpcConfiguration"]["securityGroups"])["SecurityGroups"]
    rule, = group["IpPermissions"]
    assert not rule["IpRanges"] and [pair["GroupId"] for pair in rule["UserIdGroupPairs"]] == [resources["LoadBalancerSecurityGroup"]]
    assert service["loadBalancers"][0]["targetGroupArn"] == resources["Tasks"]


def test_ops_shows_the_server(moving):
    done = moving.run_by_hand("tools/scripts/ops", "server", "--stack", moving.stack)
    assert done.returncode == 0 and " tasks run, " in done.stdout, done.stdout


def test_half_a_server_is_refused(cloud):
    with pytest.raises(AssertionError, match="The server needs ServerVpc and ServerSubnets"):
        Deployment(cloud, "dev", "playhead-half-server", f"{QUICK} FrontDoor=Server {OWN_DOMAIN} ServerImage=sha256:{'0' * 64}")


def test_a_server_is_removed_with_its_stack(cloud, moving):
    _, resources = service_of(moving)
    said = moving.run("destroy", {"DATA": "delete", "STREAM": "delete", "YES": "1"})
    assert "the server stops" in said
    with pytest.raises(ClientError, match="Cluster not found"):
        cloud.client("ecs").describe_services(cluster=resources["Cluster"], services=[resources["Service"]])


def test_an_image_that_the_repository_has_is_not_pushed_again(cloud, tmp_path, monkeypatch):
    for name, value in Deployment.variables(cloud).items():
        monkeypatch.setenv(name, value)
    registry, ecr = script("registry.py"), cloud.client("ecr")
    manifest = json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": []})
    with pytest.raises(SystemExit, match="aws ecr create-repository --repository-name images"):
        registry.push(archive_of(tmp_path, "sha256:0"), "images", "tag")
    ecr.create_repository(repositoryName="images")
    digest = ecr.put_image(repositoryName="images", imageManifest=manifest, imageTag="tag")["image"]["imageId"]["imageDigest"]
    pushed = []
    monkeypatch.setattr(registry, "copy", lambda ecr, archive, destination: pushed.append(destination))
    assert registry.push(archive_of(tmp_path, digest), "images", "other") == digest and pushed == []
    assert registry.push(archive_of(tmp_path, f"sha256:{'1' * 64}"), "images", "other") == f"sha256:{'1' * 64}"
    assert len(pushed) == 1 and pushed[0].endswith(f"/images:other-{'1' * 12}")


def archive_of(directory, digest):
    """The beginning of an OCI archive."""
    index, archive = directory / "index.json", directory / "image.tar"
    index.write_text(json.dumps({"manifests": [{"digest": digest}]}))
    with tarfile.open(archive, "w") as file:
        file.add(index, "index.json")
    return archive


def test_a_broken_object_is_found(other):
    """What is put into the deployed bucket and is not what it should be has a verdict."""
    key = "events/dt=2026-01-01/hour=00/shardId-000000000000-1.jsonl.bz2"
    other.cloud.client("s3").put_object(Bucket=other.bucket, Key=key, Body=b"no bzip2")
    verdict, = wait_for(lambda: other.keys("broken/"), 60, lambda: other.log("CheckObjectFunction"))
    assert verdict == f"broken/{key}.json"
    assert json.loads(other.object(verdict)["Body"].read())["findings"]


def test_a_removed_environment_can_take_its_data_with_it(cloud, other):
    """`make destroy DATA=delete STREAM=delete` removes the buckets too, with all versions, and the stream; never prod's."""
    other.run("destroy", {"DATA": "delete", "STREAM": "delete", "YES": "1"})
    assert other.outputs["StreamName"] not in cloud.client("kinesis").list_streams()["StreamNames"]
    assert other.bucket not in [bucket["Name"] for bucket in cloud.client("s3").list_buckets()["Buckets"]]


def test_prod_is_removed_once_its_name_is_typed(cloud):
    """For prod neither YES=1 nor a yes is enough, and its data is never removed."""
    prod = Deployment(cloud, "prod", "playhead-prod", QUICK)
    cloudformation = cloud.client("cloudformation")
    with pytest.raises(ClientError, match="TerminationProtection is enabled"):
        cloudformation.delete_stack(StackName="playhead-prod")
    for variables, answer in (({"YES": "1"}, ""), ({}, "yes\n")):
        with pytest.raises(AssertionError, match="is left as it is"):
            prod.run("destroy", variables, answer)
    with pytest.raises(AssertionError, match="not for prod"):
        prod.run("destroy", {"DATA": "delete"}, "playhead-prod\n")
    # Whatever the environment is said to be: the stack knows what it was deployed as.
    prod.environment = "dev"
    with pytest.raises(AssertionError, match="is left as it is"):
        prod.run("destroy", {"YES": "1"})
    prod.run("destroy", {}, "playhead-prod\n")
    with pytest.raises(ClientError, match="does not exist"):
        cloud.outputs("playhead-prod")


def test_what_a_role_does_not_allow_fails_with_the_name_of_the_action(cloud, dev):
    """All of the above ran with what the roles allow, enforced. With one action taken from its role, landing fails and says
    which."""
    role, policy = dev.resources["LandingRole"], "landing"
    iam = cloud.client("iam")
    document = iam.get_role_policy(RoleName=role, PolicyName=policy)["PolicyDocument"]
    cut = json.loads(json.dumps(document).replace('["s3:PutObject", "s3:GetObject"]', '["s3:GetObject"]'))
    assert cut != document
    iam.put_role_policy(RoleName=role, PolicyName=policy, PolicyDocument=json.dumps(cut))
    assert dev.post(body=b'[{"session_id":"refused"}]', headers=JSON).status == 200
    wait_for(lambda: "is not authorized to perform: s3:PutObject" in cloud.tail(400), 30, "the refusal")
