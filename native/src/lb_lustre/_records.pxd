"""The table of FIDs that changelog records are reduced to."""

from libc.stdint cimport uint32_t, uint64_t

cdef packed struct Entry:
    # One distinct FID: 28 bytes, so that millions fit.
    uint64_t seq
    uint32_t oid
    uint32_t ver
    uint64_t time  # of its last data record, as cr_time: seconds << 30 | nanoseconds
    uint32_t flags
