"""The data of a Kinesis record: lines as they are, or a zstd frame of them."""

import zstandard


def is_frame(data):
    return data.startswith(zstandard.FRAME_HEADER)


def text_of(data):
    return zstandard.decompress(data) if is_frame(data) else data


def with_text(data, text):
    """The data with another text in them, compressed if they were."""
    return zstandard.compress(text) if is_frame(data) else text
