"""The kernel's netlink, nfnetlink_queue and nfnetlink_log interfaces (linux/netfilter/nfnetlink_queue.h, …_log.h)."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy


cdef extern from "<linux/netlink.h>" nogil:
    cdef struct nlmsghdr:
        uint32_t nlmsg_len
        uint16_t nlmsg_type
        uint16_t nlmsg_flags
        uint32_t nlmsg_seq
        uint32_t nlmsg_pid

    cdef struct nlattr:
        uint16_t nla_len
        uint16_t nla_type

    enum:
        NLMSG_NOOP
        NLMSG_ERROR
        NLM_F_REQUEST
        NLM_F_ACK
        NLA_F_NESTED
        NETLINK_NO_ENOBUFS
        NLA_TYPE_MASK

cdef extern from "<linux/netfilter/nfnetlink.h>" nogil:
    cdef struct nfgenmsg:
        uint8_t nfgen_family
        uint8_t version
        uint16_t res_id

    enum:
        NFNL_SUBSYS_QUEUE
        NFNL_SUBSYS_ULOG
        NFNL_SUBSYS_CTNETLINK

cdef extern from "<linux/netfilter/nfnetlink_conntrack.h>" nogil:
    enum:
        IPCTNL_MSG_CT_NEW
        CTA_TUPLE_ORIG
        CTA_MARK
        CTA_MARK_MASK
        CTA_TUPLE_IP
        CTA_TUPLE_PROTO
        CTA_IP_V4_SRC
        CTA_IP_V4_DST
        CTA_IP_V6_SRC
        CTA_IP_V6_DST
        CTA_PROTO_NUM
        CTA_PROTO_SRC_PORT
        CTA_PROTO_DST_PORT

cdef extern from "<linux/netfilter/nfnetlink_queue.h>" nogil:
    cdef struct nfqnl_msg_packet_hdr:
        uint32_t packet_id
        uint16_t hw_protocol
        uint8_t hook

    cdef struct nfqnl_msg_verdict_hdr:
        uint32_t verdict
        uint32_t id

    enum:
        NFQNL_MSG_PACKET
        NFQNL_MSG_VERDICT
        NFQNL_MSG_VERDICT_BATCH
        NFQNL_MSG_CONFIG
        NFQA_PACKET_HDR
        NFQA_VERDICT_HDR
        NFQA_MARK
        NFQA_IFINDEX_OUTDEV
        NFQA_PAYLOAD
        NFQA_CAP_LEN
        NFQA_SKB_INFO
        NFQA_SKB_CSUMNOTREADY
        NFQA_SKB_GSO
        NFQNL_COPY_PACKET
        NFQA_CFG_PARAMS
        NFQA_CFG_FLAGS
        NFQA_CFG_MASK
        NFQA_CFG_F_FAIL_OPEN
        NFQA_CFG_F_GSO

cdef extern from "<linux/netfilter/nfnetlink_log.h>" nogil:
    cdef struct nfulnl_msg_packet_hdr:
        uint16_t hw_protocol
        uint8_t hook

    enum:
        NFULNL_MSG_PACKET
        NFULNL_MSG_CONFIG
        NFULA_PACKET_HDR
        NFULA_MARK
        NFULA_PAYLOAD
        NFULA_SEQ
        NFULA_CFG_CMD
        NFULA_CFG_MODE
        NFULA_CFG_NLBUFSIZ
        NFULA_CFG_TIMEOUT
        NFULA_CFG_QTHRESH
        NFULA_CFG_FLAGS
        NFULNL_CFG_CMD_BIND
        NFULNL_CFG_CMD_UNBIND
        NFULNL_COPY_PACKET
        NFULNL_CFG_F_SEQ

cdef extern from "<linux/netfilter.h>" nogil:
    enum:
        NF_DROP
        NF_ACCEPT
        NF_INET_LOCAL_IN
        NF_INET_LOCAL_OUT

# Not <arpa/inet.h>: it and <linux/in.h>, which the netfilter headers bring, define the same things.
cdef extern from "<endian.h>" nogil:
    uint32_t htonl "htobe32"(uint32_t)
    uint32_t ntohl "be32toh"(uint32_t)
    uint16_t htons "htobe16"(uint16_t)

cdef extern from "<time.h>" nogil:
    cdef struct timespec:
        long tv_sec
        long tv_nsec
    enum:
        CLOCK_MONOTONIC
    int clock_gettime(int, timespec *)

cdef extern from * nogil:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <poll.h>
    #include <sys/socket.h>
    #include <sys/uio.h>
    """
    cdef struct iovec:
        void *iov_base
        size_t iov_len

    cdef struct msghdr:
        void *msg_name
        uint32_t msg_namelen
        iovec *msg_iov
        size_t msg_iovlen
        void *msg_control
        size_t msg_controllen
        int msg_flags

    cdef struct mmsghdr:
        msghdr msg_hdr
        unsigned int msg_len

    cdef struct pollfd:
        int fd
        short events
        short revents

    enum:
        AF_INET
        AF_INET6
        POLLIN
        MSG_DONTWAIT
        MSG_TRUNC
        MSG_WAITFORONE

    int recvmmsg(int, mmsghdr *, unsigned int, int, timespec *)
    int sendmmsg(int, mmsghdr *, unsigned int, int)
    ssize_t sendmsg(int, const msghdr *, int)
    ssize_t send(int, const void *, size_t, int)
    ssize_t recv(int, void *, size_t, int)
    int ppoll(pollfd *, unsigned long, const timespec *, const void *)


cdef inline uint64_t monotonic_ns() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <uint64_t> now.tv_sec * 1000000000 + <uint64_t> now.tv_nsec


cdef inline uint32_t load_u32(const void *at) noexcept nogil:
    cdef uint32_t value
    memcpy(&value, at, 4)
    return value
