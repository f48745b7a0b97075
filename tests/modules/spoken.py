"""First payloads of flows as the protocols' standards have them: what module classify is to tell."""

import struct


def tls_hello(version: bytes = b"\x03\x01", kind: int = 1) -> bytes:
    """A record with the beginning of a hello: RFC 8446 sections 4.1.2 and 5.1."""
    hello = b"\x03\x03" + bytes(range(32)) + b"\x20" + bytes(32) + b"\x00\x02\x13\x01\x01\x00"
    handshake = bytes([kind]) + len(hello).to_bytes(3) + hello
    return b"\x16" + version + len(handshake).to_bytes(2) + handshake


def dns(
    flags: int = 0x0100,
    counts: tuple[int, int, int, int] = (1, 0, 0, 1),
    name: bytes = b"\3www\7example\3com\0",
    kind: int = 1,
    number: int = 1,
    rest: bytes = b"",
) -> bytes:
    """RFC 1035 section 4.1: header and question."""
    return struct.pack("!6H", 0xBEEF, flags, *counts) + name + struct.pack("!HH", kind, number) + rest


def dns_over_tcp(message: bytes) -> bytes:
    return len(message).to_bytes(2) + message


def quic(version: int = 1, first: int = 0xC3, to: int = 8, source: int = 0) -> bytes:
    """A client's first datagram: RFC 9000 section 17.2.2."""
    ids = bytes([to]) + bytes(range(to)) + bytes([source]) + bytes(range(source))
    return (bytes([first]) + version.to_bytes(4) + ids + b"\x00\x44\x9e").ljust(1200, b"\x55")


def dtls(version: bytes = b"\xfe\xfd", kind: int = 22, length: int = 60) -> bytes:
    """RFC 6347 section 4.1: type, version, epoch, number, length."""
    return bytes([kind]) + version + bytes(8) + length.to_bytes(2) + b"\x01" * length


def stun(kind: int = 1, attributes: bytes = b"") -> bytes:
    """RFC 8489 section 5."""
    return struct.pack("!HHI", kind, len(attributes), 0x2112A442) + b"transaction!" + attributes


def rtp(number: int, source: int = 0xDECAFBAD, kind: int = 0, sources: int = 0) -> bytes:
    """RFC 3550 section 5.1."""
    head = struct.pack("!BBHII", 0x80 | sources, kind, number, number * 160, source)
    return head + bytes(4 * sources) + b"\xd5" * 160


def mqtt(name: bytes, level: int, length: bytes | None = None) -> bytes:
    """CONNECT: OASIS MQTT, section 3.1."""
    rest = len(name).to_bytes(2) + name + bytes([level, 2, 0, 60, 0, 4]) + b"host"
    return b"\x10" + (bytes([len(rest)]) if length is None else length) + rest


SIP = b"INVITE sip:bob@biloxi.example.com SIP/2.0\r\nVia: SIP/2.0/UDP pc33.atlanta.example.com\r\n\r\n"
RTSP = b"SETUP rtsp://example.com/foo/bar.file RTSP/2.0\r\nCSeq: 302\r\n\r\n"
CALLS = [
    ("sip", [SIP]),
    ("sip", [b"SIP/2.0 180 Ringing\r\n\r\n"]),
    ("sip", [b"REGISTER sips:ss2.example.com SIP/2.0\r\n\r\n"]),
    ("rtsp", [RTSP]),
    ("rtsp", [b"RTSP/1.0 200 OK\r\n\r\n"]),
    ("rtsp", [b"GET_PARAMETER rtsps://a/ RTSP/1.0\r\n\r\n"]),
]
DATAGRAMS = [
    ("dns", [dns()]),
    ("quic", [quic()]),
    ("stun", [stun()]),
    ("dns", [dns(0x8180, (1, 4, 0, 1), rest=b"\xc0\x0c" + bytes(60))]),
    ("dns", [dns(0x8183, (1, 0, 1, 0))]),
    ("dns", [dns(0x2400, (1, 1, 0, 0), kind=6)]),
    ("dns", [dns(0, (1, 0, 1, 0), kind=251)]),
    ("dns", [dns(0, (1, 0, 0, 0), b"\5_http\4_tcp\5local\0", 12, 0x8001)]),
    ("dns", [dns(name=b"\0", kind=2)]),
    ("dns", [dns(name=b"\x3f" + b"a" * 63 + b"\x3a" + b"b" * 58 + b"\0")]),
    ("dns", [dns(name=b"\7version\4bind\0", kind=16, number=3)]),
    ("quic", [quic(0x6B3343CF, 0xD0, 20, 20)]),
    ("quic", [quic(1, 0xE9, 0, 8)[:60]]),
    ("dtls", [dtls()]),
    ("dtls", [dtls(b"\xfe\xff")]),
    ("dtls", [dtls(kind=23, length=1)]),
    ("stun", [stun(0x0101, bytes(12))]),
    ("stun", [stun(0x0003, bytes(8))]),
    ("rtp", [rtp(7), rtp(8)]),
    ("rtp", [rtp(65535, kind=111, sources=2), rtp(0, kind=111, sources=2)]),
    ("wireguard", [b"\1\0\0\0" + bytes(144)]),
    ("wireguard", [b"\2\0\0\0" + bytes(88)]),
    *CALLS,
]
SEGMENTS = [
    ("tls", [tls_hello()]),
    ("tls", [tls_hello(b"\x03\x03", 2)]),
    ("tls", [b"\x17\x03\x03\x40\x11" + bytes(100)]),
    ("tls", [b"\x14\x03\x03\x00\x01\x01"]),
    ("tls", [b"\x15\x03\x03\x00\x02\x02\x28"]),
    ("http", [b"GET /index.html HTTP/1.1\r\nHost: example.com\r\n\r\n"]),
    ("http", [b"HTTP/1.1 404 Not Found\r\n\r\n"]),
    ("http", [b"POST http://example.com/ HTTP/1.0\r\n\r\n"]),
    ("http", [b"OPTIONS * HTTP/1.1\r\n\r\n"]),
    ("http", [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(20)]),
    ("http", [b"DELETE /a HTTP/1.1\r\n\r\n"]),
    ("http", [b"PATCH /a HTTP/1.1\r\n\r\n"]),
    ("http", [b"HEAD / HTTP/1.1\r\n\r\n"]),
    ("http", [b"PUT /a HTTP/1.1\r\n\r\n"]),
    ("http", [b"TRACE / HTTP/1.1\r\n\r\n"]),
    ("ssh", [b"SSH-2.0-OpenSSH_9.2p1\r\n"]),
    ("ssh", [b"SSH-1.99-x\r\n"]),
    ("ssh", [b"SSH-1.5-x\n"]),
    ("smtp", [b"EHLO client.example.com\r\n"]),
    ("smtp", [b"HELO client.example.com\r\n"]),
    ("imap", [b"* OK [CAPABILITY IMAP4rev2] ready\r\n"]),
    ("imap", [b"* PREAUTH welcome\r\n"]),
    ("imap", [b"* BYE busy\r\n"]),
    ("pop3", [b"+OK POP3 server ready\r\n"]),
    ("mqtt", [mqtt(b"MQTT", 4)]),
    ("mqtt", [mqtt(b"MQTT", 5, b"\x95\x01")]),
    ("mqtt", [mqtt(b"MQIsdp", 3, b"\xff\xff\xff\x01")]),
    ("bittorrent", [b"\x13BitTorrent protocol" + bytes(48)]),
    ("dns", [dns_over_tcp(dns())]),
    ("dns", [dns_over_tcp(dns(0x8180, (1, 30, 0, 0), rest=bytes(2000)))[:1400]]),
    *CALLS,
]
