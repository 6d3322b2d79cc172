"""A pytest plugin that breaks a promise of docs/DELIVERY.md while a test runs.

    SABOTAGE=hide_a_failure SABOTAGE_REPORT=report.json PYTHONPATH=tests pytest -p support.sabotaged_run tests/test_x.py::test_y

The real functions, and the redrive command, then speak to the stack through a proxy that does what that one of sabotages.py
does; only one stack at a time can be behind it. The report says how each test ended, what noticed it, and how often the
sabotage changed something.
"""

import json
import os
import re
import stat
import tempfile
from pathlib import Path

import pytest

from support import proxy
from support.sabotages import OF_THE_RUNTIME_API, SABOTAGES, WORK
from support.stack import BINARY, REPOSITORY


# Each environment of a function has a Runtime API of its own: the path says whose.
RUNTIME_API = re.compile(r"/runtime/([\d.]+:\d+)(/.*)")


def behind_proxy(directory, binary, address, runtime_api):
    """Makes a program like `binary` whose AWS is the proxy at `address`. Where its real AWS is, it leaves in a file."""
    path = directory / binary.name
    path.write_text(f"""#!/bin/sh
echo "${{AWS_ENDPOINT_URL#http://}}" > "$0.$$" && mv "$0.$$" "{directory}/upstream"
{f'AWS_LAMBDA_RUNTIME_API="http://{address}/runtime/$AWS_LAMBDA_RUNTIME_API"' if runtime_api else ""}
AWS_ENDPOINT_URL=http://{address} exec "{binary}" "$@"
""")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


class SabotagedRun:
    """The sabotage that SABOTAGE names, from the start of pytest to its end."""

    def __init__(self):
        self.reply_to = SABOTAGES[os.environ["SABOTAGE"]]
        self.directory = tempfile.TemporaryDirectory(prefix="sabotage-")
        self.serving = proxy.serving(self.reply)
        # By the names of the tests.
        self.ends = {}
        address = self.serving.__enter__()
        directory = Path(self.directory.name)
        template = (REPOSITORY / "template.yaml").read_text()
        for name in [*re.findall(r"^ *Binary: (.+)$", template, re.MULTILINE), "redrive"]:
            behind_proxy(directory, BINARY.with_name(name), address, os.environ["SABOTAGE"] in OF_THE_RUNTIME_API)
        os.environ |= {"FUNCTIONS_DIR": str(directory), "REDRIVE_BIN": str(directory / "redrive")}

    def reply(self, request):
        if found := RUNTIME_API.fullmatch(request.path):
            upstream, request.path = found.groups()
        else:
            upstream = (Path(self.directory.name) / "upstream").read_text().strip()
        return self.reply_to(request, lambda request: proxy.forward(request, upstream))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item, call):
        report = yield
        if call.when == "call":
            error = call.excinfo
            where = [line for line in report.longreprtext.splitlines() if line.startswith(">")]
            self.ends[item.name] = {"outcome": report.outcome, "error": error.typename if error else None,
                                    "noticed": "\n".join([*where, str(error.value)]) if error else ""}
        return report

    def pytest_unconfigure(self):
        Path(os.environ["SABOTAGE_REPORT"]).write_text(json.dumps({"ends": self.ends, "at_work": len(WORK)}))
        self.serving.__exit__(None, None, None)
        self.directory.cleanup()


def pytest_configure(config):
    config.pluginmanager.register(SabotagedRun())
