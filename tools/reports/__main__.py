"""Reports on what the one-machine stack landed, by DuckDB: what plays, how fast it starts, how often it stalls, who watches.

    python3 tools/reports                        all of them      (make report)
    python3 tools/reports starts rebuffering     some of them
    python3 tools/reports --csv starts           for a program
    python3 tools/reports --data data            the stack's DATA_DIR

Each report is one SELECT in SQL that is Athena's too (where it has not been run yet), over states.sql, which has what players of each kind say in one
vocabulary. duckdb.sql is what DuckDB needs beside it.
"""

import argparse
import bz2
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
REPORTS = ("events_a_minute", "starts", "rebuffering", "viewers", "ads")
DUCKDB = HERE.parents[1] / ".venv/bin/duckdb"


def main():
    parser = argparse.ArgumentParser(prog="report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reports", nargs="*", metavar="report", help=f"one of {', '.join(REPORTS)}")
    parser.add_argument("--data", type=Path, default=Path("data"), help="the stack's DATA_DIR")
    parser.add_argument("--csv", action="store_true", help="print comma-separated values, without titles")
    options = parser.parse_args()
    if unknown := set(options.reports) - set(REPORTS):
        parser.error(f"there is no report {', '.join(sorted(unknown))}; there are {', '.join(REPORTS)}")
    bucket = options.data / "s3/landing-bucket"
    files = sorted(bucket.glob("events/dt=*/hour=*/*.jsonl.bz2"))
    if not files:
        sys.exit(f"report: nothing has landed in {bucket}/events; post something to `make run`, or name its DATA_DIR with --data")
    if not DUCKDB.exists():
        sys.exit(f"report: {DUCKDB} is missing; `make report` installs it")
    return print_reports(files, options.reports or REPORTS, options.csv)


def print_reports(files, reports, csv):
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write(commands(reports, csv))
        script.flush()
        # Without the caller's settings.
        duckdb = [DUCKDB, "-init", "/dev/null", "-bail", "-batch", "-f", script.name]
        with subprocess.Popen(duckdb, stdin=subprocess.PIPE) as process:
            # If it ends early, it has said why.
            try:
                for file in files:
                    with bz2.open(file) as lines:
                        shutil.copyfileobj(lines, process.stdin)
                process.stdin.close()
            except BrokenPipeError:
                pass
        return process.returncode


def commands(reports, csv):
    lines = [f".read {HERE / 'duckdb.sql'}", f".read {HERE / 'states.sql'}", ".mode csv" if csv else ".maxrows -1"]
    for report in reports:
        file = HERE / f"{report}.sql"
        title = file.read_text().splitlines()[0].removeprefix("-- ")
        lines += [f".read {file}"] if csv else [f'.print "{title}"', f".read {file}"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
