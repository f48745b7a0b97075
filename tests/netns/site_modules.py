"""Modules in Python that a test writes, for what no shipped module does: to fail, or to take their time."""

from pathlib import Path

MANIFEST = """
[module]
name = "{name}"
version = "1.0.0"
abi = 1
kind = "{kind}"
language = "python"
summary = "What a test wants"
inverse = "none"
transports = ["{transport}"]
directions = ["egress", "ingress"]
reads = "payload"
gso = false
growth_bytes = {{ front = 0, back = 0 }}
flow_state_bytes = 0
lets_go = {lets_go}

[param.word]
type = "text"
default = ""
max_bytes = 200
help = "for the test to say something"
"""

# Fails what has "fail" in it.
FAILING = """
class Module:
    def __init__(self, parameters, count):
        pass

    def egress(self, packet):
        if b"fail" in packet.payload:
            raise RuntimeError("as asked")
"""
# So, but when it has swapped upper and lower case, which it does with all else, and back.
FAULTY = """
class Module:
    def __init__(self, parameters, count):
        pass

    def egress(self, packet):
        packet.payload = bytes(value ^ 32 if 65 <= value & 223 <= 90 else value for value in packet.payload)
        if b"FAIL" in packet.payload.upper():
            raise RuntimeError("as asked")

    ingress = egress
"""
# Swaps upper and lower case of a flow's first packets with payload, as many as the word says, and is done.
FIRST = """
class Module:
    def __init__(self, parameters, count):
        self.limit = int(parameters["word"])

    def egress(self, packet):
        if packet.payload:
            seen = packet.flow.state["seen"] = packet.flow.state.get("seen", 0) + 1
            packet.payload = packet.payload.swapcase()
            if seen >= self.limit:
                packet.flow.done()

    ingress = egress
"""


def write_module(directory: Path, name: str, code: str, transport: str = "udp", lets_go: bool = False) -> str:
    """The settings line by which a daemon finds it."""
    folder = directory / name
    folder.mkdir(exist_ok=True)
    kind = "datagram" if transport == "udp" else "segment"
    (folder / "module.toml").write_text(
        MANIFEST.format(name=name, kind=kind, transport=transport, lets_go=str(lets_go).lower())
    )
    (folder / f"{name}.py").write_text(code)
    return f'module_dirs = ["{directory}"]'
