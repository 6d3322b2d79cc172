"""Runs the one-machine stack as its users do: a process of its own, spoken to over HTTP and read from
disk."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import boto3
from botocore.config import Config

from support import landed

REPOSITORY = Path(__file__).resolve().parents[2]


def built(name):
    """A binary that `make` built."""
    host = subprocess.run(["rustc", "--print", "host-tuple"], capture_output=True, text=True, check=True).stdout.strip()
    return REPOSITORY / "target" / host / "release" / name


BINARY = Path(os.environ.get("LOCAL_BIN") or built("local")).resolve()

LANDING_BUCKET = "landing-bucket"
FAILED_BATCHES_BUCKET = "failed-batches-bucket"
STREAM = "event-stream"
INGEST = "ingest-lambda"
INGEST_SERVER = "ingest-server"
LANDING = "kinesis-to-s3-lambda"

# No window: what is on the stream lands at once, and tests need not wait for the deployed five seconds.
FAST = "BatchingWindowSeconds=0"

READY_SECONDS = int(os.environ.get("READY_SECONDS", 20))
STOP_SECONDS = 30
LANDING_SECONDS = float(os.environ.get("LANDING_SECONDS", 30))

READY_LINE = re.compile(r"ready: POST http://127\.0\.0\.1:(\d+)/events")
PAGE_LINE = re.compile(r"page: (http://127\.0\.0\.1:\d+/)")
AWS_LINE = re.compile(r"aws: (http://127\.0\.0\.1:\d+)")


@dataclass
class Answer:
    """An HTTP answer; `json` is None when there is no body or it is no JSON."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self):
        try:
            return json.loads(self.body)
        except ValueError:
            return None


def wait_for(predicate, timeout=LANDING_SECONDS, what="what the test waits for"):
    """Polls until the predicate gives something truthy, and returns that.

    `what` may be a function, so that the message shows what there was at the end.
    """
    left = timeout
    while True:
        began = time.monotonic()
        if found := predicate():
            return found
        # A sleep counts as 0.1 s however long it lasts: while the machine stands still, so does what is waited for.
        left -= time.monotonic() - began + 0.1
        if left < 0:
            raise AssertionError(f"after {timeout} s there is not: {what() if callable(what) else what}")
        time.sleep(0.1)


def without_aws():
    """The caller's environment with nothing of its AWS set-up."""
    return {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}


def environment(directory, template="template.yaml", parameters=FAST, **variables):
    """The stack's environment: nothing of the caller's AWS set-up, and free ports, so that tests run side
    by side."""
    own = {"DATA_DIR": directory / "data", "TEMPLATE": template, "PARAMETERS": parameters}
    free_ports = {"PORT": 0, "AWS_PORT": 0, "STATUS_PORT": 0}
    return without_aws() | {name: str(value) for name, value in (own | free_ports | variables).items()}


def run_to_the_end(directory, **variables):
    """A start that must fail: its exit code and all that it printed."""
    variables = environment(directory, **variables)
    run = subprocess.run(
        [BINARY], cwd=REPOSITORY, env=variables, timeout=20, capture_output=True, text=True, errors="replace"
    )
    return run.returncode, run.stdout + run.stderr


class Stack:
    """A running stack with a data directory of its own."""

    def __init__(self, directory, **settings):
        directory.mkdir(parents=True, exist_ok=True)
        self.data = directory / "data"
        self.ingest = INGEST_SERVER if settings.get("FRONT_DOOR") == "server" else INGEST
        self.errors_path = directory / "stderr.txt"
        self.output = []
        self.files_read = {}
        self.clients = {}
        self.ready = threading.Event()
        self.killed = False
        self._start(environment(directory, **settings))

    def _start(self, variables):
        started = time.monotonic()
        with self.errors_path.open("w") as errors:
            # A process group of its own: what a terminal makes of a command, and what its Ctrl-C goes to.
            self.process = subprocess.Popen(
                [BINARY], cwd=REPOSITORY, env=variables, stdout=subprocess.PIPE, stderr=errors,
                text=True, encoding="utf-8", errors="replace", process_group=0,
            )
        self.reader = threading.Thread(target=self._read_output, daemon=True)
        self.reader.start()
        self.ready.wait(READY_SECONDS)
        self.seconds_to_ready = time.monotonic() - started
        ready, aws = self._line(READY_LINE), self._line(AWS_LINE)
        if not (ready and aws):
            self.kill()
            raise AssertionError(f"not ready after {self.seconds_to_ready:.1f} s\n{self.tail()}")
        self.port = int(ready[1])
        self.aws_address = aws[1]
        self.page = self._line(PAGE_LINE)[1]

    def _read_output(self):
        for line in self.process.stdout:
            self.output.append(line.rstrip("\n"))
            if READY_LINE.match(line):
                self.ready.set()
        self.ready.set()

    def _line(self, pattern):
        return next(filter(None, map(pattern.match, list(self.output))), None)

    def tail(self, lines=40):
        """The end of what the stack printed, for failure messages."""
        errors = self.errors_path.read_text(errors="replace").splitlines()
        return "\n".join(["--- stdout", *self.output[-lines:], "--- stderr", *errors[-lines:]])

    # ---- Posting ----

    def connect(self):
        """A connection that is kept alive, for those who post much."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def post(self, path="/events", body=b"", headers=None, method="POST", connection=None):
        """Sends one request as it is: no header is added but Host, Accept-Encoding and Content-Length."""
        own = None if connection else self.connect()
        try:
            return request(connection or own, method, path, body, headers or {})
        finally:
            if own:
                own.close()

    # ---- What landed, read from disk ----

    def landed_files(self, prefix):
        """The landed files under `events` or `rejected`, in the order of each shard's records."""
        return landed.files(self.data / "s3" / LANDING_BUCKET, prefix)

    def lines(self, prefix="events"):
        """The lines of all landed files. A file is read again only when it was replaced."""
        return [line for file in self.landed_files(prefix) for line in self._lines_of(file)]

    def _lines_of(self, file):
        try:
            status = file.path.stat()
            version = (status.st_ino, status.st_mtime_ns, status.st_size)
            if self.files_read.get(file.path, (None,))[0] != version:
                self.files_read[file.path] = (version, landed.read_lines(file.path))
            return self.files_read[file.path][1]
        except FileNotFoundError:
            return []  # Just being replaced: the next look finds it.

    def wait_for_lines(self, wanted, count, prefix="events", timeout=LANDING_SECONDS):
        """Waits for at least so many lines that are `wanted`, and returns all there are."""
        found = []

        def enough():
            found[:] = [line for line in self.lines(prefix) if wanted(line)]
            return len(found) >= count

        wait_for(enough, timeout, lambda: f"{count} lines in {prefix}/ but {len(found)}\n{self.tail()}")
        return list(found)

    # ---- Looking around ----

    def s3(self):
        return self._client("s3", 2, s3={"addressing_style": "path"})

    def kinesis(self):
        return self._client("kinesis", 2)

    def cloudwatch(self):
        return self._client("cloudwatch", 2)

    def metric(self, name, start, statistic="Maximum", period=60, namespace="Playhead", **dimensions):
        """A metric's values in each period that has any in the two weeks from a time on, oldest first."""
        points = self.cloudwatch().get_metric_statistics(
            Namespace=namespace, MetricName=name, Period=period, Statistics=[statistic],
            Dimensions=[{"Name": key, "Value": value} for key, value in dimensions.items()],
            StartTime=start, EndTime=start + timedelta(days=14),
        )["Datapoints"]
        return [point[statistic] for point in sorted(points, key=lambda point: point["Timestamp"])]

    def functions(self):
        """Lambda, as far as it is there: `invoke`. An invocation is not repeated."""
        return self._client("lambda", 1)

    def _client(self, service, attempts, **options):
        """One a service: making it takes longer than most calls."""
        if service not in self.clients:
            config = Config(proxies={}, retries={"total_max_attempts": attempts}, **options)
            self.clients[service] = boto3.client(
                service, endpoint_url=self.aws_address, region_name="us-east-1",
                aws_access_key_id="local", aws_secret_access_key="local", config=config,
            )
        return self.clients[service]

    def function_log(self, function):
        return (self.data / "logs" / f"{function}.log").read_text(errors="replace")

    def function_processes(self, function):
        """The ids of the processes that this stack, and no other, started for a function."""
        return [pid for pid in children(self.process.pid) if command(pid).endswith(f"/{function}")]

    def run_script(self, name, *arguments):
        """Runs one of tools/scripts/ as somebody does beside this stack."""
        return subprocess.run(
            [sys.executable, REPOSITORY / "tools/scripts" / name, *arguments], cwd=REPOSITORY, capture_output=True, text=True,
            env=without_aws() | {"AWS_ENDPOINT_URL": self.aws_address, "DATA_DIR": str(self.data)}, timeout=60,
        )

    # ---- Stopping ----

    def stop(self, number=signal.SIGINT):
        """Stops the stack and returns its exit code. SIGINT goes where Ctrl-C sends it: to the whole
        process group."""
        if self.process.poll() is None:
            send = os.killpg if number == signal.SIGINT else os.kill
            send(self.process.pid, number)
        try:
            code = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"not stopped after {STOP_SECONDS} s\n{self.tail()}") from None
        self.reader.join(5)
        return code

    def kill(self):
        """Ends the stack and all that it started, at once."""
        self.killed = True
        pids = [self.process.pid, *children(self.process.pid)]
        for pid in pids:
            signal_if_alive(pid, signal.SIGKILL)
        self.process.wait()


def request(connection, method, path, body, headers):
    """One request and its answer; a server may answer before it has read all of a body that it won't take."""
    try:
        connection.request(method, path, body, headers)
    except (BrokenPipeError, ConnectionResetError):
        pass
    response = connection.getresponse()
    return Answer(response.status, response.headers, response.read())


def children(pid):
    """The child processes of a process, by the parent that the kernel names."""
    return [int(stat.parent.name) for stat in Path("/proc").glob("[0-9]*/stat") if parent(stat) == pid]


def parent(stat):
    try:
        # The command's name may hold spaces and parentheses; the parent comes second after it.
        return int(stat.read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return None


def command(pid):
    """The program that a process runs; empty when it is gone or a zombie."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def cpu_seconds(pid):
    """Seconds of CPU that a process has used, in all of its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def signal_if_alive(pid, number):
    """Whether there was such a process to take the signal."""
    try:
        os.kill(pid, number)
        return True
    except ProcessLookupError:
        return False
