# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The Linux calls that Python's ``os`` lacks, and the one loop that must be fast.

``read_directory`` lists a directory and looks at each entry without making a Python object of it:
an unchanged directory costs the system calls and nothing else. Sources: statx(2), openat2(2),
getdents64(2), name_to_handle_at(2), renameat2(2), syncfs(2).
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.errno cimport EINTR, ENOENT, EOPNOTSUPP, errno
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memchr, memcpy, memset, strlen

import os

cdef extern from *:
    """
    #define _GNU_SOURCE
    #include <fcntl.h>
    #include <linux/openat2.h>
    #include <stdio.h>
    #include <string.h>
    #include <sys/stat.h>
    #include <sys/statfs.h>
    #include <sys/syscall.h>
    #include <sys/sysmacros.h>
    #include <sys/xattr.h>
    #include <unistd.h>
    #ifndef SYS_openat2
    #define SYS_openat2 437
    #endif

    static long lb_openat2(int dirfd, const char *path, unsigned long long flags,
                           unsigned long long mode, unsigned long long resolve) {
        struct open_how how = {.flags = flags, .mode = mode, .resolve = resolve};
        return syscall(SYS_openat2, dirfd, path, &how, sizeof how);
    }
    static long lb_getdents(int fd, void *buffer, unsigned long size) {
        return syscall(SYS_getdents64, fd, buffer, size);
    }
    static int lb_renameat2(int olddir, const char *old, int newdir, const char *new_name,
                            unsigned int flags) {
        return (int)syscall(SYS_renameat2, olddir, old, newdir, new_name, flags);
    }
    /* The file handle's bytes, or 0 where the filesystem has none. */
    static int lb_handle(int dirfd, const char *name, int flags, unsigned char *out, int size) {
        struct { struct file_handle head; unsigned char bytes[MAX_HANDLE_SZ]; } handle;
        int mount_id, length;
        handle.head.handle_bytes = MAX_HANDLE_SZ;
        if (name_to_handle_at(dirfd, name, &handle.head, &mount_id, flags) != 0) return 0;
        length = (int)handle.head.handle_bytes;
        if (length > size) length = size;
        for (int i = 0; i < length; i++) out[i] = handle.head.f_handle[i];
        return length;
    }
    /* What gives the objects of a filesystem numbers that last: see look_at and find_fid. */
    enum { LB_INODES, LB_FIDS, LB_FUSE };
    static int lb_numbering(int fd) {
        struct statfs found;
        if (fstatfs(fd, &found) != 0) return LB_INODES;
        if (found.f_type == 0x0BD00BD0) return LB_FIDS;       /* LL_SUPER_MAGIC, lustre_user.h */
        return found.f_type == 0x65735546 ? LB_FUSE : LB_INODES; /* FUSE_SUPER_MAGIC, linux/magic.h */
    }
    /* The FID of an object, as Lustre has it in memory: 1 when there is one. */
    static int lb_fid(int numbering, int dirfd, const char *name, int flags, void *fid) {
        if (numbering == LB_FIDS) {
            struct { struct file_handle head; unsigned char bytes[MAX_HANDLE_SZ]; } handle;
            int mount_id;
            handle.head.handle_bytes = MAX_HANDLE_SZ;
            if (name_to_handle_at(dirfd, name, &handle.head, &mount_id, flags & AT_EMPTY_PATH) != 0) return 0;
            /* FILEID_LUSTRE: the object's FID, then its parent's (llite_nfs.c); no request to a server */
            if (handle.head.handle_type != 0x97 || handle.head.handle_bytes < 16) return 0;
            memcpy(fid, handle.head.f_handle, 16);
            return 1;
        }
        if (numbering == LB_FUSE) {
            /* What stands in for Lustre in user space has no such handles, but trusted.lma: compat, incompat, FID */
            unsigned char lma[24];
            char path[320];
            long got;
            snprintf(path, sizeof path, *name ? "/proc/self/fd/%d/%s" : "/proc/self/fd/%d", dirfd, name);
            got = *name ? lgetxattr(path, "trusted.lma", lma, sizeof lma) : getxattr(path, "trusted.lma", lma, sizeof lma);
            if (got != (long)sizeof lma) return 0;
            memcpy(fid, lma + 8, 16);
            return 1;
        }
        return 0;
    }
    /* The directory record of getdents64(2): ino, off, reclen, type, name. */
    #define LB_RECLEN(p) (*(unsigned short *)((char *)(p) + 16))
    #define LB_NAME(p) ((char *)(p) + 19)
    """
    long lb_openat2(int, const char *, unsigned long long, unsigned long long, unsigned long long) nogil
    long lb_getdents(int, void *, unsigned long) nogil
    int lb_renameat2(int, const char *, int, const char *, unsigned int) nogil
    int lb_handle(int, const char *, int, unsigned char *, int) nogil
    int LB_INODES
    int lb_numbering(int) nogil
    int lb_fid(int, int, const char *, int, void *) nogil
    unsigned short LB_RECLEN(char *) nogil
    char *LB_NAME(char *) nogil
    ctypedef struct statx_time "struct statx_timestamp":
        int64_t tv_sec
        uint32_t tv_nsec
    ctypedef struct statx_t "struct statx":
        uint32_t stx_mask, stx_nlink, stx_uid, stx_gid
        uint16_t stx_mode
        uint64_t stx_ino, stx_size, stx_blocks
        statx_time stx_btime, stx_ctime, stx_mtime
        uint32_t stx_rdev_major, stx_rdev_minor, stx_dev_major, stx_dev_minor
    int c_statx "statx"(int, const char *, int, unsigned int, statx_t *) nogil
    int c_syncfs "syncfs"(int) nogil
    long c_llistxattr "llistxattr"(const char *, char *, size_t) nogil
    unsigned int STATX_BASIC_STATS, STATX_BTIME
    int AT_EMPTY_PATH, AT_NO_AUTOMOUNT, AT_SYMLINK_NOFOLLOW
    unsigned long long RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS
    unsigned long long makedev(unsigned int, unsigned int) nogil

cdef struct FidInMemory:
    uint64_t sequence
    uint32_t object_id, version

cdef enum:
    CHUNK = 65536
    RENAME_NOREPLACE_FLAG = 1

cdef inline uint64_t _mix(uint64_t state, uint64_t word) noexcept nogil:
    """One round of a multiply-and-fold hash."""
    state = (state ^ word) * <uint64_t>0x9E3779B97F4A7C15
    state ^= state >> 32
    state = state * <uint64_t>0xD6E8FEB86659FD93
    return state ^ (state >> 29)


cdef uint64_t _mix_bytes(uint64_t state, const char *data, size_t length) noexcept nogil:
    cdef uint64_t word
    cdef size_t at = 0
    while at < length:
        word = 0
        memcpy(&word, data + at, min(<size_t>8, length - at))
        state = _mix(state, word)
        at += 8
    return _mix(state, length)


cdef inline int64_t _ns(statx_time *time) noexcept nogil:
    """Nanoseconds since 1970; what 64 bits cannot hold (before 1677, after 2262) becomes the first or last they can."""
    cdef int64_t limit = <int64_t>9223372036LL
    if time.tv_sec >= limit:
        return limit * 1000000000
    if time.tv_sec <= -limit:
        return -limit * 1000000000
    return time.tv_sec * 1000000000 + time.tv_nsec


cdef int look_at(int dirfd, const char *name, int flags, Look *out) noexcept nogil:
    """Fill ``out`` from statx(2); the return value is 0 or an errno.

    ``birth`` tells two objects apart that had the same inode number one after the other: the birth
    time, or a hash of the file handle (it holds the inode's generation) where there is none.
    """
    cdef statx_t st
    cdef unsigned char handle[64]
    cdef int length
    memset(out, 0, sizeof(Look))
    while c_statx(dirfd, name, flags | AT_NO_AUTOMOUNT, STATX_BASIC_STATS | STATX_BTIME, &st) != 0:
        if errno != EINTR:
            out.error = errno
            return errno
    out.ino = st.stx_ino
    out.nlink = st.stx_nlink
    out.size = st.stx_size
    out.blocks = st.stx_blocks
    out.mode = st.stx_mode
    out.uid = st.stx_uid
    out.gid = st.stx_gid
    out.mtime_ns = _ns(&st.stx_mtime)
    out.ctime_ns = _ns(&st.stx_ctime)
    out.rdev = makedev(st.stx_rdev_major, st.stx_rdev_minor)
    out.dev = makedev(st.stx_dev_major, st.stx_dev_minor)
    if st.stx_mask & STATX_BTIME:
        out.birth = _ns(&st.stx_btime)
    else:
        length = lb_handle(dirfd, name, flags & AT_EMPTY_PATH, handle, 64)
        out.birth = <int64_t>_mix_bytes(1, <char *>handle, length)
    return 0


cdef void find_fid(int numbering, int dirfd, const char *name, int flags, Look *out) noexcept nogil:
    """Where the filesystem has FIDs, note that of an object that was looked at: it is the object's number for ever."""
    cdef FidInMemory fid
    if numbering != LB_INODES and lb_fid(numbering, dirfd, name, flags, &fid):
        out.fid_sequence = fid.sequence
        out.fid_rest = <uint64_t>fid.object_id << 32 | fid.version


cdef bint is_object(int fd, Look *now, uint64_t head, uint64_t rest) noexcept nogil:
    """Whether the open object is the one whose id begins with ``head`` (and goes on with ``rest``, where it is a FID)."""
    if now.ino == head:
        return True
    find_fid(lb_numbering(fd), fd, b"", AT_EMPTY_PATH, now)
    return now.fid_sequence == head and now.fid_rest == rest


cdef bytes _id(Look *look, uint64_t salt):
    """16 bytes: the inode number (big endian, so that ids sort as inodes do), then birth and kind; on Lustre the FID.

    A filesystem mounted below the source (``salt``) may have FIDs that the source has too, so they do not count there.
    """
    cdef unsigned char out[16]
    cdef uint64_t head = look.ino, tail
    cdef int i
    if look.fid_sequence and not salt:
        head, tail = look.fid_sequence, look.fid_rest
    else:
        tail = _birth_and_kind(look, salt)
    for i in range(8):
        out[i] = (head >> (56 - 8 * i)) & 0xFF
        out[8 + i] = (tail >> (56 - 8 * i)) & 0xFF
    return PyBytes_FromStringAndSize(<char *>out, 16)


cdef uint64_t _birth_and_kind(Look *look, uint64_t salt) noexcept:
    return _mix(_mix(_mix(7, <uint64_t>look.birth), look.mode & 0o170000), salt)


cdef tuple _fields(Look *look, uint64_t salt):
    return (
        _id(look, salt), look.mode, look.uid, look.gid, look.nlink, look.size,
        look.mtime_ns, look.ctime_ns, look.rdev, look.dev,
    )


def check_name(bytes name not None):
    """Refuse what is not one base name: a hostile source or catalog must not reach outside.

    Raises ValueError for an empty name, ``.``, ``..``, or one with a slash or a zero byte.
    """
    cdef const char *start = name
    cdef size_t length = len(name)
    cdef bint dots = start[0] == c"." and (length == 1 or (length == 2 and start[1] == c"."))
    if length == 0 or dots or memchr(start, c"/", length) or memchr(start, 0, length):
        raise ValueError(f"not a file name: {name!r}")


def look(int dirfd, bytes name, uint64_t salt=0):
    """What ``lstat`` says of ``name`` below ``dirfd`` (``b""``: of ``dirfd`` itself), with its id.

    Returns ``(id, mode, uid, gid, nlink, size, mtime_ns, ctime_ns, rdev, dev)``.
    Raises OSError.
    """
    cdef Look out
    cdef const char *path = name
    cdef int flags = AT_SYMLINK_NOFOLLOW if name else AT_EMPTY_PATH
    cdef int error
    with nogil:
        error = look_at(dirfd, path, flags, &out)
        if not error:
            find_fid(lb_numbering(dirfd), dirfd, path, flags, &out)
    if error:
        raise OSError(error, os.strerror(error), name)
    return _fields(&out, salt)


def is_same(int fd, bytes object_id not None):
    """Whether the open ``fd`` is the object of this id, whatever mount it was found below. Raises OSError."""
    cdef Look now
    cdef const unsigned char *raw = object_id
    cdef int error
    cdef bint same = False
    if len(object_id) != 16:
        raise ValueError("an id has 16 bytes")
    with nogil:
        error = look_at(fd, b"", AT_EMPTY_PATH, &now)
        if not error:
            same = is_object(fd, &now, word_of(raw), word_of(raw + 8))
    if error:
        raise OSError(error, os.strerror(error))
    return same


cdef uint64_t word_of(const unsigned char *raw) noexcept nogil:
    """Eight bytes of an id as a number."""
    cdef uint64_t value = 0
    cdef int i
    for i in range(8):
        value = value << 8 | raw[i]
    return value


def has_fids(int fd):
    """Whether the ids of what is in the directory ``fd`` are FIDs: all of an id is then the object's number."""
    cdef Look out
    memset(&out, 0, sizeof(Look))
    with nogil:
        find_fid(lb_numbering(fd), fd, b"", AT_EMPTY_PATH, &out)
    return out.fid_sequence != 0


cdef class DirectoryListing:
    """Some or all entries of one directory, held in C until somebody asks for them."""

    cdef Look *looks
    cdef char *names
    cdef size_t count, room, names_used, names_room
    cdef uint64_t salt
    cdef readonly bint complete
    """False when the directory has more entries than were asked for: call ``read_directory`` again."""
    cdef readonly int64_t newest_ns
    """The latest ctime of the entries (anybody can set an mtime, nobody a ctime); 0 without entries."""
    cdef uint64_t sum_low, sum_high

    def __cinit__(self):
        self.looks = NULL
        self.names = NULL

    def __dealloc__(self):
        free(self.looks)
        free(self.names)

    def __len__(self):
        return self.count

    @property
    def fingerprint(self):
        """A 128-bit sum over the entries, whatever their order; equal sums mean equal entries."""
        return (<object>self.sum_high << 64) | self.sum_low

    def find_xattrs(self, int fd, before=None):
        """Note which entries of the directory ``fd`` have extended attributes, one call an entry, without the GIL.

        There is no listxattrat(2) before Linux 6.13: the way leads through /proc/self/fd.
        ``before`` is as for ``read_directory``.
        """
        cdef char path[320]
        cdef bint called = before is not None
        cdef size_t i
        cdef long found
        cdef Look *one
        with nogil:
            for i in range(self.count):
                one = &self.looks[i]
                if called:
                    with gil:
                        before()
                snprintf(path, sizeof(path), b"/proc/self/fd/%d/%.*s", fd, <int>one.name_length,
                         self.names + one.name_at)
                found = c_llistxattr(path, NULL, 0)
                # An error is no proof that there are none: whoever reads them meets it again, and reports it.
                one.has_xattrs = found > 0 or (found < 0 and errno != EOPNOTSUPP and errno != ENOENT)

    def entries(self):
        """``(name, error, fields, has_xattrs)`` for each entry; ``fields`` as ``look`` returns, None on an error."""
        cdef size_t i
        cdef Look *one
        result = []
        for i in range(self.count):
            one = &self.looks[i]
            name = PyBytes_FromStringAndSize(self.names + one.name_at, one.name_length)
            fields = None if one.error else _fields(one, self.salt)
            result.append((name, one.error, fields, bool(one.has_xattrs)))
        return result

    def directories(self):
        """``(name, error, fields)`` for the entries that are directories, or could not be looked at."""
        cdef size_t i
        cdef Look *one
        result = []
        for i in range(self.count):
            one = &self.looks[i]
            if one.error or (one.mode & 0o170000) == 0o040000:
                name = PyBytes_FromStringAndSize(self.names + one.name_at, one.name_length)
                result.append((name, one.error, None if one.error else _fields(one, self.salt)))
        return result

    cdef int _add(self, const char *name, Look *one, uint64_t home, uint64_t seed) except -1 nogil:
        cdef size_t length = strlen(name)
        cdef uint64_t low, high
        if self.count == self.room:
            self.room = max(<size_t>64, self.room * 2)
            self.looks = <Look *>realloc(self.looks, self.room * sizeof(Look))
        if self.names_used + length > self.names_room:
            self.names_room = max(self.names_room * 2, self.names_used + length + 1024)
            self.names = <char *>realloc(self.names, self.names_room)
        if self.looks == NULL or self.names == NULL:
            with gil:
                raise MemoryError("no memory for a directory listing")
        one.name_at = <uint32_t>self.names_used
        one.name_length = <uint16_t>length
        memcpy(self.names + self.names_used, name, length)
        self.names_used += length
        self.looks[self.count] = one[0]
        self.count += 1
        self.newest_ns = max(self.newest_ns, one.ctime_ns)
        low = _mix_bytes(seed, name, length)
        low = _mix(low, one.ino)
        low = _mix(low, <uint64_t>one.birth)
        if one.fid_sequence:
            low = _mix(_mix(low, one.fid_sequence), one.fid_rest)
        low = _mix(low, (<uint64_t>one.mode << 32) | <uint64_t>one.error)
        low = _mix(low, (<uint64_t>one.uid << 32) | one.gid)
        # A directory's size and link count say nothing that is backed up.
        if (one.mode & 0o170000) != 0o040000:
            low = _mix(_mix(low, one.size), one.nlink)
        low = _mix(low, <uint64_t>one.mtime_ns)
        low = _mix(low, <uint64_t>one.ctime_ns)
        low = _mix(low, one.rdev)
        low = _mix(low, one.dev == home)
        high = _mix(low ^ seed, <uint64_t>one.ino ^ <uint64_t>one.ctime_ns)
        self.sum_high += high + (self.sum_low + low < self.sum_low)
        self.sum_low += low
        return 0


def read_directory(int fd, uint64_t home_device, uint64_t seed, uint64_t salt=0, size_t limit=100000, before=None):
    """Read the next ``limit`` entries (about) of the open directory ``fd`` and look at each of them.

    ``home_device`` is the directory's own device, ``seed`` makes fingerprints of one catalog
    unpredictable, ``salt`` goes into the ids (of another filesystem mounted below the source).
    An entry that vanishes meanwhile is left out. The GIL is released all the while, but for ``before``: what is
    called, without arguments, before each entry is looked at. Raises OSError, MemoryError, and what ``before`` does.
    """
    cdef DirectoryListing listing = DirectoryListing()
    cdef char *buffer = <char *>malloc(CHUNK)
    cdef long got = 0, at = 0
    cdef int error = 0, numbering = LB_INODES
    cdef bint called = before is not None
    cdef Look one
    cdef char *name
    if buffer == NULL:
        raise MemoryError("no memory for a directory listing")
    listing.salt = salt
    try:
        with nogil:
            numbering = lb_numbering(fd)
            while listing.count < limit:
                got = lb_getdents(fd, buffer, CHUNK)
                if got <= 0:
                    break
                at = 0
                while at < got:
                    name = LB_NAME(buffer + at)
                    at += LB_RECLEN(buffer + at)
                    if name[0] == 46 and (name[1] == 0 or (name[1] == 46 and name[2] == 0)):
                        continue
                    if called:
                        with gil:
                            before()
                    error = look_at(fd, name, AT_SYMLINK_NOFOLLOW, &one)
                    if error == 0:
                        find_fid(numbering, fd, name, AT_SYMLINK_NOFOLLOW, &one)
                    if error != ENOENT:
                        listing._add(name, &one, home_device, seed)
            error = errno if got < 0 else 0
        if error:
            raise OSError(error, os.strerror(error))
        listing.complete = got == 0
        return listing
    finally:
        free(buffer)


def open_beneath(int dirfd, bytes path, unsigned long long flags, unsigned long long mode=0):
    """openat2(2), never leaving ``dirfd`` and never following a symbolic link. Raises OSError."""
    cdef const char *c_path = path
    cdef long fd
    cdef unsigned long long resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS
    while True:
        with nogil:
            fd = lb_openat2(dirfd, c_path, flags | 0o2000000, mode, resolve)  # O_CLOEXEC
        if fd >= 0:
            return fd
        # EAGAIN (11): the kernel could not prove it while a rename went on; ask again.
        if errno != EINTR and errno != 11:
            raise OSError(errno, os.strerror(errno), path)


cdef int rename_to_free_name(int old_dirfd, const char *old, int new_dirfd, const char *new) noexcept nogil:
    """renameat2(2) with RENAME_NOREPLACE; 0 or an errno."""
    return errno if lb_renameat2(old_dirfd, old, new_dirfd, new, RENAME_NOREPLACE_FLAG) != 0 else 0


def rename_new(int old_dirfd, bytes old, int new_dirfd, bytes new):
    """renameat2(2) with RENAME_NOREPLACE: FileExistsError where ``new`` is already there."""
    cdef const char *c_old = old
    cdef const char *c_new = new
    cdef int result
    with nogil:
        result = rename_to_free_name(old_dirfd, c_old, new_dirfd, c_new)
    if result != 0:
        raise OSError(result, os.strerror(result), old, None, new)


def syncfs(int fd):
    """Make everything written to the filesystem of ``fd`` durable: syncfs(2). Raises OSError."""
    cdef int result
    with nogil:
        result = c_syncfs(fd)
    if result != 0:
        raise OSError(errno, os.strerror(errno))
