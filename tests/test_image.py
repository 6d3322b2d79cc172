"""The server's image, as `make image` made it for this machine: one static binary and nothing else, which runs as nobody in a root
file system that it can't write to."""

import http.client
import json
import os
import signal
import struct
import subprocess
import tarfile

import pytest

from support.deployment import ARCHITECTURE, script
from support.stack import REPOSITORY, without_aws

ARCHIVE = REPOSITORY / f".aws-sam/ingest-server-{ARCHITECTURE}.tar"
NOBODY = 65532
LOADED_AT_RUN_TIME = 3  # The ELF program header of an interpreter, PT_INTERP.
registry = script("registry.py")


@pytest.fixture(scope="module")
def manifest():
    return registry.read(ARCHIVE, registry.blob(registry.digest_of(ARCHIVE)))


@pytest.fixture(scope="module")
def config(manifest):
    return registry.read(ARCHIVE, registry.blob(manifest["config"]["digest"]))


@pytest.fixture(scope="module")
def root(manifest, tmp_path_factory):
    """The image's root file system, unpacked."""
    directory = tmp_path_factory.mktemp("root")
    with tarfile.open(ARCHIVE) as archive:
        for layer in manifest["layers"]:
            with tarfile.open(fileobj=archive.extractfile(registry.blob(layer["digest"]))) as files:
                files.extractall(directory, filter="tar")
    directory.chmod(0o755)
    return directory


def test_the_image_runs_the_binary_as_nobody_and_says_its_commit(config):
    run = config["config"]
    assert run["Entrypoint"] == ["/ingest-server"] and not run.get("Cmd")
    assert run["User"] == f"{NOBODY}:{NOBODY}"
    assert config["architecture"] == {"arm64": "arm64", "x86_64": "amd64"}[ARCHITECTURE]
    assert len(registry.revision(ARCHIVE).removesuffix("-dirty")) == 40


def test_the_image_holds_one_static_binary_and_no_shell(root):
    assert [str(path.relative_to(root)) for path in root.rglob("*")] == ["ingest-server"]
    binary = root / "ingest-server"
    assert binary.stat().st_mode & 0o777 == 0o755
    elf = binary.read_bytes()
    (table,), (size, count) = struct.unpack_from("<Q", elf, 0x20), struct.unpack_from("<HH", elf, 0x36)
    kinds = [struct.unpack_from("<I", elf, table + size * number)[0] for number in range(count)]
    assert elf[:4] == b"\x7fELF" and LOADED_AT_RUN_TIME not in kinds


def started(root, **settings):
    """The image's process, as it runs in a container: nothing but its root, as its user. Its log goes where its output does."""
    variables = without_aws() | {
        "LISTEN": "127.0.0.1:0", "STREAM_NAME": "stream", "BUCKET_NAME": "bucket", "AWS_REGION": "us-east-1", "DRAIN_SECONDS": "0",
        "AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none", "AWS_ENDPOINT_URL": "http://127.0.0.1:1"} | settings
    return subprocess.Popen(["/ingest-server"], env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                            preexec_fn=lambda: enter(root))


def enter(root):
    os.chroot(root)
    os.chdir("/")
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may change a process's root file system")
def test_the_binary_serves_from_its_own_root_as_nobody_and_ends_when_it_is_asked_to(root):
    process = started(root)
    try:
        host = next(line for line in process.stdout if line.startswith("listening: ")).split("//")[1].strip()
        assert answer(host, "GET", "/health")[0] == answer(host, "GET", "/ready")[0] == 200
        # Nothing is behind it, and it says so.
        status, body = answer(host, "POST", "/events", b'{"type":"play"}')
        assert status == 503 and json.loads(body)["error"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait(10)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may change a process's root file system")
def test_a_region_whose_certificates_are_not_in_the_image_is_refused_at_the_start(root):
    process = started(root, AWS_REGION="us-gov-west-1", SSL_CERT_FILE="", SSL_CERT_DIR="")
    said, _ = process.communicate(timeout=30)
    assert process.returncode != 0 and "SSL_CERT_FILE" in said, said


def answer(host, method, path, body=None):
    connection = http.client.HTTPConnection(host, timeout=30)
    connection.request(method, path, body, {"Content-Type": "application/json"})
    found = connection.getresponse()
    return found.status, found.read()
