"""Sealed hours of the past, put into a stack's folder by hand before it starts: what the page reads of them, without their objects."""

import hashlib
import json
from datetime import UTC, datetime, timedelta

from support.stack import LANDING_BUCKET

OBJECTS, EVENTS = 200_000, 4_000_000
# Its objects are left out; what counts is that `_SUCCESS` names its ETag.
MANIFEST = b"{}\n"
MANIFEST_MD5 = hashlib.md5(MANIFEST).hexdigest()
ROWS = ("rows", "doubled", "clashing", "not_json", "lines", "expected_lines", "objects", "missing_objects", "unreadable_objects")
NO_LINES = {"previous": 0, "this": 0, "next": 0, "elsewhere": 0}


def now_hour():
    return datetime.now(UTC).replace(minute=0, second=0, microsecond=0)


def partition(hour):
    return f"dt={hour:%Y-%m-%d}/hour={hour:%H}"


def stamp(time):
    return f"{time:%Y-%m-%dT%H:%M:%S}.000Z"


def size_of(hour):
    """Compressed bytes: little at night, and not the same each day."""
    share = [38, 30, 25, 22, 21, 24, 32, 45, 55, 60, 63, 66, 70, 72, 71, 70, 73, 80, 92, 100, 98, 88, 70, 52][hour.hour]
    return int(share * 5_000_000 * (1 + ((hour.toordinal() * 7 + hour.hour) % 11 - 5) / 100))


def totals(hour, size=None, **more):
    events = EVENTS * size_of(hour) // 500_000_000
    received = NO_LINES | {"this": events}
    return {
        "objects": OBJECTS, "rejected_objects": 12, "unreadable_objects": 0, "overlaps": 0, "records": 2_100_000, "events": events,
        "rejected": 31, "rejected_by_reason": {"invalid_json": 28, "too_deep": 3}, "bytes": size or size_of(hour), "rejected_bytes": 9_000,
        "uncompressed_bytes": 6 * size_of(hour), "earliest_received_at": stamp(hour), "latest_received_at": stamp(hour + timedelta(minutes=59)),
        "events_received_in": received, "rejected_received_in": NO_LINES | {"this": 31}, "redriven_events": 0, "spilled_events": 0,
    } | more


def seal(folder, hour, compacted=True, late_minutes=0, **more):
    """`_SUCCESS` and, if it is compacted, that of its Parquet."""
    sealed_at = hour + timedelta(minutes=80 + late_minutes)
    late = more.pop("late_objects", 0)
    success = {"v": 1, "partition": partition(hour), "first_sealed_at": stamp(sealed_at), "sealed_at": stamp(sealed_at),
               "late_objects": late, "manifest": f'"{MANIFEST_MD5}"', "totals": totals(hour, **more)}
    write(folder / "events" / partition(hour) / "_SUCCESS", success)
    (folder / "events" / partition(hour) / "_MANIFEST.json").write_bytes(MANIFEST)
    if compacted:
        columnar = {"v": 1, "partition": partition(hour), "sealed_at": stamp(sealed_at), "manifest": f'"{MANIFEST_MD5}"', "plans": 1,
                    "parts": [], "totals": dict.fromkeys(ROWS, 0)}
        write(folder / "columnar" / partition(hour) / "_SUCCESS", columnar)


def grow_manifest(folder, hour):
    """Gives an hour a manifest with a line for each object."""
    line = json.dumps({"key": "events/x", "bytes": 9, "records": 1, "lines": 9, "uncompressed_bytes": 99}) + "\n"
    content = (line * OBJECTS).encode()
    (folder / "events" / partition(hour) / "_MANIFEST.json").write_bytes(content)
    path = folder / "events" / partition(hour) / "_SUCCESS"
    path.write_text(path.read_text().replace(MANIFEST_MD5, hashlib.md5(content).hexdigest()))


def seal_date(folder, date):
    success = {"v": 1, "partition": f"dt={date:%Y-%m-%d}", "first_sealed_at": stamp(date + timedelta(hours=25)),
               "sealed_at": stamp(date + timedelta(hours=25)), "late_objects": 0, "manifest": f'"{MANIFEST_MD5}"',
               "totals": totals(date, size=24 * size_of(date))}
    write(folder / "events" / success["partition"] / "_SUCCESS", success)
    (folder / "events" / success["partition"] / "_MANIFEST.json").write_bytes(MANIFEST)


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def two_days(data, odd=True):
    """The 48 hours before this one and the same ones of eight weeks before, with some that are not as they should be."""
    folder, last = data / "s3" / LANDING_BUCKET, now_hour()
    hours = [last - timedelta(hours=back) for back in range(1, 48)]
    strange = {
        6: {"size": size_of(hours[5]) // 2}, 9: {"late_minutes": 45}, 15: {"late_objects": 3}, 22: {"overlaps": 2},
        30: {"size": size_of(hours[29]) * 2},
    } if odd else {}
    for back, hour in enumerate(hours, 1):
        # The last one is sealed by the stack itself, in its time.
        if back > 1:
            seal(folder, hour, **strange.get(back, {}))
        for days in (1, *range(7, 57, 7)):
            if (earlier := hour - timedelta(days=days)) < hours[-1]:
                seal(folder, earlier, compacted=False)
    for days in (1, 2):
        seal_date(folder, last.replace(hour=0) - timedelta(days=days))
    return folder


def fill(data, objects, shards=4):
    """So many objects in the current hour, of which the content does not matter."""
    root, hour = data / "s3", partition(now_hour())
    descriptions = root / ".objects" / LANDING_BUCKET
    descriptions.mkdir(parents=True, exist_ok=True)
    (root / LANDING_BUCKET / "events" / hour).mkdir(parents=True, exist_ok=True)
    digest = hashlib.md5(b"BZh1").hexdigest()
    for number in range(objects):
        # Less than those of records that come to the stack.
        first = 49 * 10 ** 54 + number * 37 * 10 ** 24
        key = f"events/{hour}/shardId-{number % shards:012}-{first}.jsonl.bz2"
        file = root / LANDING_BUCKET / key
        file.write_bytes(b"BZh1")
        description = {"key": key, "etag": f'"{digest}"', "md5": digest, "place": "Key", "size": 4,
                       "modified_ns": file.stat().st_mtime_ns, "attributes": {"metadata": {}}}
        (descriptions / f"{hashlib.md5(key.encode()).hexdigest()}.json").write_text(json.dumps(description))


def incident(data, resolved):
    """An incident as notify keeps it: open in its ledger, or archived."""
    began = datetime.now(UTC) - timedelta(hours=3 if resolved else 0, minutes=14)
    over = stamp(began + timedelta(minutes=22)) if resolved else None
    about = {"description": "The newest landed event is older than it should be (seconds).", "anchor": "stale-data",
             "reason": "Threshold Crossed: 1 datapoint [4210.0] was greater than the threshold (3600.0).", "details": [],
             "watched": {"namespace": "Playhead", "metric": "DataFreshness", "dimensions": [], "statistic": "Maximum", "period": 300,
                         "comparison": "GreaterThanThreshold", "threshold": 3600.0}}
    values = [20.0, 14.0, 31.0, 320.0, 1200.0, 2400.0, 3300.0, 4210.0]
    alarm = {"since": stamp(began), "until": over, "noticed_at": stamp(began), "told": True, "about": about,
             "chart": {"values": [None] * 12 + values, "until": stamp(began)}}
    found = {"group": "platform", "opened_at": stamp(began), "resolved_at": over, "alarms": {"playhead-stale-data": alarm}, "messages": [],
             "message_count": 0}
    folder = data / "s3" / LANDING_BUCKET / "incidents"
    if resolved:
        write(folder / f"dt={began:%Y-%m-%d}" / f"{began:%Y%m%dT%H%M%S}000Z-platform.json", found)
    else:
        write(folder / "open/platform.json", {"v": 1, "open": found, "closed": [], "seen": {}})
