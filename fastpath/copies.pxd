"""Copies of packets that go on without us: an NFLOG group in the place of a queue.

A message of the kernel's has many packets, each  netlink header | attributes, the first bytes of the packet last . What
the packet was beside them, its own header tells. A copy is looked at where it lies: it has no room around it.
"""

from libc.stdint cimport uint32_t

from layer45.fastpath.core cimport l45_worker
from layer45.fastpath.receive cimport l45_marks, l45_slots

# Puts every packet of the message in slot `at` through its chain. next: the number that the kernel gives the next
# copy, kept from call to call, 0 at first: the ones that are missing in between are counted as lost.
cdef void copies_look(l45_worker *worker, const l45_slots *slots, uint32_t at, const l45_marks *marks,
                      uint32_t *next) noexcept nogil
