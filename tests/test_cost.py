"""What the pipeline and its monitoring cost: the tables of docs/COST.md are what the programs in cost/ print, and they count
what is there, as AWS does."""

import bz2
import json
import re
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise, product
from statistics import median

import pytest

from support.sessions import event_texts, requests
from support.stack import INGEST, LANDING, REPOSITORY
from support.structured_fields import Reader
from support.template import alarms, canary_alarms, document, metrics_paid_for

COST = REPOSITORY / "cost"
sys.path.insert(0, str(COST))

import bills  # noqa: E402
import charges  # noqa: E402
import monitoring  # noqa: E402
import pipeline  # noqa: E402
import prices  # noqa: E402
from stream import ENVELOPE_BYTES, MAX_RECORD_BYTES, Deployment, Records, Traffic, batches, packed, shards  # noqa: E402

MODEL = vars(monitoring)
PAGE = (REPOSITORY / "docs/COST.md").read_text()

TRAFFICS = [Traffic(events, events_a_post, bytes_an_event) for events, events_a_post, bytes_an_event
            in product((10_000, *pipeline.VOLUMES), (1, 20, 1_000), (50, 300, 5_000))]
DEPLOYMENTS = [Deployment(door, mode) for door, mode in product(bills.FRONT_DOORS, pipeline.STREAM_MODES)]


def total(traffic, deployment=Deployment(), bill=bills.playhead):
    return sum(bill(traffic, deployment).values())


# ---- The page ----

def test_the_table_in_the_docs_is_what_the_model_says_and_below_two_and_a_half_dollars():
    """All monitoring at 100 million events a day: under 2.50 USD a day, and the page shows how."""
    table, total = MODEL["table"]()
    assert total < 2.5
    assert table in PAGE, f"docs/COST.md should hold:\n{table}"
    alone, total = MODEL["table"](events_a_post=1)
    assert f"{total:.2f} USD" in PAGE, f"docs/COST.md should say {total:.2f} USD of one event a POST"


def printed(*arguments):
    """The tables that the program prints, by their titles."""
    program = [sys.executable, COST / "pipeline.py", *arguments]
    output = subprocess.run(program, check=True, capture_output=True, text=True).stdout
    blocks = output.strip().split("\n\n")
    return dict(zip(blocks[::2], blocks[1::2], strict=True))


@pytest.mark.parametrize("arguments", [(), ("--events-a-post", "1")])
def test_the_tables_in_the_docs_are_what_the_program_prints(arguments):
    found = printed(*arguments)
    # What turns it is on the page for twenty events a POST alone, at the volume that the design is for.
    titles = ["USD a month", "Front doors and modes of the stream", "Beside others", "How much concurrency"]
    if not arguments:
        titles.append("What turns it, at 100 million events a day")
    for title in titles:
        assert found[title] in PAGE, f"docs/COST.md should hold:\n{found[title]}"


def test_numbers_in_the_sentences_of_the_docs_are_the_model_s():
    day, bare, firehose, raw = Traffic(), bills.playhead_without_monitoring, bills.firehose_behind_function, "raw"
    small, steady = replace(day, bytes_an_event=230), replace(day, peak=3)
    alone = replace(steady, events_a_post=1)
    for sentence in [
        f"costs {total(day):,.0f} USD a month, and {total(day, bill=firehose):,.0f} with Firehose",
        f"events of 230 bytes it is {total(small, bill=firehose):,.0f} USD, and Playhead {total(small):,.0f}",
        f"{total(steady, bill=bare):,.0f} USD without monitoring, and {total(steady, bill=firehose):,.0f} with Firehose",
        f"one event a POST it is {total(alone, bill=bare):,.0f} and {total(alone, bill=firehose):,.0f}",
        f"costs {total(day, Deployment(event_format=raw), bare):,.0f} USD without monitoring, at 100 million",
    ]:
        assert sentence in re.sub(r"\s+", " ", PAGE), f"docs/COST.md should say: {sentence}"
    # "At 100 million events a day it is cheaper for peaks of twenty times the mean and more."
    on_demand = Deployment(stream_mode="ON_DEMAND")
    peaks = [replace(day, peak=peak) for peak in (15, 20, 30)]
    assert [total(peak) > total(peak, on_demand) for peak in peaks] == [False, True, True]
    # "Some 230 ms for a batch of 480 KB".
    batch = packed(day, Deployment()).bytes / batches(packed(day, Deployment()), day, Deployment())
    assert (round(batch, -4), round(bills.landing_seconds(batch), 2)) == (480_000, 0.23)
    # "Ingest takes some 20 ms."
    assert 0.015 < bills.ingest_seconds(Traffic(events_a_post=1)) < bills.ingest_seconds(day) < 0.025


def test_concurrency_is_the_larger_of_what_runs_at_once_and_a_tenth_of_the_requests(monkeypatch):
    """A Function URL takes ten requests a second for each unit of concurrency, so short requests need a tenth of their rate;
    those of more than 100 ms need rate × duration."""
    alone = Traffic(events_a_post=1)
    assert bills.concurrency(alone) == 1_158
    monkeypatch.setattr(bills, "ingest_seconds", lambda traffic: 0.25)
    assert bills.concurrency(alone) == 2_894


def test_each_environment_is_as_large_as_it_says():
    """samconfig.toml says of each environment how many POSTs a second it takes: ten for each unit of concurrency."""
    text = (REPOSITORY / "samconfig.toml").read_text()
    said = re.findall(r"^# Takes ([\d,]+) POSTs a second.*?\n\[(\w+)\.deploy.*?IngestMaximumConcurrency=(\d+)", text, re.M | re.S)
    assert [environment for _, environment, _ in said] == ["dev", "staging", "prod"]
    for posts, _, concurrency in said:
        assert int(posts.replace(",", "")) == 10 * int(concurrency)


def test_what_is_printed_adds_up():
    """The sums of a table are those of its rows, which are rounded; and the same bill is the same in each table."""
    def cells(row):
        return [float(cell.replace(",", "")) for cell in row.strip("| ").split("|")[1:]]
    found = printed("--events", "3000000", "70000000", "--front-door", "Alb", "--stream-mode", "ON_DEMAND", "--peak", "4")
    *parts, everything, a_million = map(cells, found["USD a month"].split("\n")[2:])
    for column, sum_of_rows in enumerate(map(sum, zip(*parts, strict=True))):
        assert everything[column] == pytest.approx(sum_of_rows, abs=0.5 * (len(parts) + 1))
    assert a_million == [pytest.approx(usd / (events * 30.4), abs=0.02) for usd, events in zip(everything, (3, 70))]
    assert found["Beside others"].split("\n")[2].split("|")[2:] == found["USD a month"].split("\n")[-2].split("|")[2:]
    choices = found["Front doors and modes of the stream"].split("\n")[2:]
    by_choice = {row.split("|")[1].strip(): cells(row) for row in choices}
    assert by_choice["ALB"] == by_choice["stream on demand"] == everything


# ---- What is there ----

def test_the_model_counts_the_alarms_of_the_template():
    counted = (len(alarms()), sum(map(metrics_paid_for, alarms().values())))
    assert (MODEL["ALARMS"], MODEL["ALARM_METRICS"]) == counted
    paid = sum(map(metrics_paid_for, canary_alarms().values()))
    assert f"seven alarms on {paid} metrics, {paid * prices.ALARM_MONTH:.2f} USD" in PAGE and len(canary_alarms()) == 7


def test_the_model_takes_the_template_s_parameters_and_sizes():
    parameters, resources = document()["Parameters"], document()["Resources"]
    defaults = Deployment()
    for parameter, counted in {
        "FrontDoor": defaults.front_door, "StreamMode": defaults.stream_mode, "BatchSize": defaults.batch_size,
        "BatchingWindowSeconds": defaults.window_seconds, "EventFormat": defaults.event_format,
        "Architecture": defaults.architecture, "StreamRetentionHours": (charges.RETENTION_DAYS + 1) * 24,
    }.items():
        assert parameters[parameter]["Default"] == counted, parameter
    assert resources["IngestFunction"]["Properties"]["MemorySize"] == bills.INGEST_MB
    assert resources["LandingFunction"]["Properties"]["MemorySize"] == bills.LANDING_MB


def test_recorded_events_are_as_long_and_compress_as_well_as_the_model_takes_them_to():
    """The recorded sessions: bytes posted for each event, and their lines together, compressed as landing does."""
    recorded = [request for session in ("dashjs-cmcd-v2-session", "mux-embed-session", "made-up-session")
                for request in requests(f"{session}.jsonl")]
    events = [event for request in recorded for event in landed_texts(request)]
    posted = sum(len(request["body"].encode()) for request in recorded) / len(events)
    lines = "".join(envelope(event, number) for number, event in enumerate(events)).encode()
    ratio = len(lines) / len(bz2.compress(lines, 1))
    print(len(events), "events, posted as", posted, "bytes, lines of", len(lines) / len(events), "ratio", ratio)
    assert posted == pytest.approx(Traffic().bytes_an_event, rel=0.1)
    assert bills.COMPRESSION <= ratio < 1.5 * bills.COMPRESSION


def landed_texts(request):
    """Its events as they land: CMCD becomes JSON."""
    texts = event_texts(request)
    if request["headers"]["content-type"] != "application/cmcd":
        return texts
    return [json.dumps(Reader(text).dictionary(), separators=(",", ":")) for text in texts]


def test_an_envelope_is_as_long_as_the_model_takes_it_to_be():
    assert len(envelope("{}", 1)) - len("{}") == pytest.approx(ENVELOPE_BYTES, abs=5)


def envelope(event, number):
    """A line as ingest makes them; ids don't repeat."""
    ids = [f"{number * 0x9E3779B97F4A7C15 + salt:032x}"[-32:] for salt in (0xD1B54A32D192ED03, 0x8CB92BA72F3D8DD7)]
    first, second = (f"{id_[:8]}-{id_[8:12]}-7{id_[13:16]}-a{id_[17:20]}-{id_[20:]}" for id_ in ids)
    agent = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/148.0.0.0 Safari/537.36"
    return (f'{{"v":1,"id":"{first}","received_at":"2026-11-21T09:32:08.006Z","request_id":"{second}",'
            f'"client":{{"user_agent":"{agent}"}},"event":{event}}}\n')


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


# ---- What traffic becomes ----

@pytest.mark.parametrize("traffic, deployment, records", [
    (Traffic(100e6, 20, 300), Deployment(), Records(5e6, 20 * 580)),
    (Traffic(100e6, 20, 300), Deployment(event_format="raw"), Records(5e6, 20 * 301)),
    # 1,807 lines of 580 bytes fit into a record of 1 MiB.
    (Traffic(1_807, 1_807, 300), Deployment(), Records(1, 1_807 * 580)),
    (Traffic(1_808, 1_808, 300), Deployment(), Records(2, 904 * 580)),
    # One that fits into none is counted by its bytes all the same.
    (Traffic(1, 1, MAX_RECORD_BYTES), Deployment(), Records(1, MAX_RECORD_BYTES + 280)),
])
def test_events_of_a_post_are_packed_in_as_few_records_as_fit(traffic, deployment, records):
    assert packed(traffic, deployment) == records


@pytest.mark.parametrize("records, needed", [
    (Records(1, 1), 1),
    # A mean of 100 records a second is a peak of 1,000.
    (Records(8_640_000, 10), 1),
    (Records(8_640_001, 10), 2),
    # A mean of 0.1 MiB a second, by records that are few and large.
    (Records(8_640, 2**20), 1),
    (Records(8_641, 2**20), 2),
    (Records(5e6, 11_000), 7),
])
def test_shards_are_as_many_as_the_peak_needs(records, needed):
    assert shards(records, Traffic(peak=10)) == needed


@pytest.mark.parametrize("records, deployment, a_day", [
    # Never full within five seconds: 17,280 windows a day in each of seven shards.
    (Records(5e6, 11_000), Deployment(), 7 * 17_280),
    (Records(5e6, 11_000), Deployment(window_seconds=10), 7 * 8_640),
    # Full before the window is over, by records.
    (Records(100e6, 550), Deployment(), 1e6),
    (Records(100e6, 550), Deployment(batch_size=50), 2e6),
    # Full by bytes: 4.5 MiB in records of 1 MiB are four.
    (Records(1e6, 2**20), Deployment(window_seconds=300), 250_000),
    # Fewer records than windows: a batch each.
    (Records(1_000, 550), Deployment(), 1_000),
    # No window, and the mapping looks once a second.
    (Records(5e6, 11_000), Deployment(window_seconds=0), 7 * 86_400),
    # A stream on demand has twice as many shards.
    (Records(5e6, 11_000), Deployment(stream_mode="ON_DEMAND"), 14 * 17_280),
])
def test_batches_end_when_they_are_full_or_their_window_is_over(records, deployment, a_day):
    assert batches(records, Traffic(), deployment) == pytest.approx(a_day)


# ---- What AWS counts, each by hand ----

@pytest.mark.parametrize("amount, usd", [(0, 0), (10, 10), (15, 12.5), (30, 16)])
def test_tiers_are_each_at_their_own_price(amount, usd):
    assert prices.tiered(amount, ((10, 1), (20, 0.5), (float("inf"), 0.1))) == pytest.approx(usd)


@pytest.mark.parametrize("requests, body_bytes, usd", [
    (1e6, 100, 1.00),
    (1e6, 524_288, 1.00),
    (1e6, 524_289, 2.00),
    (400e6, 100, 300 * 1.00 + 100 * 0.90),
    (200e6, 600_000, 300 * 1.00 + 100 * 0.90),
])
def test_an_http_api_meters_512_kb(requests, body_bytes, usd):
    assert charges.http_api(requests, body_bytes) == pytest.approx(usd)


def test_a_rest_api_has_tiers():
    assert charges.rest_api(400e6) == pytest.approx(333 * 3.50 + 67 * 2.80)


@pytest.mark.parametrize("size, usd", [(1, 0.4256), (25_600, 0.4256), (25_601, 0.8512), (2**20, 41 * 0.4256)])
def test_payload_units_are_25_kb(size, usd):
    """A million records a day: 30.4 million, at 0.014 USD a million units."""
    assert charges.payload_units(Records(1e6, size)) == pytest.approx(usd)


@pytest.mark.parametrize("size, billed", [(300, 5_120), (5_120, 5_120), (5_121, 10_240), (11_000, 15_360)])
def test_firehose_rounds_each_record_up_to_5_kb(size, billed):
    """2**30 records a day make as many GB as one has bytes."""
    gb = 30.4 * billed
    assert gb < 512_000 and charges.firehose(Records(2**30, size)) == pytest.approx(gb * 0.029)


def test_firehose_has_tiers():
    """30.4 times 20,480 GB: 512,000 of the first tier, the rest of the second."""
    assert charges.firehose(Records(2**30, 20_480)) == pytest.approx(512_000 * 0.029 + (30.4 * 20_480 - 512_000) * 0.025)


@pytest.mark.parametrize("needs, units", [
    ((50, 3_000, 0.4, 1_000), 2),
    ((25, 9_000, 0.4, 1_000), 3),
    ((25, 3_000, 2.0, 1_000), 5),
    ((25, 3_000, 0.4, 4_000), 4),
])
def test_a_load_balancer_is_billed_by_the_largest_of_four(needs, units):
    assert charges.capacity_units(*needs) == pytest.approx(units)


@pytest.mark.parametrize("bytes_a_request, units", [
    # 100 requests a second are four units of new connections and two of open ones.
    (1_000, 4),
    # 3.6 GB an hour are nine units.
    (10 * 2**30 / 1e6, 9),
])
def test_a_load_balancer_costs_its_hours_its_addresses_and_its_units(bytes_a_request, units):
    requests = 30.4 * 86_400 * 100
    assert charges.load_balancer(requests, bytes_a_request) == pytest.approx(729.6 * (0.0225 + 2 * 0.005 + units * 0.008))


@pytest.mark.parametrize("seconds, memory_mb, architecture, usd", [
    (0.018, 256, "arm64", 1e6 * 0.018 * 0.25 * 0.0000133334),
    (0.0181, 256, "arm64", 1e6 * 0.019 * 0.25 * 0.0000133334),
    (0.100, 512, "x86_64", 1e6 * 0.100 * 0.5 * 0.0000166667),
])
def test_lambda_bills_begun_milliseconds(seconds, memory_mb, architecture, usd):
    assert charges.duration(1e6, seconds, memory_mb, architecture) == pytest.approx(usd)


def test_a_provisioned_stream_costs_its_shards_their_retention_and_its_units():
    found = charges.provisioned_stream(Records(5e6, 11_000), Traffic(peak=10))
    assert found == pytest.approx({
        "Kinesis: shards": 7 * 729.6 * 0.015,
        "Kinesis: retention of seven days": 7 * 729.6 * 0.020,
        "Kinesis: payload units": 5 * 30.4 * 0.014,
    })


def test_a_stream_on_demand_rounds_records_in_up_to_1_kb():
    """2**20 records of 1,025 bytes a day: 2 GB in, of which six days are kept, and 1.001 GB out."""
    found = charges.on_demand_stream(Records(2**20, 1_025))
    assert found == pytest.approx({
        "Kinesis: a stream on demand": 729.6 * 0.04,
        "Kinesis: data in and out": 30.4 * (2 * 0.08 + 1_025 / 1_024 * 0.04),
        "Kinesis: retention of seven days": 12 * 0.10,
    })


def test_the_cpu_s_time_is_longer_the_smaller_the_function():
    """216 µs and 7.4 ns a byte, half as much again on Lambda, 1769/256 for a share of a vCPU; then the waits."""
    body = 20 * 301 + 1
    assert bills.ingest_seconds(Traffic()) == pytest.approx((216e-6 + 7.4e-9 * body) * 1.5 * 1769 / 256 + 0.016)
    assert bills.landing_seconds(1e6) == pytest.approx((500e-6 + 75e-9 * 1e6) * 1.5 * 1769 / 512 + 0.041)


def test_lambda_s_own_lines_are_three():
    """66, 52 and 141 bytes, each billed as 26 more."""
    assert bills.platform_log_gb(1e9) == pytest.approx(66 + 52 + 141 + 3 * 26)


def test_a_gb_of_logs_costs_by_the_sum_of_all_logs():
    """Many make monitoring's cheaper than its own table says, which is of one day; few don't."""
    traffic, deployment = Traffic(1e9, 1), Deployment()
    found = bills.logs_and_monitoring(traffic, deployment)
    alone = sum(row.usd for row in monitoring.rows(traffic, deployment)) * prices.DAYS_A_MONTH
    assert found["monitoring"] < alone
    few = bills.logs_and_monitoring(Traffic(1e6), deployment)
    day = sum(row.usd for row in monitoring.rows(Traffic(1e6), deployment))
    assert few["monitoring"] == pytest.approx(day * prices.DAYS_A_MONTH)


# ---- Bills by hand: 152 million POSTs a month, which are records of 11,600 bytes; 120,960 batches a day ----

POSTS, BATCHES, LINES = 152e6, 120_960 * 30.4, 66 + 52 + 141 + 3 * 26


def test_a_bill_of_playhead_by_hand():
    found = bills.playhead_without_monitoring(Traffic(), Deployment())
    assert found == pytest.approx({
        "front door: Function URL": 0,
        "ingest: requests": 152 * 0.20,
        "ingest: duration": POSTS * 0.019 * 0.25 * 0.0000133334,
        **charges.provisioned_stream(Records(5e6, 11_600), Traffic()),
        # Two environments of ingest, and the mapping.
        "Kinesis: key": 3 * 288 * 30.4 * 0.03 / 10_000,
        "landing: requests and duration": BATCHES * (0.20 / 1e6 + 0.230 * 0.5 * 0.0000133334),
        "S3: PUT, and a HEAD now and then": BATCHES / 1_000 * (1.001 * 0.005 + 0.001 * 0.0004),
        "S3: a month's files": POSTS * 11_600 / 6 / 2**30 * 0.023,
        "answers to the Internet": POSTS * 500 / 2**30 * 0.09,
        "Lambda's own log lines": (POSTS + BATCHES) * LINES / 1e9 * 0.50,
    }, rel=1e-3)
    # check-object writes its own lines too.
    watched = bills.playhead(Traffic(), Deployment())
    assert watched["Lambda's own log lines"] == pytest.approx((POSTS + 2 * BATCHES) * LINES / 1e9 * 0.50)


def test_a_bill_of_firehose_by_hand():
    ours = bills.playhead_without_monitoring(Traffic(), Deployment())
    same = ("front door: Function URL", "ingest: requests", "ingest: duration", "S3: a month's files", "answers to the Internet")
    assert bills.firehose_behind_function(Traffic(), Deployment()) == pytest.approx({
        **{what: ours[what] for what in same},
        "Firehose": POSTS * 15_360 / 2**30 * 0.029,
        "S3: PUT": POSTS * 11_600 / (5 * 2**20) * 0.005 / 1_000,
        "Lambda's own log lines": POSTS * LINES / 1e9 * 0.50,
    })


@pytest.mark.parametrize("bill, own, records", [
    (bills.http_api_to_kinesis, {"HTTP API": 152 * 1.00}, Records(5e6, 20 * 301 + 1)),
    (bills.rest_api_to_kinesis, {"REST API": 152 * 3.50}, Records(100e6, 301)),
])
def test_a_bill_of_an_api_by_hand(bill, own, records):
    """No ingest, other records, and the same from there on."""
    traffic, deployment = Traffic(), Deployment()
    in_a_month = batches(records, traffic, deployment) * 30.4
    assert bill(traffic, deployment) == pytest.approx({
        **own,
        **charges.provisioned_stream(records, traffic),
        "Kinesis: key": 2 * 288 * 30.4 * 0.03 / 10_000,
        **bills.landing(records, traffic, deployment),
        **bills.files(records),
        "answers to the Internet": POSTS * 500 / 2**30 * 0.09,
        "Lambda's own log lines": in_a_month * LINES / 1e9 * 0.50,
    })


# ---- What holds whatever comes ----

@pytest.mark.parametrize("bill", pipeline.OTHERS.values())
def test_no_part_of_a_bill_is_below_zero(bill):
    for traffic, deployment in product(TRAFFICS, DEPLOYMENTS):
        found = bill(traffic, deployment)
        assert min(found.values()) >= 0, (traffic, deployment, found)
        assert sum(found.values()) > 0


@pytest.mark.parametrize("bill", pipeline.OTHERS.values())
@pytest.mark.parametrize("member, more", [
    ("events", (1e4, 1e5, 1e6, 3e6, 1e7, 1e8, 1e9, 1e10)),
    ("bytes_an_event", (20, 100, 250, 300, 550, 1_000, 5_000, 20_000)),
    ("peak", (1, 3, 5, 10, 20)),
])
def test_more_never_costs_less(bill, member, more):
    for traffic, deployment in product(TRAFFICS, DEPLOYMENTS):
        rising = [total(replace(traffic, **{member: value}), deployment, bill) for value in more]
        assert all(less <= usd for less, usd in pairwise(rising)), (traffic, deployment, rising)


def test_more_events_a_post_never_cost_more():
    for traffic, deployment in product(TRAFFICS, DEPLOYMENTS):
        falling = [total(replace(traffic, events_a_post=events), deployment) for events in (1, 2, 5, 10, 20, 50, 100, 200)]
        assert all(usd <= more for more, usd in pairwise(falling)), (traffic, deployment, falling)


def test_a_function_url_is_never_dearer_than_another_front_door():
    for traffic in TRAFFICS:
        free = total(traffic)
        assert free < total(traffic, Deployment(front_door="HttpApi"))
        assert free < total(traffic, Deployment(front_door="Alb"))


def test_larger_batches_and_longer_windows_never_make_more_puts():
    for traffic in TRAFFICS:
        for member, doubling in (("batch_size", (1, 2, 100, 200, 10_000)), ("window_seconds", (0, 1, 5, 10, 300))):
            puts = [bills.playhead(traffic, replace(Deployment(), **{member: value}))["S3: PUT, and a HEAD now and then"]
                    for value in doubling]
            assert all(fewer <= more for more, fewer in pairwise(puts)), (traffic, member, puts)


def test_monitoring_in_the_bill_is_what_its_own_table_says():
    _, a_day = MODEL["table"]()
    assert bills.playhead(Traffic(), Deployment())["monitoring"] == pytest.approx(a_day * prices.DAYS_A_MONTH)
    assert total(Traffic()) > total(Traffic(), bill=bills.playhead_without_monitoring)


def test_what_is_turned_is_turned_alone():
    """Each row of the table differs from the first in what it names, and in its sum."""
    (_, traffic, deployment), *turned = pipeline.turns(Traffic(), Deployment())
    assert (traffic, deployment) == (Traffic(), Deployment())
    for name, other_traffic, other_deployment in turned:
        assert (other_traffic == traffic) != (other_deployment == deployment), name
        assert total(other_traffic, other_deployment) != pytest.approx(total(traffic, deployment), abs=1), name
