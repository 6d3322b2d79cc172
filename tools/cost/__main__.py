"""What the pipeline costs a month: the tables of docs/COST.md.

    python3 tools/cost                                   all tables
    python3 tools/cost --events 5000000 --peak 3         for 5 million events a day and a peak of three times the mean
    python3 tools/cost --write docs/COST.md              into the page, between its marks (`make bench` does it)

prices.py has the prices, charges.py what AWS counts, model.py what traffic becomes and what was measured or assumed.
"""

import argparse
import re
from dataclasses import replace
from pathlib import Path

import model
from model import Deployment, Traffic
from prices import DAYS_A_MONTH

VOLUMES = (1_000_000, 10_000_000, 100_000_000, 1_000_000_000)
PEAKS = (10, 3)
OTHERS = {
    "Firehose behind a function": model.firehose_behind_function,
    "Kinesis' own delivery to S3": model.delivery_behind_function,
}


def tables(traffic, deployment):
    """Markdown, by the names of the page's marks."""
    volumes = [replace(traffic, events=events) for events in VOLUMES]
    return {
        "parts": parts_table([traffic, replace(traffic, events_a_post=1)], deployment),
        "volumes": volumes_table(volumes, deployment),
        "changes": changes_table(traffic, deployment),
        "concurrency": concurrency_table(volumes),
    }


def parts_table(traffics, deployment):
    bills = [model.playhead(traffic, deployment) for traffic in traffics]
    sums = [sum(bill.values()) for bill in bills]
    millions = [traffic.events * DAYS_A_MONTH / 1e6 for traffic in traffics]
    rows = [(part, [bill[part] for bill in bills]) for part in bills[0]]
    rows += [("all", sums), ("all, for a million events", [usd / count for usd, count in zip(sums, millions)])]
    heading = [f"{volume(traffic.events)} events a day, {plural(traffic.events_a_post)} a POST" for traffic in traffics]
    return table("USD a month", heading, rows)


def volumes_table(traffics, deployment):
    """Playhead for two peaks, which change nothing for the others, and the others in its place."""
    bills = {f"Playhead, peak of {peak} times the mean":
             lambda traffic, peak=peak: total(replace(traffic, peak=peak), deployment) for peak in PEAKS}
    bills |= {name: lambda traffic, bill=bill: sum(bill(traffic, deployment).values()) for name, bill in OTHERS.items()}
    rows = [(f"{plural(events)} a POST: {name}", [usd(replace(traffic, events_a_post=events)) for traffic in traffics])
            for events in (20, 10, 1) for name, usd in bills.items()]
    return table("USD a month, by events a day", [volume(traffic.events) for traffic in traffics], rows)


def changes(traffic, deployment):
    """Each thing that can be changed, changed by itself."""
    return [
        ("nothing", traffic, deployment),
        ("players: 40 events a POST", replace(traffic, events_a_post=40), deployment),
        ("players: 1 event a POST", replace(traffic, events_a_post=1), deployment),
        ("players: events of 600 bytes", replace(traffic, bytes_an_event=600), deployment),
        ("`ShardCount` for a peak of 5 times the mean", replace(traffic, peak=5), deployment),
        ("`ShardCount` for a peak of 3 times the mean", replace(traffic, peak=3), deployment),
        ("`RecordCompression`: `off`", traffic, replace(deployment, compression="off")),
        ("`StreamMode`: `ON_DEMAND`", traffic, replace(deployment, stream_mode="ON_DEMAND")),
        ("`FrontDoor`: `HttpApi`", traffic, replace(deployment, front_door="HttpApi")),
        ("`BatchingWindowSeconds`: 1", traffic, replace(deployment, window_seconds=1)),
        ("`BatchingWindowSeconds`: 60, `BatchSize`: 200", traffic,
         replace(deployment, window_seconds=60, batch_size=200)),
        ("`EventFormat`: `raw`", traffic, replace(deployment, event_format="raw")),
        ("`Architecture`: `x86_64`", traffic, replace(deployment, architecture="x86_64")),
    ]


def changes_table(traffic, deployment):
    sums = [(name, total(*changed)) for name, *changed in changes(traffic, deployment)]
    lines = ["| changed | USD a month | difference |", "| --- | ---: | ---: |"]
    return "\n".join(lines + [f"| {name} | {usd:,.0f} | {round(usd - sums[0][1]):+,} |" for name, usd in sums])


def concurrency_table(traffics):
    rows = []
    for events_a_post in (20, 1):
        posts = [replace(traffic, events_a_post=events_a_post) for traffic in traffics]
        for name, count in (("requests a second", model.requests_a_second), ("concurrency", model.concurrency)):
            rows.append((f"{name}, {plural(events_a_post)} a POST", map(count, posts)))
    return table("events a day", [volume(traffic.events) for traffic in traffics], rows, "{:,.0f}".format)


def total(traffic, deployment):
    return sum(model.playhead(traffic, deployment).values())


def table(corner, heading, rows, number=None):
    number = number or money
    lines = [f"| {corner} | {' | '.join(heading)} |", f"| --- |{' ---: |' * len(heading)}"]
    return "\n".join(lines + [f"| {name} | {' | '.join(map(number, values))} |" for name, values in rows])


def volume(events):
    for size, name in ((1e9, "billion"), (1e6, "million")):
        if events >= size:
            return f"{events / size:g} {name}"
    return f"{events:,.0f}"


def plural(events):
    return f"{events} event{'s'[:events - 1]}"


def money(usd):
    return f"{usd:,.2f}" if usd < 10 else f"{usd:,.0f}"


def written(page, found):
    """The page with these tables between their marks."""
    for name, text in found.items():
        marks = f"<!-- cost: {name} -->", "<!-- end -->"
        page, count = re.subn("(?s)%s.*?%s" % marks, lambda _: f"{marks[0]}\n{text}\n{marks[1]}", page)
        if count != 1:
            raise SystemExit(f"the page has the mark {marks[0]} {count} times; it needs it once")
    return page


def arguments():
    parser = argparse.ArgumentParser(prog="python3 tools/cost", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--events", type=int, default=Traffic.events, help="a day (%(default)s)")
    add("--events-a-post", type=int, default=Traffic.events_a_post, help="(%(default)s)")
    add("--bytes-an-event", type=int, default=Traffic.bytes_an_event, help="of JSON (%(default)s)")
    add("--peak", type=float, default=Traffic.peak, help="the busiest second against the mean (%(default)s)")
    add("--write", type=Path, metavar="PAGE", help="write the tables, of the defaults, into this page")
    return parser.parse_args()


def main():
    given = arguments()
    if given.write:
        given.write.write_text(written(given.write.read_text(), tables(Traffic(), Deployment())))
        return
    traffic = Traffic(given.events, given.events_a_post, given.bytes_an_event, given.peak)
    print("\n\n".join(tables(traffic, Deployment()).values()))


if __name__ == "__main__":
    main()
