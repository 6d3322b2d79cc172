"""The daily digest and mail by SES on the one-machine stack: a day with traffic, a rejected event and an incident."""

import email
import email.policy
import json
from datetime import timedelta

import pytest

from support.chat import Chat
from support.fast_clock import START, FastClock, partition
from support.stack import FAST, LANDING_BUCKET, wait_for
from support.traffic import JSON

DAY = START
KEY = f"digests/dt={DAY:%Y-%m-%d}.json"
TO = ["a@example.com", "b@example.com"]


@pytest.fixture
def chat():
    chat = Chat()
    yield chat
    chat.stop()


def groups(chat):
    return [{"group": "platform", "alarms": ["*"], "mail": TO[:1]},
            {"group": "day", "alarms": [], "webhook": chat.slack, "email": True, "mail": TO, "digest": True}]


def settings(chat, *more):
    return {"parameters": " ".join((FAST, *more)), "RECIPIENTS": json.dumps(groups(chat))}


def mails(stack, subject):
    """The mails whose subjects begin so, or in one of these ways, oldest first."""
    files = sorted((stack.data / "mail").glob("*.eml"))
    found = [email.message_from_bytes(file.read_bytes(), policy=email.policy.default) for file in files]
    return [mail for mail in found if mail["Subject"].startswith(subject)]


def parts(mail):
    return [mail.get_body((kind,)).get_content() for kind in ("plain", "html")]


def in_bucket(stack, key):
    path = stack.data / "s3" / LANDING_BUCKET / key
    return json.loads(path.read_text()) if path.exists() else None


def alarm(stack, state):
    stack.cloudwatch().set_alarm_state(AlarmName="playhead-failed-batches", StateValue=state, StateReason="by the test")


def test_a_day_is_a_digest_at_a_webhook_and_a_mail_once(fresh_stack, chat):
    """A day in 24 seconds: what was accepted, rejected and alarmed is in the digest that the schedule has sent once; the same
    event again sends nothing."""
    clock = FastClock(3_600)
    # The day's last hour is sealed from 0:20 on, and this clock has an hour a second: at 6:45 it surely is.
    stack = fresh_stack(CLOCK=clock.setting, **settings(chat, "DigestHour=6", "MailFrom=playhead@example.com"))
    # The clock runs on at night: all of this is of its first day.
    for number in range(20):
        assert stack.post(body=json.dumps([{"n": number}]).encode(), headers=JSON).status == 200
    assert stack.post(body=b"<b>not json</b>", headers=JSON).status == 400
    alarm(stack, "ALARM")
    # A busy machine may raise other alarms by a clock that is so fast.
    named = lambda: [mail for mail in mails(stack, ("ALARM: ", "MORE ALARMS: ")) if "failed-batches" in parts(mail)[0]]
    notice = wait_for(named, 20, lambda: f"a notice\n{stack.tail()}")[0]
    assert (notice["From"], notice["To"]) == ("playhead@example.com", TO[0])
    text, page = parts(notice)
    assert "failed-batches" in text and "failed-batches" in page and "<script" not in page

    digests = lambda: [text for text in chat.texts if text.startswith("DIGEST of playhead for 2026-11-16 (UTC): ")]
    wait_for(digests, 60, lambda: f"a digest in {chat.texts}\n{stack.tail()}\n{stack.function_log('send-digest')}")
    lines = digests()[0].splitlines()
    for line in ("- Sealed: 24 of 24", "- Events: 20", "- invalid_json: 1"):
        assert line in lines, lines
    assert [line for line in lines if "failed-batches" in line and line.startswith("! 2026-11-16 ")], lines
    mail, = wait_for(lambda: mails(stack, "DIGEST of playhead for 2026-11-16"), 20, "the digest as a mail")
    assert mail["To"] == ", ".join(TO)
    text, page = parts(mail)
    assert text.strip() == digests()[0].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&").strip()
    assert "<td" in page and "24 of 24" in page and "http" not in page
    state = wait_for(lambda: (in_bucket(stack, KEY) or {}).get("groups"), 20, "the digest in the bucket")
    wait_for(lambda: set(in_bucket(stack, KEY)["groups"]["day"].values()) == {"sent"}, 20, lambda: f"all sent in {state}")

    # The same event again.
    at = f"{DAY + timedelta(days=1, minutes=45):%Y-%m-%dT%H:%M:%SZ}"
    done = stack.run_script("invoke", "send-digest", "--at", at)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(digests()) == 1 and len(mails(stack, "DIGEST of playhead for 2026-11-16")) == 1
    assert (stack.data / "logs/notices.log").read_text().count("Z DIGEST of playhead for 2026-11-16") == 2, "by the topic, and by mail"
    logs = "".join(stack.function_log(function) for function in ("notify", "send-digest"))
    assert not any(address in logs for address in TO) and "/hook" not in logs


def test_a_digest_that_does_not_reach_a_group_is_sent_by_the_next_run(fresh_stack, chat):
    """A webhook that is away fails the run, and the mail is sent all the same; the next run sends what is missing alone."""
    stack = fresh_stack(**settings(chat, "DigestHour=0", "MailFrom=playhead@example.com"))
    at = "2026-11-17T00:45:00Z"
    chat.statuses[:] = [503] * 3
    assert stack.run_script("invoke", "send-digest", "--at", at).returncode == 1
    assert (len(chat.texts), len(mails(stack, "DIGEST"))) == (0, 1)
    assert in_bucket(stack, KEY)["groups"] == {"day": {"webhook": "unsent", "email": "sent", "mail": "sent"}}
    # By then the first run would be over.
    over = in_bucket(stack, KEY) | {"run": {"request_id": "r", "ends_at": 0}}
    stack.s3().put_object(Bucket=LANDING_BUCKET, Key=KEY, Body=json.dumps(over).encode())
    assert stack.run_script("invoke", "send-digest", "--at", at).returncode == 0
    assert (len(chat.texts), len(mails(stack, "DIGEST"))) == (1, 1)
    lines = chat.texts[0].splitlines()
    assert "- Sealed: 0 of 0" in lines and "- Before anything landed: 24 hours" in lines, "nothing is due of a stack that is new"
