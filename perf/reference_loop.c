/* The bare C loop: what a queue costs when nothing is done with its packets. The yardstick of the other engines.
 *
 * Usage: reference_loop QUEUE COPY_BYTES [gso]
 *
 * It receives up to 32 packets with one recvmmsg and accepts them with one sendmsg that carries all the verdicts, on a
 * socket that never reports an overrun and has forced buffers. It reads of a packet only its id. With gso, TCP's
 * super-packets come whole; else the kernel cuts them before the queue. On SIGTERM it prints one JSON object (packets,
 * batches, cpu_ns of this thread) and ends.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_queue.h>
#include <linux/netlink.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BATCH = 32, METADATA_BYTES = 1024, QUEUE_PACKETS = 4096, SOCKET_BYTES = 16 << 20 };

typedef struct {
    struct nlmsghdr message;
    struct nfgenmsg family;
    struct nlattr attribute;
    struct nfqnl_msg_verdict_hdr verdict;
} verdict_message;

typedef struct { struct nlattr head; uint32_t value_be; } number;

static volatile sig_atomic_t stopping;

static void stop(int signal_number) {
    (void)signal_number;
    stopping = 1;
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void configure(int handle, uint16_t queue, const void *attributes, size_t bytes) {
    struct {
        struct nlmsghdr message;
        struct nfgenmsg family;
        uint8_t attributes[32];
    } request = {0};
    struct { struct nlmsghdr message; struct nlmsgerr error; } answer;
    request.message.nlmsg_len = NLMSG_LENGTH(sizeof(struct nfgenmsg)) + NLA_ALIGN(bytes);
    request.message.nlmsg_type = NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_CONFIG;
    request.message.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
    request.family.res_id = htons(queue);
    memcpy(request.attributes, attributes, bytes);
    if (send(handle, &request, request.message.nlmsg_len, 0) < 0) die("send");
    if (recv(handle, &answer, sizeof answer, 0) < (ssize_t)sizeof answer.message + 4) die("recv");
    if (answer.error.error) {
        errno = -answer.error.error;
        die("queue configuration");
    }
}

static int open_queue(uint16_t queue, uint32_t copy_bytes, int gso) {
    struct { struct nlattr head; struct nfqnl_msg_config_cmd command; } bind = {
        {NLA_HDRLEN + sizeof bind.command, NFQA_CFG_CMD}, {NFQNL_CFG_CMD_BIND, 0, 0}};
    struct { struct nlattr head; struct nfqnl_msg_config_params copy; } params = {
        {NLA_HDRLEN + sizeof params.copy, NFQA_CFG_PARAMS}, {htonl(copy_bytes), NFQNL_COPY_PACKET}};
    number length = {{sizeof length, NFQA_CFG_QUEUE_MAXLEN}, htonl(QUEUE_PACKETS)};
    number flags[2] = {{{sizeof *flags, NFQA_CFG_FLAGS}, htonl(gso ? NFQA_CFG_F_GSO : 0)},
                       {{sizeof *flags, NFQA_CFG_MASK}, htonl(NFQA_CFG_F_GSO)}};
    int one = 1, bytes = SOCKET_BYTES;
    struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    int handle = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);
    if (handle < 0 || connect(handle, (struct sockaddr *)&kernel, sizeof kernel)) die("netlink");
    configure(handle, queue, &bind, bind.head.nla_len);
    configure(handle, queue, &flags, sizeof flags);
    configure(handle, queue, &params, params.head.nla_len);
    configure(handle, queue, &length, sizeof length);
    if (setsockopt(handle, SOL_NETLINK, NETLINK_NO_ENOBUFS, &one, sizeof one)
        || setsockopt(handle, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes)
        || setsockopt(handle, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes)) die("setsockopt");
    return handle;
}

/* The packet header is the first attribute that the kernel writes. */
static uint32_t packet_id_be(const uint8_t *message) {
    const struct nfqnl_msg_packet_hdr *header =
        (const void *)(message + NLMSG_LENGTH(sizeof(struct nfgenmsg)) + NLA_HDRLEN);
    return header->packet_id;
}

static void fill(verdict_message *answer, uint16_t queue) {
    answer->message.nlmsg_len = sizeof *answer;
    answer->message.nlmsg_type = NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_VERDICT;
    answer->message.nlmsg_flags = NLM_F_REQUEST;
    answer->family.res_id = htons(queue);
    answer->attribute.nla_type = NFQA_VERDICT_HDR;
    answer->attribute.nla_len = NLA_HDRLEN + sizeof answer->verdict;
    answer->verdict.verdict = htonl(NF_ACCEPT);
}

int main(int argc, char **argv) {
    int gso = argc == 4 && !strcmp(argv[3], "gso");
    if (argc != 3 + gso) return fprintf(stderr, "usage: reference_loop QUEUE COPY_BYTES [gso]\n"), 2;
    uint16_t queue = (uint16_t)atoi(argv[1]);
    uint32_t copy_bytes = (uint32_t)atoi(argv[2]);
    size_t slot = copy_bytes + METADATA_BYTES;
    uint8_t *buffers = malloc(slot * BATCH);
    static struct iovec parts[BATCH];
    static struct mmsghdr received[BATCH];
    static verdict_message answers[BATCH];
    uint64_t packets = 0, batches = 0;
    struct sigaction action = {.sa_handler = stop};
    struct rusage usage;

    sigaction(SIGTERM, &action, NULL);
    int handle = open_queue(queue, copy_bytes, gso);
    for (int at = 0; at < BATCH; at++) {
        parts[at] = (struct iovec){buffers + at * slot, slot};
        received[at].msg_hdr = (struct msghdr){.msg_iov = &parts[at], .msg_iovlen = 1};
        fill(&answers[at], queue);
    }
    puts("ready");
    fflush(stdout);
    while (!stopping) {
        int count = recvmmsg(handle, received, BATCH, MSG_WAITFORONE, NULL);
        if (count < 0) {
            if (errno == EINTR) continue;
            die("recvmmsg");
        }
        for (int at = 0; at < count; at++) answers[at].verdict.id = packet_id_be(parts[at].iov_base);
        if (send(handle, answers, (size_t)count * sizeof *answers, 0) < 0) die("verdicts");
        packets += (uint64_t)count;
        batches++;
    }
    getrusage(RUSAGE_THREAD, &usage);
    printf("{\"packets\": %llu, \"batches\": %llu, \"cpu_ns\": %llu}\n", (unsigned long long)packets,
           (unsigned long long)batches,
           (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000000ULL
               + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1000ULL);
    return 0;
}
