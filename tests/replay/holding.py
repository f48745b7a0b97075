"""A module that holds packets, with its hot code in Python by ctypes: none of the shipped ones holds.

Each packet is let go after as many milliseconds as its payload's second byte says, and by the first byte: "p"
as it came, "r" with the byte in front of it rewritten, "d" dropped at once, "f" (forgotten) by the end of its
flow, "n" now, inside the call that brought it.
"""

import ctypes
from collections.abc import Callable
from typing import Any

PASS, DROP, HOLD = 1, 3, 4
EDITED = 1


class Packet(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("head", "data", "tail", "end")),
        ("time_ns", ctypes.c_uint64),
        *((name, ctypes.c_uint32) for name in ("wire_bytes", "sequence", "payload_sum")),
        *((name, ctypes.c_uint16) for name in ("l4_offset", "payload_offset", "class_id", "flags")),
        *((name, ctypes.c_uint8) for name in ("ip_version", "protocol", "direction", "origin")),
    ]


PacketPointer = ctypes.POINTER(Packet)


class Host(ctypes.Structure):
    _fields_ = [
        ("abi_version", ctypes.c_uint32),
        ("struct_bytes", ctypes.c_uint32),
        ("clone", ctypes.CFUNCTYPE(PacketPointer, ctypes.c_void_p, PacketPointer)),
        ("hold", ctypes.CFUNCTYPE(PacketPointer, ctypes.c_void_p, PacketPointer)),
        ("resume", ctypes.CFUNCTYPE(None, ctypes.c_void_p, PacketPointer, ctypes.c_uint64)),
        ("discard", ctypes.CFUNCTYPE(None, ctypes.c_void_p, PacketPointer)),
        ("arm", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint64)),
        ("random", ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p)),
    ]


class Context(ctypes.Structure):
    _fields_ = [
        ("host", ctypes.POINTER(Host)),
        *((name, ctypes.c_void_p) for name in ("instance", "state", "counters", "flow")),
        ("now_ns", ctypes.c_uint64),
    ]


Hot = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(Context), PacketPointer)
Configure = ctypes.CFUNCTYPE(
    ctypes.c_int, *[ctypes.c_void_p] * 2, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t
)


class Ops(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_uint32) for name in ("abi", "struct_bytes", "instance_bytes", "flow_state_bytes")),
        ("configure", Configure),
        *((name, ctypes.c_void_p) for name in ("release", "flow_open", "flow_close")),
        ("egress", Hot),
        ("ingress", Hot),
        ("tick", ctypes.c_void_p),
        ("flow_counters", ctypes.c_uint32),
        ("stream", ctypes.c_void_p),
    ]


@Configure
def _configure(*_: Any) -> int:
    return 0


@Hot
def _hold(context: Any, packet: Any) -> int:
    host = context.contents.host.contents
    where = ctypes.cast(context, ctypes.c_void_p)
    held = host.hold(where, packet)
    if not held:
        return PASS
    _decide(host, where, held, context.contents.now_ns)
    return HOLD


def _decide(host: Any, where: Any, held: Any, now_ns: int) -> None:
    payload = held.contents.data + held.contents.payload_offset
    kind, after_ms = bytes(ctypes.string_at(payload, 2))
    if kind == ord("f"):
        ctypes.memset(payload, 0, 2)  # what was changed and never finished must not get out
    elif kind == ord("d"):
        host.discard(where, held)
    else:
        if kind == ord("r"):
            ctypes.memset(payload + 2, ord("R"), 1)
            held.contents.flags |= EDITED
        host.resume(where, held, 0 if kind == ord("n") else now_ns + after_ms * 1_000_000)


OPS = Ops(1, ctypes.sizeof(Ops), 0, 0, _configure, None, None, None, _hold, _hold, None, 0, None)
_new: Callable[..., Any] = ctypes.pythonapi.PyCapsule_New
_new.restype, _new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
_NAME = ctypes.create_string_buffer(b"layer45.ops")  # a capsule does not copy it
CAPSULE = _new(ctypes.addressof(OPS), ctypes.addressof(_NAME), None)
