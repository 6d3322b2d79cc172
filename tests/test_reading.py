"""The examples of README.md's section Read, and of docs/READING.md, count what landed: each is run as it stands there."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from support.stack import REPOSITORY, Stack

JSON = {"content-type": "application/json"}
# What breaks readers: names that differ in case alone, numbers of any size, characters that some take for an end of line,
# a member whose type changes, and kinds that are not strings. As text: Python's json writes neither number.
OWN = ["""[
    {"type": "play", "title": "one\u2028line\u2029of\u0085text"}, {"type": "play", "n": 1000000000000000000000000000000},
    {"Type": 1, "type": 2}, {"type": "pause", "n": "ten"}, {"type": "pause", "n": {"of": [10]}}, {"type": "pause"},
    {"type": ["play"]}, {"type": {"a": 1}}, {"type": null, "e": "x"}, {"type": "", "e": "x"}, {"unnamed": true},
    {"type": "exponent", "n": 1e400},
""", ",".join(f'{{"type": "digits", "n": {"1" * digits}}}' for digits in (1_100, 5_000)), "]"]
MUX = {"metadata": {}, "events": [{"e": "viewstart", "vid": "bread-101"}, {"e": "playing"}, {"e": "playing"}]}
CMCD = b"e=ps,sta=p,sn=1\ne=t,sn=2\ne=t,sn=3\ne=t,sn=4\ne=t,sn=5\n"
KINDS = {"play": 2, "2": 1, "pause": 3, "[play]": 1, "{a:1}": 1, "x": 1, "exponent": 1, "digits": 2, "viewstart": 1, "playing": 2,
         "ps": 1, "t": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder in which `make run` has run, so that the examples find their files."""
    stack = Stack(tmp_path_factory.mktemp("reading"))
    for body, headers in (("".join(OWN).encode(), JSON), (json.dumps(MUX).encode(), JSON),
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
    own = {"PATH": path, "POLARS_FMT_MAX_ROWS": "-1"}
    done = subprocess.run(command, cwd=folder, env=os.environ | own, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


# A kind, which may be an array or an object, and its count.
COUNTED = re.compile(r"(\{[^{}\n]*\}|\[[^\[\]\n]*\]|\w+)[^\w\n\[{]+(\d+)\b")


def assert_counted(output, kinds=KINDS):
    """However a tool draws its table, and whichever quotes it takes: a kind stands before its count."""
    cells = COUNTED.findall(output.replace("Counter({", ""))
    found = Counter({re.sub(r"['\" ]", "", kind): int(count) for kind, count in cells})
    assert {kind: found[kind] for kind in KINDS} == kinds, output


# Those of Parquet are run on what landed in test_compact_partition.
POLARS_PARQUET, PANDAS_PARQUET, READER, SPARK, PANDAS, POLARS, _ = examples("docs/READING.md", "python")
KINDS_READER = READER.partition("print(")[0]
_, SHELL = examples("README.md", "sh")
DUCKDB_PARQUET, DUCKDB = examples("docs/READING.md", "sh")


def test_the_shell_shows_whole_lines(folder):
    """Ten lines, each an envelope."""
    lines = run(folder, "bash", "-c", SHELL).split("\n")[:-1]
    assert len(lines) == 10 and all("event" in json.loads(line) for line in lines)


@pytest.mark.parametrize("example", [READER, KINDS_READER + PANDAS, KINDS_READER + POLARS], ids=["python", "pandas", "polars"])
def test_an_example_in_python_counts_each_kind(folder, example):
    """Those of pandas and polars need `kinds` of the first."""
    assert_counted(run(folder, sys.executable, "-c", example))


def test_duckdb_counts_each_kind(folder):
    """Through bzcat."""
    assert_counted(run(folder, "bash", "-c", DUCKDB))


# The promoted fields of two hours, one after the other.
BEFORE, AFTER = ("session_id",), ("kind", "type")


@pytest.mark.parametrize("promoted", [(BEFORE, AFTER), (AFTER, BEFORE)], ids=["column_added", "column_removed"])
@pytest.mark.parametrize("example", [("bash", DUCKDB_PARQUET), (sys.executable, POLARS_PARQUET), (sys.executable, PANDAS_PARQUET)],
                         ids=["duckdb", "polars", "pandas"])
def test_parquet_is_counted_after_a_change_of_promoted_fields(tmp_path, promoted, example):
    """A part that lacks the column has it as null."""
    for hour, fields in enumerate(promoted):
        folder = tmp_path / f"data/s3/landing-bucket/columnar/dt=2026-11-21/hour={hour:02}"
        folder.mkdir(parents=True)
        (folder / "_SUCCESS").write_text("{}")
        columns = pyarrow.schema([("v", pyarrow.int32()), *((name, pyarrow.string()) for name in (*fields, "event"))])
        kinds = ["play", "play", "play", "pause"]
        rows = [{"v": 1, "event": "{}"} | {name: kind for name in fields} for kind in kinds]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, columns), folder / "part-00000.parquet")
    output = run(tmp_path, example[0], "-c", example[1])
    counted = {kind: int(re.search(rf"\b{kind}\b\W+(\d+)\b", output)[1]) for kind in ("play", "pause")}
    assert counted == {"play": 3, "pause": 1} and re.search(r"\b(NULL|null|NaN|nan|None)\b\W+4\b", output), output


SESSION = """
from pyspark.sql import SparkSession
spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
"""


def test_spark_reads_events_as_text_by_a_schema():
    """An inferred schema fails on two members whose names differ in case alone; manifests and markers are no events."""
    assert ".schema(" in SPARK and "event STRING" in SPARK and "get_json_object(" in SPARK
    assert "/events/" in SPARK and "inferSchema" not in SPARK


def test_spark_counts_each_kind(folder):
    """Spark is too large a download for every run: this is for machines that have it, and Java."""
    pytest.importorskip("pyspark")
    date = next((folder / "data/s3/landing-bucket/events").glob("dt=*")).name.removeprefix("dt=")
    here = SPARK.replace("s3a://<bucket>", f"{folder}/data/s3/landing-bucket").replace("2026-11-21", date)
    # As its page says: its JSON parser gives up on more than 1,000 digits.
    assert_counted(run(folder, sys.executable, "-c", SESSION + here), KINDS | {"digits": 0})
