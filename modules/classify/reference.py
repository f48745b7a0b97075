"""classify in plain Python: one expression or function for each protocol, asked one after the other."""

import re
import struct

SYN, ACK = 2, 16
HTTP = rb"HTTP/1\.|PRI \* HTTP/2\.0\r\n|(GET|HEAD|POST|PUT|DELETE|TRACE|OPTIONS|PATCH) (/|http://|\* HTTP/)"
ANY_METHOD = rb"[A-Z_]{3,16} "
TEXTS = [
    ("ssh", rb"SSH-(2\.0|1\.99|1\.5)-", "tcp", False),
    ("http", HTTP, "tcp", False),
    ("smtp", rb"(EHLO|HELO) ", "tcp", False),
    ("imap", rb"\* (OK|PREAUTH|BYE) ", "tcp", True),
    ("pop3", rb"\+OK ", "tcp", True),
    ("sip", rb"SIP/2\.0 |" + ANY_METHOD + rb"sips?:", "both", False),
    ("rtsp", rb"RTSP/[12]\.0 |" + ANY_METHOD + rb"rtsps?://", "both", False),
]  # in each row: when, True: only of the flow's first payload
DNS_CLASSES = {1, 3, 4, 254, 255}
QUIC_VERSIONS = {1, 0x6B3343CF}
STUN_COOKIE = 0x2112A442
WIREGUARD_BYTES = {1: 148, 2: 92}
RTP_KINDS = {*range(35), *range(96, 128)}


def is_tls(load):
    if len(load) < 6 or load[1] != 3 or load[2] not in (1, 2, 3):
        return False
    kind, length, first = load[0], int.from_bytes(load[3:5]), load[5]
    return {
        20: (length, first) == (1, 1),
        21: length == 2 and first in (1, 2),
        22: 4 <= length <= 18432 and first in (1, 2),
        23: 1 <= length <= 18432,
    }.get(kind, False)


def is_mqtt(load):
    """The length before the name has one to four bytes; all but the last have their upper bit set."""
    return any(
        re.match(rb"[\x80-\xff]{%d}" % (count - 1), load[1:], re.DOTALL)
        and load[count] < 128
        and load[1 + count :].startswith((b"\0\4MQTT", b"\0\6MQIsdp"))
        for count in (1, 2, 3, 4)
        if load[:1] == b"\x10" and len(load) > count
    )


def is_dns(load):
    if len(load) < 12:
        return False
    _, flags, questions, answers, authorities, additional = struct.unpack_from("!6H", load)
    if flags & 0x40 or flags >> 11 & 15 not in (0, 4) or questions != 1:
        return False
    if not flags & 0x8000 and (flags & 15 or answers > 1 or authorities > 1 or additional > 2):
        return False
    rest, seen = load[12:], 0
    while rest and 0 < rest[0] < 64:
        seen += rest[0] + 1
        rest = rest[rest[0] + 1 :]
    if rest[:1] != b"\0" or seen + 1 > 255 or len(rest) < 5:
        return False
    kind, number = struct.unpack_from("!HH", rest, 1)
    return kind != 0 and number & 0x7FFF in DNS_CLASSES


def is_quic(load):
    if len(load) < 7 or load[0] < 0xC0 or int.from_bytes(load[1:5]) not in QUIC_VERSIONS or load[5] > 20:
        return False
    return len(load) > 6 + load[5] and load[6 + load[5]] <= 20


def is_dtls(load):
    if len(load) < 13 or load[0] not in range(20, 24) or load[1:3] not in (b"\xfe\xff", b"\xfe\xfd"):
        return False
    return 1 <= int.from_bytes(load[11:13]) <= len(load) - 13


def is_stun(load):
    if len(load) < 20 or load[0] > 63 or int.from_bytes(load[4:8]) != STUN_COOKIE:
        return False
    length = int.from_bytes(load[2:4])
    return length % 4 == 0 and length == len(load) - 20


def is_wireguard(load):
    return load[1:4] == bytes(3) and len(load) == WIREGUARD_BYTES.get(load[0])


class Module:
    def __init__(self, parameters, count):
        self.parameters = parameters
        self.count = count

    def egress(self, packet):
        self.look(packet)

    def ingress(self, packet):
        self.look(packet)

    def look(self, packet):
        state = packet.flow.state
        if packet.protocol == "tcp" and packet.tcp_flags & (SYN | ACK) == SYN and state.get("decided"):
            state["decided"] = state["looked"] = None
        if state.get("decided") and self.parameters["bypass"]:
            return
        self.count("packets")
        self.count("bytes", len(packet.payload))
        if packet.payload and not state.get("decided"):
            self.decide(packet, state)

    def decide(self, packet, state):
        opens = not state.get("looked")
        looked = state["looked"] = state.get("looked") or {"egress": 0, "ingress": 0}
        looked[packet.direction] += 1
        found = self.protocol_of(packet, opens)
        if not found and looked[packet.direction] >= self.parameters["packets"]:
            found = "other"
        self.count("undecided", opens - bool(found))
        if found:
            self.count(found)
            state["decided"] = found
            if self.parameters["bypass"]:
                packet.flow.done()

    def protocol_of(self, packet, opens):
        load, of = packet.payload, packet.protocol
        if of == "tcp":
            binary = {
                "tls": is_tls(load),
                "mqtt": is_mqtt(load),
                "bittorrent": load.startswith(b"\x13BitTorrent protocol"),
                "dns": len(load) > 2 and is_dns(load[2 : 2 + int.from_bytes(load[:2])]),
            }
        else:
            tests = {
                "stun": is_stun,
                "quic": is_quic,
                "dtls": is_dtls,
                "wireguard": is_wireguard,
                "dns": is_dns,
            }
            binary = {name: test(load) for name, test in tests.items()}
        found = [name for name, holds in binary.items() if holds]
        if not found and of == "udp" and self.follows(packet):
            found = ["rtp"]
        texts = (name for name, form, way, first in TEXTS if way in (of, "both") and (opens or not first)
                 and re.match(form, load))  # fmt: skip
        return next(iter([*found, *texts]), None)

    def follows(self, packet):
        """RTP: whether the datagram comes soon after another one of its source, in its direction."""
        load, state = packet.payload, packet.flow.state
        if len(load) < 12 or load[0] >> 6 != 2 or load[1] & 127 not in RTP_KINDS:
            return False
        if len(load) < 12 + (load[0] & 15) * 4:
            return False
        number, source = int.from_bytes(load[2:4]), load[8:12]
        before, state[packet.direction] = state.get(packet.direction), (number, source)
        return before is not None and before[1] == source and 1 <= (number - before[0]) % 65536 <= 16
