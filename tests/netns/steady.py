"""A TCP stream that flows all the time, beside whatever a test does, and is compared byte by byte in the end.

And a module in Python that changes segments where they are: what passes it by at one end is garbled.
"""

import hashlib
import socket
import threading
import time
from pathlib import Path

from .streams import noise

MODULE = """[module]
name = "{name}"
version = "{version}"
abi = 1
kind = "segment"
language = "python"
summary = "Flips bits of every payload: all of it, or it arrives garbled"
inverse = "self"
transports = ["tcp", "udp"]
directions = ["egress", "ingress"]
reads = "payload"
gso = {gso}
growth_bytes = {{ front = 0, back = 0 }}
flow_state_bytes = 0

[counter.flipped]
help = "payloads changed"
"""

CODE = """
class Module:
    def __init__(self, parameters, count):
        self.count = count

    def egress(self, packet):
        if packet.payload:
            packet.payload = bytes(packet.payload).translate(TABLE)
            self.count("flipped")

    ingress = egress


TABLE = bytes(each ^ {bits:#x} for each in range(256))
"""


def write_flip(directory: Path, bits: int = 0x55, version: str = "1.0.0", gso: bool = False) -> str:
    """Puts the module "flip" below a directory; the line of layer45.toml that finds it there."""
    folder = directory / "flip"
    folder.mkdir(parents=True, exist_ok=True)
    manifest = MODULE.format(name="flip", version=version, gso=str(gso).lower())
    (folder / "module.toml").write_text(manifest)
    (folder / "flip.py").write_text(CODE.format(bits=bits))
    return f'module_dirs = ["{directory}"]'


class SteadyTransfer:
    """Bytes from one end to the other until stop(), and a digest of them at both."""

    def __init__(self, sender: socket.socket, receiver: socket.socket) -> None:
        self.longest_gap_s = 0.0  # between two arrivals
        self._ends = sender, receiver
        self._digests = hashlib.sha256(), hashlib.sha256()
        self._sent = 0
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=each) for each in (self._send, self._receive)]
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        content = noise(1_000_000)
        while not self._ended.wait(0.01):
            part = content[self._sent % 900_000 :][:20_011]
            self._ends[0].sendall(part)
            self._digests[0].update(part)
            self._sent += len(part)
        self._ends[0].shutdown(socket.SHUT_WR)

    def _receive(self) -> None:
        last = time.monotonic()
        while part := self._ends[1].recv(1 << 20):
            self._digests[1].update(part)
            now = time.monotonic()
            self.longest_gap_s, last = max(self.longest_gap_s, now - last), now

    def stop(self) -> int:
        """How many bytes have arrived, all as they were sent."""
        assert all(thread.is_alive() for thread in self._threads), "the stream broke off"
        self._ended.set()
        for thread in self._threads:
            thread.join(20)
        assert self._digests[0].digest() == self._digests[1].digest()
        return self._sent
