"""Modules whose hot code is Python functions of a test, by ctypes: for what no shipped module does."""

import ctypes
from collections.abc import Callable
from typing import Any

from layer45.fastpath.chain import InstanceSpec

from ..replay.holding import Configure, Context, Hot, Ops

Call = ctypes.CFUNCTYPE(None, ctypes.POINTER(Context))
Open = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(Context))
NAME = ctypes.create_string_buffer(b"layer45.ops")  # a capsule does not copy it
_new: Callable[..., Any] = ctypes.pythonapi.PyCapsule_New
_new.restype, _new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]


class Services:
    """The host's services for one call of a module."""

    def __init__(self, context: Any) -> None:
        self._host = context.contents.host.contents
        self._where = ctypes.cast(context, ctypes.c_void_p)
        self.now_ns = context.contents.now_ns

    def clone(self, packet: Any) -> Any:
        return self._host.clone(self._where, packet)

    def hold(self, packet: Any) -> Any:
        return self._host.hold(self._where, packet)

    def resume(self, packet: Any, when_ns: int = 0) -> None:
        self._host.resume(self._where, packet, when_ns)

    def discard(self, packet: Any) -> None:
        self._host.discard(self._where, packet)

    def arm(self, when_ns: int) -> None:
        self._host.arm(self._where, when_ns)


def scripted(
    both: Callable[[Services, Any], int],
    tick: Callable[[Services], None] | None = None,
    flow_close: Callable[[Services], None] | None = None,
    flow_state_bytes: int = 0,
    flow_counters: int = 0,
    opens: bool = True,
) -> InstanceSpec:
    """An instance of a module. both: its egress and ingress. opens: flows. The spec keeps all alive."""
    hot = Hot(lambda context, packet: both(Services(context), packet))
    ticking, closing, configure = _call(tick), _call(flow_close), Configure(lambda *_: 0)
    refusing = None if opens else Open(lambda _: -1)
    ops = Ops(
        1, ctypes.sizeof(Ops), 0, flow_state_bytes, configure, None, _address(refusing), _address(closing),
        hot, hot, _address(ticking), flow_counters, None,
    )  # fmt: skip
    capsule = _new(ctypes.addressof(ops), ctypes.addressof(NAME), None)
    return InstanceSpec("scripted", capsule, owner=(ops, hot, ticking, closing, configure, refusing))


def _call(function: Callable[[Services], None] | None) -> Any:
    return Call(lambda context: function(Services(context))) if function else None


def _address(call: Any) -> int | None:
    return ctypes.cast(call, ctypes.c_void_p).value if call else None
