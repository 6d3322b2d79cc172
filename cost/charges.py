"""What AWS charges a month for so much of one thing, in US dollars."""

from math import ceil

import prices
from prices import DAYS_A_MONTH, GB, HOURS_A_MONTH, tiered
from stream import shards

# Of the stream's seven days the first is in the price.
RETENTION_DAYS = 6
# Each five minutes, and for each holder of credentials, the stream asks for its key.
# https://docs.aws.amazon.com/streams/latest/dev/costs-performance.html
KEY_REQUESTS_A_DAY = 24 * 60 / 5
# Assumed: each POST is a connection of its own, which the load balancer keeps for its idle timeout; it has one rule, and an
# address in each of two zones.
CONNECTION_SECONDS = 60
LOAD_BALANCER_RULES = 1
LOAD_BALANCER_ADDRESSES = 2


def http_api(requests, body_bytes):
    return tiered(requests * ceil(body_bytes / prices.HTTP_API_INCREMENT), prices.HTTP_API_REQUESTS)


def rest_api(requests):
    return tiered(requests, prices.REST_API_REQUESTS)


def load_balancer(requests, bytes_a_request):
    """For requests that come evenly."""
    a_second = requests / (HOURS_A_MONTH * 3600)
    units = capacity_units(a_second, a_second * CONNECTION_SECONDS, a_second * 3600 * bytes_a_request / GB,
                           a_second * max(0, LOAD_BALANCER_RULES - prices.LCU_FREE_RULES))
    addresses = LOAD_BALANCER_ADDRESSES * prices.PUBLIC_IPV4_HOUR
    return HOURS_A_MONTH * (prices.LOAD_BALANCER_HOUR + addresses + units * prices.LCU_HOUR)


def capacity_units(new_connections, active_connections, gb_an_hour, rule_evaluations):
    """As many as the largest of the four needs."""
    return max(new_connections / prices.LCU_NEW_CONNECTIONS, active_connections / prices.LCU_ACTIVE_CONNECTIONS,
               gb_an_hour / prices.LCU_GB, rule_evaluations / prices.LCU_RULE_EVALUATIONS)


def duration(invocations, seconds, memory_mb, architecture):
    """Lambda bills whole milliseconds, begun ones too."""
    # What floating point adds is no millisecond.
    milliseconds = ceil(round(seconds * 1000, 6))
    return tiered(invocations * milliseconds / 1000 * memory_mb / 1024, prices.LAMBDA_GB_SECONDS[architecture])


def payload_units(records):
    return records.count * DAYS_A_MONTH * ceil(records.size / prices.PAYLOAD_UNIT_BYTES) * prices.PAYLOAD_UNIT


def provisioned_stream(records, traffic):
    hours = shards(records, traffic) * HOURS_A_MONTH
    return {
        "Kinesis: shards": hours * prices.SHARD_HOUR,
        "Kinesis: retention of seven days": hours * prices.SHARD_RETENTION_HOUR,
        "Kinesis: payload units": payload_units(records),
    }


def on_demand_stream(records):
    """Data in and out by the GB, and the retention of what is older than a day."""
    gb_in = records.count * ceil(records.size / prices.ON_DEMAND_INCREMENT) * prices.ON_DEMAND_INCREMENT / GB
    gb_out = records.bytes / GB
    return {
        "Kinesis: a stream on demand": HOURS_A_MONTH * prices.ON_DEMAND_HOUR,
        "Kinesis: data in and out": DAYS_A_MONTH * (gb_in * prices.ON_DEMAND_GB_IN + gb_out * prices.ON_DEMAND_GB_OUT),
        "Kinesis: retention of seven days": gb_in * RETENTION_DAYS * prices.ON_DEMAND_GB_RETENTION_MONTH,
    }


def stream_key(credentials):
    return DAYS_A_MONTH * KEY_REQUESTS_A_DAY * credentials * prices.KMS_REQUEST


def firehose(records):
    billed = ceil(records.size / prices.FIREHOSE_INCREMENT) * prices.FIREHOSE_INCREMENT
    return tiered(records.count * DAYS_A_MONTH * billed / GB, prices.FIREHOSE_GB)


def storage(gb):
    return tiered(gb, prices.S3_GB_MONTH)


def internet(gb):
    return tiered(gb, prices.INTERNET_GB)


def logs(gb):
    return tiered(gb, prices.LOG_GBS)
