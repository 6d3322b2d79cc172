"""In which region the scripts act."""

import subprocess
import sys

import pytest

from support.stack import REPOSITORY, without_aws


def test_aws_region_is_where_it_goes(tmp_path):
    """boto3 looks at AWS_DEFAULT_REGION and the profile alone; the README says AWS_REGION."""
    profile = tmp_path / "config"
    profile.write_text("[default]\nregion = eu-west-1\n")
    own = {"AWS_REGION": "us-west-2", "AWS_CONFIG_FILE": str(profile), "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "a"}
    asks = "import runpy, sys; sys.path.insert(0, 'tools/scripts'); import stack; print(stack.boto3.Session().region_name)"
    done = subprocess.run([sys.executable, "-c", asks], cwd=REPOSITORY, env=without_aws() | own, text=True, stdout=subprocess.PIPE, check=True)
    assert done.stdout == "us-west-2\n"


@pytest.mark.parametrize("script", ["destroy", "status"])
def test_a_region_that_is_missing_is_asked_for(tmp_path, script):
    variables = without_aws() | {"AWS_CONFIG_FILE": str(tmp_path / "none"), "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "a"}
    command = [sys.executable, f"tools/scripts/{script}", *(["--stack", "playhead-dev"] if script == "status" else ["dev"])]
    done = subprocess.run(command, cwd=REPOSITORY, env=variables, text=True, capture_output=True, timeout=60, check=False)
    assert done.returncode != 0 and "region" in done.stderr and "Traceback" not in done.stderr, done.stderr
