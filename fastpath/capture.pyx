"""Reads pcap and pcapng and writes pcap: libpcap over stdio with large buffers and without stdio's locks."""

import os

from libc.errno cimport EIO, errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdio cimport (
    EOF, FILE, SEEK_SET, _IOFBF, fclose, fdopen, fread, fseek, ftell, fwrite, setvbuf, ungetc,
)
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from layer45.fastpath.link cimport LINK_RAW, LINK_RAW_OPENBSD, link_supported
from layer45.fastpath.pcap cimport (
    FSETLOCKING_BYCALLER, PCAP_ERRBUF_SIZE, PCAP_TSTAMP_PRECISION_MICRO, PCAP_TSTAMP_PRECISION_NANO,
    __fsetlocking, pcap_close, pcap_datalink, pcap_datalink_val_to_name, pcap_dump, pcap_dump_close,
    pcap_dump_flush, pcap_dump_fopen, pcap_fopen_offline_with_tstamp_precision, pcap_geterr, pcap_next_ex,
    pcap_open_dead_with_tstamp_precision, pcap_pkthdr, pcap_snapshot,
)

cdef extern from "<stdio.h>" nogil:
    int ferror_unlocked(FILE *)

cdef enum:
    BUFFER_BYTES = 1 << 20
    MAGIC_BYTES = 4
    SNAPLEN_OFFSET = 16            # in the header of a pcap file
    LARGEST_FRAME_BYTES = 1 << 17  # above any link header and IP packet
    WIDEST_SNAPLEN = 262144        # libpcap's own, for an output whose header cannot be corrected at the end
    NS_PER_S = 1000000000

cdef uint64_t LAST_SECOND = <uint64_t> 1 << 33  # keeps any timestamp, and timers from there, inside 64 bits

# pcap with nanoseconds in either byte order; pcapng, whose resolution is any.
NANOSECOND_MAGICS = (b"\xa1\xb2\x3c\x4d", b"\x4d\x3c\xb2\xa1", b"\x0a\x0d\x0d\x0a")


cdef int read_record(l45_reader *reader, l45_record *record) noexcept nogil:
    """READ_RECORD, READ_END, or READ_ERROR with the text in Reader.error()."""
    cdef pcap_pkthdr *header
    cdef int result = pcap_next_ex(reader.pcap, &header, &record.bytes)
    if result != 1:
        return READ_END if result == -2 else READ_ERROR
    record.header = header
    record.time_ns = _time_ns(reader, header)
    return READ_RECORD


cdef inline uint64_t _time_ns(const l45_reader *reader, const pcap_pkthdr *header) noexcept nogil:
    """A timestamp as one number; nonsense is brought into range (the record itself keeps it)."""
    cdef int64_t seconds = header.ts.tv_sec, fraction = header.ts.tv_usec
    if seconds < 0:
        seconds = <uint32_t> seconds  # libpcap reads pcap's unsigned seconds as signed: from 2038 on
    if fraction < 0:
        fraction = 0
    if seconds > <int64_t> LAST_SECOND or fraction > NS_PER_S:
        return min(<uint64_t> seconds, LAST_SECOND) * NS_PER_S
    return <uint64_t> seconds * NS_PER_S + <uint64_t> fraction * reader.fraction_ns


cdef inline void _dump(l45_writer *writer, const pcap_pkthdr *header, const uint8_t *frame) noexcept nogil:
    if writer.error:
        return
    pcap_dump(<uint8_t *> writer.dumper, header, frame)
    if ferror_unlocked(writer.file):
        writer.error = errno if errno else EIO
        return
    writer.records += 1
    writer.largest_bytes = max(writer.largest_bytes, header.caplen)


cdef void write_record(l45_writer *writer, const l45_record *record) noexcept nogil:
    """Every byte, length and timestamp as it was read."""
    _dump(writer, record.header, record.bytes)


cdef void write_packet(l45_writer *writer, uint64_t time_ns, const uint8_t *link, uint32_t link_bytes,
                       const uint8_t *packet, uint32_t packet_bytes) noexcept nogil:
    """A frame made of a link header and a packet, captured whole."""
    cdef pcap_pkthdr header
    header.ts.tv_sec = time_ns // NS_PER_S
    header.ts.tv_usec = time_ns % NS_PER_S // writer.fraction_ns
    header.caplen = header.len = link_bytes + packet_bytes
    if header.caplen > LARGEST_FRAME_BYTES:
        writer.error = writer.error if writer.error else EIO
        return
    memcpy(writer.frame, link, link_bytes)
    memcpy(writer.frame + link_bytes, packet, packet_bytes)
    _dump(writer, &header, writer.frame)


cdef FILE *_open(int descriptor, const char *mode, char **buffer) except NULL:
    """A stream on a copy of the descriptor, with a large buffer that the caller frees after closing it."""
    cdef int copy = os.dup(descriptor)
    cdef FILE *file = fdopen(copy, mode)
    if file == NULL:
        os.close(copy)
        raise MemoryError
    buffer[0] = <char *> malloc(BUFFER_BYTES)
    if buffer[0] != NULL:
        setvbuf(file, buffer[0], _IOFBF, BUFFER_BYTES)
    __fsetlocking(file, FSETLOCKING_BYCALLER)
    return file


cdef bytes _peek(FILE *file):
    """The first bytes, put back: glibc takes back as many as its buffer gave."""
    cdef uint8_t magic[MAGIC_BYTES]
    cdef size_t count = fread(magic, 1, MAGIC_BYTES, file), at
    for at in range(count):
        if ungetc(magic[count - 1 - at], file) == EOF:
            raise OSError(EIO, os.strerror(EIO))
    return magic[:count]


cdef class Reader:
    """A capture open for reading, from a descriptor (which stays the caller's).

    Raises ValueError with libpcap's words when it is no capture.
    """

    def __cinit__(self, int descriptor):
        cdef char error[PCAP_ERRBUF_SIZE]
        self.reader.file = _open(descriptor, b"rb", &self.reader.buffer)
        nano = _peek(self.reader.file) in NANOSECOND_MAGICS
        self.reader.fraction_ns = 1 if nano else 1000
        self.reader.pcap = pcap_fopen_offline_with_tstamp_precision(
            self.reader.file, PCAP_TSTAMP_PRECISION_NANO if nano else PCAP_TSTAMP_PRECISION_MICRO, error)
        if self.reader.pcap == NULL:
            raise ValueError(error.decode(errors="replace"))
        self.reader.link_type = pcap_datalink(self.reader.pcap)

    @property
    def link_type(self) -> int:
        return self.reader.link_type

    @property
    def link_name(self) -> str:
        cdef const char *name = pcap_datalink_val_to_name(self.reader.link_type)
        return str(self.reader.link_type) if name == NULL else (<bytes> name).decode()

    @property
    def supported(self) -> bool:
        """Whether IP packets can be found in its frames."""
        return link_supported(self.reader.link_type)

    @property
    def snaplen(self) -> int:
        return pcap_snapshot(self.reader.pcap)

    @property
    def nanoseconds(self) -> bool:
        return self.reader.fraction_ns == 1

    @property
    def position(self) -> int:
        """Bytes read so far; -1 where the input is a pipe."""
        return ftell(self.reader.file)

    @property
    def error(self) -> str:
        return (<bytes> pcap_geterr(self.reader.pcap)).decode(errors="replace")

    cpdef close(self):
        if self.reader.pcap != NULL:
            pcap_close(self.reader.pcap)  # closes the stream too
        elif self.reader.file != NULL:
            fclose(self.reader.file)
        free(self.reader.buffer)
        memset(&self.reader, 0, sizeof(l45_reader))

    def __dealloc__(self):
        self.close()


cdef class Writer:
    """A pcap file open for writing, on a descriptor (which stays the caller's). Raises OSError."""

    def __cinit__(self, int descriptor, int link_type, uint32_t snaplen, bint nanoseconds):
        self.writer.file = _open(descriptor, b"wb", &self.writer.buffer)
        self.writer.frame = <uint8_t *> malloc(LARGEST_FRAME_BYTES)
        self.writer.fraction_ns = 1 if nanoseconds else 1000
        self.writer.snaplen = snaplen if self._seekable() else max(snaplen, <uint32_t> WIDEST_SNAPLEN)
        self.writer.pcap = pcap_open_dead_with_tstamp_precision(
            LINK_RAW if link_type == LINK_RAW_OPENBSD else link_type, <int> self.writer.snaplen,
            PCAP_TSTAMP_PRECISION_NANO if nanoseconds else PCAP_TSTAMP_PRECISION_MICRO)
        if self.writer.frame == NULL or self.writer.pcap == NULL:
            raise MemoryError
        self.writer.dumper = pcap_dump_fopen(self.writer.pcap, self.writer.file)
        if self.writer.dumper == NULL:
            raise OSError(EIO, (<bytes> pcap_geterr(self.writer.pcap)).decode(errors="replace"))

    def _seekable(self):
        return fseek(self.writer.file, 0, SEEK_SET) == 0

    @property
    def records(self) -> int:
        return self.writer.records

    def finish(self):
        """Makes the file complete, with a snapshot length that no record exceeds. Raises OSError."""
        cdef uint32_t largest = self.writer.largest_bytes
        self._check(pcap_dump_flush(self.writer.dumper))
        if largest > self.writer.snaplen:
            self._check(fseek(self.writer.file, SNAPLEN_OFFSET, SEEK_SET))
            self._check(fwrite(&largest, sizeof(largest), 1, self.writer.file) != 1)
            self._check(pcap_dump_flush(self.writer.dumper))

    cdef int _check(self, bint failed) except -1:
        if failed and not self.writer.error:
            self.writer.error = errno if errno else EIO
        if self.writer.error:
            raise OSError(self.writer.error, os.strerror(self.writer.error))
        return 0

    cpdef close(self):
        """Ends the descriptor. What finish did not write may be lost."""
        if self.writer.dumper != NULL:
            pcap_dump_close(self.writer.dumper)  # closes the stream too
        elif self.writer.file != NULL:
            fclose(self.writer.file)
        if self.writer.pcap != NULL:
            pcap_close(self.writer.pcap)
        free(self.writer.buffer)
        free(self.writer.frame)
        memset(&self.writer, 0, sizeof(l45_writer))

    def __dealloc__(self):
        self.close()
