/* Sends a known number of UDP datagrams, in bursts at a steady rate.
 *
 * Usage: sender ADDRESS PORT COUNT PACKET_BYTES BURST RATE [FLOWS turn|random]
 *
 * PACKET_BYTES is the length of the IPv4 packet (28 bytes of headers). RATE is packets a second, whatever waits in the
 * kernel; 0: as fast as it goes, which is no faster than a socket's buffer of the usual size allows. A burst is one
 * sendmmsg. FLOWS: so many addresses from ADDRESS on, by one socket, in turn or in an order that is random and always
 * the same. Prints one JSON object: sent, elapsed_ns, cpu_ns.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>

enum { MAXIMUM_BURST = 1024, HEADER_BYTES = 28, SECOND_NS = 1000000000, SOURCE_PORT = 40000 };

static struct sockaddr_in to[MAXIMUM_BURST];
static struct mmsghdr messages[MAXIMUM_BURST];

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * SECOND_NS + (uint64_t)now.tv_nsec;
}

static void sleep_until(uint64_t when_ns) {
    struct timespec when = {(time_t)(when_ns / SECOND_NS), (long)(when_ns % SECOND_NS)};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &when, NULL);
}

/* One of FLOWS, by xorshift64. */
static uint32_t random_flow(uint32_t flows) {
    static uint64_t state = 0x9e3779b97f4a7c15;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)((state >> 32) * flows >> 32);
}

static void aim(unsigned burst, uint32_t first, uint64_t sent, uint32_t flows, int in_turn) {
    for (unsigned at = 0; at < burst; at++) {
        uint32_t flow = in_turn ? (uint32_t)((sent + at) % flows) : random_flow(flows);
        to[at].sin_addr.s_addr = htonl(first + flow);
    }
}

static int bad_argument(void) {
    return fprintf(stderr, "sender: bad argument\n"), 2;
}

int main(int argc, char **argv) {
    if (argc != 7 && argc != 9)
        return fprintf(stderr, "usage: sender ADDRESS PORT COUNT PACKET_BYTES BURST RATE [FLOWS turn|random]\n"), 2;
    uint64_t count = strtoull(argv[3], NULL, 10), sent = 0;
    size_t payload_bytes = strtoul(argv[4], NULL, 10) - HEADER_BYTES;
    unsigned burst = (unsigned)atoi(argv[5]);
    uint64_t rate = strtoull(argv[6], NULL, 10);
    uint32_t flows = argc == 9 ? (uint32_t)strtoul(argv[7], NULL, 10) : 1;
    int in_turn = argc != 9 || !strcmp(argv[8], "turn");
    static uint8_t payload[65536];
    struct iovec part = {payload, payload_bytes};
    struct sockaddr_in first = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[2]))};
    struct sockaddr_in from = {.sin_family = AF_INET, .sin_port = htons(SOURCE_PORT)};
    int bytes = 4 << 20, handle = socket(AF_INET, SOCK_DGRAM, 0);
    struct rusage usage;

    if (burst == 0 || burst > MAXIMUM_BURST || flows == 0 || payload_bytes > sizeof payload
        || inet_pton(AF_INET, argv[1], &first.sin_addr) != 1) return bad_argument();
    if (flows == 1 && connect(handle, (struct sockaddr *)&first, sizeof first)) return perror("connect"), 1;
    /* The same flows each time, or conntrack would have to remember those of all runs. */
    if (flows > 1 && bind(handle, (struct sockaddr *)&from, sizeof from)) return perror("bind"), 1;
    if (rate) setsockopt(handle, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes);
    memset(payload, 'x', sizeof payload);
    for (unsigned at = 0; at < burst; at++) {
        to[at] = first;
        messages[at].msg_hdr = (struct msghdr){.msg_iov = &part, .msg_iovlen = 1};
        if (flows > 1) messages[at].msg_hdr.msg_name = &to[at], messages[at].msg_hdr.msg_namelen = sizeof to[at];
    }

    uint64_t began = now_ns();
    while (sent < count) {
        unsigned next = count - sent < burst ? (unsigned)(count - sent) : burst;
        if (flows > 1) aim(next, ntohl(first.sin_addr.s_addr), sent, flows, in_turn);
        int done = sendmmsg(handle, messages, next, 0);
        if (done < 0) return perror("sendmmsg"), 1;
        sent += (uint64_t)done;
        if (rate) sleep_until(began + sent * SECOND_NS / rate);
    }
    uint64_t ended = now_ns();
    getrusage(RUSAGE_THREAD, &usage);
    printf("{\"sent\": %llu, \"elapsed_ns\": %llu, \"cpu_ns\": %llu}\n", (unsigned long long)sent,
           (unsigned long long)(ended - began),
           (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000000ULL
               + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1000ULL);
    return 0;
}
