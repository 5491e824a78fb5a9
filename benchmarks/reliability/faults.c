/* Lets calls to the system fail for files whose path holds a certain text, in a process that loads this first:

     cc -shared -fPIC -o faults.so faults.c -ldl
     LD_PRELOAD=./faults.so FAULT_CALL=write FAULT_KIND=ENOSPC FAULT_PATH=submission FAULT_AFTER=3 program

   FAULT_CALL   read, write or fsync
   FAULT_KIND   EIO, ENOSPC; SHORT (a part is moved, as the system may always do); END (as if the file ended there);
                SLOW (20 ms more); CUT (the file really loses all behind its first FAULT_BYTES bytes)
   FAULT_PATH   a part of the path; every path without it
   FAULT_AFTER  calls that pass before the first that fails
   FAULT_TIMES  calls that fail; all without it

   The program itself is not changed, and knows nothing of it. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static atomic_long calls;

static long number(const char *name, long otherwise) {
    const char *text = getenv(name);
    return text ? atol(text) : otherwise;
}

/* Whether this call is one that is to fail, and how. */
static const char *fault(const char *call, int descriptor) {
    const char *wanted = getenv("FAULT_CALL"), *kind = getenv("FAULT_KIND"), *part = getenv("FAULT_PATH");
    char link[64], path[PATH_MAX + 1];
    ssize_t length;
    long count, after = number("FAULT_AFTER", 0), times = number("FAULT_TIMES", LONG_MAX);

    if (!wanted || !kind || strcmp(wanted, call))
        return NULL;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    length = readlink(link, path, PATH_MAX);
    if (length < 0)
        return NULL;
    path[length] = 0;
    if (path[0] != '/' || (part && !strstr(path, part)))
        return NULL;
    count = atomic_fetch_add(&calls, 1);
    if (count < after || count - after >= times)
        return NULL;
    if (!strcmp(kind, "SLOW")) {
        struct timespec pause = {0, 20000000};
        nanosleep(&pause, NULL);
        return NULL;
    }
    if (!strcmp(kind, "CUT")) {
        if (truncate(path, number("FAULT_BYTES", 0))) {}
        return NULL;
    }
    return kind;
}

static ssize_t failed(const char *kind) {
    errno = strcmp(kind, "ENOSPC") ? EIO : ENOSPC;
    return -1;
}

static size_t part_of(const char *kind, size_t count) {
    return strcmp(kind, "SHORT") || count < 2 ? count : count / 2;
}

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

#define READ(kind, moved, count) \
    if (kind && !strcmp(kind, "END")) return 0; \
    if (kind && strcmp(kind, "SHORT")) return failed(kind); \
    if (kind) moved = part_of(kind, count)

#define WRITE(kind, moved, count) \
    if (kind && strcmp(kind, "SHORT")) return failed(kind); \
    if (kind) moved = part_of(kind, count)

ssize_t read(int descriptor, void *buffer, size_t count) {
    REAL(read);
    const char *kind = fault("read", descriptor);
    READ(kind, count, count);
    return real(descriptor, buffer, count);
}

ssize_t pread64(int descriptor, void *buffer, size_t count, off64_t offset) {
    REAL(pread64);
    const char *kind = fault("read", descriptor);
    READ(kind, count, count);
    return real(descriptor, buffer, count, offset);
}

ssize_t pread(int descriptor, void *buffer, size_t count, off_t offset) {
    REAL(pread);
    const char *kind = fault("read", descriptor);
    READ(kind, count, count);
    return real(descriptor, buffer, count, offset);
}

ssize_t write(int descriptor, const void *buffer, size_t count) {
    REAL(write);
    const char *kind = fault("write", descriptor);
    WRITE(kind, count, count);
    return real(descriptor, buffer, count);
}

ssize_t pwrite64(int descriptor, const void *buffer, size_t count, off64_t offset) {
    REAL(pwrite64);
    const char *kind = fault("write", descriptor);
    WRITE(kind, count, count);
    return real(descriptor, buffer, count, offset);
}

ssize_t writev(int descriptor, const struct iovec *parts, int count) {
    REAL(writev);
    const char *kind = fault("write", descriptor);
    WRITE(kind, count, (size_t)count);
    return real(descriptor, parts, count);
}

int fsync(int descriptor) {
    REAL(fsync);
    const char *kind = fault("fsync", descriptor);
    return kind ? (int)failed(kind) : real(descriptor);
}

int fdatasync(int descriptor) {
    REAL(fdatasync);
    const char *kind = fault("fsync", descriptor);
    return kind ? (int)failed(kind) : real(descriptor);
}
