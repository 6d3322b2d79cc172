// Takes the events that players post and puts them on the Kinesis stream.

import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { KinesisClient, PutRecordsCommand } from "@aws-sdk/client-kinesis";
import { NodeHttpHandler } from "@smithy/node-http-handler";

const { STREAM_NAME, AWS_LAMBDA_FUNCTION_NAME } = process.env;
const KEY_FIELDS = ["session_id", "sessionId", "viewer_id", "viewerId", "xid", "sid"];

// PutRecords takes 500 records and 5 MiB a call, and a record holds 1 MiB with its key.
const MAX_RECORDS = 500;
const MAX_CALL_BYTES = 5 * 1024 * 1024;
const MAX_RECORD_BYTES = 1024 * 1024;
const MAX_ATTEMPTS = 5;

// The SDK's own choice for Kinesis is HTTP/2 with a connection for each request. This keeps one alive.
const kinesis = new KinesisClient({ requestHandler: new NodeHttpHandler() });

export async function handler(request, context) {
  let body = request.body ?? "";
  if (request.isBase64Encoded) body = Buffer.from(body, "base64").toString("utf8");
  let items;
  try {
    items = eventsOf(JSON.parse(body));
  } catch (problem) {
    return answer(400, { error: { code: "invalid_json", message: problem.message } });
  }
  if (items.length === 0) {
    return answer(400, { error: { code: "no_events", message: "the body holds no event" } });
  }

  const rejected = [];
  const events = [];
  items.forEach((item, index) => {
    if (isObject(item)) events.push({ index, event: item });
    else rejected.push({ index, reason: "not_an_object" });
  });
  const { records, tooLarge } = pack(events, envelope(request, context), context.awsRequestId);
  for (const index of tooLarge) rejected.push({ index, reason: "event_too_large" });
  const notStored = await put(records);
  const accepted = items.length - rejected.length - notStored.length;
  log(accepted, rejected.length, notStored.length, records.length, body.length);
  if (notStored.length > 0) {
    const error = { code: "not_stored", message: "send the events at these indexes again" };
    return answer(503, { accepted, not_stored: notStored.sort((a, b) => a - b), rejected, error });
  }
  return answer(accepted > 0 ? 200 : 400, { accepted, rejected });
}

function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** One object is one event, unless its member `events` is an array. */
function eventsOf(body) {
  if (Array.isArray(body)) return body;
  if (isObject(body) && Array.isArray(body.events)) return body.events;
  return [body];
}

/** What the lines of one request have in common. */
function envelope(request, context) {
  return {
    received_at: new Date(request.requestContext.timeEpoch).toISOString(),
    request_id: context.awsRequestId,
    client: { user_agent: request.headers["user-agent"] },
  };
}

/** Records of the lines of one key each, as full as they may be, and the indexes of events that fit in none. */
function pack(events, common, requestId) {
  const records = [];
  const open = new Map();
  const tooLarge = [];
  for (const { index, event } of events) {
    const field = KEY_FIELDS.find((name) => typeof event[name] === "string");
    const key = `e-${field === undefined ? requestId : event[field]}`.slice(0, 256);
    const line = Buffer.from(JSON.stringify({ v: 1, id: event.id ?? randomUUID(), ...common, event }) + "\n");
    const size = line.length + Buffer.byteLength(key);
    if (size > MAX_RECORD_BYTES) {
      tooLarge.push(index);
      continue;
    }
    const record = open.get(key);
    if (record === undefined || record.size + line.length > MAX_RECORD_BYTES) {
      const started = { key, size, lines: [line], indexes: [index] };
      open.set(key, started);
      records.push(started);
    } else {
      record.lines.push(line);
      record.indexes.push(index);
      record.size += line.length;
    }
  }
  return { records, tooLarge };
}

/** Puts all records; resolves to the indexes of the events in those that Kinesis did not take. */
async function put(records) {
  const notStored = [];
  for (let call of calls(records)) {
    for (let attempt = 0; call.length > 0 && attempt < MAX_ATTEMPTS; attempt += 1) {
      if (attempt > 0) await sleep(Math.random() * 50 * 2 ** attempt);
      const entries = call.map(({ key, lines }) => ({ Data: Buffer.concat(lines), PartitionKey: key }));
      const response = await kinesis.send(new PutRecordsCommand({ StreamName: STREAM_NAME, Records: entries }));
      call = response.FailedRecordCount ? call.filter((_, index) => response.Records[index].ErrorCode) : [];
    }
    for (const { indexes } of call) notStored.push(...indexes);
  }
  return notStored;
}

function* calls(records) {
  let call = [];
  let size = 0;
  for (const record of records) {
    if (call.length === MAX_RECORDS || (call.length > 0 && size + record.size > MAX_CALL_BYTES)) {
      yield call;
      call = [];
      size = 0;
    }
    call.push(record);
    size += record.size;
  }
  if (call.length > 0) yield call;
}

/** One line of metrics in CloudWatch's embedded format. */
function log(accepted, rejected, notStored, records, requestBytes) {
  const metrics = {
    AcceptedEvents: accepted,
    RejectedLines: rejected,
    NotStoredEvents: notStored,
    PutRecords: records,
    RequestBytes: requestBytes,
  };
  const definitions = Object.keys(metrics).map((name) => ({ Name: name, Unit: "Count" }));
  const directive = { Namespace: "Playhead", Dimensions: [["FunctionName"]], Metrics: definitions };
  const aws = { Timestamp: Date.now(), CloudWatchMetrics: [directive] };
  process.stdout.write(`${JSON.stringify({ _aws: aws, FunctionName: AWS_LAMBDA_FUNCTION_NAME, ...metrics })}\n`);
}

function answer(statusCode, body) {
  const headers = { "content-type": "application/json", "access-control-allow-origin": "*" };
  return { statusCode, headers, body: JSON.stringify(body), isBase64Encoded: false };
}
