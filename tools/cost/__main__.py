"""What the pipeline costs a month: the tables of docs/COST.md.

    python3 tools/cost                                   all tables
    python3 tools/cost --events 5000000 --peak 3         for 5 million events a day and a peak of three times the mean
    python3 tools/cost --write docs/COST.md              into the page, between its marks (`make bench` does it)

prices.py has the prices, charges.py what AWS counts, model.py what traffic becomes and what was measured or assumed, server.py the
same for ingest-server.
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
EVENTS_A_POST = (1, 2, 5, 10, 20, 40)
SERVER = Deployment(front_door="Server")
# Of AWS' figure for Clickstream Analytics, all day long.
CLICKSTREAM = Traffic(events=1_000 * 10 * model.SECONDS_A_DAY, events_a_post=10, peak=1)
# In the order of the data's way.
PARTS = ("front door", "ingest", "Kinesis", "landing", "S3", "answers to the Internet", "monitoring")
OTHERS = {
    "Firehose behind a function": model.firehose_behind_function,
    "Kinesis' own delivery to S3": model.delivery_behind_function,
}


def tables(traffic, deployment):
    """Markdown, by the names of the page's marks."""
    volumes = [replace(traffic, events=events) for events in VOLUMES]
    return {
        "parts": parts_table([traffic, replace(traffic, events_a_post=1)], (deployment, SERVER)),
        "volumes": volumes_table(volumes, deployment),
        "changes": changes_table(traffic, deployment),
        "concurrency": concurrency_table(volumes),
        "front doors": front_doors_table(traffic, deployment),
        "clickstream": clickstream_table(),
        "parquet": loader_table(model.parquet, volumes, deployment),
        "search": loader_table(model.search, volumes, deployment),
        "warehouse": loader_table(model.warehouse, volumes, deployment),
    }


def parts_table(traffics, deployments):
    """By front door; a part that one of them does not have costs nothing there. Parts that cost nothing anywhere are left out."""
    columns = [(traffic, deployment) for deployment in deployments for traffic in traffics]
    bills = [model.playhead(*column) for column in columns]
    sums = [sum(bill.values()) for bill in bills]
    millions = [traffic.events * DAYS_A_MONTH / 1e6 for traffic, _ in columns]
    parts = sorted(dict.fromkeys(part for bill in bills for part in bill), key=lambda part: PARTS.index(part.split(":")[0]))
    rows = [(part, usd) for part in parts if any(usd := [bill.get(part, 0) for bill in bills])]
    rows += [("all", sums), ("all, for a million events", [usd / count for usd, count in zip(sums, millions)])]
    heading = [f"`{deployment.front_door}`, {plural(traffic.events_a_post)} a POST" for traffic, deployment in columns]
    return table(f"USD a month, {volume(traffics[0].events)} events a day", heading, rows)


def front_doors_table(traffic, deployment):
    """Where the server becomes cheaper, and what both cost at the volume."""
    lines = ["| events a POST | `Server` is cheaper from | POSTs a second, mean | `FunctionUrl` | `Server` |",
             "| ---: | ---: | ---: | ---: | ---: |"]
    for events_a_post in EVENTS_A_POST:
        posts = replace(traffic, events_a_post=events_a_post)
        even = model.break_even(posts, deployment, SERVER)
        lines.append(f"| {events_a_post} | {even / 1e6:,.0f} million a day | {even / events_a_post / model.SECONDS_A_DAY:,.0f} "
                     f"| {total(posts, deployment):,.0f} | {total(posts, SERVER):,.0f} |")
    return "\n".join(lines)


def clickstream_table():
    scope, bill = (counted(CLICKSTREAM, SERVER) for counted in (model.in_clickstream_scope, model.playhead))
    millions = CLICKSTREAM.events * DAYS_A_MONTH / 1e6
    rows = [(part, [usd]) for part, usd in scope.items()]
    rows += [(f"{name}{', for a million events' * is_each}", [sum(parts.values()) / (millions if is_each else 1)])
             for name, parts in (("all that theirs counts", scope), ("the full bill", bill)) for is_each in (False, True)]
    return table("USD a month", ["1,000 requests a second of 10 events, all day"], rows, "{:,.4g}".format)


def loader_table(loader, traffics, deployment):
    bills = [loader(traffic, deployment) for traffic in traffics]
    rows = [(part.split(": ")[1], [bill[part] for bill in bills]) for part in bills[0]]
    rows.append(("all", [sum(bill.values()) for bill in bills]))
    return table("USD a month, by events a day", [volume(traffic.events) for traffic in traffics], rows)


def volumes_table(traffics, deployment):
    """Playhead for two peaks, which change nothing for the others, and the others in its place."""
    bills = {f"Playhead, peak of {peak} times the mean":
             lambda traffic, peak=peak: total(replace(traffic, peak=peak), deployment) for peak in PEAKS}
    bills["Playhead with the server, peak of 10 times the mean"] = lambda traffic: total(traffic, SERVER)
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
        ("`FrontDoor`: `Server`", traffic, replace(deployment, front_door="Server")),
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
