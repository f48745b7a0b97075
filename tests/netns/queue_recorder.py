"""What reaches the queues, seen with a plain NetfilterQueue consumer that accepts everything."""

import contextlib
import select
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from netfilterqueue import NetfilterQueue

from .topology import Host

LOCAL_IN, LOCAL_OUT = 1, 3


@dataclass(frozen=True)
class Seen:
    """One queued packet."""

    queue: int
    hook: int
    mark: int
    packet: bytes

    @property
    def ports(self) -> tuple[int, int]:
        """Source and destination, of a packet without extension headers."""
        start = (self.packet[0] & 15) * 4 if self.packet[0] >> 4 == 4 else 40
        source, destination = struct.unpack_from("!HH", self.packet, start)
        return source, destination


Answer = Callable[[Seen], bytes | None]  # another packet in the place of this one, or None


def unchanged(seen: Seen) -> None:
    """Lets every packet go as it came."""


@dataclass
class Recorder:
    """Everything seen so far, in order."""

    seen: list[Seen] = field(default_factory=list)
    answer: Answer = unchanged

    def counts(self, mask: int = 0x10FF) -> dict[str, int]:
        """Packets by direction and our field of the mark: {"out 0x1": 3}. Waits until nothing more comes."""
        before = -1
        while before != len(self.seen):
            before = len(self.seen)
            time.sleep(0.05)
        sides = {LOCAL_IN: "in", LOCAL_OUT: "out"}
        return dict(Counter(f"{sides[s.hook]} {s.mark & mask:#x}" for s in self.seen))


@contextlib.contextmanager
def recording(host: Host, numbers: range, answer: Answer = unchanged) -> Iterator[Recorder]:
    """Listen on these queues of the host."""
    recorder = Recorder(answer=answer)
    queues = []
    try:
        with host.entered():
            for number in numbers:
                queues.append(_bound(number, recorder))
        with _draining(queues):
            yield recorder
    finally:
        for queue in queues:
            queue.unbind()


def _bound(number: int, recorder: Recorder) -> NetfilterQueue:
    def take(packet) -> None:  # type: ignore[no-untyped-def]
        recorder.seen.append(Seen(number, packet.hook, packet.get_mark(), packet.get_payload()))
        other = recorder.answer(recorder.seen[-1])
        if other is not None:
            packet.set_payload(other)
        packet.accept()

    queue = NetfilterQueue()
    queue.bind(number, take)
    return queue


@contextlib.contextmanager
def _draining(queues: list[NetfilterQueue]) -> Iterator[None]:
    stop = threading.Event()

    def drain() -> None:
        by_descriptor = {queue.get_fd(): queue for queue in queues}
        while not stop.is_set():
            for ready in select.select(list(by_descriptor), [], [], 0.05)[0]:
                by_descriptor[ready].run(block=False)

    thread = threading.Thread(target=drain)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
