"""A stack's clock that runs faster than ours."""

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

START = datetime(2026, 11, 16, tzinfo=UTC)


@dataclass
class FastClock:
    """Runs from its making on: made before its stack starts it is ahead of it, made afterwards behind it."""

    speed: int
    began: float = field(default_factory=time.monotonic)

    @property
    def setting(self):
        """The variable CLOCK."""
        return f"{START:%Y-%m-%dT%H:%M:%SZ} x{self.speed}"

    def now(self):
        return START + timedelta(seconds=(time.monotonic() - self.began) * self.speed)


def partition(hour):
    return f"dt={hour:%Y-%m-%d}/hour={hour:%H}"
