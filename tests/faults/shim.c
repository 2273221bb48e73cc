/* Everything that changes a file below one folder passes here: it is counted, written down, or made to fail.

   Loaded by LD_PRELOAD (see native.py), so that it stands before what Python, pyarrow, DuckDB and FAISS call. The kernel
   is asked by number, since what libc calls within itself does not come by. An operation is made and written down under
   one lock: the order of the journal is the order in which things happened.

   Nothing waits until it is on the disk, armed or not: a killed process leaves what it wrote, synchronised or not. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define LONGEST 4096

/* native.py has the same numbers. */
enum { CREATE = 1, WRITE = 2, TRUNCATE = 4, SYNC = 8, RENAME = 16, UNLINK = 32, FOLDER = 64, LINK = 128 };
enum { COUNT, KILL_BEFORE, KILL_AFTER, KILL_HALF, FAIL, SHORT };

static struct {
    char root[LONGEST];
    size_t length;
    int kinds;       /* of operations that count */
    long count;      /* of those, so far */
    int fault;
    long at;         /* the first one is 1 */
    int error;
    int for_good;    /* fail all that come later, too */
    int journal;     /* a descriptor, or -1 */
} armed;
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;

/* What is about to be done, as it goes into the journal, where the three strings follow. */
struct operation {
    int32_t kind;
    int32_t error;
    int64_t offset;
    uint32_t path_size;
    uint32_t other_size;
    uint64_t size;
};

void fault_arm(const char *root, int kinds, int fault, long at, int error, int for_good, int journal) {
    pthread_mutex_lock(&turn);
    armed.kinds = kinds;
    armed.count = 0;
    armed.fault = fault;
    armed.at = at;
    armed.error = error;
    armed.for_good = for_good;
    armed.journal = journal;
    snprintf(armed.root, LONGEST, "%s", root);
    armed.length = strlen(root);
    pthread_mutex_unlock(&turn);
}

long fault_count(void) { return armed.count; }

/* A child that is forked while another thread is at an operation must not wait for it for ever. */
static void take(void) { pthread_mutex_lock(&turn); }
static void give(void) { pthread_mutex_unlock(&turn); }
__attribute__((constructor)) static void prepare(void) { pthread_atfork(take, give, give); }

/* --- which files are meant --- */

static int below(const char *path) {
    return armed.length && !strncmp(path, armed.root, armed.length) && (path[armed.length] == '/' || !path[armed.length]);
}

static int path_of(int descriptor, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t size = syscall(SYS_readlinkat, AT_FDCWD, link, path, LONGEST - 1);
    path[size < 0 ? 0 : size] = 0;
    return below(path);
}

static int place_of(int folder, const char *name, char *path) {
    int error = errno;
    if (!armed.length || !name) return 0;
    path[0] = 0;
    if (name[0] != '/') {
        if (folder == AT_FDCWD ? !getcwd(path, LONGEST) : (path_of(folder, path), !path[0])) path[0] = 0;
        strncat(path, "/", LONGEST - strlen(path) - 1);
    }
    strncat(path, name, LONGEST - strlen(path) - 1);
    errno = error;
    return below(path);
}

/* --- an operation --- */

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

static int counts(int kind) { return armed.kinds & kind; }
static int due(int kind, int fault) { return counts(kind) && armed.fault == fault && armed.count == armed.at; }

/* Begin one, under the lock: whether it is to fail, with errno set. */
static int refused(int kind) {
    pthread_mutex_lock(&turn);
    if (counts(kind)) armed.count++;
    if (due(kind, KILL_BEFORE)) die();
    if (due(kind, FAIL) || (counts(kind) && armed.fault == FAIL && armed.for_good && armed.count > armed.at)) {
        errno = armed.error;
        return 1;
    }
    return 0;
}

/* End it: what it gave is what was asked for. */
static long done(long result, int kind, int64_t offset, const char *path, const char *other, const void *data,
                 uint64_t size) {
    int error = result < 0 ? errno : 0;
    if (armed.journal >= 0 && armed.length) {
        struct operation made = {kind, error, offset, strlen(path), other ? strlen(other) : 0, data ? size : 0};
        struct iovec parts[4] = {{&made, sizeof made},
                                 {(void *)path, made.path_size},
                                 {(void *)other, made.other_size},
                                 {(void *)data, made.size}};
        ssize_t whole = sizeof made + made.path_size + made.other_size + made.size;
        if (syscall(SYS_writev, armed.journal, parts, 4) != whole) {
            static const char problem[] = "the journal cannot be written\n";
            syscall(SYS_write, 2, problem, sizeof problem - 1);
            die();
        }
    }
    if (due(kind, KILL_AFTER)) die();
    pthread_mutex_unlock(&turn);
    errno = error;
    return result;
}

/* Make an operation without data. */
#define CHANGE(kind, offset, path, other, call) \
    done(refused(kind) ? -1 : (call), kind, offset, path, other, NULL, 0)

static ssize_t put(int descriptor, const char *path, const void *data, size_t size, int64_t offset, int at) {
    int refuse = refused(WRITE);
    if (!at) offset = fcntl(descriptor, F_GETFL) & O_APPEND ? lseek(descriptor, 0, SEEK_END) : lseek(descriptor, 0, SEEK_CUR);
    if (due(WRITE, KILL_HALF) || due(WRITE, SHORT)) size = (size + 1) / 2;
    ssize_t written = -1;
    if (!refuse) written = at ? syscall(SYS_pwrite64, descriptor, data, size, offset) : syscall(SYS_write, descriptor, data, size);
    if (due(WRITE, KILL_HALF)) die();
    return done(written, WRITE, offset, path, NULL, data, written < 0 ? 0 : written);
}

static ssize_t put_parts(int descriptor, const char *path, const struct iovec *parts, int count, int64_t offset, int at) {
    size_t size = 0;
    for (int i = 0; i < count; i++) size += parts[i].iov_len;
    char *data = malloc(size ? size : 1), *end = data;
    for (int i = 0; i < count; i++) end = mempcpy(end, parts[i].iov_base, parts[i].iov_len);
    ssize_t written = put(descriptor, path, data, size, offset, at);
    int error = errno;
    free(data);
    errno = error;
    return written;
}

/* --- what stands before libc --- */

static int open_at(int folder, const char *name, int flags, mode_t mode) {
    char path[LONGEST];
    if (!(flags & (O_CREAT | O_TRUNC)) || (flags & O_TMPFILE) == O_TMPFILE || !place_of(folder, name, path))
        return syscall(SYS_openat, folder, name, flags, mode);
    struct stat found;
    int there = !stat(path, &found);
    if (there && (flags & O_EXCL || !(flags & O_TRUNC) || (flags & O_ACCMODE) == O_RDONLY))
        return syscall(SYS_openat, folder, name, flags, mode);
    return CHANGE(CREATE, flags & O_TRUNC ? 1 : 0, path, NULL, syscall(SYS_openat, folder, name, flags, mode));
}

#define MODE(flags) \
    mode_t mode = 0; \
    if ((flags) & O_CREAT || ((flags) & O_TMPFILE) == O_TMPFILE) { \
        va_list more; \
        va_start(more, flags); \
        mode = va_arg(more, int); \
        va_end(more); \
    }

int open(const char *name, int flags, ...) { MODE(flags) return open_at(AT_FDCWD, name, flags, mode); }
int open64(const char *name, int flags, ...) { MODE(flags) return open_at(AT_FDCWD, name, flags, mode); }
int openat(int folder, const char *name, int flags, ...) { MODE(flags) return open_at(folder, name, flags, mode); }
int openat64(int folder, const char *name, int flags, ...) { MODE(flags) return open_at(folder, name, flags, mode); }
int creat(const char *name, mode_t mode) { return open_at(AT_FDCWD, name, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *name, mode_t mode) { return creat(name, mode); }

#define OF_DESCRIPTOR(descriptor, here, elsewhere) \
    char path[LONGEST]; \
    if (!armed.length || !path_of(descriptor, path)) return elsewhere; \
    return here

ssize_t write(int fd, const void *data, size_t size) {
    OF_DESCRIPTOR(fd, put(fd, path, data, size, 0, 0), syscall(SYS_write, fd, data, size));
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) {
    OF_DESCRIPTOR(fd, put(fd, path, data, size, offset, 1), syscall(SYS_pwrite64, fd, data, size, offset));
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) { return pwrite(fd, data, size, offset); }
ssize_t writev(int fd, const struct iovec *parts, int count) {
    OF_DESCRIPTOR(fd, put_parts(fd, path, parts, count, 0, 0), syscall(SYS_writev, fd, parts, count));
}
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset) {
    OF_DESCRIPTOR(fd, put_parts(fd, path, parts, count, offset, 1), syscall(SYS_pwritev, fd, parts, count, offset, 0L));
}
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t offset) { return pwritev(fd, parts, count, offset); }
int ftruncate(int fd, off_t size) {
    OF_DESCRIPTOR(fd, CHANGE(TRUNCATE, size, path, NULL, syscall(SYS_ftruncate, fd, size)), syscall(SYS_ftruncate, fd, size));
}
int ftruncate64(int fd, off64_t size) { return ftruncate(fd, size); }
/* Room that is set aside: as if the file system could not, and libc wrote zeros, which comes to making the file longer. */
static int lengthen(int fd, off_t size) {
    struct stat found;
    if (fstat(fd, &found) || found.st_size >= size) return 0;
    return ftruncate(fd, size) ? errno : 0;
}
int posix_fallocate(int fd, off_t offset, off_t size) { return lengthen(fd, offset + size); }
int posix_fallocate64(int fd, off64_t offset, off64_t size) { return lengthen(fd, offset + size); }
int fallocate(int fd, int mode, off_t offset, off_t size) {
    OF_DESCRIPTOR(fd, (errno = EOPNOTSUPP, -1), syscall(SYS_fallocate, fd, mode, offset, size));
}
int fallocate64(int fd, int mode, off64_t offset, off64_t size) { return fallocate(fd, mode, offset, size); }
int fsync(int fd) { OF_DESCRIPTOR(fd, CHANGE(SYNC, 0, path, NULL, 0), 0); }
int fdatasync(int fd) { OF_DESCRIPTOR(fd, CHANGE(SYNC, 0, path, NULL, 0), 0); }

int renameat2(int from, const char *name, int to, const char *new_name, unsigned flags) {
    char path[LONGEST], other[LONGEST];
    int here = place_of(from, name, path), there = place_of(to, new_name, other);
    if (!here && !there) return syscall(SYS_renameat2, from, name, to, new_name, flags);
    return CHANGE(RENAME, flags, path, other, syscall(SYS_renameat2, from, name, to, new_name, flags));
}
int renameat(int from, const char *name, int to, const char *new_name) { return renameat2(from, name, to, new_name, 0); }
int rename(const char *name, const char *new_name) { return renameat2(AT_FDCWD, name, AT_FDCWD, new_name, 0); }

int unlinkat(int folder, const char *name, int flags) {
    char path[LONGEST];
    if (!place_of(folder, name, path)) return syscall(SYS_unlinkat, folder, name, flags);
    return CHANGE(UNLINK, 0, path, NULL, syscall(SYS_unlinkat, folder, name, flags));
}
int unlink(const char *name) { return unlinkat(AT_FDCWD, name, 0); }
int rmdir(const char *name) { return unlinkat(AT_FDCWD, name, AT_REMOVEDIR); }
int remove(const char *name) {
    int result = unlink(name);
    return result && (errno == EISDIR || errno == EPERM) ? rmdir(name) : result;
}

int mkdirat(int folder, const char *name, mode_t mode) {
    char path[LONGEST];
    if (!place_of(folder, name, path)) return syscall(SYS_mkdirat, folder, name, mode);
    return CHANGE(FOLDER, 0, path, NULL, syscall(SYS_mkdirat, folder, name, mode));
}
int mkdir(const char *name, mode_t mode) { return mkdirat(AT_FDCWD, name, mode); }

/* The index has no links of its own making; one is counted, so that a test sees that there is one. */
int symlinkat(const char *target, int folder, const char *name) {
    char path[LONGEST];
    if (!place_of(folder, name, path)) return syscall(SYS_symlinkat, target, folder, name);
    return CHANGE(LINK, 0, path, target, syscall(SYS_symlinkat, target, folder, name));
}
int symlink(const char *target, const char *name) { return symlinkat(target, AT_FDCWD, name); }
int linkat(int from, const char *name, int to, const char *new_name, int flags) {
    char path[LONGEST];
    if (!place_of(to, new_name, path)) return syscall(SYS_linkat, from, name, to, new_name, flags);
    return CHANGE(LINK, 0, path, name, syscall(SYS_linkat, from, name, to, new_name, flags));
}
int link(const char *name, const char *new_name) { return linkat(AT_FDCWD, name, AT_FDCWD, new_name, 0); }

/* --- streams, whose own writes would not come by: FAISS has them --- */

static ssize_t cookie_read(void *cookie, char *data, size_t size) { return read((int)(intptr_t)cookie, data, size); }
static ssize_t cookie_write(void *cookie, const char *data, size_t size) {
    ssize_t written = write((int)(intptr_t)cookie, data, size);
    return written < 0 ? 0 : written;
}
static int cookie_seek(void *cookie, off64_t *offset, int whence) {
    off64_t place = lseek64((int)(intptr_t)cookie, *offset, whence);
    if (place < 0) return -1;
    *offset = place;
    return 0;
}
static int cookie_close(void *cookie) { return close((int)(intptr_t)cookie); }

static FILE *open_stream(const char *symbol, const char *name, const char *mode) {
    char path[LONGEST];
    FILE *(*of_libc)(const char *, const char *) = (FILE * (*)(const char *, const char *)) dlsym(RTLD_NEXT, symbol);
    int changes = strpbrk(mode, "wa+") != NULL;
    if (!changes || !place_of(AT_FDCWD, name, path)) return of_libc(name, mode);
    int flags = strchr(mode, '+') ? O_RDWR : O_WRONLY;
    flags |= mode[0] == 'w' ? O_CREAT | O_TRUNC : mode[0] == 'a' ? O_CREAT | O_APPEND : 0;
    int fd = open_at(AT_FDCWD, name, flags, 0666);
    if (fd < 0) return NULL;
    cookie_io_functions_t functions = {cookie_read, cookie_write, cookie_seek, cookie_close};
    return fopencookie((void *)(intptr_t)fd, mode, functions);
}
FILE *fopen(const char *name, const char *mode) { return open_stream("fopen", name, mode); }
FILE *fopen64(const char *name, const char *mode) { return open_stream("fopen64", name, mode); }
