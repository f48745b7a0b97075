"""Capture files: records leave a reader in the file's order, and enter a writer unchanged or made anew.

A reader or writer belongs to one thread. Both end their descriptor when closed or collected.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdio cimport FILE

from layer45.fastpath.pcap cimport pcap_dumper_t, pcap_pkthdr, pcap_t

cdef enum:
    READ_ERROR = -1
    READ_END = 0
    READ_RECORD = 1

ctypedef struct l45_record:
    const pcap_pkthdr *header  # valid until the next read, as bytes
    const uint8_t *bytes
    uint64_t time_ns

ctypedef struct l45_reader:
    pcap_t *pcap
    FILE *file
    char *buffer
    int link_type
    uint32_t fraction_ns  # what the fraction of a timestamp counts in: 1 or 1000

ctypedef struct l45_writer:
    pcap_t *pcap
    pcap_dumper_t *dumper
    FILE *file
    char *buffer
    uint8_t *frame
    uint32_t fraction_ns
    uint32_t snaplen        # as the file's header says
    uint32_t largest_bytes  # of all records written
    uint64_t records
    int error               # errno of the first failure; nothing is written after it

cdef int read_record(l45_reader *reader, l45_record *record) noexcept nogil
cdef void write_record(l45_writer *writer, const l45_record *record) noexcept nogil
cdef void write_packet(l45_writer *writer, uint64_t time_ns, const uint8_t *link, uint32_t link_bytes,
                       const uint8_t *packet, uint32_t packet_bytes) noexcept nogil


cdef class Reader:
    cdef l45_reader reader
    cpdef close(self)


cdef class Writer:
    cdef l45_writer writer
    cdef int _check(self, bint failed) except -1
    cpdef close(self)
