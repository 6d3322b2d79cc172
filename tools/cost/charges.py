"""What AWS charges a month for so much of one thing, in US dollars."""

from math import ceil

import prices
from prices import DAYS_A_MONTH, GB, HOURS_A_MONTH, tiered

# The first of the stream's seven days is included in the price.
RETENTION_DAYS = 6


def http_api(requests, body_bytes):
    return tiered(requests * ceil(body_bytes / prices.HTTP_API_INCREMENT), prices.HTTP_API_REQUESTS)


def duration(invocations, seconds, memory_mb, architecture):
    """Lambda rounds up to whole milliseconds."""
    # Not up for what floating point adds.
    milliseconds = ceil(round(seconds * 1000, 6))
    return tiered(invocations * milliseconds / 1000 * memory_mb / 1024, prices.LAMBDA_GB_SECONDS[architecture])


def tasks(count, vcpu, gb, architecture):
    """Of Fargate, that run all month."""
    an_hour = vcpu * prices.FARGATE_VCPU_HOUR[architecture] + gb * prices.FARGATE_GB_HOUR[architecture]
    return count * an_hour * HOURS_A_MONTH


def load_balancer(units):
    """A network load balancer, and its capacity units on average."""
    return (prices.NLB_HOUR + units * prices.NLCU_HOUR) * HOURS_A_MONTH


def public_addresses(count):
    return count * prices.PUBLIC_IPV4_HOUR * HOURS_A_MONTH


def payload_units(records):
    return records.count * DAYS_A_MONTH * ceil(records.size / prices.PAYLOAD_UNIT_BYTES) * prices.PAYLOAD_UNIT


def provisioned_stream(records, shards):
    hours = shards * HOURS_A_MONTH
    return {
        "Kinesis: shards": hours * prices.SHARD_HOUR,
        "Kinesis: retention of seven days": hours * prices.SHARD_RETENTION_HOUR,
        "Kinesis: payload units": payload_units(records),
    }


def on_demand_gb_in(records):
    return records.count * ceil(records.size / prices.ON_DEMAND_INCREMENT) * prices.ON_DEMAND_INCREMENT / GB


def on_demand_stream(records):
    """Data in and out by the GB, and retention from the second day on."""
    gb_in = on_demand_gb_in(records)
    gb_out = records.bytes / GB
    return {
        "Kinesis: a stream on demand": HOURS_A_MONTH * prices.ON_DEMAND_HOUR,
        "Kinesis: data in and out": DAYS_A_MONTH * (gb_in * prices.ON_DEMAND_GB_IN + gb_out * prices.ON_DEMAND_GB_OUT),
        "Kinesis: retention of seven days": gb_in * RETENTION_DAYS * prices.ON_DEMAND_GB_RETENTION_MONTH,
    }


def delivered_stream(records):
    """On demand, kept for a day, which is included; Kinesis delivers it to S3."""
    delivered = records.bytes / GB * DAYS_A_MONTH
    return {
        "Kinesis: a stream on demand": HOURS_A_MONTH * prices.ON_DEMAND_HOUR,
        "Kinesis: data in": on_demand_gb_in(records) * DAYS_A_MONTH * prices.ON_DEMAND_GB_IN,
        "Kinesis: delivery to S3": delivered * prices.DELIVERY_GB,
    }


def firehose(records):
    billed = ceil(records.size / prices.FIREHOSE_INCREMENT) * prices.FIREHOSE_INCREMENT
    return tiered(records.count * DAYS_A_MONTH * billed / GB, prices.FIREHOSE_GB)


def storage(gb):
    return tiered(gb, prices.S3_GB_MONTH)


def internet(gb):
    return tiered(gb, prices.INTERNET_GB)


def logs(gb):
    return tiered(gb, prices.LOG_GBS)
