"""Deletes the events of one viewer from everything that landed: lines, rejected input, what a search cluster refused, and Parquet; and
the rows of these hours from load-warehouse's table.

    python3 tools/delete-viewer session_id=s-1                        on the one-machine stack   (make delete-viewer FIELD=session_id VALUE=s-1)
    python3 tools/delete-viewer session_id=s-1 --stack playhead-prod  in AWS                     (… ENV=prod)
        --from 2026-11-01 --to 2026-11-21                             dates in UTC, both included; all unless given     (FROM, TO)
        --yes                                                         without asking                                    (YES=1)
        --reference "request 17"                                      is kept in the record of the deletion             (REFERENCE)

A field is one of PromotedFields; of several, an event that has one of the values is deleted. It finds first, says what it found, and asks.
Killed at any point, run it again. docs/LOADERS.md says what it needs, and what it can't reach.
"""

import argparse
import json
import os
import re
import shlex
import sys
from datetime import UTC, date, datetime
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "scripts"))
import stack as stacks  # noqa: E402: it finds boto3, which the others need.
from deletion import PASSES, Deletion, Found, Problem  # noqa: E402
from lines import Viewer, promoted_fields  # noqa: E402
from rejected import TooMuch  # noqa: E402

# How often it looks whether a function has done its part.
POLL_SECONDS, LOCAL_POLL_SECONDS = 10, 0.2


def arguments():
    given = os.environ
    parser = argparse.ArgumentParser(prog="delete-viewer", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("values", nargs="*", metavar="field=value", help="a promoted field and the viewer's value; else FIELD and VALUE")
    stacks.add_stack_option(parser)
    parser.add_argument("--from", dest="first", type=date.fromisoformat, default=given.get("FROM") or None)
    parser.add_argument("--to", dest="last", type=date.fromisoformat, default=given.get("TO") or None)
    parser.add_argument("--yes", action="store_true", default=given.get("YES") == "1")
    parser.add_argument("--reference", default=given.get("REFERENCE"))
    parser.add_argument("--promoted-fields", help="PROMOTED_FIELDS, if the stack's are others than those of its newest Parquet")
    options = parser.parse_args()
    values = [one.split("=", 1) for one in options.values] or [[given.get("FIELD", ""), given.get("VALUE", "")]]
    if any(len(one) != 2 or not all(one) for one in values):
        parser.error("say whose events: field=value, or FIELD and VALUE")
    options.wanted = dict(values)
    if len(options.wanted) < len(values):
        parser.error("a field is given twice; run it once for each value")
    if options.first and options.last and options.first > options.last:
        parser.error(f"no date is from {options.first} to {options.last}: --from (FROM) is after --to (TO)")
    return options


def fields_of(options, deployed, deletion):
    """The promoted fields as they are configured; on this machine, as the newest Parquet was made with."""
    text = options.promoted_fields or deployed.get("PromotedFields")
    if text:
        return promoted_fields(text)
    for item in reversed(deletion.listing("columnar/")):
        if "/_PLAN-" in item["Key"]:
            return deletion.columnar(item["Key"].split("/", 1)[1].rsplit("/", 1)[0]).fields()[-1]
    default = re.search(r"^  PromotedFields:\n(?:    .*\n)*?    Default: (.+)$", (stacks.ROOT / "template.yaml").read_text(), re.M)
    return promoted_fields(default[1])


def main():
    options = arguments()
    stack = stacks.of(options)
    viewer = Viewer(options.wanted, {})
    deletion = Deletion(stack, viewer, POLL_SECONDS if stack.name else LOCAL_POLL_SECONDS, options.reference)
    deployed = stack.parameters
    viewer.paths = fields_of(options, deployed, deletion)
    if unknown := options.wanted.keys() - viewer.paths.keys():
        sys.exit(f"delete-viewer: {', '.join(sorted(unknown))} is not promoted; promoted are {', '.join(viewer.paths)}")
    run_recorded(deletion, options)
    bounds = dates(options)
    others = [f"dates other than {bounds}: run this without --from and --to (FROM, TO)"] if bounds else []
    print("Not reached:", *(f"- {one}" for one in others + not_reached(stack, deployed, options.wanted)), sep="\n")
    where = f"{stack.landing_bucket}, dates {bounds}" if bounds else stack.landing_bucket
    if problems := all_problems(deletion):
        sys.exit("\n".join(["delete-viewer: these can't be read or rewritten, and may hold the viewer's events; all else is deleted in "
                            f"{where}:", *(f"{key}: {problem}" for key, problem in problems.items())]))
    if bounds and not deletion.searched:
        sys.exit(f"delete-viewer: nothing was searched: there is nothing in {where}")
    extent = f"; {len(deletion.searched)} hours were searched, with those that another run had begun, other dates were not" if bounds else ""
    print(f"done: no event of this viewer is left in {where}{extent}")


def dates(options):
    """Those that are searched, in words, if not all are."""
    first, last = options.first, options.last
    if first and last:
        return f"{first} to {last} (UTC)"
    if first or last:
        return f"{first} and later (UTC)" if first else f"{last} and earlier (UTC)"
    return ""


def run_recorded(deletion, options):
    """Whatever ends it, what it deleted is recorded, before another run can begin."""
    began, is_over = datetime.now(UTC), False
    with deletion.lease:
        try:
            run(deletion, options, began)
            is_over = True
        finally:
            if is_over or deletion.begun:
                print(f"the record is {record(deletion, options, began)}", flush=True)
                deletion.recorded()


def run(deletion, options, began):
    """Deletes until nothing is found any more."""
    found = find(deletion, options)
    if not found:
        return
    confirm(options)
    deletion.lease.take()
    # Another run may have changed them since.
    found = deletion.find_all([one.hour for one in found])
    for _ in range(PASSES):
        delete(deletion, options, began, found)
        deletion.lease.check()
        found = find(deletion, options)
        if not found:
            return
    raise Problem(f"the viewer's events were still found after {PASSES} passes: do they still come? Run this again later")


def find(deletion, options):
    deletion.forget_problems()
    found = deletion.find_all(hour for hour in deletion.hours(options.first, options.last) if hour not in deletion.refused)
    report(found)
    return found


def delete(deletion, options, began, found):
    """What was deleted of an hour is in its marker until it is in the record."""
    done = deletion.delete_all(found)
    record(deletion, options, began, done)
    for hour in sorted(done):
        deletion.unmark(hour)
    deletion.settle(sorted(deletion.begun - deletion.refused.keys()))


def report(found: list[Found]):
    for one in found:
        counts = one.counts()
        hour = counts.pop("hour")
        parts = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items() if count)
        print(f"{hour}: {parts or 'nothing more'}{'; a run before did not finish it' if one.pending is not None else ''}", flush=True)


def confirm(options):
    if options.yes:
        return
    if not sys.stdin.isatty():
        sys.exit("delete-viewer: nothing is deleted; YES=1 or --yes deletes it")
    if input("Delete them? They can't be brought back once S3's old versions are gone. yes: ").strip() != "yes":
        sys.exit("delete-viewer: nothing is deleted")


def record(deletion, options, began, done=frozenset()):
    """Keeps what this run has done so far, without the viewer's value. `done` are hours that still have markers."""
    deletion.forget_others()
    ended = datetime.now(UTC)
    content = {
        "v": 1, "reference": options.reference, "finishes": sorted(deletion.finishes - {options.reference}),
        "began_at": stamp(began), "ended_at": stamp(ended), "fields": sorted(options.wanted),
        "from": options.first and str(options.first), "to": options.last and str(options.last), "searched_hours": len(deletion.searched),
        "hours": [{"hour": hour, "rows": 0} | counts for hour, counts in sorted(deletion.deleted.items())],
        "not_finished": sorted(deletion.markers.keys() - done), "not_deleted": sorted(all_problems(deletion)),
    }
    key = f"deletions/{began:%Y-%m-%dT%H-%M-%SZ}-{deletion.run[:8]}.json"
    deletion.s3.put_object(Bucket=deletion.bucket, Key=key, Body=json.dumps(content, indent=1).encode(), ContentType="application/json")
    return key


def all_problems(deletion):
    return deletion.problems | {key: problem for refused in deletion.refused.values() for key, problem in refused.items()}


def stamp(time):
    return f"{time:%Y-%m-%dT%H:%M:%SZ}"


def not_reached(stack, deployed, wanted):
    """What holds the viewer's events elsewhere, and what to do about each."""
    waiting = stack.client("s3").list_objects_v2(Bucket=stack.output("FailedBatchesBucketName"), MaxKeys=1).get("KeyCount", 0)
    expires = deployed.get("EventsRetentionDays", "0") != "0"
    index = f"{deployed.get('SearchIndexPrefix', 'playhead')}-2*"
    query = {"query": {"bool": {"should": [{"term": {name: value}} for name, value in wanted.items()]}}}
    where = " OR ".join(f"{name} = {quoted(value)}" for name, value in wanted.items())
    # Redshift takes a backslash for the beginning of an escape.
    of_loader = " OR ".join(f'"{name}" = ' + quoted(value.replace("\\", "\\\\")) for name, value in wanted.items())
    schema = deployed.get("WarehouseSchema", "playhead")
    call = (f'curl -X POST "$SEARCH_ENDPOINT/{index}/_delete_by_query?conflicts=proceed" -H "Content-Type: application/json" '
            f"-d {shlex.quote(json.dumps(query, ensure_ascii=False))}")
    return [
        "the stream: it keeps records for seven days, and a replay lands what is not there; run this again after that",
        "old versions in the bucket: S3 keeps what was overwritten or deleted for 14 days",
        *(["others' events of these hours, which S3 removes EventsRetentionDays after now: their files were written again"] if expires else []),
        *(["the failed-batches bucket, where batches wait: land them (docs/RUNBOOK.md), then run this again"] if waiting else []),
        f"a search cluster: {call}",
        f'load-warehouse\'s table, for hours that S3 no longer holds: DELETE FROM "{schema}"."events" WHERE {of_loader};',
        f"a warehouse of your own: DELETE FROM … WHERE {where};",
        "copies that others made: backups, exports, query results",
    ]


def quoted(text):
    return "'" + text.replace("'", "''") + "'"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (Problem, TooMuch, *stacks.PROBLEMS) as problem:
        sys.exit(f"delete-viewer: {problem}")
