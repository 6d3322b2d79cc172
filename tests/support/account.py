"""What was sent against what is on the stream against what landed: every event's way, and what is wrong with it."""

from collections import Counter
from dataclasses import dataclass, field

from support import landed


@dataclass
class Account:
    """Counts of events, and of what must not be."""

    sent: int
    accepted: int
    reported_not_stored: int
    given_up: int
    on_stream: int
    landed: int
    # Answered 2xx, or on the stream, and not landed.
    missing: list = field(repr=False)
    # More often landed than they are on the stream, or more often than once beside what was spilled.
    doubled: list = field(repr=False)
    # Stored twice, and nothing that happened to their senders explains it.
    unexplained: list = field(repr=False)
    # Stored twice because an answer was lost or too late: their ids tell.
    doubled_under_one_id: int
    rejected: int
    rejected_missing: list = field(repr=False)
    # Events whose order is promised: posted one after the other under one key, each answered 200 at the first try.
    ordered: int
    # Of these, those that landed from the stream before one that was posted earlier.
    out_of_order: list = field(repr=False)

    @property
    def is_good(self):
        return not any(getattr(self, name) for name in WRONG)


# What must be empty.
WRONG = ("missing", "doubled", "unexplained", "rejected_missing", "out_of_order")


def settle(players, records, unacknowledged, event_lines, rejected_lines):
    """The account of some traffic.

    players: what was sent and answered. records: all that is on the stream. unacknowledged: sequence numbers of records
    that are stored and whose sender got no answer. event_lines, rejected_lines: all that landed, in the order of the files.
    """
    on_stream = Counter(line for record in records for line in record.lines)
    in_files = Counter(line.text for line in [*event_lines, *rejected_lines])
    spilled = Counter(line.text for line in [*event_lines, *rejected_lines] if line.is_spilled)
    lost, doubled = on_stream + spilled - in_files, in_files - on_stream - spilled
    copies = Counter(line.json["id"] for line in event_lines)
    kept = {one.body for one in landed.rejected(rejected_lines)}
    # Ingest spills what Kinesis did not confirm in time, and Kinesis may have stored it.
    explained = explanations(players, records, unacknowledged) + Counter(line.json["id"] for line in event_lines if line.is_spilled)
    return Account(
        sent=len(players.sent),
        accepted=len(players.accepted),
        reported_not_stored=players.reported_not_stored,
        given_up=len(players.given_up),
        on_stream=on_stream.total(),
        landed=len(event_lines),
        missing=[*lost, *(one for one in players.accepted if one not in copies)],
        doubled=[*doubled],
        unexplained=[one for one, count in copies.items() if count > 1 + explained[one]],
        doubled_under_one_id=sum(count - 1 for count in copies.values()),
        rejected=len(players.bad_refused),
        rejected_missing=[body for body in players.bad_refused if body not in kept],
        ordered=sum(map(len, players.in_order.values())),
        out_of_order=out_of_order(players.in_order, [line.json["id"] for line in event_lines if not line.is_spilled]),
    )


def out_of_order(in_order, landed_ids):
    """The events that landed before one which was posted earlier under their key. Where an event landed twice, its first
    place counts."""
    places = {}
    for place, one in enumerate(landed_ids):
        places.setdefault(one, place)
    wrong = []
    for posted in in_order.values():
        latest = -1
        for one in (one for one in posted if one in places):
            if places[one] < latest:
                wrong.append(one)
            latest = max(latest, places[one])
    return wrong


def explanations(players, records, unacknowledged):
    """How many times more than once an event may be on the stream: it was stored without an answer, or it was sent again
    because there was no answer."""
    again = Counter(players.sent_again_unanswered)
    for record in records:
        if record.sequence_number in unacknowledged:
            again.update(landed.id_of(line) for line in record.lines)
    return again
