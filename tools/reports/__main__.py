"""Reports: what plays, how fast it starts, how often it stalls, who watches.

    python3 tools/reports                        all of them, on what `make run` landed, by DuckDB     (make report)
    python3 tools/reports starts rebuffering     some of them
    python3 tools/reports --csv starts           for a program
    python3 tools/reports --data data            the one-machine stack's DATA_DIR
    python3 tools/reports --stack playhead-prod  a date of a deployment, by Athena                     (make report ENV=prod)
        --date 2026-11-21                        which date, in UTC; unless given, all on this machine, and yesterday in AWS
        --partial                                report it even though hours are not in Parquet, or objects can't be read (make report … PARTIAL=1)

On this machine, hours that compact-partition has written are read as Parquet and the others by their lines. In AWS, a date is reported once all of its hours
are in Parquet; Athena's workgroup is AWS's primary one, or ATHENA_WORKGROUP, which must have a place for results. Each report is one SELECT, the same for both,
over states.sql, which has what players of each kind say in one vocabulary; duckdb.sql is what DuckDB needs beside it.

Objects that can't be read are named on standard error, the reports' titles say that they are missing, and the exit code is 1; with --csv, which has no titles,
nothing is printed then, unless --partial is given.
"""

import argparse
import bz2
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

HERE = Path(__file__).parent
REPORTS = ("events_a_minute", "starts", "rebuffering", "viewers", "ads")
PARTIAL = "--partial (make report … PARTIAL=1)"
DUCKDB = HERE.parents[1] / ".venv/bin/duckdb"
POLL_SECONDS, QUERY_SECONDS = 0.5, 600
# shared's: compact-partition reads none that holds more either.
MAX_OBJECT_BYTES = 200 * (-(-(1 << 20) // 3) * 4 + (256 << 10)) + (6 << 20)


def main():
    parser = argparse.ArgumentParser(prog="report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reports", nargs="*", metavar="report", help=f"one of {', '.join(REPORTS)}")
    parser.add_argument("--data", type=Path, default=Path("data"), help="the one-machine stack's DATA_DIR")
    parser.add_argument("--stack", help="the name of a deployed stack")
    parser.add_argument("--date", type=date.fromisoformat, help="in UTC; unless given, all on this machine, and yesterday in AWS")
    parser.add_argument("--partial", action="store_true", help="report a date although some of its hours are not in Parquet, or objects can't be read")
    parser.add_argument("--csv", action="store_true", help="print comma-separated values, without titles")
    options = parser.parse_args()
    if unknown := set(options.reports) - set(REPORTS):
        parser.error(f"there is no report {', '.join(sorted(unknown))}; there are {', '.join(REPORTS)}")
    reports = options.reports or REPORTS
    if options.stack:
        options.date = options.date or datetime.now(UTC).date() - timedelta(days=1)
        return by_athena(options, reports)
    return by_duckdb(options, reports)


def statement(report, events):
    """A report over a table expression with the columns id, received_at and event."""
    return f"WITH all_hours AS (\n{events}\n), {(HERE / 'states.sql').read_text().strip()}\n{(HERE / f'{report}.sql').read_text()}"


def title(report):
    return (HERE / f"{report}.sql").read_text().splitlines()[0].removeprefix("-- ")


# ---- On this machine ----

def by_duckdb(options, reports):
    bucket = options.data / "s3/landing-bucket"
    hours = sorted(bucket.glob(f"events/dt={options.date or '*'}/hour=*"))
    parts = {hour: parquet_parts(bucket, hour) for hour in hours}
    files = [file for hour in hours if parts[hour] is None for file in sorted(hour.glob("*.jsonl.bz2"))]
    parquet = [part for found in parts.values() for part in found or []]
    if not files and not parquet:
        when = f"on {options.date}" if options.date else "yet"
        sys.exit(f"report: nothing has landed in {bucket}/events {when}; post something to `make run`, or name its DATA_DIR with --data")
    if not DUCKDB.exists():
        sys.exit(f"report: {DUCKDB} is missing; `make report` installs it")
    with tempfile.TemporaryDirectory(prefix="report-") as folder:
        prelude = [all_hours(parquet), *notes(Path(folder) / "notes")]
        return run_duckdb(Path(folder), files, lambda unreadable: commands(options, reports, prelude, unreadable))


def run_duckdb(folder, files, commands_of):
    """The exit code. DuckDB reads all lines before the commands, which are written meanwhile: only then it is known what is missing."""
    (folder / "run.sql").write_text(f'.read "{HERE / "duckdb.sql"}"\n.read "{folder / "commands.sql"}"\n')
    # Without the caller's settings.
    duckdb = [DUCKDB, "-init", "/dev/null", "-bail", "-batch", "-f", folder / "run.sql"]
    with subprocess.Popen(duckdb, stdin=subprocess.PIPE) as process:
        # If it ends early, it has said why.
        try:
            unreadable = feed(files, process.stdin)
            (folder / "commands.sql").write_text(commands_of(unreadable))
            process.stdin.close()
        except BrokenPipeError:
            return process.wait() or 1
    if (folder / "notes").exists():
        sys.stderr.write((folder / "notes").read_text())
    return process.returncode or min(unreadable, 1)


def feed(files, stdin):
    """Passes on the lines of the objects that can be read, and counts those that can't."""
    unreadable = 0
    for file in files:
        try:
            stdin.write(lines_of(file))
        except BrokenPipeError:
            raise
        except (OSError, ValueError) as problem:
            unreadable += 1
            print(f"report: {file} is left out, it can't be read: {problem}", file=sys.stderr)
    return unreadable


def lines_of(file):
    """All of an object's lines, or none: of a damaged one nothing is believed. An object may be several streams."""
    compressed, found = file.read_bytes(), b""
    while True:
        stream = bz2.BZ2Decompressor()
        found += stream.decompress(compressed, MAX_OBJECT_BYTES + 1 - len(found))
        if len(found) > MAX_OBJECT_BYTES:
            raise ValueError(f"more than {MAX_OBJECT_BYTES} bytes of lines")
        if not stream.eof:
            raise ValueError("it ends early")
        compressed = stream.unused_data
        if not compressed:
            return found if found.endswith(b"\n") else found + b"\n"


def parquet_parts(bucket, hour):
    """The Parquet files of an hour; None where it is open, or sealed again since they were written."""
    seals = [bucket / kind / hour.relative_to(bucket / "events") / "_SUCCESS" for kind in ("events", "columnar")]
    try:
        sealed, compacted = (json.loads(seal.read_text()) for seal in seals)
    except FileNotFoundError:
        return None
    return [bucket / part["key"] for part in compacted["parts"]] if compacted["sealed_at"] == sealed["sealed_at"] else None


def commands(options, reports, prelude, unreadable):
    """What DuckDB does once it has all lines, though so many objects can't be read."""
    if unreadable and options.csv and not options.partial:
        print(f"report: nothing is reported, since it would be incomplete; {PARTIAL} reports what is there", file=sys.stderr)
        return ""
    lines = [*prelude, ".mode csv\n.nullvalue ''" if options.csv else ".mode duckbox\n.maxrows -1"]
    incomplete = f" (INCOMPLETE: {unreadable} of the objects can't be read)" if unreadable else ""
    for report in reports:
        lines += [] if options.csv else [f'.print "{title(report)}{incomplete}"']
        lines.append(statement(report, "SELECT id, received_at, event FROM all_landed WHERE event IS NOT NULL"))
    return "\n".join(lines) + "\n"


def all_hours(parquet):
    """A view of sealed and open hours."""
    files = ", ".join("'" + str(file).replace("'", "''") + "'" for file in parquet)
    # Parquet's times have a zone, lines' have none; and DuckDB has rewritten the events of lines, so that equal ones would differ.
    columnar = f"""SELECT id, make_timestamp(epoch_us(received_at)) AS received_at, CASE WHEN json_valid(event) THEN json(event) END AS event
        FROM read_parquet([{files}], union_by_name = true) UNION ALL """
    return f"CREATE VIEW all_landed AS {columnar if parquet else ''}SELECT id, received_at, event FROM landed;"


def notes(file):
    """Writes into a file what the figures don't show: a line each, or nothing."""
    yield f'.mode list\n.headers off\n.output "{file}"'
    yield """SELECT 'report: ' || count(*) || ' lines are left out, since they are not JSON' FROM all_landed WHERE event IS NULL HAVING count(*) > 0;
        SELECT 'report: ' || count(*) || ' of all events have no time of receipt, since their lines have no envelope (EventFormat=raw, or another producer): '
            || 'events_a_minute and ads have them under no minute; in the others they count by the clocks of their players, uncorrected, or, without one, not at all'
        FROM all_landed WHERE event IS NOT NULL AND received_at IS NULL HAVING count(*) > 0;"""
    yield ".output\n.headers on"


# ---- In AWS ----

def by_athena(options, reports):
    sys.path.insert(0, str(HERE.parent / "scripts"))
    import stack

    try:
        deployment = stack.deployed(options.stack)
        if deployment.parameters.get("EventFormat") == "raw":
            sys.exit(f"report: {options.stack} has no Parquet, and so no reports: EventFormat=raw leaves lines as they come")
        missing = hours_not_in_parquet(deployment.client("s3"), deployment.landing_bucket, options.date)
        if missing and not options.partial:
            sys.exit(f"report: {options.date} is not whole: hours {', '.join(missing)} are not in Parquet as they are sealed; {PARTIAL} reports what is there")
        athena = deployment.client("athena")
        database, table = deployment.output("ColumnarTableName").split(".")
        events = f"""SELECT id, received_at, event FROM "{database}"."{table}" WHERE dt = '{options.date}'"""
        for report in reports:
            print_rows(list(athena_rows(athena, statement(report, events))), None if options.csv else title(report))
    except stack.PROBLEMS as problem:
        sys.exit(f"report: {problem}")


def hours_not_in_parquet(s3, bucket, day):
    """Those of a date whose seal, if there is one, is not what was compacted last."""
    def sealed_at(kind, hour):
        try:
            return json.load(s3.get_object(Bucket=bucket, Key=f"{kind}/dt={day}/hour={hour}/_SUCCESS")["Body"])["sealed_at"]
        except s3.exceptions.NoSuchKey:
            return None

    hours = [f"{hour:02}" for hour in range(24)]
    return [hour for hour in hours if (seal := sealed_at("events", hour)) is None or sealed_at("columnar", hour) != seal]


def athena_rows(athena, sql):
    """The rows of a query's result, its columns' names first. Athena's grammar has no semicolon at the end."""
    query = athena.start_query_execution(QueryString=sql.rstrip().rstrip(";"), WorkGroup=os.environ.get("ATHENA_WORKGROUP", "primary"))
    until = time.monotonic() + QUERY_SECONDS
    while (status := athena.get_query_execution(**query_of(query))["QueryExecution"]["Status"])["State"] in ("QUEUED", "RUNNING"):
        if time.monotonic() > until:
            athena.stop_query_execution(**query_of(query))
            sys.exit(f"report: the query took more than {QUERY_SECONDS} s and was stopped")
        time.sleep(POLL_SECONDS)
    if status["State"] != "SUCCEEDED":
        sys.exit(f"report: Athena: {status.get('StateChangeReason', status['State'])}")
    for page in athena.get_paginator("get_query_results").paginate(**query_of(query)):
        for row in page["ResultSet"]["Rows"]:
            yield [cell.get("VarCharValue") for cell in row["Data"]]


def query_of(query):
    return {"QueryExecutionId": query["QueryExecutionId"]}


def print_rows(rows, heading):
    """As a table below its heading, or as comma-separated values without one."""
    if heading is None:
        csv.writer(sys.stdout, lineterminator="\n").writerows(rows)
        return
    texts = [["" if cell is None else cell for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts)]
    print(heading, *("  ".join(map(str.rjust, row, widths)) for row in texts), "", sep="\n")


if __name__ == "__main__":
    sys.exit(main())
