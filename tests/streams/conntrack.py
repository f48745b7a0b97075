"""An observer on one host's wire that judges packets as tcp_in_window of Linux's nf_conntrack does."""

from dataclasses import dataclass

from .packets import (
    ACK,
    FIN,
    MODULUS,
    OPTION_SACK_PERMITTED,
    RST,
    SYN,
    Packet,
    find,
    parse,
    sack_blocks,
    scale_of,
)  # fmt: skip

LEAST_ACK_WINDOW = 66_000


def after(left: int, right: int) -> bool:
    return 0 < (left - right) % MODULUS < MODULUS >> 1


def latest(left: int, right: int) -> int:
    return left if after(left, right) else right


@dataclass
class Side:
    """What is known of one sender. end: of what it sent. right: where its peer's window ends."""

    end: int = 0
    right: int = 0
    window: int = 0
    scale: int = 0
    has_scale: bool = False
    sacks: bool = False


class Conntrack:
    """One connection."""

    def __init__(self) -> None:
        self.sides = {"out": Side(), "in": Side()}
        self.opening = True
        self.first: str | None = None

    def see(self, packet: bytes, way: str) -> str | None:
        """Why it is INVALID."""
        parsed = parse(packet)
        if parsed is None:
            return "malformed"
        self.first = self.first or way
        complaint = self._judge(parsed, self.sides[way], self.sides["in" if way == "out" else "out"], way)
        return complaint and f"{way}: {complaint}: {parsed}"

    def _judge(self, packet: Packet, sender: Side, receiver: Side, way: str) -> str | None:
        end = (packet.seq + packet.sequence_bytes) % MODULUS
        if packet.flags & SYN and (not sender.window or (after(end, sender.end) and self.opening)):
            self._begin(packet, sender, receiver, end, way)
            if not packet.flags & ACK:
                return None
        elif not sender.window:
            return self._adopt(packet, sender, receiver, end)
        sack = packet.ack if packet.flags & ACK else receiver.end
        ack = sack
        for _, right in sack_blocks(packet.options) if receiver.sacks and packet.flags & ACK else []:
            sack = latest(right, sack)
        complaint = self._out_of_window(packet, sender, receiver, end, sack)
        if complaint is None:
            self._update(packet, sender, receiver, end, ack, sack)
        return complaint

    def _begin(self, packet: Packet, sender: Side, receiver: Side, end: int, way: str) -> None:
        scale = scale_of(packet.options)
        sender.end = sender.right = end
        sender.window = packet.window or 1
        sender.scale, sender.has_scale = scale or 0, scale is not None
        sender.sacks = find(packet.options, OPTION_SACK_PERMITTED, 2) is not None
        if way != self.first and not (sender.has_scale and receiver.has_scale):
            sender.scale = receiver.scale = 0

    def _adopt(self, packet: Packet, sender: Side, receiver: Side, end: int) -> None:
        """In the middle of a connection."""
        sender.end = end
        sender.window = (packet.window << sender.scale) or 1
        sender.right = end + sender.window
        if not receiver.window:
            receiver.end = receiver.right = packet.ack

    def _out_of_window(self, packet: Packet, sender: Side, receiver: Side, end: int, sack: int) -> str | None:
        if after(packet.seq, sender.right):
            return f"seq over the upper bound {sender.right}"
        if receiver.window and not after(end, (sender.end - receiver.window - 1) % MODULUS):
            return f"seq under the lower bound {sender.end} - {receiver.window}"
        if after(sack, receiver.end):
            return f"ack over the upper bound {receiver.end}"
        if not after(sack, (receiver.end - max(sender.window, LEAST_ACK_WINDOW) - 1) % MODULUS):
            return "ack under the lower bound"
        return None

    def _update(self, packet: Packet, sender: Side, receiver: Side, end: int, ack: int, sack: int) -> None:
        window = packet.window if packet.flags & SYN else packet.window << sender.scale
        sender.window = max(sender.window, window + (sack - ack) % MODULUS)
        sender.end = latest(end, sender.end)
        if receiver.window and after(end, sender.right):
            receiver.window += (end - sender.right) % MODULUS
        if after((sack + window) % MODULUS, (receiver.right - 1) % MODULUS):
            receiver.right = (sack + window + (window == 0)) % MODULUS
        if not packet.flags & (SYN | RST | FIN):
            self.opening = False
