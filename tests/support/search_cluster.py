"""An OpenSearch or Elasticsearch cluster in memory, as far as a loader and its readers can tell: bulk requests, index templates,
counts and searches, with faults on demand."""

import fnmatch
import hashlib
import json
import re
from base64 import b64encode
from contextlib import contextmanager
from urllib.parse import parse_qs, urlsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from support.proxy import Reply, serving

# Lucene's limit of a term.
MAX_TERM_BYTES = 32_766
ERROR_OF_A_FULL_QUEUE = {"type": "es_rejected_execution_exception", "reason": "rejected execution of coordinating operation"}
ERROR_OF_A_BREAKER = {"type": "circuit_breaking_exception", "reason": "[parent] Data too large"}


class MappingError(Exception):
    """A document that the mapping has no place for."""


class Document(dict):
    """A document as it was sent; `repeated` is the name of a member that it, or an object in it, has twice."""

    repeated = None


def members_once(members):
    """An object of a document, from its members: a cluster's parser refuses one that repeats a name, at any depth."""
    found = Document(members)
    names = [name for name, _ in members]
    found.repeated = next((name for name in names if names.count(name) > 1), None) or next(
        (leaf.repeated for leaf in objects_in(list(found.values())) if leaf.repeated), None)
    return found


def objects_in(value):
    if isinstance(value, dict):
        return [value]
    return [found for member in value for found in objects_in(member)] if isinstance(value, list) else []


def leaves(value):
    if isinstance(value, dict):
        return [leaf for member in value.values() for leaf in leaves(member)]
    return [leaf for member in value for leaf in leaves(member)] if isinstance(value, list) else [value]


def check_event(value, field):
    if not isinstance(value, dict):
        raise MappingError("mapper_parsing_exception", "Failed to parse object: expecting token of type [START_OBJECT]")
    longest = max((len(str(leaf).encode()) for leaf in leaves(value)), default=0)
    if longest > field.get("ignore_above", MAX_TERM_BYTES):
        if field["type"] == "flat_object":
            raise MappingError("illegal_argument_exception", "Document contains at least one immense term")


def check(document, properties):
    """What a mapping with `dynamic: false` refuses: values that are not of their field's type."""
    for name, field in properties.items():
        value = document.get(name)
        if value is None:
            continue
        if field.get("type") in ("flat_object", "flattened"):
            check_event(value, field)
        elif "properties" in field:
            if not isinstance(value, dict):
                raise MappingError("mapper_parsing_exception", f"object mapping for [{name}] tried to parse field as object")
            check(value, field["properties"])
        elif isinstance(value, dict):
            raise MappingError("mapper_parsing_exception", f"failed to parse field [{name}] of type [{field['type']}]")
        elif field["type"] == "date" and not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", str(value)):
            raise MappingError("mapper_parsing_exception", f"failed to parse field [{name}] of type [date]")


class SearchCluster:
    """Documents by index and id. `faults` are used up, one a bulk request: each is called with the cluster, the items' actions
    and a function that stores them, and returns a reply."""

    def __init__(self, distribution="opensearch", authorized=lambda request: True):
        self.distribution, self.authorized = distribution, authorized
        self.indexes, self.templates, self.faults, self.requests = {}, {}, [], []

    # ---- What the loader asks for ----

    def reply_to(self, request):
        self.requests.append(request)
        url = urlsplit(request.path)
        if not self.authorized(request):
            return Reply(401, body=b"Unauthorized")
        first, _, rest = url.path.lstrip("/").partition("/")
        if url.path == "/":
            version = {"number": "2.19.0", "distribution": "opensearch"} if self.distribution == "opensearch" else {"number": "8.17.0"}
            return answer(200, {"name": "node", "version": version})
        if first == "_index_template":
            return self.put_template(rest, json.loads(request.body))
        if first == "_bulk":
            return self.bulk(request, parse_qs(url.query))
        return self.read(first, rest, json.loads(request.body or b"{}"))

    def put_template(self, name, template):
        others = [(other, known) for other, known in self.templates.items()
                  if other != name and known["priority"] == template["priority"] and overlap(known, template)]
        if others:
            reason = f"index template [{name}] matches patterns of [{others[0][0]}], which has the same priority"
            return answer(400, {"error": {"type": "illegal_argument_exception", "reason": reason}, "status": 400})
        self.templates[name] = template
        return answer(200, {"acknowledged": True})

    def bulk(self, request, query):
        if request.headers["content-type"] not in ("application/x-ndjson", "application/json") or not request.body.endswith(b"\n"):
            return answer(400, {"error": {"type": "illegal_argument_exception", "reason": "must be terminated by a newline"}})
        lines = [json.loads(line, object_pairs_hook=members_once) for line in request.body.splitlines()]
        pairs = list(zip(lines[::2], lines[1::2], strict=True))
        store = lambda: [self.create(action["create"], document) for action, document in pairs]  # noqa: E731
        fault = self.faults.pop(0) if self.faults else None
        if fault:
            return fault(self, pairs, store)
        return self.answered(store(), query.get("filter_path", [""])[0])

    def answered(self, items, filter_path=""):
        """An answer with each item's status; without `filter_path` with all that a cluster says."""
        errors = any(item["status"] >= 400 for item in items)
        if "items.*.status" not in filter_path:
            items = [{"_index": "i", "_version": 1, "_shards": {"total": 2}} | item for item in items]
        return answer(200, {"errors": errors, "items": [{"create": item} for item in items]})

    def create(self, action, document):
        if document.repeated:
            reason = f"failed to parse: Duplicate field '{document.repeated}'"
            return {"status": 400, "error": {"type": "mapper_parsing_exception", "reason": reason}}
        index = self.indexes.setdefault(action["_index"], {})
        if action["_id"] in index:
            reason = f"[{action['_id']}]: version conflict, document already exists (current version [1])"
            return {"status": 409, "error": {"type": "version_conflict_engine_exception", "reason": reason}}
        try:
            check(document, self.properties(action["_index"]))
        except MappingError as error:
            return {"status": 400, "error": {"type": error.args[0], "reason": error.args[1]}}
        index[action["_id"]] = document
        return {"status": 201}

    def properties(self, index):
        """The mapping that the templates give an index."""
        found = [template for template in self.templates.values()
                 if any(fnmatch.fnmatchcase(index, pattern) for pattern in template["index_patterns"])]
        best, = sorted(found, key=lambda template: template["priority"])[-1:]
        return best["template"]["mappings"]["properties"]

    # ---- What readers ask for ----

    def read(self, pattern, operation, body):
        hits = [{"_index": name, "_id": key, "_source": document} for name, index in sorted(self.indexes.items())
                if fnmatch.fnmatchcase(name, pattern) for key, document in index.items()]
        term = body.get("query", {}).get("term", {})
        hits = [hit for hit in hits if all(hit["_source"].get(name) == value for name, value in term.items())]
        if operation == "_count":
            return answer(200, {"count": len(hits)})
        assert operation == "_search", operation
        total = {"value": len(hits), "relation": "eq"}
        return answer(200, {"hits": {"total": total, "hits": hits[: body.get("size", 10)]}})


def overlap(one, other):
    """Whether an index may be of both templates, whose patterns all end with their only asterisk."""
    starts = [[pattern.removesuffix("*") for pattern in template["index_patterns"]] for template in (one, other)]
    return any(a.startswith(b) or b.startswith(a) for a in starts[0] for b in starts[1])


def answer(status, body):
    return Reply(status, [("content-type", "application/json")], json.dumps(body).encode())


# ---- Faults ----

def status(code):
    """The whole request is refused."""
    return lambda cluster, pairs, store: Reply(code, body=b"<html>no JSON</html>")


def cut_off_after_storing(cluster, pairs, store):
    """Everything is stored, and the connection ends without an answer."""
    store()
    raise OSError("cut off")


def unreadable_after_storing(cluster, pairs, store):
    store()
    return Reply(200, body=b'{"errors":false,"items":[')


def busy_for_a_third(code, error, start):
    """A third of the documents are refused for now."""
    def fault(cluster, pairs, store):
        items = [{"status": code, "error": error} if (number + start) % 3 == 0 else cluster.create(action["create"], document)
                 for number, (action, document) in enumerate(pairs)]
        return cluster.answered(items)
    return fault


# ---- Who may call ----

def with_password(user, password):
    expected = "Basic " + b64encode(f"{user}:{password}".encode()).decode()
    return lambda request: request.headers["authorization"] == expected


def signed_with(key, secret, region, service="es"):
    """Requests whose signature is right: https://docs.aws.amazon.com/IAM/latest/UserGuide/create-signed-request.html"""
    def is_signed(request):
        found = re.fullmatch(
            rf"AWS4-HMAC-SHA256 Credential={key}/\d+/{region}/{service}/aws4_request, SignedHeaders=([^,]+), Signature=(\w+)",
            request.headers["authorization"] or "")
        if not found:
            return False
        names, signature = found.groups()
        # The signature is of this header, not of the body.
        if request.headers["x-amz-content-sha256"] != hashlib.sha256(request.body).hexdigest():
            return False
        headers = {name: request.headers[name] for name in names.split(";")}
        again = AWSRequest(request.method, f"http://{request.headers['host']}{request.path}", headers=headers, data=request.body)
        again.context["timestamp"] = request.headers["x-amz-date"]
        signer = SigV4Auth(Credentials(key, secret), service, region)
        return "x-amz-content-sha256" in names.split(";") and signer.signature(signer.string_to_sign(again, signer.canonical_request(again)), again) == signature
    return is_signed


@contextmanager
def serving_cluster(cluster):
    """The cluster's address."""
    with serving(cluster.reply_to) as address:
        yield f"http://{address}"
