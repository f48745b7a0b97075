"""The usual Python way to serve a queue: NetfilterQueue calls a function for each packet.

Usage: python -m perf.python_callback accept|tag QUEUE COPY_BYTES      (ends on SIGTERM)

accept: lets every packet go as it is. tag: does in Python what the tag module does on egress, for IPv4 and
UDP, as cheaply as Python can: identity, sequence number, new lengths, no check and no UDP checksum.
"""

import itertools
import signal
import struct
import sys
from typing import Any

from netfilterqueue import NetfilterQueue

QUEUE_PACKETS = 4096


def accept(packet: Any) -> None:
    """Let it pass as it is."""
    packet.accept()


IDENTITY = b"host-7"
_numbers = itertools.count()


def tag(packet: Any) -> None:
    """Appends an identity and a number, and mends the headers."""
    data = bytearray(packet.get_payload())
    data += IDENTITY + struct.pack("!2sBBII", b"LT", 1, len(IDENTITY), 0, next(_numbers))
    struct.pack_into("!H", data, 2, len(data))
    struct.pack_into("!HH", data, 24, len(data) - 20, 0)
    struct.pack_into("!H", data, 10, 0)
    total = sum(struct.unpack_from("!10H", data))
    total = (total & 0xFFFF) + (total >> 16)
    struct.pack_into("!H", data, 10, 0xFFFF - ((total & 0xFFFF) + (total >> 16)))
    packet.set_payload(bytes(data))
    packet.accept()


CALLBACKS = {"accept": accept, "tag": tag}


def main() -> None:
    """Serve until SIGTERM."""
    callback, queue_number, copy_bytes = CALLBACKS[sys.argv[1]], *map(int, sys.argv[2:])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    queue = NetfilterQueue()
    queue.bind(queue_number, callback, max_len=QUEUE_PACKETS, range=copy_bytes, sock_len=8 << 20)
    print("ready", flush=True)
    try:
        queue.run()
    finally:
        queue.unbind()


if __name__ == "__main__":
    main()
