/* A paced UDP flow and its receiver, on one clock: no TCP beside it, so that it fits through any tunnel.
 *
 * Usage: udp_load send ADDRESS PORT SOURCE_PORT COUNT PAYLOAD_BYTES RATE
 *        udp_load receive PORT MOST PAYLOAD_BYTES RECORDS [QUIET_MS]
 *
 * send paces as iperf3 does: a tick each millisecond, and at each as many datagrams, one system call for each, as RATE
 * datagrams a second make due. A datagram begins with its number and with CLOCK_MONOTONIC just before it is sent, 64
 * bits each; bytes that both sides know follow. receive takes up to MOST datagrams, one by one, until none comes for
 * QUIET_MS (300 if not given) after the first, and writes number, time of sending and time of receipt of each to the file
 * RECORDS; those that are not as they were sent it only counts. Each prints one JSON object: sent or received, spoiled, cpu_ns.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>

enum { TICK_NS = 1000000, SECOND_NS = 1000000000, QUIET_MS = 300, BUFFER_BYTES = 32 << 20, MOST_BYTES = 65536 };

typedef struct { uint64_t number, sent_ns; } stamp;
typedef struct { stamp stamp; uint64_t received_ns; } record;

static int die(const char *what) {
    perror(what);
    return 1;
}

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * SECOND_NS + (uint64_t)now.tv_nsec;
}

static void sleep_until(uint64_t when_ns) {
    struct timespec when = {(time_t)(when_ns / SECOND_NS), (long)(when_ns % SECOND_NS)};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &when, NULL);
}

static struct sockaddr_in address(const char *ipv4, const char *port) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    inet_pton(AF_INET, ipv4, &at.sin_addr);
    return at;
}

static int bound_socket(const char *port) {
    struct sockaddr_in at = address("0.0.0.0", port);
    int bytes = BUFFER_BYTES, handle = socket(AF_INET, SOCK_DGRAM, 0);
    setsockopt(handle, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes);
    setsockopt(handle, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes);
    return bind(handle, (struct sockaddr *)&at, sizeof at) ? -1 : handle;
}

static void report(const char *what, uint64_t count, uint64_t spoiled) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf("{\"%s\": %llu, \"spoiled\": %llu, \"cpu_ns\": %llu}\n", what, (unsigned long long)count,
           (unsigned long long)spoiled,
           (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000000ULL
               + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1000ULL);
}

/* Once more after an error that is not ours: a late datagram of the flow before found no receiver. */
static int send_one(int handle, const uint8_t *payload, size_t bytes) {
    ssize_t sent = send(handle, payload, bytes, 0);
    if (sent < 0 && errno == ECONNREFUSED) sent = send(handle, payload, bytes, 0);
    return sent < 0 ? -1 : 0;
}

static void fill(uint8_t *payload, size_t bytes) {
    srandom(1);
    for (size_t at = 0; at < bytes; at++) payload[at] = (uint8_t)random();
}

static int send_flow(char **words) {
    static uint8_t payload[MOST_BYTES];
    struct sockaddr_in to = address(words[0], words[1]);
    int handle = bound_socket(words[2]);
    uint64_t count = strtoull(words[3], NULL, 10), rate = strtoull(words[5], NULL, 10), sent = 0;
    size_t bytes = strtoul(words[4], NULL, 10);

    if (handle < 0 || connect(handle, (struct sockaddr *)&to, sizeof to)) return die("udp_load: socket");
    prctl(PR_SET_TIMERSLACK, 1UL);
    fill(payload, bytes);

    uint64_t began = now_ns(), tick = began;
    while (sent < count) {
        uint64_t due = (now_ns() - began) * rate / SECOND_NS + 1;
        for (; sent < due && sent < count; sent++) {
            stamp mine = {sent, now_ns()};
            memcpy(payload, &mine, sizeof mine);
            if (send_one(handle, payload, bytes)) return die("udp_load: send");
        }
        tick += TICK_NS;
        sleep_until(tick);
    }
    report("sent", sent, 0);
    return 0;
}

static int as_sent(const uint8_t *payload, size_t bytes, const uint8_t *wanted, size_t wanted_bytes) {
    return bytes == wanted_bytes && !memcmp(payload + sizeof(stamp), wanted + sizeof(stamp), bytes - sizeof(stamp));
}

static int receive_flow(char **words) {
    static uint8_t payload[MOST_BYTES], wanted[MOST_BYTES];
    int quiet_ms = words[4] ? atoi(words[4]) : QUIET_MS;
    struct timeval quiet = {quiet_ms / 1000, quiet_ms % 1000 * 1000};
    int handle = bound_socket(words[0]);
    uint64_t most = strtoull(words[1], NULL, 10), count = 0, spoiled = 0;
    size_t wanted_bytes = strtoul(words[2], NULL, 10);
    record *records = calloc(most, sizeof *records);
    FILE *file = fopen(words[3], "w");

    if (handle < 0 || !records || !file) return die("udp_load: receiver");
    memset(records, 0xff, most * sizeof *records);  /* its pages are there before the first datagram */
    fill(wanted, wanted_bytes);
    while (count < most) {
        ssize_t bytes = recv(handle, payload, sizeof payload, 0);
        uint64_t received_ns = now_ns();
        if (bytes < 0 && errno == EAGAIN) break;
        if (bytes < 0) return die("udp_load: recv");
        if (count + spoiled == 0) setsockopt(handle, SOL_SOCKET, SO_RCVTIMEO, &quiet, sizeof quiet);
        if (!as_sent(payload, (size_t)bytes, wanted, wanted_bytes)) {
            spoiled++;
            continue;
        }
        records[count].received_ns = received_ns;
        memcpy(&records[count++].stamp, payload, sizeof(stamp));
    }
    if (fwrite(records, sizeof *records, count, file) != count || fclose(file)) return die("udp_load: records");
    report("received", count, spoiled);
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 8 && !strcmp(argv[1], "send")) return send_flow(argv + 2);
    if ((argc == 6 || argc == 7) && !strcmp(argv[1], "receive")) return receive_flow(argv + 2);
    return fprintf(stderr, "usage: udp_load send|receive …, see its first lines\n"), 2;
}
