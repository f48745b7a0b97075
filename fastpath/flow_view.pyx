"""See flow_view.pxd."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from layer45.fastpath.chain cimport Chain, l45_chain
from layer45.fastpath.core cimport l45_worker
from layer45.fastpath.flow cimport l45_entry, l45_flow_table, load_block, load_chain, store_block
from layer45.fastpath.packet cimport PROTOCOL_TCP, load_be16


cdef list flow_view(l45_worker *worker, object chains, size_t limit):
    cdef l45_flow_table *table = &worker.flows
    cdef l45_entry *entry
    cdef uint32_t at
    cdef dict counting = _counting(chains)
    cdef list found = []
    try:
        for at in range(table.touched):
            entry = &table.entries[at]
            if load_chain(&entry.chain) != NULL and <size_t> len(found) < limit:
                found.append({**_described(entry, worker.now_ns), "instances": _instances(table, entry, counting)})
    finally:
        store_block(&table.watched, NULL)
    return found


cdef dict _counting(object chains):
    """The chains that count by flow, by address."""
    cdef Chain chain
    cdef dict found = {}
    for chain in chains:
        if any(chain.flow_counter_names):
            found[<size_t> &chain.chain] = chain
    return found


STATES = ("", "opening", "customized", "alone", "lost")  # of a TCP connection that needs agreement: flow.pxd


cdef dict _described(const l45_entry *entry, uint64_t now_ns):
    return {
        "class": entry.key.class_id,
        "protocol": "tcp" if entry.key.protocol == PROTOCOL_TCP else "udp",
        "local": (bytes(entry.key.local[:16]), load_be16(<const uint8_t *> &entry.key.local_port_be)),
        "remote": (bytes(entry.key.remote[:16]), load_be16(<const uint8_t *> &entry.key.remote_port_be)),
        "state": "left" if entry.left else STATES[entry.phase],
        "egress_packets": entry.packets[0], "egress_bytes": entry.bytes[0],
        "ingress_packets": entry.packets[1], "ingress_bytes": entry.bytes[1],
        "age_s": max(0, <int64_t> (now_ns - entry.opened_ns)) / 1e9,
        "idle_s": max(0, <int64_t> (now_ns - entry.last_ns)) / 1e9,
    }


cdef list _instances(l45_flow_table *table, l45_entry *entry, dict counting):
    """The instances that count by flow, as Chain.counters gives them; none when the flow closes meanwhile."""
    cdef Chain chain = counting.get(<size_t> _watch(table, entry)) if counting else None
    cdef list found = []
    if chain is None:
        return found
    for at, (module, names) in enumerate(zip(chain.modules, chain.flow_counter_names)):
        if names:
            values = _counters(table.watched + chain.chain.instances[<size_t> at].state_offset, len(names))
            found.append({"module": module, "counters": dict(zip(names, values))})
    return found


cdef l45_chain *_watch(l45_flow_table *table, l45_entry *entry) noexcept nogil:
    """Keeps the entry's block, table.watched, until the next call. Its chain, or NULL when the flow closes meanwhile.

    The first look says that the block has not gone; as it cannot go now, no other has its address at the second,
    which says that the chain is the block's.
    """
    cdef uint8_t *block = load_block(&entry.state)
    cdef l45_chain *chain
    store_block(&table.watched, block)
    if block == NULL or load_block(&entry.state) != block:
        return NULL
    chain = load_chain(&entry.chain)
    return chain if load_block(&entry.state) == block else NULL


cdef list _counters(const uint8_t *state, size_t count):
    cdef const uint64_t *values = <const uint64_t *> state
    cdef size_t at
    return [values[at] for at in range(count)]
