"""A stream module's functions, called from Python: for tests and tools, not for the hot path."""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from layer45.fastpath.abi cimport L45_DROP, L45_EGRESS, L45_INGRESS, l45_context, l45_stream
from layer45.fastpath.chain cimport Chain

DIRECTIONS = {"egress": L45_EGRESS, "ingress": L45_INGRESS}


cdef class StreamView:
    """One instance, configured. spec: an InstanceSpec. ValueError: it refuses its parameters, or has no stream.

    Counts in counters(); the functions get no flow and no host.
    """
    cdef Chain chain
    cdef l45_context context
    cdef const l45_stream *stream

    def __init__(self, spec):
        self.chain = Chain(1, "view", [spec], transports=("tcp",))
        self.stream = self.chain.chain.instances[0].stream
        if self.stream == NULL:
            raise ValueError(f"module {spec.name}: has no stream")
        memset(&self.context, 0, sizeof(l45_context))
        self.context.instance = self.chain.chain.instances[0].memory
        self.context.counters = self.chain.chain.counters[0] + self.chain.chain.instances[0].counter_offset

    @property
    def strict(self) -> bool:
        return self.stream.strict != NULL and self.stream.strict(self.context.instance) != 0

    def inserted(self, uint64_t offset) -> int:
        return 0 if self.stream.inserted == NULL else self.stream.inserted(self.context.instance, offset)

    def fill(self, uint64_t offset, uint32_t skip, uint32_t count) -> bytes:
        """Bytes [skip, skip + count) of the run in front of byte `offset`."""
        cdef bytearray content = bytearray(count)
        self.stream.fill(&self.context, offset, skip, content, count)
        return bytes(content)

    def check(self, uint64_t offset, uint32_t skip, bytes content) -> bool:
        """Whether such bytes of the peer's are accepted."""
        if self.stream.check == NULL:
            return True
        return self.stream.check(&self.context, offset, skip, content, <uint32_t> len(content)) != L45_DROP

    def change(self, str direction, uint64_t offset, bytes content) -> bytes:
        """Stream bytes from `offset` on, as they are behind the module in this direction."""
        cdef bytearray changed = bytearray(content)
        if self.stream.change != NULL:
            self.stream.change(&self.context, DIRECTIONS[direction], offset, changed, <uint32_t> len(changed))
        return bytes(changed)

    def counters(self) -> dict[str, int]:
        return self.chain.counters()["instances"][0]["counters"]
