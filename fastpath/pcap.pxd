"""libpcap and the stdio around it, as far as captures need them."""

from libc.stdint cimport uint8_t, uint32_t
from libc.stdio cimport FILE
from posix.time cimport timeval


cdef extern from "<stdio_ext.h>" nogil:
    enum:
        FSETLOCKING_BYCALLER
    int __fsetlocking(FILE *, int)


cdef extern from "<pcap/pcap.h>" nogil:
    enum:
        PCAP_ERRBUF_SIZE
        PCAP_TSTAMP_PRECISION_MICRO
        PCAP_TSTAMP_PRECISION_NANO

    ctypedef struct pcap_t
    ctypedef struct pcap_dumper_t
    struct pcap_pkthdr:
        timeval ts
        uint32_t caplen
        uint32_t len "len"

    pcap_t *pcap_fopen_offline_with_tstamp_precision(FILE *, unsigned int, char *)
    pcap_t *pcap_open_dead_with_tstamp_precision(int, int, unsigned int)
    void pcap_close(pcap_t *)
    int pcap_next_ex(pcap_t *, pcap_pkthdr **, const uint8_t **)
    int pcap_datalink(pcap_t *)
    int pcap_snapshot(pcap_t *)
    char *pcap_geterr(pcap_t *)
    const char *pcap_datalink_val_to_name(int)
    pcap_dumper_t *pcap_dump_fopen(pcap_t *, FILE *)
    void pcap_dump(uint8_t *, const pcap_pkthdr *, const uint8_t *)
    int pcap_dump_flush(pcap_dumper_t *)
    void pcap_dump_close(pcap_dumper_t *)
