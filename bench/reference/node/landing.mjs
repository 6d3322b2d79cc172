// Lands batches of Kinesis records in S3, as bzip2-compressed JSON lines.

import { createHash } from "node:crypto";
import { HeadObjectCommand, PutObjectCommand, S3Client } from "@aws-sdk/client-s3";
import bzip2 from "node-bzip2";

const { BUCKET_NAME, AWS_LAMBDA_FUNCTION_NAME } = process.env;

const s3 = new S3Client({});

export async function handler(batch) {
  const groups = group(batch.Records);
  const stored = [];
  try {
    for (const one of groups.values()) stored.push(await store(one));
  } catch (problem) {
    console.warn(`batch not landed; it will be sent again: ${problem}`);
    return { batchItemFailures: [{ itemIdentifier: batch.Records[0].kinesis.sequenceNumber }] };
  }
  log(batch.Records, groups, stored);
  return { batchItemFailures: [] };
}

/** The lines by kind and hour of arrival: what becomes one object each. */
function group(records) {
  const groups = new Map();
  for (const { eventID, kinesis } of records) {
    const arrival = new Date(kinesis.approximateArrivalTimestamp * 1000).toISOString();
    const hour = `dt=${arrival.slice(0, 10)}/hour=${arrival.slice(11, 13)}`;
    const shardId = eventID.split(":", 1)[0];
    for (const text of Buffer.from(kinesis.data, "base64").toString("utf8").split(/\r?\n/)) {
      if (text === "") continue;
      const { kind, line, receivedAt } = read(text, arrival);
      const name = `${kind}/${hour}/${shardId}`;
      let found = groups.get(name);
      if (found === undefined) {
        found = { name, lines: [], receivedAt: [], sequenceNumbers: new Set() };
        groups.set(name, found);
      }
      found.lines.push(line);
      found.receivedAt.push(receivedAt);
      found.sequenceNumbers.add(kinesis.sequenceNumber);
    }
  }
  return groups;
}

/** What a line is: an event, something rejected, or no JSON object, which is kept as rejected. */
function read(line, arrival) {
  try {
    const parsed = JSON.parse(line);
    if (typeof parsed === "object" && parsed !== null && !Array.isArray(parsed)) {
      const kind = "rejected" in parsed ? "rejected" : "events";
      return { kind, line, receivedAt: parsed.received_at ?? arrival };
    }
  } catch {
    // Kept as rejected.
  }
  const rejected = { reason: "foreign_record", body_base64: Buffer.from(line).toString("base64") };
  return { kind: "rejected", line: JSON.stringify({ v: 1, received_at: arrival, rejected }), receivedAt: arrival };
}

/** Writes a group's object. One that is there is of an earlier attempt, and is replaced if it is still the same. */
async function store({ name, lines, receivedAt, sequenceNumbers }) {
  const numbers = [...sequenceNumbers];
  const content = Buffer.from(`${lines.join("\n")}\n`);
  const body = bzip2.compress(content);
  const object = { Bucket: BUCKET_NAME, Key: `${name}-${numbers[0]}.jsonl.bz2` };
  const times = receivedAt.sort();
  const put = {
    ...object,
    Body: body,
    ContentType: "application/x-bzip2",
    Metadata: {
      "last-sequence-number": numbers.at(-1),
      "record-count": String(numbers.length),
      "event-count": String(lines.length),
      "uncompressed-bytes": String(content.length),
      "uncompressed-sha256": createHash("sha256").update(content).digest("hex"),
      "earliest-received-at": times[0],
      "latest-received-at": times.at(-1),
    },
  };
  try {
    await s3.send(new PutObjectCommand({ ...put, IfNoneMatch: "*" }));
  } catch (problem) {
    if (problem.$metadata?.httpStatusCode !== 412) throw problem;
    const { ETag } = await s3.send(new HeadObjectCommand(object));
    await s3.send(new PutObjectCommand({ ...put, IfMatch: ETag }));
  }
  return { uncompressed: content.length, compressed: body.length };
}

/** One line of metrics in CloudWatch's embedded format. */
function log(records, groups, stored) {
  const sum = (values) => values.reduce((total, value) => total + value, 0);
  const metrics = {
    LandedRecords: records.length,
    LandedEvents: sum([...groups.values()].map(({ lines }) => lines.length)),
    LandedObjects: groups.size,
    UncompressedBytes: sum(stored.map(({ uncompressed }) => uncompressed)),
    CompressedBytes: sum(stored.map(({ compressed }) => compressed)),
  };
  const definitions = Object.keys(metrics).map((name) => ({ Name: name, Unit: "Count" }));
  const directive = { Namespace: "Playhead", Dimensions: [["FunctionName"]], Metrics: definitions };
  const aws = { Timestamp: Date.now(), CloudWatchMetrics: [directive] };
  process.stdout.write(`${JSON.stringify({ _aws: aws, FunctionName: AWS_LAMBDA_FUNCTION_NAME, ...metrics })}\n`);
}
