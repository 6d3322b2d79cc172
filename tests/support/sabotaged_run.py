"""A pytest plugin that breaks a promise of docs/DELIVERY.md while a test runs.

    SABOTAGE=hide_a_failure SABOTAGE_REPORT=report.json PYTHONPATH=tests pytest -p support.sabotaged_run tests/test_x.py::test_y

The real functions, and the redrive command, then speak to the stack through a proxy that does what that one of sabotages.py
does. The report says how the test ended, what noticed it, and how often the sabotage changed something.
"""

import json
import os
import re
import stat
import tempfile
from pathlib import Path

import pytest

from support import proxy
from support.sabotages import SABOTAGES, WORK
from support.stack import BINARY, REPOSITORY


def behind_proxy(directory, binary, address):
    """Makes a program like `binary` whose AWS is the proxy at `address`. Where its real AWS is, it leaves in a file."""
    path = directory / binary.name
    path.write_text(f"""#!/bin/sh
echo "${{AWS_ENDPOINT_URL#http://}}" > "$0.$$" && mv "$0.$$" "{directory}/upstream"
AWS_ENDPOINT_URL=http://{address} exec "{binary}" "$@"
""")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


class SabotagedRun:
    """The sabotage that SABOTAGE names, from the start of pytest to its end."""

    def __init__(self):
        self.reply_to = SABOTAGES[os.environ["SABOTAGE"]]
        self.directory = tempfile.TemporaryDirectory(prefix="sabotage-")
        self.serving = proxy.serving(self.reply)
        self.report = {}
        address = self.serving.__enter__()
        directory = Path(self.directory.name)
        template = (REPOSITORY / "template.yaml").read_text()
        for name in [*re.findall(r"^ *Binary: (.+)$", template, re.MULTILINE), "redrive"]:
            behind_proxy(directory, BINARY.with_name(name), address)
        os.environ |= {"FUNCTIONS_DIR": str(directory), "REDRIVE_BIN": str(directory / "redrive")}

    def reply(self, request):
        upstream = (Path(self.directory.name) / "upstream").read_text().strip()
        return self.reply_to(request, lambda request: proxy.forward(request, upstream))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item, call):
        report = yield
        if call.when == "call":
            error = call.excinfo
            where = [line for line in report.longreprtext.splitlines() if line.startswith(">")]
            self.report = {"outcome": report.outcome, "error": error.typename if error else None,
                           "noticed": "\n".join([*where, str(error.value)]) if error else ""}
        return report

    def pytest_unconfigure(self):
        Path(os.environ["SABOTAGE_REPORT"]).write_text(json.dumps(self.report | {"at_work": len(WORK)}))
        self.serving.__exit__(None, None, None)
        self.directory.cleanup()


def pytest_configure(config):
    config.pluginmanager.register(SabotagedRun())
