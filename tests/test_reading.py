"""The examples of README.md's section Read, and of docs/READING.md, count what landed: each is run as it stands there."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from support.stack import REPOSITORY, Stack

JSON = {"content-type": "application/json"}
# What breaks readers: names that differ in case alone, numbers of any size, characters that some take for an end of line,
# and a member whose type changes.
OWN = [
    {"type": "play", "title": "one\u2028line\u2029of\u0085text"}, {"type": "play", "n": 10**30}, {"Type": 1, "type": 2},
    {"type": "pause", "n": "ten"}, {"type": "pause", "n": {"of": [10]}}, {"type": "pause"}, {"unnamed": True},
]
MUX = {"metadata": {}, "events": [{"e": "viewstart", "vid": "bread-101"}, {"e": "playing"}, {"e": "playing"}]}
CMCD = b"e=ps,sta=p,sn=1\ne=t,sn=2\ne=t,sn=3\ne=t,sn=4\ne=t,sn=5\n"
KINDS = {"play": 2, "2": 1, "pause": 3, "viewstart": 1, "playing": 2, "ps": 1, "t": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder in which `make run` has run, so that the examples find their files."""
    stack = Stack(tmp_path_factory.mktemp("reading"))
    for body, headers in ((json.dumps(OWN, ensure_ascii=False).encode(), JSON), (json.dumps(MUX).encode(), JSON),
                          (CMCD, {"content-type": "application/cmcd"}), (b"bad", JSON)):
        stack.post(body=body, headers=headers)
    assert stack.stop() == 0, stack.tail()
    return stack.data.parent


def examples(name, language):
    """The code of each block of a language, in the order of the page."""
    text = (REPOSITORY / name).read_text()
    if name == "README.md":
        text = text.partition("\n## Read\n")[2].partition("\n## ")[0]
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def run(folder, *command):
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(command, cwd=folder, env=os.environ | {"PATH": path}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def assert_counted(output):
    """However a tool draws its table: a kind stands before its count."""
    found = Counter({kind: int(count) for kind, count in re.findall(r"(\w+)[^\w\n]+(\d+)\b", output) if kind in KINDS})
    assert found == KINDS, output


READER, = examples("README.md", "python")
LINES = READER.partition("events = ")[0]
SPARK, PANDAS, POLARS = examples("docs/READING.md", "python")
SHELL, = examples("README.md", "sh")
DUCKDB, = examples("docs/READING.md", "sh")


def test_the_shell_shows_whole_lines(folder):
    """Ten lines, each an envelope."""
    lines = run(folder, "bash", "-c", SHELL).split("\n")[:-1]
    assert len(lines) == 10 and all("event" in json.loads(line) for line in lines)


@pytest.mark.parametrize("example", [READER, LINES + PANDAS, LINES + POLARS], ids=["python", "pandas", "polars"])
def test_an_example_in_python_counts_each_kind(folder, example):
    """Those of pandas and polars need `lines` of the first."""
    assert_counted(run(folder, sys.executable, "-c", example))


def test_duckdb_counts_each_kind(folder):
    """Through bzcat."""
    assert_counted(run(folder, "bash", "-c", DUCKDB))


SESSION = """
from pyspark.sql import SparkSession
spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
"""


def test_spark_counts_each_kind(folder):
    """Spark is too large a download for every run: this is for machines that have it, and Java."""
    pytest.importorskip("pyspark")
    date = next((folder / "data/s3/landing-bucket/events").glob("dt=*")).name.removeprefix("dt=")
    here = SPARK.replace("s3a://<bucket>", f"{folder}/data/s3/landing-bucket").replace("2026-11-21", date)
    assert_counted(run(folder, sys.executable, "-c", SESSION + here))
