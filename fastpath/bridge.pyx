"""Modules written in Python, run by the engine like compiled ones: their ops take the interpreter lock for each call.

A module is an instance of a class with `egress(packet)` and/or `ingress(packet)`. What it raises is an ERROR verdict;
the first time, it is logged with its traceback.
"""

import logging

from cpython.exc cimport PyErr_SetInterrupt
from cpython.pycapsule cimport PyCapsule_New
from cpython.ref cimport Py_INCREF, Py_XDECREF, PyObject
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from layer45.fastpath.abi cimport (
    L45_ABI_VERSION, L45_DROP, L45_EGRESS, L45_ERROR, L45_OPS_CAPSULE, L45_PASS, L45_REWRITTEN,
    L45_AGREED, L45_EDITED, l45_context, l45_flow_key, l45_ops, l45_packet, l45_param, l45_verdict,
)
from layer45.fastpath.packet cimport (
    LARGEST_PACKET_BYTES, PROTOCOL_TCP, dscp_of, editable, insert_back, load_be16, load_be32, payload, payload_bytes,
    remove_back, set_dscp,
)
from layer45.fastpath.tcp cimport (
    TCP_HEADER_BYTES, TCP_OPTION_BYTES, l45_option, option_insert, option_remove, tcp_flags, tcp_header,
)

import ipaddress
import threading
import traceback

from layer45.fastpath.chain import InstanceSpec

_log = logging.getLogger("layer45.python_module")

cdef extern from *:
    """
    /* The counters of the instance that runs in this thread now; a module's count() writes there. */
    static __thread uint64_t *l45_running_counters;
    """
    uint64_t *l45_running_counters

cdef struct l45_python_instance:
    PyObject *module        # borrowed: the chain's InstanceSpec owner keeps it

cdef struct l45_python_state:
    PyObject *state         # owned: the flow's dict, once it is asked for


class Counter:
    """What a Python module gets to count with: `count("name")`. Does nothing outside a call of the module."""

    def __init__(self, names):
        self._places = {name: place for place, name in enumerate(names)}

    def __call__(self, str name, int more=1) -> None:
        if name not in self._places:
            raise ValueError(f"no counter {name!r} in module.toml; it has {', '.join(self._places) or 'none'}")
        if l45_running_counters != NULL:
            l45_running_counters[<size_t> self._places[name]] += more


cdef class Flow:
    """A packet's flow, for one instance. state: a dict that lives as long as the flow; empty when it opens."""
    cdef l45_context *context

    cdef l45_context *_valid(self) except NULL:
        if self.context == NULL:
            raise RuntimeError("a packet's flow is good only during the call that the packet is given to")
        return self.context

    @property
    def local(self) -> tuple[str, int]:
        cdef const l45_flow_key *key = self._valid().flow
        return _endpoint(key.local, <const uint8_t *> &key.local_port_be)

    @property
    def remote(self) -> tuple[str, int]:
        cdef const l45_flow_key *key = self._valid().flow
        return _endpoint(key.remote, <const uint8_t *> &key.remote_port_be)

    @property
    def state(self) -> dict:
        cdef l45_python_state *holder = <l45_python_state *> self._valid().state
        if holder.state == NULL:
            state = {}
            Py_INCREF(state)
            holder.state = <PyObject *> state
        return <dict> holder.state

    def done(self) -> bool:
        """The instance wants no more packets of the flow, and gets none. False: the module does not declare lets_go."""
        cdef l45_context *context = self._valid()
        return context.host.done(context) != 0


cdef tuple _endpoint(const uint8_t *address, const uint8_t *port):
    whole = ipaddress.IPv6Address(address[:16])
    return str(whole.ipv4_mapped or whole), load_be16(port)


cdef class Packet:
    """A packet as a Python module sees it; good only during the call it is given to."""
    cdef l45_packet *packet
    cdef l45_context *context
    cdef bint dropped
    cdef readonly Flow flow

    cdef l45_packet *_valid(self) except NULL:
        if self.packet == NULL:
            raise RuntimeError("a packet is good only during the call that it is given to")
        return self.packet

    @property
    def payload(self) -> bytes:
        """The bytes behind the UDP or TCP header; assign others to rewrite the packet."""
        cdef l45_packet *packet = self._valid()
        return payload(packet)[:payload_bytes(packet)]

    @payload.setter
    def payload(self, data) -> None:
        _replace(self._valid(), bytes(data))

    @property
    def direction(self) -> str:
        """"egress" or "ingress"."""
        return "egress" if self._valid().direction == L45_EGRESS else "ingress"

    @property
    def protocol(self) -> str:
        """"udp" or "tcp"."""
        return "tcp" if self._valid().protocol == PROTOCOL_TCP else "udp"

    @property
    def sequence(self) -> int:
        """The packet's number in its flow and direction."""
        return self._valid().sequence

    @sequence.setter
    def sequence(self, uint32_t value) -> None:
        self._valid().sequence = value

    @property
    def time_ns(self) -> int:
        """When it came, in ns; the capture's clock in a replay, a monotonic one live."""
        return self._valid().time_ns

    @property
    def tcp_sequence(self) -> int | None:
        """The TCP sequence number of the first payload byte; None for UDP. A SYN takes one number itself."""
        cdef l45_packet *packet = self._valid()
        if packet.protocol != PROTOCOL_TCP:
            return None
        syn = packet.data[packet.l4_offset + 13] >> 1 & 1
        return (load_be32(packet.data + packet.l4_offset + 4) + syn) & 0xFFFFFFFF

    @property
    def tcp_flags(self) -> int | None:
        """The flags of the TCP header, 2 is SYN, 16 is ACK; None for UDP."""
        cdef l45_packet *packet = self._valid()
        return tcp_flags(packet) if packet.protocol == PROTOCOL_TCP else None

    @property
    def tcp_options(self) -> bytes | None:
        """The options of the TCP header; assign others, a multiple of 4 and up to 40 bytes. None for UDP."""
        cdef l45_packet *packet = self._valid()
        if packet.protocol != PROTOCOL_TCP:
            return None
        return tcp_header(packet)[TCP_HEADER_BYTES:packet.payload_offset - packet.l4_offset]

    @tcp_options.setter
    def tcp_options(self, options) -> None:
        _replace_options(self._valid(), bytes(options))

    @property
    def dscp(self) -> int:
        """The differentiated services code point in the IP header, 0 to 63; assign another. The ECN bits stay."""
        return dscp_of(self._valid())

    @dscp.setter
    def dscp(self, value) -> None:
        _set_dscp(self._valid(), int(value))

    @property
    def agreed(self) -> bool:
        """Whether the peer of the TCP connection runs the mirror of this chain."""
        return self._valid().flags & L45_AGREED != 0

    def drop(self) -> None:
        """Ends the packet here."""
        self._valid()
        self.dropped = True

    def emit(self, data=None, after_ms=0) -> bool:
        """Sends a copy on through the rest of the chain, with other payload if given, now or later.

        False when no more copies may be out. Live, copies leave on egress only.
        """
        cdef l45_packet *packet = self._valid()
        cdef uint64_t after_ns = <uint64_t> (after_ms * 1e6)
        cdef l45_packet *copy = self.context.host.clone(self.context, packet)
        if copy == NULL:
            return False
        if data is not None:
            try:
                _replace(copy, bytes(data))
            except BaseException:
                self.context.host.discard(self.context, copy)
                raise
        self.context.host.resume(self.context, copy, self.context.now_ns + after_ns)
        return True


cdef void _replace(l45_packet *packet, bytes data) except *:
    cdef uint32_t before_bytes = payload_bytes(packet)
    if not editable(packet):
        raise ValueError("the packet was captured in part and can't be rewritten")
    if len(data) > before_bytes + (packet.end - packet.tail):
        raise ValueError(f"no room for {len(data)} bytes of payload in a packet that had {before_bytes}")
    if packet.payload_offset + len(data) > LARGEST_PACKET_BYTES:
        raise ValueError(f"{len(data)} bytes of payload are more than an IP packet takes")
    remove_back(packet, before_bytes)
    insert_back(packet, data, <uint32_t> len(data))


cdef void _set_dscp(l45_packet *packet, int dscp) except *:
    if not 0 <= dscp <= 63:
        raise ValueError(f"{dscp} is no code point; expected 0 to 63")
    if set_dscp(packet, <uint8_t> dscp) < 0:
        raise ValueError("the packet was captured in part and can't be rewritten")


cdef void _replace_options(l45_packet *packet, bytes options) except *:
    cdef l45_option old
    if packet.protocol != PROTOCOL_TCP or not editable(packet):
        raise ValueError("only a TCP packet that was captured whole has options to be rewritten")
    if len(options) % 4 or len(options) > TCP_OPTION_BYTES:
        raise ValueError(f"{len(options)} bytes of options; expected a multiple of 4, at most {TCP_OPTION_BYTES}")
    old.at = packet.l4_offset + TCP_HEADER_BYTES
    old.bytes = packet.payload_offset - old.at
    option_remove(packet, old)
    if option_insert(packet, options, <uint32_t> len(options)) != 0:
        raise ValueError("no room for options")


cdef l45_verdict _call(l45_context *context, l45_packet *packet, str direction) noexcept:
    """Runs one direction's method; any exception is an ERROR."""
    cdef Packet view = Packet.__new__(Packet)
    cdef uint64_t *before = l45_running_counters
    global l45_running_counters
    view.packet = packet
    view.context = context
    view.flow = Flow.__new__(Flow)
    view.flow.context = context
    module = <object> (<l45_python_instance *> context.instance).module
    l45_running_counters = context.counters
    try:
        getattr(module, direction)(view)
    except BaseException as error:
        if is_interrupt(error):
            PyErr_SetInterrupt()  # no exception leaves here: whoever looks for signals next raises it
        else:
            _report(module, direction, error)
        return L45_ERROR
    finally:
        l45_running_counters = before
        view.packet = NULL
        view.flow.context = NULL
    if view.dropped:
        return L45_DROP
    return L45_REWRITTEN if packet.flags & L45_EDITED else L45_PASS


_reported = {}  # by class and direction: the last fault


def last_fault(module) -> str:
    """What a module written in Python raised last, in one line; empty: nothing, or it is not written in Python."""
    said = [_reported[key] for key in ((type(module), "egress"), (type(module), "ingress")) if key in _reported]
    return said[0] if said else ""


def is_interrupt(error) -> bool:
    """Whether the user wants to end the program. Only the main thread hears of that: elsewhere, a module made it up."""
    return isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread()


def _said(error) -> str:
    """An error in one line, whatever its class makes of that."""
    try:
        return " ".join(f"{type(error).__name__}: {error}".split())
    except Exception:
        return type(error).__name__


def _report(module, direction, error):
    """Logs the first fault of each class and direction; all are counted by the engine."""
    kind = (type(module), direction)
    known = kind in _reported
    _reported[kind] = _said(error)
    if not known:
        _log.exception("%s.%s failed; further faults are only counted", type(module).__module__, direction)


cdef l45_verdict _egress(l45_context *context, l45_packet *packet) noexcept nogil:
    with gil:
        return _call(context, packet, "egress")


cdef l45_verdict _ingress(l45_context *context, l45_packet *packet) noexcept nogil:
    with gil:
        return _call(context, packet, "ingress")


cdef void _flow_close(l45_context *context) noexcept nogil:
    cdef l45_python_state *holder = <l45_python_state *> context.state
    if holder.state != NULL:
        with gil:
            Py_XDECREF(holder.state)
        holder.state = NULL


cdef int _configure(void *instance, const l45_param *params, size_t count, char *error, size_t size) noexcept nogil:
    """The one parameter is the module object's address: see python_instance."""
    (<l45_python_instance *> instance).module = <PyObject *> <size_t> params[0].integer
    return 0


cdef l45_ops _tables[4]  # by the directions that a class has: bit 0 egress, bit 1 ingress


cdef object _capsule(unsigned int directions):
    cdef l45_ops *ops = &_tables[directions & 3]
    ops.abi_version = L45_ABI_VERSION
    ops.struct_bytes = sizeof(l45_ops)
    ops.instance_bytes = sizeof(l45_python_instance)
    ops.flow_state_bytes = sizeof(l45_python_state)
    ops.configure = _configure
    ops.flow_close = _flow_close
    if directions & 1:
        ops.egress = _egress
    if directions & 2:
        ops.ingress = _ingress
    return PyCapsule_New(ops, L45_OPS_CAPSULE, NULL)


_CAPSULES = [_capsule(directions) for directions in range(4)]


def _place(error) -> str:
    """Where it was raised, behind the first frame, which is ours."""
    places = [f" ({frame.filename}:{frame.lineno})" for frame in traceback.extract_tb(error.__traceback__)[1:]]
    return places.pop() if places else ""


def python_instance(name, module_class, parameters, counters, directions=("egress", "ingress")):
    """An InstanceSpec that runs a Python class.

    parameters: dict of validated values, given to the class with a Counter of the names in counters.
    ValueError when the class refuses its parameters or has neither direction.
    """
    has = hasattr(module_class, "egress") | hasattr(module_class, "ingress") << 1
    if not has:
        raise ValueError(f"module {name}: class Module has neither egress nor ingress")
    try:
        module = module_class(dict(parameters), Counter(counters))
    except BaseException as error:  # whatever foreign code raises, SystemExit too, is a refusal
        if is_interrupt(error):
            raise
        raise ValueError(f"module {name}: {_said(error)}{_place(error)}") from error
    address = [("module", id(module))]
    return InstanceSpec(name, _CAPSULES[has], address, counters, directions, owner=module)
