"""What the engine does with the map of known connections, for tests to call."""

from libc.stdint cimport uint16_t
from libc.string cimport memcpy, memset

from layer45.fastpath.abi cimport l45_flow_key
from layer45.fastpath.known cimport known_add, known_customize, known_remove
from layer45.fastpath.worker cimport Worker


cdef l45_flow_key _key(bytes connection, uint16_t class_id) except *:
    cdef l45_flow_key key
    assert len(connection) == 36
    memset(&key, 0xFF, sizeof(key))
    memcpy(&key, <const char *> connection, 36)
    key.class_id = class_id
    return key


def add(Worker worker not None, bytes connection, uint16_t class_id) -> int:
    cdef l45_flow_key key = _key(connection, class_id)
    return known_add(&worker.worker.known, &key)


def customize(Worker worker not None, bytes connection, uint16_t class_id) -> int:
    cdef l45_flow_key key = _key(connection, class_id)
    return known_customize(&worker.worker.known, &key)


def remove(Worker worker not None, bytes connection) -> int:
    cdef l45_flow_key key = _key(connection, 0)
    return known_remove(&worker.worker.known, &key)
