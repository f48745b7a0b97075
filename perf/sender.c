/* Sends a known number of UDP datagrams, in bursts at a steady rate.
 *
 * Usage: sender ADDRESS PORT COUNT PACKET_BYTES BURST RATE
 *
 * PACKET_BYTES is the length of the IPv4 packet (28 bytes of headers). RATE is packets a second; 0: as fast as it goes.
 * A burst is one sendmmsg. Prints one JSON object: sent, elapsed_ns, cpu_ns.
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

enum { MAXIMUM_BURST = 1024, HEADER_BYTES = 28, SECOND_NS = 1000000000 };

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * SECOND_NS + (uint64_t)now.tv_nsec;
}

static void sleep_until(uint64_t when_ns) {
    struct timespec when = {(time_t)(when_ns / SECOND_NS), (long)(when_ns % SECOND_NS)};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &when, NULL);
}

int main(int argc, char **argv) {
    if (argc != 7) return fprintf(stderr, "usage: sender ADDRESS PORT COUNT PACKET_BYTES BURST RATE\n"), 2;
    uint64_t count = strtoull(argv[3], NULL, 10), sent = 0;
    size_t payload_bytes = strtoul(argv[4], NULL, 10) - HEADER_BYTES;
    unsigned burst = (unsigned)atoi(argv[5]);
    uint64_t rate = strtoull(argv[6], NULL, 10);
    static uint8_t payload[65536];
    static struct mmsghdr messages[MAXIMUM_BURST];
    struct iovec part = {payload, payload_bytes};
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[2]))};
    int bytes = 4 << 20, handle = socket(AF_INET, SOCK_DGRAM, 0);
    struct rusage usage;

    if (burst == 0 || burst > MAXIMUM_BURST || payload_bytes > sizeof payload
        || inet_pton(AF_INET, argv[1], &to.sin_addr) != 1) return fprintf(stderr, "sender: bad argument\n"), 2;
    if (connect(handle, (struct sockaddr *)&to, sizeof to)) return perror("connect"), 1;
    setsockopt(handle, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes);
    memset(payload, 'x', sizeof payload);
    for (unsigned at = 0; at < burst; at++)
        messages[at].msg_hdr = (struct msghdr){.msg_iov = &part, .msg_iovlen = 1};

    uint64_t began = now_ns();
    while (sent < count) {
        unsigned next = count - sent < burst ? (unsigned)(count - sent) : burst;
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
