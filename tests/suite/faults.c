// Loaded into the program's processes by LD_PRELOAD: a disk and a memory that fail where a test wants it.
//
// AFFECTMILL_FAULTS holds faults separated by `;`, each `kind:from:to:suffix`. A read that touches the bytes from..to of a
// file whose path ends in the suffix then
//   eio    fails as a broken disk does,
//   flaky  fails so twice in a process, then works,
//   hang   never returns,
//   slow   takes three seconds,
//   crash  writes through a null pointer,
//   nomem  makes every later allocation of FFmpeg's fail that is larger than a page.
// Opening a folder whose path ends in the suffix fails
//   list-eio    as one on a broken disk does,
//   list-flaky  so twice in a process, then works.
//
// AFFECTMILL_REFUSED holds what a share does not have, separated by `,`: `links` at all, links `across` folders, to `flush`
// folders, `locks`.
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static int starved, failed;

static void meet(const char *kind, int *error) {
    if (!strcmp(kind, "eio")) *error = EIO;
    if (!strcmp(kind, "flaky") && failed++ < 2) *error = EIO;
    if (!strcmp(kind, "hang")) for (;;) pause();
    if (!strcmp(kind, "slow")) sleep(3);
    if (!strcmp(kind, "crash")) *(volatile int *)0 = 1;
    if (!strcmp(kind, "nomem")) starved = 1;
}

ssize_t read(int fd, void *buffer, size_t count) {
    static ssize_t (*next)(int, void *, size_t);
    if (!next) next = dlsym(RTLD_NEXT, "read");
    const char *faults = getenv("AFFECTMILL_FAULTS");
    off_t at = faults ? lseek(fd, 0, SEEK_CUR) : -1;
    if (at >= 0) {
        char link[64], path[4096];
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t length = readlink(link, path, sizeof path - 1);
        path[length < 0 ? 0 : length] = 0;
        while (faults && *faults) {
            char kind[16], suffix[256];
            long long from, to;
            if (sscanf(faults, "%15[^:]:%lld:%lld:%255[^;]", kind, &from, &to, suffix) == 4) {
                size_t end = strlen(suffix);
                int here = (size_t)(length < 0 ? 0 : length) >= end && !strcmp(path + length - end, suffix);
                if (here && at < to && at + (long long)count > from) {
                    int error = 0;
                    meet(kind, &error);
                    if (error) {
                        errno = error;
                        return -1;
                    }
                }
            }
            faults = strchr(faults, ';');
            if (faults) faults++;
        }
    }
    return next(fd, buffer, count);
}

DIR *opendir(const char *path) {
    static DIR *(*next)(const char *);
    static int refused;
    if (!next) next = dlsym(RTLD_NEXT, "opendir");
    for (const char *faults = getenv("AFFECTMILL_FAULTS"); faults && *faults;) {
        char kind[16], suffix[256];
        if (sscanf(faults, "%15[^:]:%*d:%*d:%255[^;]", kind, suffix) == 2) {
            size_t end = strlen(suffix), length = strlen(path);
            int here = length >= end && !strcmp(path + length - end, suffix);
            if (here && (!strcmp(kind, "list-eio") || (!strcmp(kind, "list-flaky") && refused++ < 2))) {
                errno = EIO;
                return NULL;
            }
        }
        faults = strchr(faults, ';');
        if (faults) faults++;
    }
    return next(path);
}

int posix_memalign(void **memory, size_t alignment, size_t size) {
    static int (*next)(void **, size_t, size_t);
    if (!next) next = dlsym(RTLD_NEXT, "posix_memalign");
    Dl_info caller;
    if (starved && size > 4096 && dladdr(__builtin_return_address(0), &caller) && strstr(caller.dli_fname, "libav")) return ENOMEM;
    return next(memory, alignment, size);
}

static int refused(const char *what) {
    const char *all = getenv("AFFECTMILL_REFUSED");
    return all && strstr(all, what);
}

static int refuse(int error) {
    errno = error;
    return -1;
}

// Of two paths up to their last `/`.
static int same_folder(const char *a, const char *b) {
    const char *end = strrchr(a, '/'), *other = strrchr(b, '/');
    return end && other && end - a == other - b && !strncmp(a, b, end - a);
}

int linkat(int from, const char *a, int to, const char *b, int flags) {
    static int (*next)(int, const char *, int, const char *, int);
    if (!next) next = dlsym(RTLD_NEXT, "linkat");
    if (refused("links")) return refuse(EPERM);
    if (refused("across") && !same_folder(a, b)) return refuse(EXDEV);
    return next(from, a, to, b, flags);
}

int fsync(int fd) {
    static int (*next)(int);
    struct stat stat;
    if (!next) next = dlsym(RTLD_NEXT, "fsync");
    if (refused("flush") && !fstat(fd, &stat) && S_ISDIR(stat.st_mode)) return refuse(EINVAL);
    return next(fd);
}

int flock(int fd, int operation) {
    static int (*next)(int, int);
    if (!next) next = dlsym(RTLD_NEXT, "flock");
    return refused("locks") ? refuse(ENOLCK) : next(fd, operation);
}
