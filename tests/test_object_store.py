"""The one-machine stack's S3 as readers use it: keys that are none, folders that are none, and what a client has already."""

import http.client
import uuid
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from support.stack import LANDING_BUCKET

FILES = "objects are files until the store is replaced"


def key():
    return f"object-store/{uuid.uuid4()}"


def status_of(call, **arguments):
    try:
        return call(Bucket=LANDING_BUCKET, **arguments)["ResponseMetadata"]["HTTPStatusCode"]
    except ClientError as error:
        return error.response["ResponseMetadata"]["HTTPStatusCode"]


def ask(stack, method, path, body=b""):
    """A signed request for exactly this path: clients tidy theirs up."""
    url = urlsplit(stack.aws_address)
    request = AWSRequest(method, f"{stack.aws_address}{path}", data=body, headers={"Host": url.netloc})
    S3SigV4Auth(Credentials("local", "local"), "s3", "us-east-1").add_auth(request)
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=20)
    connection.request(method, path, body, dict(request.headers))
    return connection.getresponse().status


@pytest.mark.parametrize("segment", ["..", ".", ""])
@pytest.mark.parametrize("form", ["{}/outside", "inside/{}/x", "{}/{}/{}/outside"])
def test_keys_that_would_name_another_file_are_refused_and_write_nothing(stack, segment, form):
    unfit, root = form.replace("{}", segment), stack.data.parent
    before = sorted(path for path in root.rglob("*outside*"))
    for name in (unfit, quote(unfit, safe="").replace(".", "%2E")):
        path = f"/{LANDING_BUCKET}/{name}"
        assert ask(stack, "PUT", path, b"x") in (400, 403), path
        assert ask(stack, "GET", path) in (403, 404), path
        assert ask(stack, "HEAD", path) in (403, 404), path
        assert ask(stack, "DELETE", path) in (400, 403), path
    assert sorted(path for path in root.rglob("*outside*")) == before


@pytest.mark.parametrize("unfit", ["../failed-batches-bucket/{}", "a/../{}", "a//{}", "./{}"])
def test_keys_in_bodies_and_headers_are_looked_at_too(stack, unfit):
    s3, name = stack.s3(), str(uuid.uuid4())
    s3.put_object(Bucket="failed-batches-bucket", Key=name, Body=b"kept")
    s3.put_object(Bucket=LANDING_BUCKET, Key=name, Body=b"kept")
    unfit = unfit.format(name)
    assert status_of(s3.delete_objects, Delete={"Objects": [{"Key": unfit}]}) == 400
    copied = status_of(s3.copy_object, Key=key(), CopySource={"Bucket": LANDING_BUCKET, "Key": unfit})
    assert copied in (400, 404)
    for bucket in ("failed-batches-bucket", LANDING_BUCKET):
        assert s3.get_object(Bucket=bucket, Key=name)["Body"].read() == b"kept"
        s3.delete_object(Bucket=bucket, Key=name)


def test_a_key_that_others_begin_with_is_not_there(stack):
    """pyarrow and s3fs look at `landing-bucket/events` before they list it."""
    s3, name = stack.s3(), key()
    s3.put_object(Bucket=LANDING_BUCKET, Key=f"{name}/below/it", Body=b"x")
    for absent in (name, f"{name}/below", f"{name}/", f"{name}/below/it/further", f"{name}/below/it/", "object-store"):
        assert status_of(s3.head_object, Key=absent) == 404, absent
        assert status_of(s3.get_object, Key=absent) == 404, absent
        with pytest.raises(s3.exceptions.NoSuchKey):
            s3.get_object(Bucket=LANDING_BUCKET, Key=absent)
    listed = s3.list_objects_v2(Bucket=LANDING_BUCKET, Prefix=f"{name}/", Delimiter="/")
    assert [prefix["Prefix"] for prefix in listed["CommonPrefixes"]] == [f"{name}/below/"]


def test_what_a_client_has_already_is_not_sent_again(stack):
    s3, name = stack.s3(), key()
    tag = s3.put_object(Bucket=LANDING_BUCKET, Key=name, Body=b"x")["ETag"]
    for call in (s3.get_object, s3.head_object):
        assert status_of(call, Key=name, IfNoneMatch=tag) == 304
        assert status_of(call, Key=name, IfNoneMatch="*") == 304
        assert status_of(call, Key=name, IfNoneMatch='"another"') == 200
        assert status_of(call, Key=f"{name}-absent", IfNoneMatch=tag) == 404
    s3.put_object(Bucket=LANDING_BUCKET, Key=name, Body=b"y")
    assert s3.get_object(Bucket=LANDING_BUCKET, Key=name, IfNoneMatch=tag)["Body"].read() == b"y"


def test_keys_that_no_file_can_have_are_refused_and_change_nothing(stack):
    s3, name = stack.s3(), key()
    s3.put_object(Bucket=LANDING_BUCKET, Key=name, Body=b"an object")
    assert status_of(s3.put_object, Key=f"{name}/below", Body=b"x") == 501
    s3.put_object(Bucket=LANDING_BUCKET, Key=f"{name}-folder/below", Body=b"x")
    assert status_of(s3.put_object, Key=f"{name}-folder", Body=b"x") == 501
    assert s3.get_object(Bucket=LANDING_BUCKET, Key=name)["Body"].read() == b"an object"
    assert Path(stack.data / "s3" / LANDING_BUCKET / f"{name}-folder/below").read_bytes() == b"x"


# ---- What S3 does and a store of files does not ----


@pytest.mark.xfail(strict=True, reason=FILES)
def test_a_key_may_be_an_object_and_the_beginning_of_others(stack):
    s3, name = stack.s3(), key()
    assert status_of(s3.put_object, Key=name, Body=b"x") == 200
    assert status_of(s3.put_object, Key=f"{name}/below", Body=b"y") == 200


@pytest.mark.xfail(strict=True, reason=FILES)
@pytest.mark.parametrize("form", ["{}//b", "{}/./b", "{}/.../../b"])
def test_a_key_is_any_text(stack, form):
    path = f"/{LANDING_BUCKET}/{form.format(key())}"
    assert ask(stack, "PUT", path, b"x") == 200
    assert ask(stack, "GET", path) == 200


@pytest.mark.xfail(strict=True, reason=FILES)
def test_a_key_that_ends_in_a_slash_is_an_object(stack):
    s3, name = stack.s3(), f"{key()}/"
    assert status_of(s3.put_object, Key=name, Body=b"") == 200
    assert status_of(s3.head_object, Key=name) == 200
