"""The changelog record of Lustre, and the table of FIDs that records are reduced to.

Layout: ``struct changelog_rec`` and its extensions, include/uapi/linux/lustre/lustre_user.h (Lustre 2.17);
section 1 of the reference.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef struct Fid:
    uint64_t seq
    uint32_t oid
    uint32_t ver

cdef packed struct Entry:
    # One distinct FID: 28 bytes, so that millions fit.
    uint64_t seq
    uint32_t oid
    uint32_t ver
    uint64_t time  # of its last data record, as cr_time: seconds << 30 | nanoseconds
    uint32_t flags

cdef struct Touch:
    # What a record says of one FID, before it is entered in the table.
    Fid fid
    uint64_t hash
    uint64_t time
    uint32_t flags

cdef struct Record:
    # The fields of one record that matter, in host byte order.
    uint32_t size  # bytes, name included
    uint32_t name_size
    uint32_t type
    uint32_t flags
    uint64_t index
    uint64_t time
    Fid target, parent, source, source_parent
    uint32_t open_flags
    bint unknown_extension

cdef enum Fault:
    NOTHING = 0
    TRUNCATED = 1
    NAME_TOO_LONG = 2
    EXTENSION = 3

cdef Fault parse(const uint8_t *at, size_t left, Record *record) noexcept nogil
