"""Builds chains out of modules' capsules and validated parameters. Cold: everything is allocated here."""

from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_IsValid
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport strlen

from layer45.fastpath.abi cimport L45_ABI_VERSION, L45_INGRESS, L45_OPS_CAPSULE, l45_ops, l45_param, l45_stream
from layer45.fastpath.packet cimport store_be16
from layer45.fastpath.stream cimport l45_connection, l45_stage
from layer45.fastpath.tcp cimport OFFER_BYTES, OFFER_EXID, OPTION_EXPERIMENT
from layer45.fastpath.template cimport l45_template
from layer45.fastpath.timer cimport l45_timer

cdef extern from *:
    """
    #define l45_count(pointer) __atomic_load_n(pointer, __ATOMIC_ACQUIRE)
    #define l45_set(pointer, value) __atomic_store_n(pointer, value, __ATOMIC_RELEASE)
    """
    int64_t load_count "l45_count"(int64_t *)
    void set_flag "l45_set"(uint8_t *, uint8_t)
    uint8_t load_flag "l45_count"(uint8_t *)

cdef enum:
    ERROR_BYTES = 256
    STATE_ALIGNMENT = 16
    SMALLEST_SEGMENT_BYTES = 88  # Linux ignores a smaller MSS

CHAIN_COUNTER_NAMES = (
    "egress_packets", "ingress_packets", "egress_bytes", "ingress_bytes", "egress_failed", "ingress_failed",
    "begun_sent", "begun_failed", "bypassed",
)
FAULT_NAMES = ("errors", "unset", "flows_refused")  # in the order of chain.pxd
_TRANSPORTS = {"udp": TRANSPORT_UDP, "tcp": TRANSPORT_TCP}


cdef inline uint32_t _aligned(uint32_t count) noexcept:
    return (count + STATE_ALIGNMENT - 1) & ~<uint32_t> (STATE_ALIGNMENT - 1)


class InstanceSpec:
    """One module in one place of a chain.

    name: the module's. ops: its PyCapsule (the owner must outlive nothing: a chain keeps it). parameters: pairs of name
    and validated value, in the manifest's order: int, float, bool, str, bytes, (first, last), or for a choice
    (its name, its position) as a Choice. counters: names in the manifest's order. directions: those it runs in.
    growth: of a stream module, (bytes, every): so many are inserted at most for each begun `every` of the stream.
    """

    def __init__(self, name, ops, parameters=(), counters=(), directions=("egress", "ingress"), owner=None,
                 growth=(0, 0)):
        self.name = name
        self.ops = ops
        self.parameters = tuple(parameters)
        self.counters = tuple(counters)
        self.directions = frozenset(directions)
        self.owner = owner
        self.growth = growth


class Refused(ValueError):
    """An instance cannot be made. place: where it stands in the chain, from 0."""

    def __init__(self, place, text):
        super().__init__(text)
        self.place = place


class Choice(str):
    """A choice parameter's value: its text, and its position in the manifest's list."""

    def __new__(cls, text, position):
        choice = super().__new__(cls, text)
        choice.position = position
        return choice


cdef const l45_ops *checked_ops(object name, object capsule) except NULL:
    """The capsule's table, or ValueError that says what is wrong with it."""
    cdef const l45_ops *ops
    if not PyCapsule_IsValid(capsule, L45_OPS_CAPSULE):
        raise ValueError(f"module {name}: ops is not a capsule named layer45.ops")
    ops = <const l45_ops *> PyCapsule_GetPointer(capsule, L45_OPS_CAPSULE)
    if ops.abi_version != L45_ABI_VERSION:
        raise ValueError(f"module {name}: built for ABI {ops.abi_version}, this engine has {L45_ABI_VERSION}")
    if ops.struct_bytes != sizeof(l45_ops):
        raise ValueError(f"module {name}: its ops table has {ops.struct_bytes} bytes, expected {sizeof(l45_ops)}")
    if ops.configure == NULL or (ops.egress == NULL and ops.ingress == NULL and ops.stream == NULL):
        raise ValueError(f"module {name}: its ops table lacks configure, or both directions and a stream")
    _check_stream(name, ops.stream)
    if ops.flow_counters * sizeof(uint64_t) > ops.flow_state_bytes:
        needed = f"{ops.flow_counters} flow_counters, which take {ops.flow_counters * sizeof(uint64_t)} bytes"
        raise ValueError(f"module {name}: its ops table has {needed} of the {ops.flow_state_bytes} of its flow state")
    return ops


cdef void _check_stream(object name, const l45_stream *stream) except *:
    if stream == NULL:
        return
    if stream.struct_bytes != sizeof(l45_stream):
        raise ValueError(f"module {name}: its stream has {stream.struct_bytes} bytes, expected {sizeof(l45_stream)}")
    if stream.inserted != NULL and stream.fill == NULL:
        raise ValueError(f"module {name}: its stream inserts bytes, but has no fill")


def flow_state_bytes(name: str, capsule: object) -> int:
    """What a module's ops table says of its flow state, in bytes. ValueError for a table of another ABI."""
    return checked_ops(name, capsule).flow_state_bytes


def flow_counters(name: str, capsule: object) -> int:
    """How many of a module's counters are kept for each flow too. ValueError as for flow_state_bytes."""
    return checked_ops(name, capsule).flow_counters


cdef uint32_t chain_segment_bytes(const l45_chain *chain, uint32_t wire_bytes) noexcept nogil:
    cdef uint32_t left = wire_bytes - min(wire_bytes, chain.header_growth)
    cdef uint32_t at
    for at in range(chain.count):  # the last instance is next to the wire
        left = _stream_bytes(&chain.instances[chain.count - 1 - at], left)
    return max(left, min(wire_bytes, <uint32_t> SMALLEST_SEGMENT_BYTES))


cdef inline uint32_t _stream_bytes(const l45_instance *instance, uint32_t wire_bytes) noexcept nogil:
    cdef uint32_t period, rest
    if not instance.growth_every or not instance.runs[L45_INGRESS]:
        return wire_bytes
    period = instance.growth_every + instance.growth_bytes
    rest = wire_bytes % period
    return wire_bytes // period * instance.growth_every + rest - min(rest, instance.growth_bytes)


cdef void _fill_parameter(l45_param *into, object name, object value, list keep) except *:
    cdef bytes text
    name = name.encode()
    keep.append(name)
    into.name = name
    if isinstance(value, (str, bytes)):
        text = value if isinstance(value, bytes) else value.encode()
        keep.append(text)
        into.bytes = text
        into.byte_count = len(text)
        into.integer = value.position if isinstance(value, Choice) else 0
    elif isinstance(value, tuple):
        into.integer, into.last = value
    else:
        into.integer = int(value)
        into.number = float(value)


cdef class Chain:
    """A policy's instances in order, configured, with counters for each worker.

    Memory lives as long as the object; flows counts the flow entries that use it, and the engine keeps the object
    until they are gone. ValueError: a module refused its parameters (one line that names it).
    """

    def __cinit__(self, *args, **kwargs):
        self.owners = []
        self.chain.instances = NULL

    def __init__(self, uint32_t class_id, str policy, specs, *, transports=("udp",), uint32_t workers=1,
                 bint whole_payload=True, bint fail_closed=False, bint signal_mtu=False, bint sticky=False,
                 bint makes=False, uint32_t emits_bytes=0, negotiates=None, uint32_t header_growth=0,
                 uint32_t growth_bytes=0, bint lets_go=False, bint looks_only=False):
        self.policy = policy
        self.modules = tuple(spec.name for spec in specs)
        self.counter_names = tuple(spec.counters for spec in specs)
        self.chain.class_id = class_id
        self.chain.transports = 0
        for transport in transports:
            self.chain.transports |= <uint8_t> _TRANSPORTS[transport]
        self.chain.whole_payload = whole_payload
        self.chain.fail_closed = fail_closed
        self.chain.signal_mtu = signal_mtu
        self.chain.sticky = sticky
        self.chain.emits_bytes = emits_bytes
        self.chain.header_growth = header_growth
        self.chain.growth_bytes = growth_bytes
        self.chain.looks_only = looks_only and len(specs) > 0
        self.chain.instances = <l45_instance *> calloc(max(1, len(specs)), sizeof(l45_instance))
        if self.chain.instances == NULL:
            raise MemoryError
        self.chain.flow_bytes = _aligned(len(specs) * sizeof(l45_timer))
        self.chain.counter_count = CHAIN_COUNTERS
        for place, spec in enumerate(specs):
            try:
                self._add(spec)
            except ValueError as error:
                raise Refused(place, str(error)) from error
        if makes:
            self.chain.template_offset = self.chain.flow_bytes
            self.chain.flow_bytes += _aligned(sizeof(l45_template))
        if negotiates is not None:
            self._negotiate(*negotiates)
        self.flow_counter_names = tuple([
            names[:self.chain.instances[at].ops.flow_counters] for at, names in enumerate(self.counter_names)
        ])
        if lets_go and len(specs) <= 64 and negotiates is None:
            self._let_go()
        self._make_counters(workers)

    def _let_go(self):
        for at in range(self.chain.count):
            if self.chain.instances[<size_t> at].runs[0] or self.chain.instances[<size_t> at].runs[1]:
                self.chain.lets_go |= <uint64_t> 1 << <uint64_t> at

    def _negotiate(self, egress_digest, ingress_digest):
        """Sets aside the state of a connection."""
        self.chain.negotiates = True
        self.chain.offer[0] = OPTION_EXPERIMENT
        self.chain.offer[1] = OFFER_BYTES
        store_be16(self.chain.offer + 2, OFFER_EXID)
        store_be16(self.chain.offer + 4, egress_digest)
        store_be16(self.chain.offer + 6, ingress_digest)
        self.chain.connection_offset = self.chain.flow_bytes
        self.chain.flow_bytes += _aligned(sizeof(l45_connection) + self.chain.stages * sizeof(l45_stage))

    cdef void _make_counters(self, uint32_t workers) except *:
        cdef uint32_t worker
        self.chain.counters = <uint64_t **> calloc(workers + 1, sizeof(uint64_t *))
        if self.chain.counters == NULL:
            raise MemoryError
        for worker in range(workers):
            self.chain.counters[worker] = <uint64_t *> calloc(self.chain.counter_count + 8, 8)
            if self.chain.counters[worker] == NULL:
                raise MemoryError

    cdef void _add(self, object spec) except *:
        cdef const l45_ops *ops = checked_ops(spec.name, spec.ops)
        cdef l45_instance *instance = &self.chain.instances[self.chain.count]
        if ops.flow_counters > <size_t> len(spec.counters):
            has = f"{ops.flow_counters} flow_counters, but the module has {len(spec.counters)} counters"
            raise ValueError(f"policy {self.policy}: module {spec.name}: its ops table has {has}")
        instance.memory = calloc(1, ops.instance_bytes + 1)
        if instance.memory == NULL:
            raise MemoryError
        self.owners.append((spec.ops, spec.owner))
        try:
            self._configure(spec, ops, instance.memory)
        except BaseException:
            free(instance.memory)
            raise
        instance.ops = ops
        instance.runs[0] = (ops.egress != NULL or ops.stream != NULL) and "egress" in spec.directions
        instance.runs[1] = (ops.ingress != NULL or ops.stream != NULL) and "ingress" in spec.directions
        if ops.stream != NULL:
            self._add_stage(instance, ops.stream, spec.growth)
        instance.state_offset = self.chain.flow_bytes
        instance.counter_offset = self.chain.counter_count
        self.chain.flow_bytes += _aligned(ops.flow_state_bytes)
        instance.fault_offset = self.chain.counter_count + <uint32_t> len(spec.counters)
        self.chain.counter_count = instance.fault_offset + FAULTS
        self.chain.count += 1

    cdef void _add_stage(self, l45_instance *instance, const l45_stream *stream, tuple growth) except *:
        instance.stream = stream
        instance.stage = self.chain.stages
        instance.growth_bytes, instance.growth_every = growth
        self.chain.stages += 1
        if stream.strict != NULL and stream.strict(instance.memory):
            self.chain.strict = True

    cdef void _configure(self, object spec, const l45_ops *ops, void *memory) except *:
        cdef char error[ERROR_BYTES]
        cdef size_t count = len(spec.parameters)
        cdef l45_param *parameters = <l45_param *> calloc(count + 1, sizeof(l45_param))
        cdef int result
        cdef list keep = []
        if parameters == NULL:
            raise MemoryError
        error[0] = 0
        try:
            for place, (name, value) in enumerate(spec.parameters):
                _fill_parameter(&parameters[<size_t> place], name, value, keep)
            with nogil:  # however long it takes, other threads go on
                result = ops.configure(memory, parameters, count, error, ERROR_BYTES)
        finally:
            free(parameters)
        if result != 0:
            reason = (<bytes> error[:strlen(error)]).decode("utf-8", "replace")
            raise ValueError(f"policy {self.policy}: module {spec.name}: {reason or 'refused its parameters'}")

    def __dealloc__(self):
        cdef uint32_t at = 0
        for at in range(self.chain.count):
            if self.chain.instances[at].ops.release != NULL:
                self.chain.instances[at].ops.release(self.chain.instances[at].memory)
            free(self.chain.instances[at].memory)
        free(self.chain.instances)
        at = 0
        while self.chain.counters != NULL and self.chain.counters[at] != NULL:
            free(self.chain.counters[at])
            at += 1
        free(self.chain.counters)

    @property
    def class_id(self) -> int:
        return self.chain.class_id

    @property
    def flows(self) -> int:
        """Flow entries, over all workers, that use this chain now."""
        return load_count(&self.chain.flows)

    def counters(self) -> dict:
        """The chain's own by name, and "instances": [{"module": name, "counters": {name: value}}], over all workers."""
        totals = [self._total(at) for at in range(self.chain.counter_count)]
        result = dict(zip(CHAIN_COUNTER_NAMES, totals))
        at = CHAIN_COUNTERS
        instances = []
        for module, names in zip(self.modules, self.counter_names):
            instances.append({"module": module, "counters": dict(zip(names, totals[at:at + len(names)]))})
            at += len(names) + FAULTS
        result["instances"] = instances
        return result

    def faults(self) -> list[dict]:
        """What each instance did wrong so far, over all workers: FAULT_NAMES → how often."""
        cdef uint32_t at
        return [
            {name: self._total(self.chain.instances[at].fault_offset + kind) for kind, name in enumerate(FAULT_NAMES)}
            for at in range(self.chain.count)
        ]

    @property
    def instance_owners(self) -> tuple:
        """Of each instance, its spec's owner."""
        return tuple([owner for _, owner in self.owners])

    @property
    def fail_closed(self) -> bool:
        """Whether packets for which the chain fails are dropped."""
        return self.chain.fail_closed != 0

    @property
    def negotiates(self) -> bool:
        """Whether the peer of a TCP connection must run the mirror of this chain."""
        return self.chain.negotiates != 0

    @property
    def disabled(self) -> bool:
        """Whether packets go round the chain, and are treated as if it failed for each. Set it from any thread."""
        return load_flag(&self.chain.disabled) != 0

    @disabled.setter
    def disabled(self, bint value) -> None:
        set_flag(&self.chain.disabled, value)

    cdef uint64_t _total(self, uint32_t counter):
        cdef uint64_t total = 0
        cdef uint32_t worker = 0
        while self.chain.counters[worker] != NULL:
            total += self.chain.counters[worker][counter]
            worker += 1
        return total


cdef class ClassTable:
    """The chains of one generation by class number, as workers read it. Keeps its chains alive."""

    def __init__(self, chains):
        cdef Chain chain
        self.chains = tuple(chains)
        self.table.limit = 1 + max([chain.class_id for chain in self.chains], default=0)
        self.table.chains = <l45_chain **> calloc(self.table.limit, sizeof(l45_chain *))
        if self.table.chains == NULL:
            raise MemoryError
        for chain in self.chains:
            self.table.chains[chain.chain.class_id] = &chain.chain

    def __dealloc__(self):
        free(self.table.chains)
