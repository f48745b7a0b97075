"""The usual Python way to serve a queue: NetfilterQueue calls a function for each packet, which accepts it.

Usage: python -m perf.python_callback QUEUE COPY_BYTES      (ends on SIGTERM)
"""

import signal
import sys
from typing import Any

from netfilterqueue import NetfilterQueue

QUEUE_PACKETS = 4096


def accept(packet: Any) -> None:
    """Let it pass as it is."""
    packet.accept()


def main() -> None:
    """Serve until SIGTERM."""
    queue_number, copy_bytes = map(int, sys.argv[1:])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    queue = NetfilterQueue()
    queue.bind(queue_number, accept, max_len=QUEUE_PACKETS, range=copy_bytes, sock_len=8 << 20)
    print("ready", flush=True)
    try:
        queue.run()
    finally:
        queue.unbind()


if __name__ == "__main__":
    main()
