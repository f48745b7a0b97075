"""How the two ends of a TCP connection find out that both run the chain: an option in SYN and SYN/ACK.

```
 kind 253 (RFC 6994) | length 8 | ExID 0x4C45 | digest of the sender's egress chain | digest of its ingress chain
```
The first SYN offers. Who has the mirror of the offered chain answers with the same option in the SYN/ACK, and only then
is the connection customized, from the byte on that the SYN/ACK acknowledges: what a SYN carries (RFC 7413) stays as it
is. The option is put in front of all others, and is gone before a kernel sees it.

Where two SYNs cross (RFC 9293 section 3.5), both would answer, each what it saw, and one of them may have offered no
more: such a connection stays as it is.
"""

from layer45.fastpath.abi cimport l45_verdict
from layer45.fastpath.core cimport l45_worker
from layer45.fastpath.flow cimport l45_entry
from layer45.fastpath.pool cimport l45_carrier

# A packet of an entry with a phase, in front of the chain: PASS, REWRITTEN or DROP. May begin the entry anew.
cdef l45_verdict agree(l45_worker *worker, l45_entry *entry, l45_carrier *carrier) noexcept nogil
# Whether this packet of our kernel's begins another connection than the entry's.
cdef bint agree_begins_anew(const l45_entry *entry, const l45_carrier *carrier) noexcept nogil
# Behind the chain: whether the entry may be given up early, for it has not begun or has ended.
cdef bint agree_is_brief(const l45_entry *entry) noexcept nogil
