"""See known.pxd."""

from libc.errno cimport ENOENT, errno
from libc.stdint cimport uint32_t, uint64_t

from layer45.fastpath.abi cimport l45_flow_key

cdef extern from *:
    """
    #include <linux/bpf.h>
    #include <stddef.h>
    #include <string.h>
    #include <sys/syscall.h>
    #include <unistd.h>
    #include "abi.h"

    _Static_assert(offsetof(l45_flow_key, class_id) == 36, "the map's key is the flow's up to its class");

    static int l45_bpf(int command, int fd, const void *key, const void *value) {
        union bpf_attr attributes;
        memset(&attributes, 0, sizeof(attributes));
        attributes.map_fd = fd;
        attributes.key = (uintptr_t) key;
        attributes.value = (uintptr_t) value;
        return (int) syscall(SYS_bpf, command, &attributes, sizeof(attributes));
    }
    """
    enum:
        BPF_MAP_LOOKUP_ELEM
        BPF_MAP_UPDATE_ELEM
        BPF_MAP_DELETE_ELEM
    int l45_bpf(int command, int fd, const void *key, const void *value) nogil


cdef void known_start(l45_known *known, int fd, uint64_t *errors) noexcept nogil:
    known.fd = fd
    known.errors = errors


cdef int known_add(l45_known *known, const l45_flow_key *key) noexcept nogil:
    return _update(known, key, key.class_id)


cdef int known_customize(l45_known *known, const l45_flow_key *key) noexcept nogil:
    return _update(known, key, key.class_id | KNOWN_CUSTOMIZED)


cdef bint known_is_customized(l45_known *known, const l45_flow_key *key) noexcept nogil:
    cdef uint32_t value = 0
    return known.fd >= 0 and l45_bpf(BPF_MAP_LOOKUP_ELEM, known.fd, key, &value) == 0 \
        and value & KNOWN_CUSTOMIZED != 0


cdef void known_leave(l45_known *known) noexcept nogil:
    if known.fd >= 0:
        known.fd = KNOWN_LEFT


cdef int known_remove(l45_known *known, const l45_flow_key *key) noexcept nogil:
    if known.fd < 0 or l45_bpf(BPF_MAP_DELETE_ELEM, known.fd, key, NULL) == 0 or errno == ENOENT:
        return 0
    known.errors[0] += 1
    return -1


cdef int _update(l45_known *known, const l45_flow_key *key, uint32_t value) noexcept nogil:
    if known.fd < 0 or l45_bpf(BPF_MAP_UPDATE_ELEM, known.fd, key, &value) == 0:
        return 0
    known.errors[0] += 1
    return -1
