"""Pushes the server's image, which `make image` made, to the account's ECR."""

import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from urllib.parse import urlsplit

import boto3


def push(archive, repository, tag):
    """The image's digest, once the repository has it. Tagged <tag>-<digest>, so that a rebuild never moves another image's tag."""
    digest = digest_of(archive)
    ecr = boto3.client("ecr")
    try:
        found, = ecr.describe_repositories(repositoryNames=[repository])["repositories"]
    except ecr.exceptions.RepositoryNotFoundException:
        sys.exit(f"deploy: there is no repository {repository} for the server's image: `aws ecr create-repository --repository-name "
                 f"{repository}`, or name another one in ServerRepository")
    if not has(ecr, repository, digest):
        copy(ecr, archive, f"{found['repositoryUri']}:{tag}-{digest.removeprefix('sha256:')[:12]}")
    return digest


def digest_of(archive):
    """Of the one manifest that an OCI archive names: https://github.com/opencontainers/image-spec/blob/main/image-layout.md"""
    manifest, = read(archive, "index.json")["manifests"]
    return manifest["digest"]


def revision(archive):
    """The commit that the image was built from."""
    config = read(archive, blob(read(archive, blob(digest_of(archive)))["config"]["digest"]))
    return config["config"]["Labels"]["org.opencontainers.image.revision"]


def blob(digest):
    return f"blobs/{digest.replace(':', '/')}"


def read(archive, name):
    with tarfile.open(archive) as file:
        return json.load(file.extractfile(name))


def has(ecr, repository, digest):
    return bool(ecr.batch_get_image(repositoryName=repository, imageIds=[{"imageDigest": digest}])["images"])


def copy(ecr, archive, destination):
    if not shutil.which("skopeo"):
        sys.exit("deploy: skopeo is missing, which pushes the server's image; install it (Debian's package skopeo)")
    token, = ecr.get_authorization_token()["authorizationData"]
    host = urlsplit(token["proxyEndpoint"]).netloc
    # Not on the command line, which everybody on this machine can read.
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump({"auths": {host: {"auth": token["authorizationToken"]}}}, file)
        file.flush()
        subprocess.run(["skopeo", "copy", "--quiet", "--preserve-digests", "--authfile", file.name, f"oci-archive:{archive}",
                        f"docker://{destination}"], check=True)
