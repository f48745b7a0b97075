"""When a loop takes its next batch: at once, after a nap, or when the kernel wakes it."""

from libc.stdint cimport uint64_t

from layer45.fastpath.receive cimport l45_slots

cdef extern from *:
    """
    #define l45_flag_load(pointer) __atomic_load_n(pointer, __ATOMIC_ACQUIRE)
    #define l45_flag_store(pointer, value) __atomic_store_n(pointer, value, __ATOMIC_RELEASE)
    """
    int load_flag "l45_flag_load"(int *) nogil
    void store_flag "l45_flag_store"(int *, int) nogil

cdef struct l45_waiting:
    int fd
    int stopping            # atomic
    uint64_t coalesce_ns    # how long a nap is; 0: there is none
    uint64_t busy_ns        # how long it looks for packets before it sleeps
    uint64_t batch_ns       # when the last batch came
    uint64_t pace_ns        # from one message to the next, by the last few batches
    int batch               # messages in the last one; 0: it has had its nap
    uint64_t *overruns      # counter: the kernel had no room to hand us packets

# Messages into the slots: how many, or -1 when there was none. flags: as for recvmmsg.
cdef int receive(l45_waiting *waiting, l45_slots *slots, int flags) noexcept nogil
# The same, sooner or later: not more than 0 when it is next_ns, somebody stops the loop, or sockets.IDLE_CHECK_S is
# over. A lone message so takes two system calls, this and its verdict's.
cdef int wait_for_batch(l45_waiting *waiting, l45_slots *slots, uint64_t now_ns, uint64_t next_ns) noexcept nogil
# To be told of each batch.
cdef void waiting_batch(l45_waiting *waiting, int count, uint64_t now_ns) noexcept nogil
