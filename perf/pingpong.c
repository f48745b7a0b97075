/* Round trips of small UDP datagrams, one at a time.
 *
 * Usage: pingpong echo PORT
 *        pingpong ask ADDRESS PORT COUNT PAYLOAD_BYTES
 *
 * echo answers each datagram with itself until it is killed. ask prints one JSON object: the times of COUNT round trips
 * in nanoseconds, as p50_ns, p90_ns, p99_ns and p999_ns, and how many got no answer within 200 ms (lost).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>

enum { SECOND_NS = 1000000000, WAIT_US = 200000, MOST_BYTES = 65536 };

static uint8_t datagram[MOST_BYTES];

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * SECOND_NS + (uint64_t)now.tv_nsec;
}

static int echo(uint16_t port) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)}, from;
    int handle = socket(AF_INET, SOCK_DGRAM, 0);
    if (bind(handle, (struct sockaddr *)&at, sizeof at)) return perror("bind"), 1;
    for (;;) {
        socklen_t length = sizeof from;
        ssize_t bytes = recvfrom(handle, datagram, sizeof datagram, 0, (struct sockaddr *)&from, &length);
        if (bytes >= 0) sendto(handle, datagram, (size_t)bytes, 0, (struct sockaddr *)&from, length);
    }
}

static int by_value(const void *one, const void *other) {
    uint64_t a = *(const uint64_t *)one, b = *(const uint64_t *)other;
    return (a > b) - (a < b);
}

static int ask(const struct sockaddr_in *to, uint64_t count, size_t bytes) {
    uint64_t *times = calloc(count, sizeof *times), answered = 0, lost = 0;
    struct timeval wait = {0, WAIT_US};
    int handle = socket(AF_INET, SOCK_DGRAM, 0);
    if (!times || connect(handle, (const struct sockaddr *)to, sizeof *to)) return perror("connect"), 1;
    setsockopt(handle, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
    for (uint64_t number = 0; number < count; number++) {
        uint64_t began = now_ns(), got = UINT64_MAX;
        memcpy(datagram, &number, sizeof number);
        if (send(handle, datagram, bytes, 0) < 0) return perror("send"), 1;
        while (got != number) {
            if (recv(handle, datagram, sizeof datagram, 0) < 0) break;
            memcpy(&got, datagram, sizeof got);
        }
        if (got == number) times[answered++] = now_ns() - began;
        else lost++;
    }
    if (answered == 0) return fprintf(stderr, "pingpong: no answer\n"), 1;
    qsort(times, answered, sizeof *times, by_value);
    printf("{\"p50_ns\": %llu, \"p90_ns\": %llu, \"p99_ns\": %llu, \"p999_ns\": %llu, \"lost\": %llu}\n",
           (unsigned long long)times[answered / 2], (unsigned long long)times[answered * 9 / 10],
           (unsigned long long)times[answered * 99 / 100], (unsigned long long)times[answered * 999 / 1000],
           (unsigned long long)lost);
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 3 && !strcmp(argv[1], "echo")) return echo((uint16_t)atoi(argv[2]));
    if (argc == 6 && !strcmp(argv[1], "ask")) {
        struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[3]))};
        size_t bytes = strtoul(argv[5], NULL, 10);
        if (inet_pton(AF_INET, argv[2], &to.sin_addr) == 1 && bytes >= sizeof(uint64_t) && bytes <= MOST_BYTES)
            return ask(&to, strtoull(argv[4], NULL, 10), bytes);
    }
    return fprintf(stderr, "usage: pingpong echo PORT | pingpong ask ADDRESS PORT COUNT PAYLOAD_BYTES\n"), 2;
}
