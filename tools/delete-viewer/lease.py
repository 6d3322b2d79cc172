"""Lets one deletion at a time change the bucket: two at once would take each other's markers for those of killed runs, and each record
what both deleted.

The lease is an object that its holder writes again every few seconds. Who finds one watches it: if it changes, its holder lives; if it
stays as it is, its holder was killed, and it is taken over. So no clocks are compared.
"""

import json
import sys
import threading
import time

from botocore.exceptions import BotoCoreError, ClientError
from landed_object import CHANGED, GONE, Problem

KEY = "deletions/running"
# In units of the time that a holder waits between two writes: how long without a change it is nobody's, and how long a holder that could
# not write it still relies on it.
PATIENCE, CERTAINTY = 6, 4


class Lease:
    """Not held until it is taken. Left, it is given up."""

    def __init__(self, s3, s3_in_time, bucket, run, beat_seconds):
        """`s3_in_time` ends a call before the next write is due; the other takes its time."""
        self.s3, self.s3_in_time, self.bucket, self.run, self.beat_seconds = s3, s3_in_time, bucket, run, beat_seconds
        self.beats, self.etag, self.is_lost, self.written_at = 0, None, False, 0.0
        self.over, self.thread = threading.Event(), None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
        if not self.etag or self.is_lost:
            return
        try:
            self.change(self.s3.delete_object, IfMatch=self.etag)
        except (BotoCoreError, ClientError) as problem:
            print(f"{KEY} is still there ({problem}): the next run waits until it is sure that it is nobody's", file=sys.stderr)

    def take(self):
        """Raises Problem if another run has it, and lives."""
        etag, _ = self.found()
        if etag:
            print(f"another run is at work, or was killed: which of the two is seen within {PATIENCE * self.beat_seconds:.0f} seconds …", flush=True)
        until = time.monotonic() + PATIENCE * self.beat_seconds
        while etag and time.monotonic() < until:
            time.sleep(self.beat_seconds / 2)
            now, _ = self.found()
            if now and now != etag:
                raise Problem("another deletion is running: nothing is deleted by this one; run it again once the other has ended")
            etag = now
        condition = {"IfMatch": etag} if etag else {"IfNoneMatch": "*"}
        if not self.put(self.s3, **condition):
            raise Problem("another deletion began or ended just now: nothing is deleted by this one; run it again")
        self.thread = threading.Thread(target=self.keep, daemon=True)
        self.thread.start()

    def check(self):
        """Raises Problem if another run took it over, or may have: this one did nothing for a while, as on a computer that sleeps, or S3
        did not answer."""
        if self.is_lost or self.thread and time.monotonic() - self.written_at > CERTAINTY * self.beat_seconds:
            raise Problem("this run stood still, or S3 was away, for so long that another may have taken over what it began; run it again")

    def stop(self):
        """Writes it no more."""
        self.over.set()
        if self.thread:
            self.thread.join()

    def keep(self):
        while not self.is_lost and not self.over.wait(self.beat_seconds):
            try:
                self.is_lost = not self.put(self.s3_in_time, IfMatch=self.etag)
            except (BotoCoreError, ClientError):
                # S3 is away; the next attempt comes soon.
                continue

    def put(self, s3, **condition):
        """Whether it is held now."""
        self.beats += 1
        began = time.monotonic()
        body = json.dumps({"run": self.run, "beats": self.beats}).encode()
        if answer := self.change(s3.put_object, Body=body, **condition):
            self.etag, self.written_at = answer["ETag"], began
            return True
        # A request whose answer was lost was sent again, and found its own object.
        etag, run = self.found()
        if run != self.run:
            return False
        self.etag, self.written_at = etag, began
        return True

    def change(self, call, **arguments):
        """The answer; None if the object is not as the condition says."""
        try:
            return call(Bucket=self.bucket, Key=KEY, **arguments)
        except ClientError as error:
            if error.response["Error"]["Code"] not in (*CHANGED, *GONE):
                raise
            return None

    def found(self):
        """Its ETag and the run that holds it; nothing if nobody does."""
        try:
            found = self.s3.get_object(Bucket=self.bucket, Key=KEY)
        except ClientError as error:
            if error.response["Error"]["Code"] not in GONE:
                raise
            return None, None
        return found["ETag"], json.loads(found["Body"].read()).get("run")
