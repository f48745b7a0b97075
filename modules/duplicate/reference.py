"""duplicate in plain Python: the wire format of README.md, for tests and for reading."""

import random
import struct

VERSION = 1
MARK = struct.Struct("!2sBBIII")  # magic, version, copy, epoch, number, check
MAGIC = b"LD"
WINDOW_NUMBERS = 1024
MOST_STALE = 64
NUMBERS = 1 << 32


def fnv1a(content):
    check = 0x811C9DC5
    for byte in content:
        check = (check ^ byte) * 0x01000193 % NUMBERS
    return check


def mark_of(datagram_bytes, copy, epoch, number, version=VERSION):
    check = fnv1a(struct.pack("!HBBII", datagram_bytes % 65536, version, copy, epoch, number))
    return MARK.pack(MAGIC, version, copy, epoch, number, check)


class Window:
    """What arrived of one numbering: a set where the hot code has a bitmap."""

    def __init__(self, epoch, highest):
        self.epoch, self.highest, self.seen = epoch, highest, set()

    def note(self, number):
        """ "fresh", "seen" or "behind"."""
        ahead = (number - self.highest + NUMBERS // 2) % NUMBERS - NUMBERS // 2
        if ahead <= -WINDOW_NUMBERS:
            return "behind"
        if ahead > 0:
            self.highest = number
            self.seen = {each for each in self.seen if (number - each) % NUMBERS < WINDOW_NUMBERS}
        if number in self.seen:
            return "seen"
        self.seen.add(number)
        return "fresh"


class Module:
    def __init__(self, parameters, count):
        self.copies = parameters["copies"]
        self.spacing_ms = parameters["spacing_ms"]
        self.drop_unmarked = parameters["unmarked"] == "drop"
        self.count = count

    def egress(self, packet):
        payload, state = packet.payload, packet.flow.state
        epoch = state.setdefault("epoch", random.getrandbits(32))
        number = state.get("next", 0)
        try:
            packet.payload = payload + mark_of(len(payload), 0, epoch, number)
        except ValueError:
            self.count("no_room")
            raise
        state["next"] = (number + 1) % NUMBERS
        self.count("marked")
        for copy in range(1, self.copies):
            content = payload + mark_of(len(payload), copy, epoch, number)
            sent = packet.emit(content, after_ms=copy * self.spacing_ms)
            self.count("copies_sent" if sent else "not_copied")

    def ingress(self, packet):
        payload, mark = packet.payload[: -MARK.size], packet.payload[-MARK.size :]
        fields = self.fields_of(mark, len(payload))
        if fields is None:
            self.count("unmarked")
            if self.drop_unmarked:
                packet.drop()
            return
        answer = self.admit(packet.flow.state, *fields)
        self.count({"fresh": "delivered", "seen": "duplicates", "behind": "too_old"}[answer])
        if answer == "fresh":
            packet.payload = payload
        else:
            packet.drop()

    def fields_of(self, mark, datagram_bytes):
        """(copy, epoch, number), or None without a mark."""
        if len(mark) < MARK.size:
            return None
        _, _, copy, epoch, number, _ = MARK.unpack(mark)
        return (copy, epoch, number) if mark == mark_of(datagram_bytes, copy, epoch, number) else None

    def admit(self, state, copy, epoch, number):
        windows = state.setdefault("windows", [])  # the newest first
        window = next((each for each in windows if each.epoch == epoch), None)
        if window is None:
            if windows:
                self.count("restarts")
            window = Window(epoch, number)
            windows[:] = [window, *windows[:1]]
        answer = window.note(number)
        if answer == "fresh":
            state["stale"] = 0
        elif answer == "behind" and copy == 0:
            state["stale"] = state.get("stale", 0) + 1
            if state["stale"] == MOST_STALE:
                state["stale"] = 0
                self.count("restarts")
                window.__init__(epoch, number)
                answer = window.note(number)
        return answer
