"""Stacks for the tests: one that most of them share, and as many of their own as the others need."""

import pytest

from support.stack import Stack
from support.stalls import Stalls

# The files that take longest go first: begun last, one of them would keep its worker busy when the others have nothing left.
LONGEST_FIRST = [
    "test_monitoring.py", "test_deploy.py", "test_status.py", "test_loadtest.py", "test_soak.py", "test_promises.py", "test_runbook.py",
    "test_redrive.py", "test_delivery.py", "test_crashes.py", "test_clock.py", "test_aws_tools.py", "test_incomplete_hours.py",
    "test_gate.py", "test_alarm_path.py", "test_raw_format.py", "test_ops.py", "test_loadtest_truth.py", "test_rejected_input.py",
    "test_deletions.py", "test_js_client.py", "test_large_hour.py",
]


def pytest_collection_modifyitems(items):
    places = {name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


# Their tests run against both front doors.
BOTH_FRONT_DOORS = {"test_body_forms", "test_recorded_sessions", "test_rejected_input"}


def pytest_generate_tests(metafunc):
    if "stack" in metafunc.fixturenames and metafunc.module.__name__ in BOTH_FRONT_DOORS:
        metafunc.parametrize("stack", ["lambda", "server"], indirect=True, scope="session")


@pytest.fixture(scope="session")
def stacks(tmp_path_factory):
    """The stacks that tests share, by front door, each from its first use on."""
    started = {}

    def stack(front_door):
        if front_door not in started:
            started[front_door] = Stack(tmp_path_factory.mktemp("stack"), FRONT_DOOR=front_door)
        return started[front_door]

    yield stack
    for shared in started.values():
        finish(shared)


@pytest.fixture(scope="session")
def stack(request, stacks):
    """The stack that tests share; each tells its own events by ids that no other test uses."""
    return stacks(getattr(request, "param", "lambda"))


@pytest.fixture
def stalls():
    """The moments of the test in which the machine stood still."""
    with Stalls() as found:
        yield found


@pytest.fixture
def fresh_stack(tmp_path):
    """Starts stacks for tests that stop them, break them, or need settings of their own."""
    started = []

    def start(directory=None, **settings):
        started.append(Stack(directory or tmp_path / f"stack-{len(started)}", **settings))
        return started[-1]

    yield start
    for stack in started:
        finish(stack)


def finish(stack):
    """Whatever a test did to it, a stack lands what it has and ends well."""
    if not stack.killed:
        assert stack.stop() == 0, stack.tail()
