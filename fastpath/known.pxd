"""The BPF map of connections that the engine knows, by which the rules divert what has no owner to ask for.

The map is the daemon's (rules/known.py), and is gone when the daemon is. Its key is the flow's, as far as that is the
same for every class; its value the class, and a bit once both ends have agreed. One system call each, for a connection,
not for a packet: about a microsecond.

Before the verdict of the packet that makes it so: the packet, or its answer, is on its way right behind the verdict.
"""

from libc.stdint cimport uint32_t, uint64_t

from layer45.fastpath.abi cimport l45_flow_key

cdef enum:
    KNOWN_CUSTOMIZED = 0x80000000u  # of a value; rules/known_program.py
    KNOWN_LEFT = -2             # as the map's fd: we leave it as it is

cdef struct l45_known:
    int fd                      # -1: there is no map, and everything is a success
    uint64_t *errors            # what the kernel refused

cdef void known_start(l45_known *known, int fd, uint64_t *errors) noexcept nogil
# All packets of the connection come to its class's queue from now on. 0, or -1 when the map is full: leave it alone.
cdef int known_add(l45_known *known, const l45_flow_key *key) noexcept nogil
# No packet of the connection passes by the queue from now on, whatever becomes of us. 0, or -1: do not customize it.
cdef int known_customize(l45_known *known, const l45_flow_key *key) noexcept nogil
# Whether it was customized.
cdef bint known_is_customized(l45_known *known, const l45_flow_key *key) noexcept nogil
# From now on nothing changes in the map: whoever has it must see what was customized to the end.
cdef void known_leave(l45_known *known) noexcept nogil
# The connection is nothing to us any more. 0, also where it was not in the map, or -1.
cdef int known_remove(l45_known *known, const l45_flow_key *key) noexcept nogil
