"""Viewers that post, each on a connection of its own, and remember the answers."""

import http.client
import json
import threading
import time
import uuid
from collections import Counter
from typing import NamedTuple

from support.stack import request

JSON = {"content-type": "application/json"}


class Answer(NamedTuple):
    """Of one POST: the status, or the name of the error that it ended with; the time until then; the ids of its events."""

    status: int | str
    seconds: float
    ids: list


class Traffic:
    """Posts while its `with` block runs: each viewer one POST after the other, its events numbered through.

    A request that is cut off is not sent again: whether its events landed is then open, and both is right.
    """

    def __init__(self, stack, viewers=8, events_per_post=5, pause=0.01):
        self.stack, self.events_per_post, self.pause = stack, events_per_post, pause
        self.answers = []
        self.over = threading.Event()
        self.threads = [threading.Thread(target=self._view, daemon=True) for _ in range(viewers)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        for thread in self.threads:
            thread.join(60)
            assert not thread.is_alive(), "a request was not answered within 60 s"

    @property
    def statuses(self):
        """How many requests had which status, or ended with which error."""
        return Counter(answer.status for answer in list(self.answers))

    @property
    def accepted(self):
        """The ids of the events that were answered 200."""
        return [one for answer in list(self.answers) if answer.status == 200 for one in answer.ids]

    def _view(self):
        viewer, sent, connection = f"viewer-{uuid.uuid4()}", 0, self.stack.connect()
        while not self.over.wait(self.pause):
            numbers = range(sent, sent := sent + self.events_per_post)
            events = [{"viewer_id": viewer, "n": n, "id": f"{viewer}/{n}"} for n in numbers]
            started = time.monotonic()
            try:
                status = request(connection, "POST", "/events", json.dumps(events), JSON).status
            except ConnectionRefusedError:
                break
            except (http.client.HTTPException, OSError) as error:
                connection.close()
                status = type(error).__name__
            self.answers.append(Answer(status, time.monotonic() - started, [event["id"] for event in events]))
        connection.close()
