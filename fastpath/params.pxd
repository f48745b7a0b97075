"""Finds a module's parameters by name, in `configure`."""

from libc.stdint cimport uint8_t
from libc.string cimport memcmp, memcpy, memset, strcmp, strlen

from layer45.fastpath.abi cimport l45_param


cdef inline l45_param param_named(const l45_param *params, size_t count, const char *name) noexcept nogil:
    """The parameter of that name; all zero if the manifest declares none (a test compares the names)."""
    cdef l45_param absent
    cdef size_t at
    for at in range(count):
        if strcmp(params[at].name, name) == 0:
            return params[at]
    memset(&absent, 0, sizeof(l45_param))
    return absent


cdef inline bint choice_is(l45_param param, const char *name) noexcept nogil:
    """Whether a choice has the value of that name; its position would follow the manifest's order."""
    return param.byte_count == strlen(name) and memcmp(param.bytes, name, param.byte_count) == 0


cdef inline size_t copy_bytes(l45_param param, uint8_t *target, size_t room) noexcept nogil:
    """Copies a bytes or text parameter, at most room bytes of it; how many."""
    cdef size_t count = min(param.byte_count, room)
    if count:
        memcpy(target, param.bytes, count)
    return count
