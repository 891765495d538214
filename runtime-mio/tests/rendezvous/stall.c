/* A disk that stalls: nothing is brought to it as long as the file PEERLESS_STALL is there. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>

int fdatasync(int file) {
    int (*system_fdatasync)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    const char *stall = getenv("PEERLESS_STALL");
    while (stall && access(stall, F_OK) == 0) usleep(10000);
    return system_fdatasync(file);
}
