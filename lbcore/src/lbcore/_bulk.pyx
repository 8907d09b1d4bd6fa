# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Small files, many in one call: while a call lasts, the other threads have the interpreter to themselves.

Sources: openat(2), pread(2), pwrite(2), fchownat(2), fchmodat(2), utimensat(2).
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.errno cimport EINTR, EINVAL, ELOOP, EPERM, errno
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport free, malloc

from lbcore._posix cimport Look, is_object, look_at, rename_to_free_name, word_of

cdef extern from *:
    """
    #define _GNU_SOURCE
    #include <fcntl.h>
    #include <sys/stat.h>
    #include <unistd.h>
    """
    int c_openat "openat"(int, const char *, int, ...) nogil
    int c_close "close"(int) nogil
    long c_pread "pread"(int, void *, size_t, int64_t) nogil
    long c_pwrite "pwrite"(int, const void *, size_t, int64_t) nogil
    int c_fchownat "fchownat"(int, const char *, unsigned int, unsigned int, int) nogil
    int c_fchmodat "fchmodat"(int, const char *, unsigned int, int) nogil
    ctypedef struct timespec_t "struct timespec":
        int64_t tv_sec
        long tv_nsec
    int c_utimensat "utimensat"(int, const char *, timespec_t *, int) nogil
    int AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW
    int O_CLOEXEC, O_CREAT, O_EXCL, O_NOATIME, O_NOFOLLOW, O_NONBLOCK, O_RDONLY, O_WRONLY
    unsigned int S_IFMT, S_IFREG

COPY_DONE, COPY_CHANGED, COPY_SOURCE_FAILED, COPY_TARGET_FAILED, COPY_SPARSE = range(5)

cdef enum Outcome:
    DONE = 0
    CHANGED = 1
    SOURCE_FAILED = 2
    TARGET_FAILED = 3
    SPARSE = 4

cdef struct Copy:
    int dirfd
    const char *source
    unsigned int mode
    const char *target
    uint64_t size
    int64_t mtime_ns
    int64_t ctime_ns
    uint64_t id_head, id_rest
    int outcome
    int error

cdef struct Placing:
    int stage_dirfd
    const char *name
    int tree_dirfd
    const char *place
    unsigned int mode
    unsigned int uid
    unsigned int gid
    int64_t mtime_ns
    int error


cdef inline bint _is_as_seen(Copy *file, Look *now) noexcept nogil:
    return (
        (now.mode & S_IFMT) == S_IFREG
        and now.size == file.size
        and now.mtime_ns == file.mtime_ns
        and now.ctime_ns == file.ctime_ns
    )


cdef Outcome _read_whole(Copy *file, char *buffer) noexcept nogil:
    """Read a file that must be in one known state before and after."""
    cdef Look now
    cdef uint64_t at = 0
    cdef long got
    cdef int flags = O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK  # a pipe must not block
    cdef int fd = c_openat(file.dirfd, file.source, flags | O_NOATIME)
    if fd < 0 and errno == EPERM:  # O_NOATIME is for owners and root only
        fd = c_openat(file.dirfd, file.source, flags)
    if fd < 0:
        file.error = errno
        return CHANGED if errno == ELOOP else SOURCE_FAILED  # a symbolic link has taken the name
    try:
        file.error = look_at(fd, b"", AT_EMPTY_PATH, &now)
        if file.error:
            return SOURCE_FAILED
        if not _is_as_seen(file, &now) or not is_object(fd, &now, file.id_head, file.id_rest):
            return CHANGED
        if file.size > 4096 and now.blocks * 512 < file.size:
            return SPARSE
        while at < file.size:
            got = c_pread(fd, buffer + at, file.size - at, at)
            if got == 0:
                return CHANGED
            if got > 0:
                at += got
            elif errno != EINTR:
                file.error = errno
                return SOURCE_FAILED
        file.error = look_at(fd, b"", AT_EMPTY_PATH, &now)
        if file.error:
            return SOURCE_FAILED
        return DONE if _is_as_seen(file, &now) else CHANGED
    finally:
        c_close(fd)


cdef int _write_whole(int dirfd, const char *name, unsigned int mode, const char *buffer, uint64_t size) noexcept nogil:
    """Make a file of this content; 0 or an errno."""
    cdef uint64_t at = 0
    cdef long put
    cdef int error = 0
    # What is to be set-uid is nobody's business before it has its owner; extended attributes need the right to write.
    cdef unsigned int first_mode = 0o600 if mode & 0o6000 else (mode & 0o777) | 0o600
    cdef int fd = c_openat(dirfd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, first_mode)
    if fd < 0:
        return errno
    while at < size and not error:
        put = c_pwrite(fd, buffer + at, size - at, at)
        if put >= 0:
            at += put
        elif errno != EINTR:
            error = errno
    if c_close(fd) != 0 and not error:
        error = errno
    return error


def copy_files(list files not None, int target_dirfd):
    """Copy files that are in a known state.

    ``files`` holds ``(dirfd, name, id, mode, size, mtime_ns, ctime_ns, new name)`` for each; the copy gets the mode, as
    far as the umask lets it and its owner may write, so that it seldom has to be changed; 0600 where that has a set-uid
    or set-gid bit.

    Returns ``(content, results)``: all sizes' worth of bytes, one file after the other, and for each file
    ``(outcome, errno)``. The outcome is COPY_DONE when the file's part of ``content`` was copied and the file stayed
    as it was, COPY_CHANGED when it is in another state (or changed meanwhile), COPY_SOURCE_FAILED when it could not
    be read, COPY_TARGET_FAILED when the copy could not be written, COPY_SPARSE when nothing was done because it may
    have holes.
    """
    cdef size_t count = len(files), i
    cdef uint64_t total = 0
    cdef Copy *one
    cdef char *buffer
    cdef bytes object_id
    cdef const unsigned char *raw
    cdef Copy *copies = <Copy *>malloc(max(count, <size_t>1) * sizeof(Copy))
    if copies == NULL:
        raise MemoryError("no memory to copy files")
    try:
        for i in range(count):
            one = &copies[i]
            dirfd, source, object_id, one.mode, one.size, one.mtime_ns, one.ctime_ns, target = files[i]
            raw = object_id
            one.id_head, one.id_rest = word_of(raw), word_of(raw + 8)
            one.dirfd, one.source, one.target, one.error = dirfd, <bytes?>source, <bytes?>target, 0
            total += one.size
        content = PyBytes_FromStringAndSize(NULL, total)
        buffer = content
        with nogil:
            for i in range(count):
                one = &copies[i]
                one.outcome = _read_whole(one, buffer)
                if one.outcome == DONE:
                    one.error = _write_whole(target_dirfd, one.target, one.mode, buffer, one.size)
                    if one.error:
                        one.outcome = TARGET_FAILED
                buffer += one.size
        return content, [(copies[i].outcome, copies[i].error) for i in range(count)]
    finally:
        free(copies)


cdef int _dress_and_place(Placing *one) noexcept nogil:
    cdef timespec_t times[2]
    cdef Look now
    cdef int error = look_at(one.stage_dirfd, one.name, AT_SYMLINK_NOFOLLOW, &now)
    if error:
        return error
    if (now.mode & S_IFMT) != S_IFREG:
        return EINVAL
    if now.uid != one.uid or now.gid != one.gid:
        if c_fchownat(one.stage_dirfd, one.name, one.uid, one.gid, AT_SYMLINK_NOFOLLOW) != 0:
            return errno
    # After the owner: a change of owner clears the set-uid bit (chown(2)).
    if (now.mode & 0o7777) != (one.mode & 0o7777) or now.mode & 0o6000:
        if c_fchmodat(one.stage_dirfd, one.name, one.mode & 0o7777, 0) != 0:
            return errno
    times[0].tv_sec = one.mtime_ns // 1000000000 - (1 if one.mtime_ns % 1000000000 < 0 else 0)
    times[0].tv_nsec = one.mtime_ns - times[0].tv_sec * 1000000000
    times[1] = times[0]
    if c_utimensat(one.stage_dirfd, one.name, times, AT_SYMLINK_NOFOLLOW) != 0:
        return errno
    return rename_to_free_name(one.stage_dirfd, one.name, one.tree_dirfd, one.place)


def dress_and_place(list files not None):
    """Give private regular files of the stage owner, mode and time, in this order, then a free name in the mirror.

    ``files`` holds ``(stage_dirfd, name, tree_dirfd, place, mode, uid, gid, mtime_ns)`` for each. Returns for each 0,
    or the errno of the first call that failed; the file then is in the stage still.
    """
    cdef size_t count = len(files), i
    cdef Placing *one
    cdef Placing *placings = <Placing *>malloc(max(count, <size_t>1) * sizeof(Placing))
    if placings == NULL:
        raise MemoryError("no memory to place files")
    try:
        for i in range(count):
            one = &placings[i]
            stage_dirfd, name, tree_dirfd, place, one.mode, one.uid, one.gid, one.mtime_ns = files[i]
            one.stage_dirfd, one.name, one.tree_dirfd, one.place = stage_dirfd, <bytes?>name, tree_dirfd, <bytes?>place
        with nogil:
            for i in range(count):
                placings[i].error = _dress_and_place(&placings[i])
        return [placings[i].error for i in range(count)]
    finally:
        free(placings)
