"""Moments in which this machine stood still, or had no time for us: what was under way is late then, whoever is tested."""

import threading
import time

# Ingest gives up a call to Kinesis after 0.68 s: it may have used a good part of that already.
STALL_SECONDS = 0.4
# For so long ingest then takes Kinesis for away, and a bit.
AFTER_SECONDS = 4


class Stalls:
    """Those of so many seconds at least while it is entered."""

    def __init__(self, seconds=STALL_SECONDS):
        self.seconds, self.found = seconds, []
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self):
        last = time.monotonic()
        while not self.over.wait(0.05):
            now = time.monotonic()
            if now - last > self.seconds:
                self.found.append((last, now))
            last = now

    def disturbed(self, sent, seconds):
        """Whether a request was under way, or sent, while one had its effects."""
        return any(sent < ended + AFTER_SECONDS and sent + seconds > began for began, ended in self.found)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()
