"""What the pipeline costs a month, beside others that would do some of the same: the tables of docs/COST.md.

    python3 cost/pipeline.py                            all tables, for 1 million to 1 billion events a day
    python3 cost/pipeline.py --events-a-post 1          the same for players that post each event by itself
    python3 cost/pipeline.py --events 5000000 --peak 3  for 5 million events a day and a peak of three times the mean

prices.py has the prices, charges.py what AWS counts, stream.py what traffic becomes on its way, bills.py what was measured
and assumed, monitoring.py the part that watches.
"""

import argparse
from dataclasses import replace

import bills
from prices import DAYS_A_MONTH
from stream import Deployment, Traffic

VOLUMES = (1_000_000, 10_000_000, 100_000_000, 1_000_000_000)
STREAM_MODES = {"PROVISIONED": "provisioned", "ON_DEMAND": "on demand"}
OTHERS = {
    "Playhead": bills.playhead,
    "Playhead without monitoring": bills.playhead_without_monitoring,
    "Firehose behind a function": bills.firehose_behind_function,
    "HTTP API to Kinesis, a POST a record": bills.http_api_to_kinesis,
    "REST API to Kinesis, an event a record": bills.rest_api_to_kinesis,
}


def days(events=VOLUMES, **traffic):
    return [Traffic(a_day, **traffic) for a_day in events]


def parts_table(traffics, deployment):
    found = [bills.playhead(traffic, deployment) for traffic in traffics]
    sums = [sum(bill.values()) for bill in found]
    rows = [(what, [bill[what] for bill in found]) for what in found[0]]
    rows.append(("all", sums))
    rows.append(("all, for a million events", [
        usd / (traffic.events * DAYS_A_MONTH / 1e6) for usd, traffic in zip(sums, traffics)]))
    return table(traffics, rows)


def choices_table(traffics, deployment):
    """Each front door and each mode of the stream, all else as it is."""
    choices = [(name, replace(deployment, front_door=door)) for door, name in bills.FRONT_DOORS.items()]
    choices += [(f"stream {name}", replace(deployment, stream_mode=mode)) for mode, name in STREAM_MODES.items()]
    return table(traffics, [(name, [total(traffic, choice) for traffic in traffics]) for name, choice in choices])


def others_table(traffics, deployment):
    rows = [(name, [sum(bill(traffic, deployment).values()) for traffic in traffics]) for name, bill in OTHERS.items()]
    return table(traffics, rows)


def concurrency_table(traffics):
    """What IngestMaximumConcurrency has to be, for players that collect events and for those that don't."""
    lines = table(traffics, []).split("\n")
    for events_a_post in (20, 1):
        posts = [replace(traffic, events_a_post=events_a_post) for traffic in traffics]
        events = f"{events_a_post} event{'s'[:events_a_post - 1]} a POST"
        rows = (("requests a second", bills.requests_a_second), ("concurrency", bills.concurrency))
        lines += [f"| {name}, {events} | {' | '.join(f'{count(one):,.0f}' for one in posts)} |" for name, count in rows]
    return "\n".join(lines)


def turns_table(traffic, deployment):
    sums = [(name, total(*turned)) for name, *turned in turns(traffic, deployment)]
    lines = ["| turned | USD a month | more or less |", "| --- | ---: | ---: |"]
    return "\n".join(lines + [f"| {name} | {usd:,.0f} | {round(usd - sums[0][1]):+,} |" for name, usd in sums])


def turns(traffic, deployment):
    """Each thing that can be turned, turned by itself."""
    return [
        ("nothing", traffic, deployment),
        ("players: 40 events a POST", replace(traffic, events_a_post=40), deployment),
        ("players: 1 event a POST", replace(traffic, events_a_post=1), deployment),
        ("players: events of 600 bytes", replace(traffic, bytes_an_event=600), deployment),
        ("`ShardCount`, for a peak of 5 times the mean", replace(traffic, peak=5), deployment),
        ("`ShardCount`, for a peak of 3 times the mean", replace(traffic, peak=3), deployment),
        ("`StreamMode`: `ON_DEMAND`", traffic, replace(deployment, stream_mode="ON_DEMAND")),
        ("`FrontDoor`: `HttpApi`", traffic, replace(deployment, front_door="HttpApi")),
        ("`BatchingWindowSeconds`: 1", traffic, replace(deployment, window_seconds=1)),
        ("`BatchingWindowSeconds`: 60", traffic, replace(deployment, window_seconds=60)),
        ("`BatchingWindowSeconds`: 60, `BatchSize`: 1000", traffic,
         replace(deployment, window_seconds=60, batch_size=1_000)),
        ("`EventFormat`: `raw`", traffic, replace(deployment, event_format="raw")),
        ("`Architecture`: `x86_64`", traffic, replace(deployment, architecture="x86_64")),
    ]


def total(traffic, deployment):
    return sum(bills.playhead(traffic, deployment).values())


def table(traffics, rows):
    """Markdown: a row is a name and the US dollars of each traffic."""
    lines = [f"| events a day | {' | '.join(volume(traffic.events) for traffic in traffics)} |",
             f"| --- |{' ---: |' * len(traffics)}"]
    return "\n".join(lines + [f"| {name} | {' | '.join(map(money, usd))} |" for name, usd in rows])


def volume(events):
    for size, name in ((1e9, "billion"), (1e6, "million")):
        if events >= size:
            return f"{events / size:g} {name}"
    return f"{events:,.0f}"


def money(usd):
    return f"{usd:,.2f}" if usd < 10 else f"{usd:,.0f}"


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = arguments.add_argument
    add("--events", type=int, nargs="+", default=VOLUMES, help="events a day")
    add("--events-a-post", type=int, default=Traffic.events_a_post, help="events in one request (%(default)s)")
    add("--bytes-an-event", type=int, default=Traffic.bytes_an_event, help="of JSON (%(default)s)")
    add("--peak", type=float, default=Traffic.peak, help="the busiest second against the mean (%(default)s)")
    add("--records-a-batch", type=int, default=Deployment.batch_size, help="BatchSize (%(default)s)")
    add("--window-seconds", type=float, default=Deployment.window_seconds, help="BatchingWindowSeconds (%(default)s)")
    add("--front-door", choices=bills.FRONT_DOORS, default=Deployment.front_door, help="(%(default)s)")
    add("--stream-mode", choices=STREAM_MODES, default=Deployment.stream_mode, help="(%(default)s)")
    given = arguments.parse_args()
    deployment = Deployment(given.front_door, given.stream_mode, given.records_a_batch, given.window_seconds)
    traffics = days(given.events, events_a_post=given.events_a_post, bytes_an_event=given.bytes_an_event, peak=given.peak)
    tables = [
        ("USD a month", parts_table(traffics, deployment)),
        ("Front doors and modes of the stream", choices_table(traffics, deployment)),
        ("Beside others", others_table(traffics, deployment)),
        ("How much concurrency", concurrency_table(traffics)),
        *((f"What turns it, at {volume(traffic.events)} events a day", turns_table(traffic, deployment))
          for traffic in traffics),
    ]
    print("\n\n".join(f"{title}\n\n{found}" for title, found in tables))


if __name__ == "__main__":
    main()
