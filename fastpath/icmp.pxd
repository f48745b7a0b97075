"""ICMP errors about a customized connection, made to quote the sequence number that our kernel sent.

Otherwise it would take no notice of a router that says how long packets may be (RFC 1191, RFC 8201), nor of any other
error (RFC 5927 section 4).

What a router says of the MTU is for the kernel as it is for us: the kernel holds each packet against what it knows of
the path once more behind us, so an MTU less the chain's growth would be too little for what has grown to the path's.
The connection's segments are cut to it from now on (cut.pxd).
"""

from layer45.fastpath.abi cimport l45_packet, l45_verdict
from layer45.fastpath.core cimport l45_worker

# Of an ingress packet that is neither UDP nor TCP, with its headers found: REWRITTEN, or PASS where it is none of ours.
cdef l45_verdict icmp_back(l45_worker *worker, l45_packet *packet) noexcept nogil
