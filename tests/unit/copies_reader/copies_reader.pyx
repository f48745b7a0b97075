"""A worker that is handed messages of an NFLOG group as bytes, without a kernel."""

from libc.stdint cimport uint32_t
from libc.string cimport memset

from layer45.fastpath.copies cimport copies_look
from layer45.fastpath.receive cimport l45_marks, l45_slots, marks_start
from layer45.fastpath.worker cimport Worker, worker_rest


cdef class Reader:
    cdef readonly Worker worker
    cdef l45_marks marks
    cdef uint32_t following

    def __init__(self, Worker worker not None, uint32_t class_mask=0xFF):
        self.worker = worker
        marks_start(&self.marks, class_mask)

    def look(self, bytes message, int length=-1) -> None:
        """length: what the kernel says that it wrote, where it is not the message's."""
        cdef l45_slots slots
        memset(&slots, 0, sizeof(slots))
        slots.pieces[0].iov_base = <char *> message
        slots.pieces[0].iov_len = <size_t> len(message)
        slots.messages[0].msg_len = <uint32_t> (len(message) if length < 0 else length)
        worker_rest(&self.worker.worker)
        copies_look(&self.worker.worker, &slots, 0, &self.marks, &self.following)
