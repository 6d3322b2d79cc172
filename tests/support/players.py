"""Players that send what they have until they are told that it is stored.

They do what docs/DELIVERY.md lets a player do: after a 503 exactly the events that it names as not stored are
sent again; after no answer, or one that is not ours (a 502 of Lambda's), the whole request, under the same ids.
"""

import http.client
import json
import random
import threading
import time
import uuid
from collections import Counter, defaultdict

from support.stack import request

JSON = {"content-type": "application/json"}
# Chosen so that a few seconds of trouble are outlived, and a test is not held up by one player.
LONGEST_PAUSE_SECONDS = 2


class Players:
    """Posts while its `with` block runs, each player one request after the other on a connection of its own."""

    def __init__(self, stack, seed=1, players=12, events_per_post=(1, 20), pause=0.1, bad_share=0.0, patience=240):
        self.stack, self.events_per_post, self.pause = stack, events_per_post, pause
        self.bad_share, self.patience = bad_share, patience
        self.sent, self.accepted, self.given_up = [], [], []
        self.bad_bodies, self.bad_refused = [], []
        self.answers, self.reported_not_stored = Counter(), 0
        # Of each answer when its request was sent, by the monotonic clock, how many seconds it took, and its status.
        self.times = []
        self.sent_again_unanswered = Counter()
        # By partition key, in the order of their posts: the ids of events whose post was answered 200 at the first try. A
        # player sends its next post after that answer.
        self.in_order = defaultdict(list)
        self.over = threading.Event()
        self.lock = threading.Lock()
        self.threads = [
            threading.Thread(target=self._play, args=(random.Random(f"{seed}/{number}"),), daemon=True)
            for number in range(players)
        ]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        for thread in self.threads:
            thread.join(self.patience + 60)
            assert not thread.is_alive(), "a player did not end"

    def _play(self, random_numbers):
        viewer, count, connection = f"viewer-{uuid.uuid4()}", 0, self.stack.connect()
        while not self.over.wait(random_numbers.uniform(0, 2 * self.pause)):
            if random_numbers.random() < self.bad_share:
                self._send_bad(connection, random_numbers)
                continue
            numbers = range(count, count := count + random_numbers.randint(*self.events_per_post))
            # A third of the players' posts have a key for each event, as those of a proxy for many viewers.
            many = random_numbers.random() < 0.3
            events = [
                {"id": f"{viewer}/{n}", "viewer_id": f"{viewer}-{n}" if many else viewer, "n": n,
                 "type": "heartbeat", "text": "é\u2028\\\"" * random_numbers.randint(0, 20)}
                for n in numbers
            ]
            with self.lock:
                self.sent += [event["id"] for event in events]
            self._send(connection, events)
        connection.close()

    def _send(self, connection, events):
        started, pause, first_try = time.monotonic(), 0.05, True
        while events:
            answer = self._post(connection, json.dumps(events, ensure_ascii=False).encode())
            with self.lock:
                if first_try and answer and answer.status == 200:
                    for event in events:
                        self.in_order[event["viewer_id"]].append(event["id"])
                first_try = False
                events = self._conclude(answer, events)
                if events and time.monotonic() - started > self.patience:
                    self.given_up += [event["id"] for event in events]
                    return
            if events:
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def _conclude(self, answer, events):
        """Notes what was answered; the events that are to be sent again."""
        said = answer.json if answer else None
        if answer and answer.status == 200:
            assert said == {"accepted": len(events), "rejected": []}, said
            self.accepted += [event["id"] for event in events]
            return []
        if answer and answer.status == 503 and "not_stored" in said:
            again = set(said["not_stored"])
            assert said["accepted"] == len(events) - len(again) and again, said
            self.accepted += [event["id"] for index, event in enumerate(events) if index not in again]
            self.reported_not_stored += len(again)
            return [event for index, event in enumerate(events) if index in again]
        assert answer is None or answer.status == 502, f"{answer.status} {answer.body}"
        self.sent_again_unanswered.update(event["id"] for event in events)
        return events

    def _send_bad(self, connection, random_numbers):
        """Something that is no event, and that nobody else sends."""
        body = b'{"broken": "%s", ' % uuid.UUID(int=random_numbers.getrandbits(128)).hex.encode()
        self.bad_bodies.append(body)
        for _ in range(20):
            answer = self._post(connection, body)
            if answer and answer.status == 400:
                self.bad_refused.append(body)
                return
            time.sleep(0.2)

    def _post(self, connection, body):
        """The answer; None when there is none."""
        sent = time.monotonic()
        try:
            answer = request(connection, "POST", "/events", body, JSON)
        except (http.client.HTTPException, OSError) as error:
            connection.close()
            with self.lock:
                self.answers[type(error).__name__] += 1
            return None
        with self.lock:
            self.answers[answer.status] += 1
            self.times.append((sent, time.monotonic() - sent, answer.status))
        return answer
