/* Takes UDP datagrams as fast as they come, and counts them.
 *
 * Usage: receiver PORT
 *
 * Says "ready", waits for the first, and ends when none has come for QUIET_MS. Prints one JSON object: received,
 * elapsed_ns from the first to the last, cpu_ns. Its buffer is large, and a recvmmsg takes up to BATCH: what is lost
 * before it is mostly not its fault.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>

enum { BATCH = 64, SLOT_BYTES = 2048, QUIET_MS = 500, SECOND_NS = 1000000000, BUFFER_BYTES = 64 << 20 };

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * SECOND_NS + (uint64_t)now.tv_nsec;
}

int main(int argc, char **argv) {
    if (argc != 2) return fprintf(stderr, "usage: receiver PORT\n"), 2;
    static uint8_t slots[BATCH][SLOT_BYTES];
    static struct iovec parts[BATCH];
    static struct mmsghdr messages[BATCH];
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1]))};
    struct timeval quiet = {0, QUIET_MS * 1000};
    int bytes = BUFFER_BYTES, handle = socket(AF_INET, SOCK_DGRAM, 0);
    uint64_t received = 0, first_ns = 0, last_ns = 0;
    struct rusage usage;

    setsockopt(handle, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes);
    if (bind(handle, (struct sockaddr *)&at, sizeof at)) return perror("receiver: bind"), 1;
    for (int slot = 0; slot < BATCH; slot++) {
        parts[slot] = (struct iovec){slots[slot], SLOT_BYTES};
        messages[slot].msg_hdr = (struct msghdr){.msg_iov = &parts[slot], .msg_iovlen = 1};
    }
    puts("ready");
    fflush(stdout);
    for (;;) {
        int count = recvmmsg(handle, messages, BATCH, MSG_WAITFORONE, NULL);
        if (count < 0 && errno == EAGAIN) break;
        if (count < 0) return perror("receiver: recvmmsg"), 1;
        last_ns = now_ns();
        if (received == 0) {
            first_ns = last_ns;
            setsockopt(handle, SOL_SOCKET, SO_RCVTIMEO, &quiet, sizeof quiet);
        }
        received += (uint64_t)count;
    }
    getrusage(RUSAGE_THREAD, &usage);
    printf("{\"received\": %llu, \"elapsed_ns\": %llu, \"cpu_ns\": %llu}\n", (unsigned long long)received,
           (unsigned long long)(last_ns - first_ns),
           (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000000ULL
               + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1000ULL);
    return 0;
}
