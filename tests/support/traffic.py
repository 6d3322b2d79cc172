"""Viewers that post, each on a connection of its own, and remember the answers."""

import http.client
import json
import threading
import uuid
from collections import Counter

from support.stack import request

JSON = {"content-type": "application/json"}


class Traffic:
    """Posts while its `with` block runs: each viewer one POST after the other, its events numbered through.

    A request that is cut off is not sent again: whether its events landed is then open, and both is right.
    """

    def __init__(self, stack, viewers=8, events_per_post=5, pause=0.01):
        self.stack, self.events_per_post, self.pause = stack, events_per_post, pause
        self.accepted = []
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
        return Counter(self.answers)

    def _view(self):
        viewer, sent, connection = f"viewer-{uuid.uuid4()}", 0, self.stack.connect()
        while not self.over.wait(self.pause):
            numbers = range(sent, sent := sent + self.events_per_post)
            events = [{"viewer_id": viewer, "n": n, "id": f"{viewer}/{n}"} for n in numbers]
            try:
                status = request(connection, "POST", "/events", json.dumps(events), JSON).status
            except ConnectionRefusedError:
                break
            except (http.client.HTTPException, OSError) as error:
                connection.close()
                status = type(error).__name__
            self.answers.append(status)
            if status == 200:
                self.accepted += [event["id"] for event in events]
        connection.close()
