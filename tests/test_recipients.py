"""`make deploy` takes the recipients that notify can use, and no others."""

import json

import pytest

from support.deployment import script
from support.stack import REPOSITORY

recipients = script("recipients.py")
CASES = json.loads((REPOSITORY / "monitoring-lambdas/src/notify/fixtures/recipients.json").read_text())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["problem"] or "usable")
def test_recipients_that_notify_refuses_are_refused_before_the_deployment(case):
    """By the file that notify's own test goes by."""
    problem = recipients.problem_of(case["recipients"])
    assert (problem is None) == (case["problem"] is None) and (case["problem"] or "") in (problem or ""), problem
    assert "SECRET" not in (problem or "")


def test_as_many_groups_and_bytes_as_a_parameter_takes():
    group = lambda number, length=1: {"group": f"g{number}", "alarms": ["x" * length], "email": True}
    assert recipients.problem_of(json.dumps([group(number) for number in range(20)])) is None
    assert "at most 20" in recipients.problem_of(json.dumps([group(number) for number in range(21)]))
    room = 8192 - len(json.dumps([group(0, 0)]))
    assert recipients.problem_of(json.dumps([group(0, room)])) is None
    assert "8192" in recipients.problem_of(json.dumps([group(0, room + 1)]))


def test_unusable_recipients_stop_a_deployment_and_are_not_quoted(monkeypatch):
    monkeypatch.setenv("RECIPIENTS", '[{"group":"a","alarms":["*"],"webhook":"http://hooks.example.com/SECRET"}]')
    with pytest.raises(SystemExit, match=r"RECIPIENTS\[0\].webhook") as refused:
        recipients.given()
    assert "SECRET" not in str(refused.value)
    for unset in ("", " \n"):
        monkeypatch.setenv("RECIPIENTS", unset)
        assert recipients.given() == ""


@pytest.mark.parametrize("text,sender,is_taken", [
    ('[{"group":"a","alarms":["*"],"mail":["a@example.com"]}]', "", False),
    ('[{"group":"a","alarms":["*"],"mail":["a@example.com"]}]', None, False),
    ('[{"group":"a","alarms":["*"],"mail":["a@example.com"]}]', "playhead@example.com", True),
    ('[{"group":"a","alarms":["*"],"email":true,"mail":[]}]', "", True),
    ("by hand, and no JSON", "", True), ("", "", True), (None, "", True)])
def test_a_deployment_without_a_sender_is_refused_where_groups_want_mails(text, sender, is_taken):
    """Given ones and those that are stored: notify would have to keep each mail back."""
    if is_taken:
        recipients.refuse_mails_without_sender(text, sender)
    else:
        with pytest.raises(SystemExit, match="group a has .* MailFrom is not set"):
            recipients.refuse_mails_without_sender(text, sender)
