"""The one-machine stack plays the deployed alarms: none on a fresh stack, and those of a fault from their ALARM to their OK."""

import contextlib
import json
import re
import shutil
import socket
import subprocess
import time
import urllib.request

import pytest

from support.chat import Chat
from support.fast_clock import FastClock
from support.faults import Faults
from support.players import Players
from support.stack import BINARY, LANDING_BUCKET, REPOSITORY, environment, run_to_the_end, wait_for, without_aws
from support.stalls import Stalls

SPILLED = "playhead-warning-spilled-events"
MINUTE = 60


def alarms(stack, **asked):
    pages = stack.cloudwatch().get_paginator("describe_alarms").paginate(**asked)
    return {alarm["AlarmName"]: alarm for page in pages for alarm in page["MetricAlarms"]}


def terminal(stack):
    return stack.errors_path.read_text().splitlines()


def notices(stack):
    return (stack.data / "logs/notices.log").read_text()


def assert_calm(stack):
    on = {name: alarm["StateReason"] for name, alarm in alarms(stack, StateValue="ALARM").items()}
    assert (on, notices(stack)) == ({}, ""), stack.tail()
    assert [line for line in terminal(stack) if " ALARM " in line] == []
    # It is calm because they are evaluated.
    states = [alarm["StateValue"] for alarm in alarms(stack).values()]
    assert len(states) > 60 and states.count("OK") > 45, states


# Ten minutes of the clock and some, and four hours with their seals.
@pytest.mark.parametrize(("speed", "minutes"), [(60, 12), (360, 240)])
@pytest.mark.parametrize("is_busy", [False, True], ids=["quiet", "busy"])
def test_a_fresh_stack_has_no_alarm(fresh_stack, speed, minutes, is_busy):
    for further in (2, 1, 0):
        stack = fresh_stack(parameters="", CLOCK=FastClock(speed).setting)
        with Stalls(90 / speed) as stalls, Players(stack, players=4, pause=0.02) if is_busy else contextlib.nullcontext():
            time.sleep(minutes * MINUTE / speed + 5)
            # A machine that stands still for minutes of this clock has an outage, and rightly alarms.
            if not (stalls.found and further):
                assert_calm(stack)
                return
        assert stack.stop() == 0, stack.tail()


def test_an_alarm_goes_from_its_fault_to_its_notices(fresh_stack):
    """Kinesis fails, the events go to S3, notify tells people so, and again when it is over."""
    stack = fresh_stack(CLOCK=FastClock(60).setting)
    with Players(stack, players=2, pause=0.05):
        time.sleep(2)
        Faults(stack).set("kinesis.error=1")
        wait_for(lambda: alarms(stack, AlarmNames=[SPILLED], StateValue="ALARM"), what=lambda: stack.tail())
        wait_for(lambda: f" ALARM: {SPILLED}\n" in notices(stack), what=lambda: stack.tail())
        Faults(stack).end()
        wait_for(lambda: f" RESOLVED: {SPILLED}\n" in notices(stack), 60, lambda: stack.tail())
        assert alarms(stack, AlarmNames=[SPILLED])[SPILLED]["StateValue"] == "OK"
    shown = [re.sub(r": Threshold Crossed.*", "", line[25:]) for line in terminal(stack) if SPILLED in line]
    assert shown == [f"ALARM {SPILLED}", f"notice: ALARM: {SPILLED}", f"   OK {SPILLED}", f"notice: RESOLVED: {SPILLED}"]
    folder = stack.data / "s3" / LANDING_BUCKET / "incidents"
    kept, = wait_for(lambda: list(folder.glob("dt=*/*.json")), what=lambda: f"an incident that is over\n{stack.tail()}")
    incident = json.loads(kept.read_text())
    assert [message["kind"] for message in incident["messages"]] == ["opened", "resolved"]
    assert list(incident["alarms"]) == [SPILLED]


def test_a_person_sees_a_notice_by_setting_a_state(fresh_stack):
    stack = fresh_stack()
    lost = "playhead-lost-events"
    stack.cloudwatch().set_alarm_state(AlarmName=lost, StateValue="ALARM", StateReason="to see a notice")
    wait_for(lambda: f" ALARM: {lost}\n" in notices(stack), what=lambda: stack.tail())
    assert "to see a notice" in notices(stack) and "docs/RUNBOOK.md#lost-events" in notices(stack)
    described = alarms(stack, AlarmNames=[lost])[lost]
    assert (described["StateValue"], described["StateReason"]) == ("ALARM", "to see a notice")
    with pytest.raises(stack.cloudwatch().exceptions.ResourceNotFound):
        stack.cloudwatch().set_alarm_state(AlarmName="no-such-alarm", StateValue="OK", StateReason="-")


def test_recipients_are_those_of_the_parameter_that_the_stack_serves(fresh_stack):
    """RECIPIENTS is what GetParameter answers, and notify posts to its webhook."""
    chat = Chat()
    try:
        recipients = json.dumps([{"group": "me", "alarms": ["*"], "webhook": chat.slack}])
        stack = fresh_stack(RECIPIENTS=recipients)
        lost = "playhead-lost-events"
        stack.cloudwatch().set_alarm_state(AlarmName=lost, StateValue="ALARM", StateReason="to see a notice")
        wait_for(lambda: [text for text in chat.texts if f"Alarm: {lost}" in text], what=lambda: stack.tail())
        assert notices(stack) == "" and chat.slack not in "\n".join(terminal(stack))
    finally:
        chat.stop()


def test_a_template_whose_alarms_cannot_be_played_stops_the_start(tmp_path):
    shutil.copy(REPOSITORY / "template.yaml", tmp_path)
    shutil.copytree(REPOSITORY / "nested", tmp_path / "nested")
    text = (REPOSITORY / "alarms.yaml").read_text()
    known = "100 * spilled / accepted"
    assert known in text
    (tmp_path / "alarms.yaml").write_text(text.replace(known, "ANOMALY_DETECTION_BAND(spilled)"))
    code, said = run_to_the_end(tmp_path, template=tmp_path / "template.yaml")
    assert (code, "SpilledEventsAlarm.Metrics.percent.Expression" in said, "ANOMALY_DETECTION_BAND" in said) == (1, True, True), said


@contextlib.contextmanager
def taken(port):
    """Somebody listens at a port."""
    with socket.socket() as listener:
        # If it can't be had, somebody does already.
        with contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            listener.listen()
        yield


def test_the_demo_shows_a_fault_its_alarm_its_notice_and_its_end(tmp_path):
    """Beside a stack that has the port of the page."""
    variables = environment(tmp_path, DEMO_SECONDS=90)
    variables = {name: value for name, value in variables.items() if name not in ("TEMPLATE", "PARAMETERS", "STATUS_PORT")}
    began = time.monotonic()
    log, errors = tmp_path / "demo.log", tmp_path / "demo.err"
    with taken(8081), log.open("w") as out, errors.open("w") as err:
        demo = subprocess.Popen([REPOSITORY / "tools/scripts/demo", BINARY.parent], cwd=REPOSITORY, env=without_aws() | variables,
                                stdout=out, stderr=err)
        try:
            page = page_of(log)
            assert not page.endswith(":8081/"), page
            # Somebody looks at it all the time, so that it is never behind.
            wait_for(lambda: ask(page, "overview") and f" notice: ALARM: {SPILLED}" in log.read_text(), 60, log.read_text)
            overview = wait_for(lambda: shows(page, "overview", is_on), 15, log.read_text)
            assert overview["state"] != "ok" and stage(overview, "spilled")["state"] == "warning", overview
            wait_for(lambda: shows(page, "incidents", lambda all: [one["resolved_at"] for one in of_spilled(all)] == [None]), 15,
                     lambda: ask(page, "incidents"))
            wait_for(lambda: f" notice: RESOLVED: {SPILLED}" in log.read_text(), 60, log.read_text)
            wait_for(lambda: shows(page, "incidents", lambda all: [one for one in of_spilled(all) if one["resolved_at"]]), 15,
                     lambda: ask(page, "incidents"))
            wait_for(lambda: shows(page, "overview", lambda one: is_on(one) is False), 15, log.read_text)
            code = demo.wait(120)
        finally:
            # Once it has ended, this does nothing.
            demo.terminate()
            demo.wait(60)
    said = log.read_text()
    assert code == 0, said + errors.read_text()
    order = ["ready: POST", "Kinesis fails from now on", f" ALARM {SPILLED}", f" notice: ALARM: {SPILLED}", "Kinesis is back",
             f" OK {SPILLED}", f" notice: RESOLVED: {SPILLED}", "RESOLVED after", f"the page at {page}",
             "stopped: everything that was taken has landed"]
    places = [said.find(text) for text in order]
    assert -1 not in places and places == sorted(places), said
    assert " ERROR " not in said, said
    assert time.monotonic() - began < 120, said


def page_of(log):
    return wait_for(lambda: re.search("^page: (http://[^ ]+/)$", log.read_text(), re.M), 20, log.read_text)[1]


def ask(page, what):
    with urllib.request.urlopen(f"{page}api/{what}", timeout=30) as answer:
        return json.loads(answer.read())


def shows(page, what, wanted):
    """The page's answer, if it is as wanted."""
    answer = ask(page, what)
    return answer if wanted(answer) else None


def stage(overview, name):
    return next(one for one in overview["stages"] if one["id"] == name)


def is_on(overview):
    """None if the alarms were not read yet."""
    all_of_them = overview["alarms"].get("alarms", [])
    return next((one["is_on"] for one in all_of_them if SPILLED == f"playhead-{one['name']}"), None)


def of_spilled(answer):
    return [one for one in answer["incidents"] if SPILLED in one["alarms"]]
