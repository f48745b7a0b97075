"""The map of known connections, which the engine fills, and the programs by which the rules ask it.

    prepare:  file system, map, programs, all with names      before the queues are bound and the rules come
    settle:   the programs of classes that are gone go        when the rules have changed
    end:      customized connections are closed               before the rules go; by whatever process
    remove:   the same again, and names go                    when the rules are gone; by whatever process

A customized connection must not go on without us: its peer would take data for inserted bytes. So, when
nobody translates it any more, its socket is closed. A peer that does not hear of it does with its next
packet.
"""

import contextlib
import os
import struct
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from layer45.rules import bpf, known_blocks, pins
from layer45.rules.diversion import RulePlan
from layer45.rules.errors import RulesError
from layer45.rules.known_program import (
    CLASS_MASK,
    CUSTOMIZED,
    DIRECTIONS,
    ERROR,
    KEY_BYTES,
    VALUE_BYTES,
    customized,
    known,
    of_block,
)
from layer45.rules.socket_end import Ended, end_sockets
from layer45.rules.tree import Span

MAP = "map"
PROGRAM = "layer45_known"
LARGEST = 1 << 24
OF_CLASS = (*DIRECTIONS, ERROR)  # the directions of a class's programs


class KnownConnections:
    """The map of one daemon. Not for several threads at once."""

    def __init__(self) -> None:
        self._map = -1
        self._blocks: set[Span] = set()  # of classes, that there are programs for

    def prepare(self, plan: RulePlan) -> int:
        """Everything the plan's rules ask for; the map's descriptor, which stays ours; -1: none is needed.

        Customized connections of classes that the plan has not are closed now, while engine and rules are
        theirs: so their last word, the reset, reaches the peer as all before it. Raises RulesError.
        """
        if self._map < 0 and not plan.asks_map:
            return -1
        with _told():
            if self._map < 0:
                self._begin(pins.make(plan.owner), plan.connections)
            else:
                _end_customized_of(self._map, plan.renumbering)
            self._pin_blocks(pins.directory(plan.owner), known_blocks.blocks(plan.renumbering) - self._blocks)
        return self._map

    def adopt(self, owner: str) -> None:
        """Takes over the map of a daemon that runs, and whose connections it is, if there is one.

        The programs of old stay until others have their names, or all names go. Raises RulesError.
        """
        place = pins.directory(owner)
        if self._map < 0 and (place / MAP).exists():
            with _told():
                opened = bpf.pinned(place / MAP)
                self._pin_known(place, opened)
                self._map = opened

    @property
    def opened(self) -> bool:
        """Whether there is a map."""
        return self._map >= 0

    def _begin(self, place: Path, connections: int) -> None:
        _end_customized(place)  # a killed predecessor's
        created = bpf.create_hash(KEY_BYTES, VALUE_BYTES, min(connections, LARGEST), "layer45_known")
        self._pin_known(place, created)
        self._map = created

    def _pin_known(self, place: Path, opened: int) -> None:
        """The map and the programs that are not about a class; on an error, the map is closed."""
        try:
            for direction in DIRECTIONS:
                bpf.pin_filter(place / f"known-{direction}", known(opened, direction), PROGRAM)
                bpf.pin_filter(place / f"customized-{direction}", customized(opened, direction), PROGRAM)
            bpf.pin(opened, place / MAP)
        except BaseException:
            os.close(opened)
            raise

    def _pin_blocks(self, place: Path, wanted: Collection[Span]) -> None:
        for first, last in wanted:
            for direction in OF_CLASS:
                code = of_block(self._map, direction, first, last)
                bpf.pin_filter(place / f"{known_blocks.name(first, last)}-{direction}", code, PROGRAM)
            self._blocks.add((first, last))

    def settle(self, plan: RulePlan) -> Ended:
        """What no rule asks any more goes, and customized connections that came to a gone class meanwhile."""
        if self._map < 0:
            return Ended()
        gone = self._blocks - known_blocks.blocks(plan.renumbering)
        for block in gone:
            for direction in OF_CLASS:
                with contextlib.suppress(OSError):
                    program(plan.owner, known_blocks.name(*block), direction).unlink()
        self._blocks -= gone
        return _end_customized_of(self._map, plan.renumbering)

    def end_others(self, live: Callable[[], Collection[bytes]]) -> Ended:
        """Closes customized connections but the live ones; these are asked for when the map has been read."""
        return _end_customized_of(self._map, live=live) if self._map >= 0 else Ended()

    def close(self) -> None:
        """Lets go of the map; names stay until remove."""
        if self._map >= 0:
            os.close(self._map)
        self._map = -1
        self._blocks = set()


def program(owner: str, name: str, direction: str) -> Path:
    """Where rules find a program: "known", "customized" or that of a block, of direction "out" or "in".

    Those of a class are there for direction "error", too.
    """
    return pins.directory(owner) / f"{name}-{direction}"


def end(owner: str) -> Ended:
    """Closes customized connections, whoever made the map. Raises RulesError.

    To be called before the rules go, when nobody reads the queues: what the sockets still send is dropped.
    """
    with _told():
        return sum(map(_end_customized, pins.existing(owner)), Ended())


def remove(owner: str) -> Ended:
    """Closes the customized connections that are left and takes all names away, whoever made them.

    To be called when no rule of the owner is left. Nothing to do is no error. Raises RulesError.
    """
    ended = Ended()
    with _told():
        for place in pins.existing(owner):
            ended += _end_customized(place)
            pins.clear(place)
    return ended


def _end_customized(place: Path) -> Ended:
    """Of the map with a name in this place."""
    if not (place / MAP).exists():
        return Ended()
    opened = bpf.pinned(place / MAP)
    try:
        return _end_customized_of(opened)
    finally:
        os.close(opened)


def _end_customized_of(
    opened: int, kept: Collection[int] = (), live: Callable[[], Collection[bytes]] = tuple
) -> Ended:
    """All but those of the kept classes, and those that live when the map has been read."""
    keys = []
    for key, value in bpf.entries(opened, KEY_BYTES, VALUE_BYTES):
        (number,) = struct.unpack("=I", value)
        if number & CUSTOMIZED and number & CLASS_MASK not in kept:
            keys.append(key)
    alive = set(live())
    keys = [key for key in keys if key not in alive]
    ended = end_sockets(keys)
    for key in keys:
        bpf.delete(opened, key)
    return ended


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RulesError(f"known connections: {error.strerror or error}") from None
