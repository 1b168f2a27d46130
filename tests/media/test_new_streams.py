"""A broadcast may begin another stream in the middle, as where a second language starts."""

from collections.abc import Iterator
from typing import Any

from earmark.media.opening import packets_of


class Broadcast:
    """What PyAV 18 does at some packets of streams that it does not know: it depends on memory that it does not own."""

    def __init__(self) -> None:
        self.unread = iter([1, 2, IndexError("list index out of range"), 3, IndexError("list index out of range")])

    def demux(self, *streams: Any) -> Iterator[int]:
        for packet in self.unread:
            if isinstance(packet, Exception):
                raise packet
            yield packet
        yield 0  # the empty one


def test_packets_of_streams_that_are_not_known_are_passed_over() -> None:
    assert list(packets_of(Broadcast(), "the sound")) == [1, 2, 3, 0]  # type: ignore[arg-type]
