/* Clocks that jump, for processes that are started with this in LD_PRELOAD: the file that PEERLESS_CLOCK names holds two
 * native 64-bit numbers of seconds, which are added to the wall clock and to the monotonic clock. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *offsets;

__attribute__((constructor)) static void map_offsets(void) {
    const char *path = getenv("PEERLESS_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) abort();
    void *map = mmap(NULL, 2 * sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
    if (map == MAP_FAILED) abort();
    offsets = map;
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    int result = syscall(SYS_clock_gettime, clock, time);
    if (result == 0 && offsets) {
        if (clock == CLOCK_REALTIME) time->tv_sec += offsets[0];
        if (clock == CLOCK_MONOTONIC) time->tv_sec += offsets[1];
    }
    return result;
}
