"""What the pipeline and its monitoring cost: the tables of docs/COST.md are what `python3 tools/cost` prints, from what `make bench`
measured, and it counts what is there, as AWS does."""

import bz2
import json
import re
import runpy
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise, product
from math import ceil
from statistics import median

import pytest

from support.sessions import event_texts, requests
from support.stack import LANDING, REPOSITORY
from support.structured_fields import Reader
from support.template import alarms, canary_alarms, document, metrics_paid_for, server_alarms

COST = REPOSITORY / "tools/cost"
sys.path.insert(0, str(COST))

import charges  # noqa: E402
import model  # noqa: E402
import prices  # noqa: E402
import server  # noqa: E402
from model import ENVELOPE_BYTES, MAX_RECORD_BYTES, Deployment, Records, Traffic, batches, packed, shards  # noqa: E402

MEASURED = {row["workload"]: row for row in json.loads((REPOSITORY / "docs/measured.json").read_text())["rows"]}
PAGE = (REPOSITORY / "docs/COST.md").read_text()
BILLS = (model.playhead, model.playhead_without_monitoring, model.firehose_behind_function, model.delivery_behind_function)
TRAFFICS = [Traffic(events, events_a_post, bytes_an_event) for events, events_a_post, bytes_an_event
            in product((1e4, 1e6, 1e7, 1e8, 1e9), (1, 20, 1_000), (50, 300, 5_000))]
DEPLOYMENTS = [Deployment(door, mode, compression=compression) for door, mode, compression
               in product(("FunctionUrl", "HttpApi", "Server"), ("PROVISIONED", "ON_DEMAND"), ("zstd", "off"))]
PLAIN = Deployment(compression="off")
SERVER = Deployment(front_door="Server")


def total(traffic, deployment=Deployment(), bill=model.playhead):
    return sum(bill(traffic, deployment).values())


def monitoring_a_day(traffic):
    return model.monitoring(traffic, Deployment())


# ---- The page ----

def cost(*arguments):
    return subprocess.run([sys.executable, COST, *arguments], check=True, capture_output=True, text=True).stdout


def test_the_page_holds_the_tables_that_the_model_makes(tmp_path):
    """`make bench` writes them after it measured; so a page that differs is a stale one."""
    page = tmp_path / "COST.md"
    page.write_text(PAGE)
    cost("--write", page)
    assert page.read_text() == PAGE, "docs/COST.md is stale: run `python3 tools/cost --write docs/COST.md`"
    # Emptied of its tables, it gets them back.
    page.write_text(re.sub("(?s)(<!-- cost: [^>]*-->).*?(<!-- end -->)", r"\1\n\2", PAGE))
    assert "| --- |" not in page.read_text().split("## How it is calculated")[0]
    cost("--write", page)
    assert page.read_text() == PAGE


def test_a_page_without_the_mark_of_a_table_is_refused(tmp_path):
    page = tmp_path / "COST.md"
    page.write_text(PAGE.replace("<!-- cost: changes -->", ""))
    with pytest.raises(subprocess.CalledProcessError) as failed:
        cost("--write", page)
    assert "cost: changes" in failed.value.stderr


def test_monitoring_costs_less_than_two_and_a_half_dollars_a_day():
    """At 100 million events a day."""
    assert monitoring_a_day(Traffic()) < 2.5


def test_loaders_are_in_no_bill_but_their_own():
    """Others' prices have none, and not everybody has a search cluster."""
    day = Traffic()
    for loader, least, most in ((model.parquet, 5, 15), (model.search, 5, 15), (model.warehouse, 0.5, 3)):
        parts = loader(day, Deployment())
        assert least < sum(parts.values()) < most and not parts.keys() & model.playhead(day, Deployment()).keys()
        assert sum(loader(replace(day, events=10 * day.events), Deployment()).values()) < 12 * sum(parts.values())


def test_the_sizes_of_load_search_are_the_templates():
    function = document()["Resources"]["LoadSearchFunction"]["Properties"]
    queue, = (event["Properties"] for event in function["Events"].values() if event["Type"] == "SQS")
    assert function["MemorySize"] == model.SEARCH_MB
    assert (queue["BatchSize"], queue["MaximumBatchingWindowInSeconds"]) == (model.SEARCH_BATCH, model.SEARCH_WINDOW_SECONDS)


def test_the_size_of_load_warehouse_is_the_templates():
    function = document()["Resources"]["LoadWarehouseFunction"]["Properties"]
    assert function["MemorySize"] == model.WAREHOUSE_MB


def test_sentences_on_the_page_agree_with_the_model():
    day = Traffic()
    # What it is held to.
    assert total(day) <= 150
    # Firehose is cheaper up to 100 million events a day, and dearer at a billion where events come together.
    firehose = model.firehose_behind_function
    for events, events_a_post in product((1e6, 1e7, 1e8), (1, 10, 20)):
        assert total(Traffic(events, events_a_post), bill=firehose) < total(Traffic(events, events_a_post))
    # With a peak of three they are nearly as dear at 100 million.
    for events_a_post in (1, 10, 20):
        traffic = Traffic(1e8, events_a_post, peak=3)
        assert total(traffic, bill=firehose) == pytest.approx(total(traffic), rel=0.05)
    assert all(total(Traffic(1e9, events_a_post)) < total(Traffic(1e9, events_a_post), bill=firehose) for events_a_post in (10, 20))
    # A third of the bill is the stream.
    bill = model.playhead(day, Deployment())
    assert 0.3 < sum(usd for part, usd in bill.items() if part.startswith("Kinesis: ")) / total(day) < 0.4
    # Kinesis' own delivery is dearer for events that come together, and cheaper for those that come alone.
    delivery = model.delivery_behind_function
    assert total(day) < 0.6 * total(day, bill=delivery)
    assert total(Traffic(events_a_post=1)) > total(Traffic(events_a_post=1), bill=delivery)
    # A stream on demand is cheaper from peaks of twenty times the mean on.
    on_demand = Deployment(stream_mode="ON_DEMAND")
    peaks = [replace(day, peak=peak) for peak in (15, 20, 30)]
    assert [total(peak) > total(peak, on_demand) for peak in peaks] == [False, False, True]
    # The server at one event a POST, and where it begins to be cheaper: everywhere at about as many POSTs.
    alone = Traffic(events_a_post=1)
    assert total(alone, SERVER) <= 300 and total(day, SERVER) == pytest.approx(total(day), rel=0.05)
    for events_a_post in (1, 2, 5, 10):
        posts = model.break_even(replace(day, events_a_post=events_a_post), Deployment(), SERVER) / events_a_post / 86_400
        assert posts == pytest.approx(55, abs=5)
    assert f"cost {fixed_of_the_server():.0f} USD a month before the first POST" in PAGE
    # An eighth of Lambda's for each further POST.
    more = replace(alone, events=1.5e8)
    assert total(more, SERVER) - total(alone, SERVER) == pytest.approx((total(more) - total(alone)) / 8, rel=0.1)
    handshakes = server.HANDSHAKE_BYTES_OUT / server.POSTS_A_CONNECTION
    assert f"{handshakes / (handshakes + server.ANSWER_BYTES):.0%} of what is sent".replace("%", " %") in PAGE
    # Ingest takes some 20 ms, so that concurrency is the tenth of the requests.
    assert all(0.015 < model.ingest_seconds(traffic) < 0.03 for traffic in (Traffic(events_a_post=1), day))


def fixed_of_the_server():
    """What it costs a month when nobody posts."""
    idle = Traffic(events=1e-6)
    parts = model.data_path(idle, SERVER)
    return sum(usd for part, usd in parts.items() if part.startswith(("front door", "ingest")))


def test_the_server_costs_half_of_what_aws_states_for_clickstream_analytics():
    """1,000 requests a second of ten events: load balancer, servers, stream and S3, whatever else is on our side."""
    table = runpy.run_path(str(COST / "__main__.py"))
    scope = model.in_clickstream_scope(table["CLICKSTREAM"], SERVER)
    left_out = model.playhead(table["CLICKSTREAM"], SERVER).keys() - scope.keys()
    assert left_out == {"answers to the Internet", "monitoring"}
    millions = table["CLICKSTREAM"].events * prices.DAYS_A_MONTH / 1e6
    assert millions == pytest.approx(26_266, abs=1)
    assert sum(scope.values()) / millions <= 0.010
    assert (678 / millions, 532 / millions) == (pytest.approx(0.026, abs=5e-4), pytest.approx(0.020, abs=5e-4))


def test_figures_in_other_documents_agree_with_the_model():
    """README says what it costs beside others, DEPLOYING what landing's batches take and what each environment is sized for."""
    documents = {name: re.sub(r"\s+", " ", (REPOSITORY / name).read_text()) for name in ("README.md", "docs/DEPLOYING.md", "samconfig.toml")}

    def number(document, pattern):
        return int(re.search(pattern, documents[document])[1].replace(",", ""))

    day, alone = Traffic(), Traffic(events_a_post=1)
    assert number("README.md", r"it costs (\d+) USD a month") == round(total(day, bill=model.firehose_behind_function))
    assert number("README.md", r"USD a month; Playhead (\d+)") == round(total(day))
    assert number("README.md", r"some (\d+) USD for the same") == round(total(day, bill=model.delivery_behind_function), -1)
    assert number("README.md", r"one event a POST Playhead costs some ([\d,]+) USD") == round(total(alone), -2)
    assert number("README.md", r"and some (\d+) with its server") == round(total(alone, SERVER), -1)
    lines = 100 * day.events_a_post * (day.bytes_an_event + ENVELOPE_BYTES + 1)
    assert number("docs/DEPLOYING.md", r"full batches of 1.2 MB take some (\d+) ms") == round(model.landing_seconds(lines) * 1e3, -1)
    assert lines == pytest.approx(1.2e6, rel=0.05)
    capacity = re.search(r"shards: [^|]*\| (\d+) \| (\d+) \| (\d+) \|", documents["docs/DEPLOYING.md"])
    configured = re.findall(r'"ShardCount=(\d+)"', documents["samconfig.toml"])
    assert list(capacity.groups()) == configured


def test_concurrency_is_the_larger_of_what_runs_at_once_and_a_tenth_of_the_requests(monkeypatch):
    """A Function URL takes ten requests a second for each unit of concurrency, so short requests need a tenth of their rate;
    those of more than 100 ms need rate × duration."""
    alone = Traffic(events_a_post=1)
    assert model.concurrency(alone) == 1_158
    monkeypatch.setattr(model, "ingest_seconds", lambda traffic: 0.25)
    assert model.concurrency(alone) == 2_894


def test_each_environment_is_as_large_as_it_says():
    """samconfig.toml says of each environment how many POSTs a second it takes: ten for each unit of concurrency."""
    text = (REPOSITORY / "samconfig.toml").read_text()
    said = re.findall(r"^# Takes ([\d,]+) POSTs a second.*?\n\[(\w+)\.deploy.*?IngestMaximumConcurrency=(\d+)", text, re.M | re.S)
    assert [environment for _, environment, _ in said] == ["dev", "staging", "prod"]
    for posts, _, concurrency in said:
        assert int(posts.replace(",", "")) == 10 * int(concurrency)


def test_what_is_printed_adds_up():
    """The sum of a table is that of its rows, which are rounded; and the same bill is the same in each table."""
    def cells(row):
        return [float(cell.replace(",", "")) for cell in row.strip("| ").split("|")[1:]]
    parts, volumes, *_ = cost("--peak", "10").split("\n\n")
    *rows, everything, a_million = map(cells, parts.split("\n")[2:])
    for column, sum_of_rows in enumerate(map(sum, zip(*rows, strict=True))):
        assert everything[column] == pytest.approx(sum_of_rows, abs=0.5 * (len(rows) + 1))
    assert a_million == [pytest.approx(usd / (100 * 30.4), abs=0.02) for usd in everything]
    assert cells(volumes.split("\n")[2])[2] == everything[0]


# ---- What is there ----

def test_the_model_counts_the_alarms_of_the_template():
    counted = (len(alarms()), sum(map(metrics_paid_for, alarms().values())))
    assert (model.ALARMS, model.ALARM_METRICS) == counted
    assert (server.ALARMS, server.ALARM_METRICS) == (len(server_alarms()), sum(map(metrics_paid_for, server_alarms().values())))
    paid = sum(map(metrics_paid_for, canary_alarms().values()))
    assert f"seven alarms on {paid} metrics, {paid * prices.ALARM_MONTH:.2f} USD" in PAGE and len(canary_alarms()) == 7


def test_the_model_takes_parameters_and_sizes_from_the_template():
    parameters, resources = document()["Parameters"], document()["Resources"]
    defaults = Deployment()
    for parameter, counted in {
        "FrontDoor": defaults.front_door, "StreamMode": defaults.stream_mode, "BatchSize": defaults.batch_size,
        "BatchingWindowSeconds": defaults.window_seconds, "EventFormat": defaults.event_format,
        "Architecture": defaults.architecture, "StreamRetentionHours": (charges.RETENTION_DAYS + 1) * 24,
    }.items():
        assert parameters[parameter]["Default"] == counted, parameter
    assert resources["IngestFunction"]["Properties"]["MemorySize"] == model.INGEST_MB
    assert resources["LandingFunction"]["Properties"]["MemorySize"] == model.LANDING_MB


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
    assert model.COMPRESSION <= ratio < 1.5 * model.COMPRESSION


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
    """Landing's line for a batch: measured on the running function."""
    events = b",".join(b'{"type":"heartbeat","session_id":"cost","position":%d}' % number for number in range(20))
    for _ in range(20):
        assert stack.post(body=b"[" + events + b"]").json["accepted"] == 20
    stack.wait_for_lines(lambda line: line.json.get("event", {}).get("session_id") == "cost", 400)
    # The deployed function has a longer name than the one that is measured.
    longer = model.FUNCTION_NAME - len(LANDING)
    lines = [len(line) + longer for line in stack.function_log(LANDING).splitlines() if '"LandedRecords":' in line]
    print("median line:", median(lines), "of", len(lines))
    assert median(lines) <= model.LANDING_LINE


# ---- What traffic becomes ----

def plain(count, size):
    return Records(count, size, size)


@pytest.mark.parametrize("traffic, deployment, records", [
    (Traffic(100e6, 20, 300), PLAIN, plain(5e6, 20 * 580)),
    (Traffic(100e6, 20, 300), replace(PLAIN, event_format="raw"), plain(5e6, 20 * 301)),
    # 1,807 lines of 580 bytes fit into a record of 1 MiB.
    (Traffic(1_807, 1_807, 300), PLAIN, plain(1, 1_807 * 580)),
    (Traffic(1_808, 1_808, 300), PLAIN, plain(2, 904 * 580)),
    # One that fits into none is counted by its bytes all the same.
    (Traffic(1, 1, MAX_RECORD_BYTES), PLAIN, plain(1, MAX_RECORD_BYTES + 280)),
])
def test_events_of_a_post_are_packed_in_as_few_records_as_fit(traffic, deployment, records):
    assert packed(traffic, deployment) == records
    compressed = packed(traffic, replace(deployment, compression="zstd"))
    assert (compressed.count, compressed.lines) == (records.count, records.lines)
    assert 0 < compressed.size <= records.size


def test_records_are_as_long_as_the_bench_measured_them():
    for workload, events in (("ingest_one", 1), ("ingest_twenty", 20)):
        row = MEASURED[workload]
        posted = (row["input_bytes"] - 1) / events - 1
        found = packed(Traffic(events, events, posted), Deployment())
        # A list of one event has two bytes more than the event, not one more for each event and one for all.
        assert found.size == pytest.approx(row["costs"]["rust"]["stored_bytes"], abs=2)
    assert packed(Traffic(20, 20), Deployment()).size <= 20 * 110


@pytest.mark.parametrize("records, needed", [
    (plain(1, 1), 1),
    # A mean of 100 records a second is a peak of 1,000.
    (plain(8_640_000, 10), 1),
    (plain(8_640_001, 10), 2),
    # A mean of 0.1 MiB a second, by records that are few and large.
    (plain(8_640, 2**20), 1),
    (plain(8_641, 2**20), 2),
    (plain(5e6, 11_000), 7),
    # A mean of half a megabyte of lines a second, however small the records are.
    (Records(86_400, 10, 500_000), 1),
    (Records(86_400, 10, 500_001), 2),
])
def test_shards_are_as_many_as_the_peak_needs(records, needed):
    assert shards(records, Traffic(peak=10)) == needed


@pytest.mark.parametrize("records, deployment, a_day", [
    # Never full within five seconds: 17,280 windows a day in each of seven shards.
    (plain(5e6, 11_000), Deployment(), 7 * 17_280),
    (plain(5e6, 11_000), Deployment(window_seconds=10), 7 * 8_640),
    # Full before the window is over, by records.
    (plain(100e6, 550), Deployment(), 1e6),
    (plain(100e6, 550), Deployment(batch_size=50), 2e6),
    # Full by bytes: 4.5 MiB in records of 1 MiB are four.
    (plain(1e6, 2**20), Deployment(window_seconds=300), 250_000),
    # Fewer records than windows: a batch each.
    (plain(1_000, 550), Deployment(), 1_000),
    # No window, and the mapping looks once a second.
    (plain(5e6, 11_000), Deployment(window_seconds=0), 7 * 86_400),
    # A stream on demand has twice as many shards.
    (plain(5e6, 11_000), Deployment(stream_mode="ON_DEMAND"), 14 * 17_280),
])
def test_batches_end_when_they_are_full_or_their_window_is_over(records, deployment, a_day):
    assert batches(records, shards(records, Traffic()), deployment) == pytest.approx(a_day)


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


@pytest.mark.parametrize("size, usd", [(1, 0.4256), (25_600, 0.4256), (25_601, 0.8512), (2**20, 41 * 0.4256)])
def test_payload_units_are_25_kb(size, usd):
    """A million records a day: 30.4 million, at 0.014 USD a million units."""
    assert charges.payload_units(plain(1e6, size)) == pytest.approx(usd)


@pytest.mark.parametrize("size, billed", [(300, 5_120), (5_120, 5_120), (5_121, 10_240), (11_000, 15_360)])
def test_firehose_rounds_each_record_up_to_5_kb(size, billed):
    """2**30 records a day make as many GB as one has bytes."""
    gb = 30.4 * billed
    assert gb < 512_000 and charges.firehose(plain(2**30, size)) == pytest.approx(gb * 0.029)


def test_firehose_has_tiers():
    """30.4 times 20,480 GB: 512,000 of the first tier, the rest of the second."""
    assert charges.firehose(plain(2**30, 20_480)) == pytest.approx(512_000 * 0.029 + (30.4 * 20_480 - 512_000) * 0.025)


@pytest.mark.parametrize("seconds, memory_mb, architecture, usd", [
    (0.018, 256, "arm64", 1e6 * 0.018 * 0.25 * 0.0000133334),
    (0.0181, 256, "arm64", 1e6 * 0.019 * 0.25 * 0.0000133334),
    (0.100, 512, "x86_64", 1e6 * 0.100 * 0.5 * 0.0000166667),
])
def test_lambda_bills_begun_milliseconds(seconds, memory_mb, architecture, usd):
    assert charges.duration(1e6, seconds, memory_mb, architecture) == pytest.approx(usd)


def test_a_provisioned_stream_costs_its_shards_their_retention_and_its_units():
    found = charges.provisioned_stream(plain(5e6, 11_000), 7)
    assert found == pytest.approx({
        "Kinesis: shards": 7 * 729.6 * 0.015,
        "Kinesis: retention of seven days": 7 * 729.6 * 0.020,
        "Kinesis: payload units": 5 * 30.4 * 0.014,
    })


def test_a_stream_on_demand_rounds_records_in_up_to_1_kb():
    """2**20 records of 1,025 bytes a day: 2 GB in, of which six days are kept, and 1.001 GB out."""
    found = charges.on_demand_stream(plain(2**20, 1_025))
    assert found == pytest.approx({
        "Kinesis: a stream on demand": 729.6 * 0.04,
        "Kinesis: data in and out": 30.4 * (2 * 0.08 + 1_025 / 1_024 * 0.04),
        "Kinesis: retention of seven days": 12 * 0.10,
    })


def test_cpu_time_is_what_the_bench_measured_and_longer_the_smaller_the_function():
    """A straight line through two workloads; half as much again on Lambda, 1769/256 for a share of a vCPU; then the waits."""
    for workload, fixed, a_byte in (
        ("ingest_one", model.INGEST_CPU, model.INGEST_CPU_A_BYTE),
        ("ingest_twenty", model.INGEST_CPU, model.INGEST_CPU_A_BYTE),
        ("landing_small", model.LANDING_CPU, model.LANDING_CPU_A_BYTE),
        ("landing_frames", model.LANDING_CPU, model.LANDING_CPU_A_BYTE),
    ):
        assert fixed > 0 and a_byte > 0
        row = MEASURED[workload]
        assert (fixed + a_byte * row["input_bytes"]) * 1e6 == pytest.approx(row["costs"]["rust"]["cpu_us"])
    on_cpu = model.INGEST_CPU + model.INGEST_CPU_A_BYTE * (20 * 301 + 1)
    assert model.ingest_seconds(Traffic()) == pytest.approx(on_cpu * 1.5 * 1769 / 256 + 0.016)
    on_cpu = model.LANDING_CPU + model.LANDING_CPU_A_BYTE * 1e6
    assert model.landing_seconds(1e6) == pytest.approx(on_cpu * 1.5 + 0.041)


# ---- Bills by hand: 152 million POSTs a month, which are records of 11,600 bytes as they are; 120,960 batches a day ----

POSTS, BATCHES = 152e6, 120_960 * 30.4


def billed(seconds):
    return ceil(seconds * 1_000) / 1_000


def test_a_bill_of_playhead_by_hand():
    ingest, landing = (billed(seconds) for seconds in (
        model.ingest_seconds(Traffic()), model.landing_seconds(5e6 * 11_600 / 120_960)))
    assert model.playhead_without_monitoring(Traffic(), PLAIN) == pytest.approx({
        "front door": 0,
        "ingest: requests": 152 * 0.20,
        "ingest: duration": POSTS * ingest * 0.25 * 0.0000133334,
        **charges.provisioned_stream(plain(5e6, 11_600), 7),
        "landing: requests and duration": BATCHES * (0.20 / 1e6 + landing * 1769 / 1024 * 0.0000133334),
        "S3: PUT, and a HEAD now and then": BATCHES / 1_000 * (1.001 * 0.005 + 0.001 * 0.0004),
        "S3: a month's files": POSTS * 11_600 / model.COMPRESSION / 2**30 * 0.023,
        "answers to the Internet": POSTS * 500 / 2**30 * 0.09,
    }, rel=1e-3)


def test_compression_changes_the_stream_and_the_batches_and_nothing_else():
    compressed, as_it_is = (model.playhead_without_monitoring(Traffic(), deployment) for deployment in (Deployment(), PLAIN))
    less = {part for part in as_it_is if compressed[part] < as_it_is[part]}
    assert less == {"Kinesis: shards", "Kinesis: retention of seven days", "landing: requests and duration",
                    "S3: PUT, and a HEAD now and then"}
    assert all(compressed[part] == as_it_is[part] for part in as_it_is.keys() - less)


SAME = ("front door", "ingest: requests", "ingest: duration", "S3: a month's files", "answers to the Internet")


def test_a_bill_of_firehose_by_hand():
    ours = model.playhead_without_monitoring(Traffic(), Deployment())
    assert model.firehose_behind_function(Traffic(), Deployment()) == pytest.approx({
        **{what: ours[what] for what in SAME},
        "Firehose": POSTS * 15_360 / 2**30 * 0.029,
        "S3: PUT": POSTS * 11_600 / (5 * 2**20) * 0.005 / 1_000,
    })


def test_a_bill_of_kinesis_own_delivery_by_hand():
    """Records of 11,600 bytes are taken in as 12 KB; a file each five minutes."""
    ours = model.playhead_without_monitoring(Traffic(), Deployment())
    assert model.delivery_behind_function(Traffic(), Deployment()) == pytest.approx({
        **{what: ours[what] for what in SAME},
        "Kinesis: a stream on demand": 729.6 * 0.04,
        "Kinesis: data in": POSTS * 12_288 / 2**30 * 0.08,
        "Kinesis: delivery to S3": POSTS * 11_600 / 2**30 * 0.0275,
        "S3: PUT": 288 * 30.4 * 0.005 / 1_000,
    })


def test_an_environment_writes_a_line_of_metrics_every_ten_seconds():
    """At most one a POST; two environments are busy on average where 87 POSTs come a second."""
    assert model.ingest_lines(Traffic(20 * 100), Deployment()) == 100
    assert model.ingest_lines(Traffic(), Deployment()) == 2 * 8_640
    # So does each of the server's tasks.
    assert model.ingest_lines(Traffic(), SERVER) == 2 * 8_640


# ---- The server: 1,157.4 POSTs of one event a second, in two tasks ----

ALONE = Traffic(events_a_post=1)


def test_a_bill_of_the_server_by_hand():
    """Each of eight buckets gets 144.7 POSTs a second: 28.9 while a record waits, and the one that began it."""
    posts = 1 + 1e8 / 86_400 / 8 * 0.2
    record = (1_920 + (posts - 15) * (5_700 - 1_920) / 45)
    records = Records(1e8 / posts, record, posts * 580)
    units = 1e8 / 86_400 / 10 * 165 / 3_000
    landing = billed(model.landing_seconds(1e8 * 580 / 34_560))
    found = model.playhead_without_monitoring(ALONE, SERVER)
    assert found == pytest.approx({
        "front door: load balancer": 729.6 * (0.0225 + units * 0.006),
        "front door: public addresses": 729.6 * 4 * 0.005,
        "ingest: tasks": 729.6 * 2 * (0.25 * 0.03238 + 1 * 0.00356),
        **charges.provisioned_stream(records, 2),
        "landing: requests and duration": 34_560 * 30.4 * (0.20 / 1e6 + landing * 1769 / 1024 * 0.0000133334),
        "S3: PUT, and a HEAD now and then": 34_560 * 30.4 / 1_000 * (1.001 * 0.005 + 0.001 * 0.0004),
        "S3: a month's files": 3_040e6 * 580 / model.COMPRESSION / 2**30 * 0.023,
        "answers to the Internet": 3_040e6 * (200 + 122.5) / 2**30 * 0.09,
    }, rel=1e-3)


def test_an_event_of_the_server_is_at_most_120_bytes_on_the_stream():
    """1,000 POSTs of one event a second, and at the peak they are fewer."""
    steady = packed(Traffic(events=86.4e6, events_a_post=1, peak=1), SERVER)
    assert steady.bytes / 86.4e6 <= 120
    peak = packed(model.at_peak(ALONE), SERVER)
    assert peak.bytes / 1e9 < steady.bytes / 86.4e6


@pytest.mark.parametrize("events, size", [(1, 432), (15, 1_920), (60, 5_700), (250, 21_500), (8, 1_176), (440, 37_300)])
def test_records_of_several_sessions_are_as_long_as_measured_and_on_a_line_between_and_behind(events, size):
    assert server.grouped_bytes(events, 580) == pytest.approx(size)


def test_a_record_of_the_server_holds_at_most_256_kib_of_lines():
    """It is full before its time is over; a single POST may be longer."""
    many = packed(Traffic(events=1e10, events_a_post=20, peak=1), SERVER)
    assert many.lines <= 262_144
    assert packed(Traffic(events=1e6, events_a_post=1_000), SERVER).lines == 580_000


@pytest.mark.parametrize("cpu, connections, count", [
    (0, 0, 2), (0.25, 0, 2), (0.26, 0, 3), (1.25, 0, 10), (1.26, 0, 11), (0, 20_000, 2), (0, 20_001, 3), (0.26, 50_000, 5)])
def test_tasks_are_two_and_one_more_each_time_that_their_cpu_is_half_used_or_each_has_10_000_connections(cpu, connections, count):
    assert server.tasks(cpu, connections) == count


@pytest.mark.parametrize("connections, units", [((50, 100, 0.1), 1), ((1, 6_000, 0.1), 2), ((1, 100, 3), 3)])
def test_a_load_balancer_is_billed_by_the_largest_of_its_three_dimensions(connections, units):
    assert server.Connections(*connections).units == units


def test_an_http_api_in_front_costs_its_requests_and_its_access_log():
    """152 million requests, and as many lines of 164 bytes, each billed as 26 more."""
    in_front = model.playhead(Traffic(), Deployment(front_door="HttpApi"))["front door"]
    lines = 152e6 * (model.ACCESS_LOG_LINE + 26) / 1e9
    assert in_front == pytest.approx(152 * 1.00 + charges.logs(lines))


# ---- What holds whatever comes ----

@pytest.mark.parametrize("bill", BILLS)
def test_no_part_of_a_bill_is_below_zero(bill):
    for traffic, deployment in product(TRAFFICS, DEPLOYMENTS):
        found = bill(traffic, deployment)
        assert min(found.values()) >= 0, (traffic, deployment, found)
        assert sum(found.values()) > 0


@pytest.mark.parametrize("bill", BILLS)
@pytest.mark.parametrize("member, more", [
    ("events", (1e4, 1e5, 1e6, 3e6, 1e7, 1e8, 1e9, 1e10)),
    ("bytes_an_event", (20, 100, 250, 300, 550, 1_000, 5_000, 20_000)),
    ("peak", (1, 3, 5, 10, 20)),
])
def test_more_never_costs_less(bill, member, more):
    for traffic, deployment in product(TRAFFICS, DEPLOYMENTS):
        rising = [total(replace(traffic, **{member: value}), deployment, bill) for value in more]
        # Lambda bills whole milliseconds, so that smaller batches can be rounded up by less.
        assert all(less <= 1.001 * usd for less, usd in pairwise(rising)), (traffic, deployment, rising)


def test_more_events_a_post_never_cost_more():
    """But for a thousandth, where a stream on demand rounds records up that hold several POSTs."""
    for traffic, deployment in product(TRAFFICS, DEPLOYMENTS):
        falling = [total(replace(traffic, events_a_post=events), deployment) for events in (1, 2, 5, 10, 20, 50, 100, 200)]
        assert all(usd <= 1.001 * more for more, usd in pairwise(falling)), (traffic, deployment, falling)


def test_a_function_url_is_never_dearer_than_another_front_door():
    for traffic in TRAFFICS:
        free = total(traffic)
        assert free < total(traffic, Deployment(front_door="HttpApi"))


def test_larger_batches_and_longer_windows_never_make_more_puts():
    for traffic in TRAFFICS:
        for member, doubling in (("batch_size", (1, 2, 100, 200, 10_000)), ("window_seconds", (0, 1, 5, 10, 300))):
            puts = [model.playhead(traffic, replace(Deployment(), **{member: value}))["S3: PUT, and a HEAD now and then"]
                    for value in doubling]
            assert all(fewer <= more for more, fewer in pairwise(puts)), (traffic, member, puts)


def test_monitoring_in_the_bill_is_a_month_of_its_days():
    assert model.playhead(Traffic(), Deployment())["monitoring"] == pytest.approx(
        monitoring_a_day(Traffic()) * prices.DAYS_A_MONTH)
    assert total(Traffic()) > total(Traffic(), bill=model.playhead_without_monitoring)


def test_a_check_costs_its_runs_its_time_and_its_requests():
    check = model.Check("", runs=1e6, seconds=0.5, reads=2e6, lists=3e6, metrics=4e6, gb=0.25)
    assert check.usd == pytest.approx(0.20 + 1e6 * 0.125 * 0.0000133334 + 2_000 * 0.0004 + 3_000 * 0.005 + 4_000 * 0.01)


def test_what_is_changed_is_changed_alone():
    """Each row of the table differs from the first in what it names, and in its sum."""
    changes = runpy.run_path(str(COST / "__main__.py"))["changes"]
    (_, traffic, deployment), *changed = changes(Traffic(), Deployment())
    assert (traffic, deployment) == (Traffic(), Deployment())
    for name, other_traffic, other_deployment in changed:
        assert (other_traffic == traffic) != (other_deployment == deployment), name
        assert total(other_traffic, other_deployment) != pytest.approx(total(traffic, deployment), abs=1), name
