"""What monitoring costs: the table of docs/COST.md is what cost/monitoring.py counts, and it counts what is there."""

import runpy
from statistics import median

from stack import INGEST, LANDING, REPOSITORY
from test_template import alarms

MODEL = runpy.run_path(str(REPOSITORY / "cost/monitoring.py"))


def test_the_table_in_the_docs_is_what_the_model_says_and_below_two_dollars():
    """All monitoring at 100 million events a day: under 2 USD a day, and the page shows how."""
    table, total = MODEL["table"]()
    assert total < 2
    page = (REPOSITORY / "docs/COST.md").read_text()
    assert table in page, f"docs/COST.md should hold:\n{table}"
    alone, total = MODEL["table"](events_a_post=1)
    assert f"{total:.2f} USD" in page, f"docs/COST.md should say {total:.2f} USD of one event a POST"


def test_the_model_counts_the_alarms_of_the_template():
    assert MODEL["ALARMS"] == len(alarms())


def test_lines_of_metrics_are_as_long_as_the_model_takes_them_to_be(stack):
    """Ingest's line for a POST of twenty events, landing's for a batch: measured on the running functions."""
    events = b",".join(b'{"type":"heartbeat","session_id":"cost","position":%d}' % number for number in range(20))
    for _ in range(20):
        assert stack.post(body=b"[" + events + b"]").json["accepted"] == 20
    stack.wait_for_lines(lambda line: line.json.get("event", {}).get("session_id") == "cost", 400)
    for function, member, counted in ((INGEST, "AcceptedEvents", "INGEST_LINE"), (LANDING, "LandedRecords", "LANDING_LINE")):
        # The deployed function has a longer name than the one that is measured.
        longer = MODEL["FUNCTION_NAME"] - len(function)
        lines = [len(line) + longer for line in stack.function_log(function).splitlines() if f'"{member}":' in line]
        print(function, "median line:", median(lines), "of", len(lines))
        assert median(lines) <= MODEL[counted]
