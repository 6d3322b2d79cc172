"""tools/scripts/destroy: what proves that the stream is empty, and that ingest runs again unless the stack goes."""

import io
from datetime import UTC, datetime, timedelta

import pytest
from botocore.exceptions import ClientError

from support.deployment import script
from support.template import document

MINUTE = timedelta(minutes=1)
STOPPED = datetime(2026, 11, 28, 12, 0, 30, tzinfo=UTC)
MINUTES = [STOPPED.replace(second=0) + number * MINUTE for number in range(1, 6)]
READ, CALLS, THROTTLES, CAME = "GetRecords.IteratorAgeMilliseconds", "Invocations", "Throttles", "IncomingRecords"
NESTED = "arn:aws:cloudformation:us-east-1:000000000000:stack/playhead-dev-Server/0"
PHYSICAL = {"IngestFunction": "ingest", "LandingFunction": "landing", "LandingFunctionStream": "mapping",
            "EventStream": "stream", "LandingBucket": "files", "FailedBatchesBucket": "failed", "Server": NESTED,
            "Cluster": "cluster", "Service": "arn:aws:ecs:us-east-1:000000000000:service/cluster/service", "ScalableTarget": "target"}


class NotFound(Exception):
    pass


def refusal(code, message):
    return ClientError({"Error": {"Code": code, "Message": message}}, "Describe")


class Account:
    """A deployed stack, as the services that tools/scripts/destroy calls show it. All clients are this one object."""

    class exceptions:
        ResourceNotFoundException = ServiceNotFoundException = ServiceNotActiveException = ClusterNotFoundException = NotFound
        ParameterNotFound = NotFound

    def __init__(self):
        self.clock, self.status, self.failure, self.maximum = STOPPED, "CREATE_COMPLETE", None, "50"
        self.timeout = 60
        self.recipients = {"/playhead-dev/recipients"}
        self.streams, self.concurrency, self.were_stopped = {"stream"}, 50, False
        # The server's tasks; None without a server. Counts that it had when CloudWatch was asked for proof.
        self.tasks, self.tasks_at_proof, self.scales = None, set(), True
        self.tasks_after, self.has_target = 0, True
        # A metric's value in each minute; None where it has none.
        self.metrics = {READ: lambda minute: 0.0} | dict.fromkeys((CALLS, THROTTLES, CAME), lambda minute: None)

    def sleep(self, seconds):
        self.clock += timedelta(seconds=seconds)

    # ---- Parameter Store ----

    def delete_parameter(self, Name):
        if Name not in self.recipients:
            raise NotFound
        self.recipients.remove(Name)

    # ---- CloudFormation ----

    def describe_stacks(self, StackName):
        if self.status == "DELETE_COMPLETE":
            raise refusal("ValidationError", f"Stack with id {StackName} does not exist")
        parameters = {"Environment": "dev", "BatchingWindowSeconds": "5", "IngestMaximumConcurrency": self.maximum,
                      "LandingTimeoutSeconds": str(self.timeout), "ServerMinimumTasks": "2"}
        return {"Stacks": [{"StackStatus": self.status, "Parameters": [
            {"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()]}]}

    def describe_stack_resource(self, StackName, LogicalResourceId):
        if StackName not in ("playhead-dev", NESTED):
            raise refusal("ValidationError", f"Stack '{StackName}' does not exist")
        if LogicalResourceId == "Server" and self.tasks is None or LogicalResourceId == "ScalableTarget" and not self.has_target:
            raise refusal("ValidationError", f"Resource {LogicalResourceId} does not exist for stack {StackName}")
        return {"StackResourceDetail": {"ResourceStatus": "CREATE_COMPLETE", "PhysicalResourceId": PHYSICAL[LogicalResourceId]}}

    def update_termination_protection(self, **_):
        pass

    def delete_stack(self, StackName):
        self.status = "DELETE_IN_PROGRESS"

    def get_waiter(self, name):
        return Stopping(self) if name == "services_stable" else self

    def wait(self, **_):
        if self.failure:
            self.status, failure = self.failure
            raise failure
        self.status = "DELETE_COMPLETE"

    # ---- ECS ----

    def describe_services(self, cluster, services):
        return {"services": [{"desiredCount": self.tasks, "runningCount": self.tasks}]}

    def update_service(self, cluster, service, desiredCount):
        if self.failure and self.failure[0] == "DELETE_FAILED" and desiredCount:
            raise NotFound
        self.tasks = desiredCount

    def register_scalable_target(self, ServiceNamespace, ResourceId, ScalableDimension, SuspendedState):
        assert self.has_target, "without MinCapacity and MaxCapacity it can't be made again"
        assert (ServiceNamespace, ResourceId, ScalableDimension) == ("ecs", "service/cluster/service", "ecs:service:DesiredCount")
        self.scales, = {not is_suspended for is_suspended in SuspendedState.values()}

    # ---- Lambda ----

    def get_event_source_mapping(self, UUID):
        return {"State": "Enabled"}

    def get_function_concurrency(self, FunctionName):
        return {} if self.concurrency is None else {"ReservedConcurrentExecutions": self.concurrency}

    def put_function_concurrency(self, FunctionName, ReservedConcurrentExecutions):
        self.concurrency = ReservedConcurrentExecutions
        self.were_stopped |= self.concurrency == 0

    def delete_function_concurrency(self, FunctionName):
        self.concurrency = None

    # ---- CloudWatch, Kinesis, S3 ----

    def get_metric_statistics(self, MetricName, StartTime, EndTime, Statistics, **_):
        self.tasks_at_proof.add(self.tasks)
        start = StartTime.replace(second=0, microsecond=0)
        minutes = [start + number * MINUTE for number in range(int((EndTime - start) / MINUTE))]
        found = [(minute, self.metrics[MetricName](minute)) for minute in minutes]
        return {"Datapoints": [{"Timestamp": minute, Statistics[0]: value} for minute, value in found if value is not None]}

    def delete_stream(self, StreamName):
        self.streams.remove(StreamName)

    def list_buckets(self):
        return {"Buckets": []}


class Stopping:
    """Tasks that serve on for two minutes."""

    def __init__(self, account):
        self.account = account

    def wait(self, **_):
        assert self.account.tasks == 0
        self.account.sleep(120)
        # Scaling sees no tasks where there must be two.
        self.account.tasks = 2 if self.account.scales else self.account.tasks_after


@pytest.fixture
def account():
    return Account()


@pytest.fixture
def destroy(account, monkeypatch):
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    for name, value in {"STACK": "playhead-dev", "YES": "1"}.items():
        monkeypatch.setenv(name, value)
    for name in ("DATA", "STREAM"):
        monkeypatch.delenv(name, raising=False)
    module = script("destroy")
    monkeypatch.setattr(module, "cloudformation", account)
    monkeypatch.setattr(module, "now", lambda: account.clock)
    monkeypatch.setattr(module.time, "sleep", account.sleep)
    monkeypatch.setattr(module.boto3, "client", lambda service: account)
    return module


# ---- What proves that a stream is empty ----

EMPTY = dict.fromkeys(MINUTES, 0.0)


@pytest.mark.parametrize(("reads", "calls", "found"), [
    pytest.param(EMPTY, {}, "DRAINED", id="read to its end, and nothing came"),
    pytest.param(EMPTY, dict.fromkeys(MINUTES, 0.0), "DRAINED", id="zeros are nothing too"),
    pytest.param({}, {}, "UNKNOWN", id="no values"),
    pytest.param({}, {MINUTES[0]: 1.0}, "UNKNOWN", id="no reads, so that calls say nothing"),
    *[pytest.param({key: 0.0 for key in MINUTES if key != minute}, {}, "UNKNOWN", id=f"minute {number} is missing")
      for number, minute in enumerate(MINUTES)],
    pytest.param(EMPTY | {MINUTES[4]: 1.0}, {}, "BEHIND", id="a millisecond behind at the end"),
    pytest.param(EMPTY | {MINUTES[0]: 59_999.0}, {}, "BEHIND", id="less than a minute behind"),
    pytest.param(EMPTY, {MINUTES[2]: 1.0}, "BEHIND", id="a batch of one shard is tried again"),
    pytest.param(EMPTY, {MINUTES[0] - MINUTE: 9.0}, "DRAINED", id="calls before the quiet minutes"),
])
def test_a_stream_is_empty_only_if_each_minute_says_so(destroy, reads, calls, found):
    for metrics in ([calls, {}], [{}, calls]):
        assert destroy.judge(reads, metrics, MINUTES, STOPPED) is destroy.Stream[found]


def test_minutes_that_began_before_ingest_was_stopped_prove_nothing(destroy):
    assert destroy.judge(EMPTY, [], MINUTES, MINUTES[0]) is destroy.Stream.DRAINED
    assert destroy.judge(EMPTY, [], MINUTES, MINUTES[0] + timedelta(seconds=1)) is destroy.Stream.UNKNOWN


def test_quiet_minutes_are_those_that_cloudwatch_has_all_values_of(destroy):
    assert destroy.quiet_minutes(MINUTES[4] + 3 * MINUTE, 5) == MINUTES
    assert destroy.quiet_minutes(MINUTES[4] + 4 * MINUTE - timedelta(seconds=1), 5) == MINUTES


# ---- The whole ----


def test_a_drained_stack_goes_with_its_stream(destroy, account):
    destroy.main("dev")
    assert account.status == "DELETE_COMPLETE" and account.streams == set() and account.were_stopped and not account.recipients
    assert account.clock - STOPPED >= 7 * MINUTE


def test_the_recipients_go_right_after_the_stack_whatever_fails_then(destroy, account, monkeypatch):
    def refuse(**_):
        raise refusal("LimitExceededException", "Rate exceeded")

    monkeypatch.setattr(account, "delete_stream", refuse)
    with pytest.raises(ClientError):
        destroy.main("dev")
    assert account.status == "DELETE_COMPLETE" and account.recipients == set()


def test_recipients_that_an_interrupted_run_left_are_removed(destroy, account):
    account.status = "DELETE_COMPLETE"
    with pytest.raises(SystemExit, match="no stack"):
        destroy.main("dev")
    assert account.recipients == set()


def test_records_that_land_late_are_waited_for(destroy, account):
    last = STOPPED + 4 * MINUTE
    account.metrics[READ] = lambda minute: 1_000.0 if minute < last else 0.0
    account.metrics[CALLS] = lambda minute: 3.0 if minute < last else None
    destroy.main("dev")
    assert account.streams == set() and account.clock >= last + 7 * MINUTE


@pytest.mark.parametrize("timeout", document()["Parameters"]["LandingTimeoutSeconds"]["AllowedValues"])
@pytest.mark.parametrize("phase", [0, 0.4, 0.8])
def test_a_batch_that_is_tried_again_keeps_the_stack_however_long_an_attempt_takes(destroy, account, timeout, phase):
    """An attempt's value is of the minute in which it began, and comes when it ends; reads are 0 meanwhile."""
    account.timeout, first = timeout, STOPPED - timedelta(seconds=phase * timeout)
    begins = [first + timedelta(seconds=number * (timeout + 30)) for number in range(7_200 // timeout)]

    def calls(minute):
        ended = [at for at in begins if at + timedelta(seconds=timeout) <= account.clock]
        return sum(minute <= at < minute + MINUTE for at in ended) or None

    account.metrics[CALLS] = calls
    with pytest.raises(SystemExit):
        destroy.main("dev")
    assert account.status == "CREATE_COMPLETE" and account.streams == {"stream"} and account.concurrency == 50


def test_a_stream_without_values_is_kept_at_once(destroy, account):
    account.metrics[READ] = lambda minute: None
    destroy.main("dev")
    assert account.status == "DELETE_COMPLETE" and account.streams == {"stream"}
    assert account.clock - STOPPED < MINUTE


def test_a_stream_whose_values_end_is_kept(destroy, account):
    account.metrics[READ] = lambda minute: 0.0 if minute < STOPPED + 3 * MINUTE else None
    destroy.main("dev")
    assert account.streams == {"stream"} and account.clock - STOPPED < 20 * MINUTE


@pytest.mark.parametrize("minutes", [1, 3, 9])
def test_a_stream_that_others_wrote_to_is_kept(destroy, account, capsys, minutes):
    """Also in a minute that CloudWatch has only after the proof."""
    written = STOPPED.replace(second=0) + minutes * MINUTE
    account.metrics[CAME] = lambda minute: 1.0 if minute == written else 0.0
    destroy.main("dev")
    assert account.status == "DELETE_COMPLETE" and account.streams == {"stream"}
    assert "aws kinesis delete-stream --stream-name stream\n" in capsys.readouterr().out


def test_what_came_before_ingest_had_stopped_keeps_no_stream(destroy, account):
    account.metrics[CAME] = lambda minute: 9.0 if minute <= STOPPED else None
    destroy.main("dev")
    assert account.streams == set()


def test_a_stream_is_kept_if_cloudwatch_does_not_answer(destroy, account, capsys):
    def refuse(minute):
        raise refusal("Throttling", "Rate exceeded")

    account.metrics[CAME] = refuse
    destroy.main("dev")
    assert account.status == "DELETE_COMPLETE" and account.streams == {"stream"}
    assert "aws kinesis delete-stream --stream-name stream\n" in capsys.readouterr().out


def test_a_person_can_remove_a_stream_without_proof(destroy, account, monkeypatch):
    monkeypatch.setenv("STREAM", "delete")
    account.metrics[CALLS] = lambda minute: 1.0
    destroy.main("dev")
    assert account.status == "DELETE_COMPLETE" and account.streams == set()


@pytest.mark.parametrize(("metric", "value"), [(READ, 40_000.0), (CALLS, 1.0), (THROTTLES, 1.0)])
def test_a_stack_whose_landing_is_behind_stays_and_takes_events(destroy, account, metric, value):
    account.metrics[metric] = lambda minute: value
    with pytest.raises(SystemExit):
        destroy.main("dev")
    assert account.status == "CREATE_COMPLETE" and account.streams == {"stream"}
    assert account.were_stopped and account.concurrency == 50
    assert account.clock - STOPPED < 20 * MINUTE


# ---- Ingest runs again ----


@pytest.mark.parametrize(("before", "maximum", "after"), [(50, "50", 50), (7, "50", 7), (0, "50", 50), (None, "0", None), (0, "0", None)])
@pytest.mark.parametrize("problem", [KeyboardInterrupt(), refusal("InternalServiceFault", "CloudWatch is away")])
def test_ingest_runs_as_before_if_waiting_ends_early(destroy, account, problem, before, maximum, after):
    def interrupt(minute):
        raise problem

    account.concurrency, account.maximum, account.metrics[READ] = before, maximum, interrupt
    with pytest.raises(type(problem)):
        destroy.main("dev")
    assert account.were_stopped and account.concurrency == after and account.status == "CREATE_COMPLETE"


def test_ingest_runs_again_if_the_stack_cannot_be_deleted(destroy, account):
    account.failure = ("DELETE_FAILED", RuntimeError("Waiter StackDeleteComplete failed"))
    with pytest.raises(RuntimeError):
        destroy.main("dev")
    assert account.concurrency == 50 and account.streams == {"stream"}


def test_ingest_stays_off_while_the_stack_is_being_deleted(destroy, account):
    account.failure = ("DELETE_IN_PROGRESS", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        destroy.main("dev")
    assert account.concurrency == 0 and account.streams == {"stream"}


def test_the_servers_tasks_have_ended_before_the_stream_is_looked_at(destroy, account):
    account.tasks = 3
    destroy.main("dev")
    assert account.status == "DELETE_COMPLETE" and account.streams == set()
    assert account.tasks_at_proof == {0} and account.clock - STOPPED >= 9 * MINUTE


@pytest.mark.parametrize(("before", "after"), [(3, 3), (0, 2)])
def test_the_server_runs_as_before_if_landing_is_behind(destroy, account, before, after):
    account.tasks, account.metrics[CALLS] = before, lambda minute: 1.0
    with pytest.raises(SystemExit):
        destroy.main("dev")
    assert account.status == "CREATE_COMPLETE" and account.tasks == after and account.concurrency == 50
    assert account.scales


def test_nothing_is_deleted_while_somebody_starts_tasks_again(destroy, account):
    account.tasks, account.tasks_after = 3, 1
    with pytest.raises(SystemExit, match="still runs 1 of its tasks"):
        destroy.main("dev")
    assert account.status == "CREATE_COMPLETE" and account.streams == {"stream"} and account.tasks == 3 and account.scales


def test_a_server_whose_scaling_a_failed_deletion_removed_is_deleted(destroy, account):
    account.tasks, account.has_target, account.scales = 3, False, False
    destroy.main("dev")
    assert account.status == "DELETE_COMPLETE" and account.tasks == 0


def test_a_server_that_a_failed_deletion_removed_is_not_started(destroy, account):
    account.tasks, account.failure = 3, ("DELETE_FAILED", RuntimeError("Waiter StackDeleteComplete failed"))
    with pytest.raises(RuntimeError):
        destroy.main("dev")
    assert account.tasks == 0 and account.concurrency == 50


def test_what_a_failed_first_deployment_left_is_removed(destroy, account, monkeypatch):
    """Its functions and its stream are gone, and a bucket in which something was written kept the rollback from ending."""
    found, removed = account.describe_stack_resource, []
    account.status = "ROLLBACK_FAILED"
    left = {"LandingBucket": "DELETE_FAILED"}
    monkeypatch.setattr(account, "describe_stack_resource", lambda StackName, LogicalResourceId: {"StackResourceDetail": {
        **found(StackName, LogicalResourceId)["StackResourceDetail"],
        "ResourceStatus": left.get(LogicalResourceId, "DELETE_COMPLETE")}})
    monkeypatch.setattr(account, "list_buckets", lambda: {"Buckets": [{"Name": "files"}]})
    monkeypatch.setattr(destroy, "remove_bucket", removed.append)
    monkeypatch.setenv("DATA", "delete")
    destroy.main("dev")
    assert account.status == "DELETE_COMPLETE" and removed == ["files"]
    assert account.clock == STOPPED, "nothing is waited for"


# ---- What is not there, and what cannot be seen ----


@pytest.mark.parametrize("code", ["AccessDenied", "Throttling", "ValidationError"])
def test_a_resource_that_cannot_be_looked_up_is_not_taken_for_missing(destroy, account, monkeypatch, code):
    def refuse(**_):
        raise refusal(code, "Rate exceeded")

    monkeypatch.setattr(account, "describe_stack_resource", refuse)
    with pytest.raises(ClientError):
        destroy.main("dev")
    assert account.status == "CREATE_COMPLETE" and account.streams == {"stream"} and account.concurrency == 50


def test_a_resource_that_does_not_exist_is_none(destroy):
    assert destroy.resource("another", "EventStream") is None


def test_the_stream_of_prod_is_never_deleted_without_proof(destroy, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("playhead-dev\n"))
    with pytest.raises(SystemExit):
        destroy.confirm("playhead-dev", "prod", deletes_data=False, deletes_stream=True)
