# What the other compiled modules take from _posix.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef struct Look:
    uint64_t ino, nlink, size, rdev, dev, blocks
    uint64_t fid_sequence, fid_rest  # 0 where there are no FIDs
    int64_t mtime_ns, ctime_ns, birth
    uint32_t mode, uid, gid
    uint32_t name_at
    uint16_t name_length
    uint8_t has_xattrs
    int error

cdef int look_at(int dirfd, const char *name, int flags, Look *out) noexcept nogil
cdef bint is_object(int fd, Look *now, uint64_t head, uint64_t rest) noexcept nogil
cdef uint64_t word_of(const unsigned char *raw) noexcept nogil
cdef int rename_to_free_name(int old_dirfd, const char *old, int new_dirfd, const char *new) noexcept nogil
