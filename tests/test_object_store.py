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
def test_keys_that_would_name_another_file_are_objects_of_their_own(stack, segment, form):
    odd, root = form.replace("{}", segment), stack.data.parent
    before = sorted(path for path in root.rglob("*outside*"))
    path = f"/{LANDING_BUCKET}/{odd}"
    assert ask(stack, "PUT", path, b"x") == 200
    assert ask(stack, "GET", path) == ask(stack, "HEAD", path) == 200
    assert odd in [found["Key"] for found in stack.s3().list_objects_v2(Bucket=LANDING_BUCKET, Prefix=odd)["Contents"]]
    assert ask(stack, "DELETE", path) == 204
    assert ask(stack, "GET", path) == 404
    # In other letters than the signature's, as S3 has it.
    assert ask(stack, "PUT", f"/{LANDING_BUCKET}/{quote(odd, safe='').replace('.', '%2E')}", b"x") == 403
    assert sorted(path for path in root.rglob("*outside*")) == before


@pytest.mark.parametrize("odd", ["../failed-batches-bucket/{}", "a/../{}", "a//{}", "./{}"])
def test_keys_in_bodies_and_headers_name_no_other_object(stack, odd):
    s3, name = stack.s3(), str(uuid.uuid4())
    s3.put_object(Bucket="failed-batches-bucket", Key=name, Body=b"kept")
    s3.put_object(Bucket=LANDING_BUCKET, Key=name, Body=b"kept")
    odd = odd.format(name)
    assert status_of(s3.delete_objects, Delete={"Objects": [{"Key": odd}]}) == 200
    assert status_of(s3.copy_object, Key=key(), CopySource={"Bucket": LANDING_BUCKET, "Key": odd}) == 404
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


def test_a_key_may_be_an_object_and_the_beginning_of_others(stack):
    s3, name = stack.s3(), key()
    assert status_of(s3.put_object, Key=name, Body=b"x") == 200
    assert status_of(s3.put_object, Key=f"{name}/below", Body=b"y") == 200
    assert status_of(s3.put_object, Key=f"{name}-folder/below", Body=b"z") == 200
    assert status_of(s3.put_object, Key=f"{name}-folder", Body=b"w") == 200
    bodies = {"": b"x", "/below": b"y", "-folder/below": b"z", "-folder": b"w"}
    assert {end: s3.get_object(Bucket=LANDING_BUCKET, Key=name + end)["Body"].read() for end in bodies} == bodies
    listed = s3.list_objects_v2(Bucket=LANDING_BUCKET, Prefix=name)["Contents"]
    assert [found["Key"] for found in listed] == [name, f"{name}-folder", f"{name}-folder/below", f"{name}/below"]
    assert Path(stack.data / "s3" / LANDING_BUCKET / f"{name}-folder/below").read_bytes() == b"z"


@pytest.mark.parametrize("form", ["{}//b", "{}/./b", "{}/.../../b", "{}/", "é {}+%"])
def test_a_key_is_any_text(stack, form):
    s3, name = stack.s3(), form.format(key())
    path = f"/{LANDING_BUCKET}/{quote(name)}"
    assert ask(stack, "PUT", path, b"x") == 200
    assert ask(stack, "GET", path) == 200
    assert s3.list_objects_v2(Bucket=LANDING_BUCKET, Prefix=name)["Contents"][0]["Key"] == name


def test_the_folder_of_a_bucket_shows_nothing_but_objects(stack):
    s3, name = stack.s3(), key()
    s3.put_object(Bucket=LANDING_BUCKET, Key=name, Body=b"x", Metadata={"n": "v"}, ContentType="text/plain")
    assert s3.head_object(Bucket=LANDING_BUCKET, Key=name)["Metadata"] == {"n": "v"}
    folder = Path(stack.data / "s3" / LANDING_BUCKET / "object-store")
    listed = s3.get_paginator("list_objects_v2").paginate(Bucket=LANDING_BUCKET, Prefix="object-store/")
    keys = {found["Key"] for page in listed for found in page.get("Contents", [])}
    assert {f"object-store/{path.relative_to(folder)}" for path in folder.rglob("*") if path.is_file()} <= keys
    assert {path.name for path in (stack.data / "s3").glob("*")} >= {LANDING_BUCKET, "failed-batches-bucket"}


def test_a_body_that_was_damaged_on_its_way_is_refused(stack):
    s3, name = stack.s3(), key()
    assert status_of(s3.put_object, Key=name, Body=b"x", ChecksumCRC32="AAAAAA==") == 400
    assert status_of(s3.put_object, Key=name, Body=b"x", ContentMD5="1B2M2Y8AsgTpgAmY7PhCfg==") == 400
    assert status_of(s3.head_object, Key=name) == 404


@pytest.fixture
def upload(stack):
    """Where to upload parts; what has been uploaded at the end is removed."""
    s3, name = stack.s3(), key()
    place = {"Bucket": LANDING_BUCKET, "Key": name}
    place["UploadId"] = s3.create_multipart_upload(**place)["UploadId"]
    yield place
    s3.abort_multipart_upload(**place)


def test_parts_are_copied_from_ranges_of_objects(stack, upload):
    s3, source = stack.s3(), {"Bucket": LANDING_BUCKET, "Key": key()}
    tag = s3.put_object(**source, Body=b"0123456789")["ETag"]
    ranges = {1: "bytes=2-4", 2: "bytes=9-9", 3: None}
    for number, asked in ranges.items():
        optional = {"CopySourceRange": asked} if asked else {}
        s3.upload_part_copy(**upload, PartNumber=number, CopySource=source, CopySourceIfMatch=tag, **optional)
    assert [part["Size"] for part in s3.list_parts(**upload)["Parts"]] == [3, 1, 10]
    copied = s3.upload_part_copy(**upload, PartNumber=1, CopySource=source, CopySourceRange="bytes=0-9")
    assert copied["CopyPartResult"]["ETag"] == tag
    assert s3.list_parts(**upload)["Parts"][0]["ETag"] == tag


@pytest.mark.parametrize("asked", ["bytes=0-10", "bytes=10-10", "bytes=7-", "bytes=-3", "bytes=4-2", "0-9", "bytes=0-1,3-4"])
def test_ranges_that_no_part_can_be_copied_from_are_invalid(stack, upload, asked):
    s3, source = stack.s3(), {"Bucket": LANDING_BUCKET, "Key": key()}
    s3.put_object(**source, Body=b"0123456789")
    with pytest.raises(ClientError, match="InvalidArgument"):
        s3.upload_part_copy(**upload, PartNumber=1, CopySource=source, CopySourceRange=asked)
    assert "Parts" not in s3.list_parts(**upload)


def test_a_part_is_not_copied_from_a_changed_or_absent_object_or_to_an_absent_upload(stack, upload):
    s3, source = stack.s3(), {"Bucket": LANDING_BUCKET, "Key": key()}
    s3.put_object(**source, Body=b"x")
    arguments = {name: upload[name] for name in ("Key", "UploadId")} | {"PartNumber": 1, "CopySource": source}
    assert status_of(s3.upload_part_copy, **arguments, CopySourceIfMatch='"another"') == 412
    assert status_of(s3.upload_part_copy, **arguments | {"CopySource": source | {"Key": key()}}) == 404
    assert status_of(s3.upload_part_copy, **arguments | {"UploadId": "absent"}) == 404
    assert status_of(s3.list_parts, Key=upload["Key"], UploadId="absent") == 404
    assert "Parts" not in s3.list_parts(**upload)


def test_objects_have_no_tags(stack):
    """Version 2 of the AWS CLI asks for them before it copies an object in parts."""
    s3, name = stack.s3(), key()
    s3.put_object(Bucket=LANDING_BUCKET, Key=name, Body=b"x")
    assert s3.get_object_tagging(Bucket=LANDING_BUCKET, Key=name)["TagSet"] == []
    assert status_of(s3.get_object_tagging, Key=f"{name}-absent") == 404


def test_parts_are_listed_by_the_page(stack, upload):
    s3 = stack.s3()
    for number in (1, 3, 7):
        s3.upload_part(**upload, PartNumber=number, Body=b"x")
    pages = s3.get_paginator("list_parts").paginate(**upload, PaginationConfig={"PageSize": 2})
    assert [[part["PartNumber"] for part in page["Parts"]] for page in pages] == [[1, 3], [7]]


def test_ranges_and_conditions_are_honoured(stack):
    s3, name = stack.s3(), key()
    tag = s3.put_object(Bucket=LANDING_BUCKET, Key=name, Body=b"0123456789")["ETag"]
    for asked, found in [("bytes=2-4", b"234"), ("bytes=7-", b"789"), ("bytes=-3", b"789"), ("bytes=-99", b"0123456789")]:
        assert s3.get_object(Bucket=LANDING_BUCKET, Key=name, Range=asked)["Body"].read() == found, asked
    assert status_of(s3.get_object, Key=name, Range="bytes=10-") == 416
    assert status_of(s3.put_object, Key=name, Body=b"x", IfNoneMatch="*") == 412
    assert status_of(s3.put_object, Key=name, Body=b"x", IfMatch='"another"') == 412
    assert status_of(s3.put_object, Key=f"{name}-absent", Body=b"x", IfMatch=tag) == 404
    assert status_of(s3.delete_object, Key=name, IfMatch='"another"') == 412
    assert status_of(s3.put_object, Key=name, Body=b"x", IfMatch=tag) == 200
