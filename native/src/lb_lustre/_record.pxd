"""The changelog record of Lustre: what its bytes say, and what that says of FIDs. Compiled into whoever reads records.

Layout: ``struct changelog_rec`` and its extensions, include/uapi/linux/lustre/lustre_user.h (Lustre 2.17); meaning:
mdd_dir.c and mdd_object.c of Lustre; sections 1 and 3 of the reference.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef struct Fid:
    uint64_t seq
    uint32_t oid
    uint32_t ver

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

cdef enum:
    F_DATA = 1
    F_ATTRIBUTES = 2
    F_NAMES = 4
    F_OPEN = 8  # open for writing: no close seen since
    F_CLOSED = 16  # closed, and not opened again since
    F_PASSING = 32  # made and removed
    F_LIST = 64  # a directory that lost an entry of an object nobody names
    F_MADE = 128
    F_REMOVED = 256

cdef enum:
    # cr_type
    MARK = 0
    CREAT = 1
    MKDIR = 2
    HLINK = 3
    SLINK = 4
    MKNOD = 5
    UNLNK = 6
    RMDIR = 7
    RENME = 8
    RNMTO = 9
    OPENED = 10
    CLOSE = 11
    LYOUT = 12
    TRUNC = 13
    SATTR = 14
    XATTR = 15
    HSM = 16
    MTIME = 17
    CTIME = 18
    ATIME = 19
    MIGRT = 20
    FLRW = 21
    RESYNC = 22
    GXATR = 23
    NOPEN = 24
    TYPES = 25

cdef enum:
    CLF_RENAME = 0x2000
    CLF_JOBID = 0x4000
    CLF_EXTRA_FLAGS = 0x8000
    CLFE_UIDGID = 0x01
    CLFE_NID = 0x02
    CLFE_OPEN = 0x04
    CLFE_XATTR = 0x08
    CLFE_NID_BE = 0x10
    CLFE_KNOWN = 0x1f
    BASE_SIZE = 64
    NAMES_SIZE = 511  # two names of 255 bytes and what is between them
    LONGEST_UNKNOWN = 512  # bytes of an extension that is not known here
    NEAR_INDEX = 1 << 20
    NEAR_SECONDS = 30 * 86400
    READING = 0x1  # open flags: FMODE_READ
    WRITING = 0x2  # FMODE_WRITE
    ACCESS = 0x3
    CHANGING = 0x600  # MDS_OPEN_TRUNC, MDS_OPEN_APPEND
    LAST = 0x1  # UNLNK, RMDIR, RENME: the last name went


# ── One record ────────────────────────────────────────────────────────────────────────────────────────────────────────

cdef inline uint16_t u16(const uint8_t *at) noexcept nogil:
    cdef uint16_t value
    memcpy(&value, at, 2)
    return value


cdef inline uint32_t u32(const uint8_t *at) noexcept nogil:
    cdef uint32_t value
    memcpy(&value, at, 4)
    return value


cdef inline uint64_t u64(const uint8_t *at) noexcept nogil:
    cdef uint64_t value
    memcpy(&value, at, 8)
    return value


cdef inline Fid fid_at(const uint8_t *at) noexcept nogil:
    cdef Fid fid
    fid.seq = u64(at)
    fid.oid = u32(at + 8)
    fid.ver = u32(at + 12)
    return fid


cdef inline uint64_t swapped(uint64_t value) noexcept nogil:
    cdef uint64_t other = 0
    cdef int byte
    for byte in range(8):
        other = other << 8 | (value >> (8 * byte) & 0xff)
    return other


cdef inline bint near(uint64_t time, uint64_t other) noexcept nogil:
    return (time - other if time > other else other - time) >> 30 < NEAR_SECONDS


cdef inline Fault find_end(const uint8_t *at, size_t left, Record *record) noexcept nogil:
    """A record with an extension of unknown length ends where the next one begins: index and time tell.

    Without a next one it is the last of what was read. Should that be wrong, the stream has a hole there.
    """
    cdef size_t end, best = 0
    cdef uint64_t ahead, least = NEAR_INDEX
    for end in range(record.size, min(left, record.size + LONGEST_UNKNOWN)):
        if left - end < BASE_SIZE:
            break
        ahead = u64(at + end + 8) - record.index
        if 0 < ahead < least and u16(at + end) <= NAMES_SIZE and near(u64(at + end + 24), record.time):
            best, least = end, ahead
    if best:
        record.size = <uint32_t>best
        return NOTHING
    if left - record.size > LONGEST_UNKNOWN:
        return EXTENSION
    record.size = <uint32_t>left
    return NOTHING


cdef inline Fault parse(const uint8_t *at, size_t left, Record *record) noexcept nogil:
    """Read the record at ``at``; with a fault only its index is known, if that."""
    cdef uint32_t size = BASE_SIZE
    cdef uint64_t extra
    record.index = 0
    if left < BASE_SIZE:
        return TRUNCATED
    record.name_size = u16(at)
    record.flags = u16(at + 2)
    record.type = u32(at + 4)
    record.index = u64(at + 8)
    record.time = u64(at + 24)
    record.target = fid_at(at + 32)
    record.parent = fid_at(at + 48)
    record.open_flags = record.flags & 0xfff
    record.unknown_extension = False
    if record.name_size > NAMES_SIZE:
        return NAME_TOO_LONG
    if record.flags & CLF_RENAME:
        if left < size + 32:
            return TRUNCATED
        record.source = fid_at(at + size)
        record.source_parent = fid_at(at + size + 16)
        size += 32
    if record.flags & CLF_JOBID:
        size += 32
    if record.flags & CLF_EXTRA_FLAGS:
        if left < size + 8:
            return TRUNCATED
        extra = u64(at + size)
        if extra >> 32:  # from a server of the other byte order: the client does not swap these
            extra = swapped(extra)
        size += 8
        if extra & CLFE_UIDGID:
            size += 16
        if extra & CLFE_NID:
            size += 24
        if extra & CLFE_OPEN:
            if left < size + 4:
                return TRUNCATED
            record.open_flags |= u32(at + size)
            size += 4
        if extra & CLFE_XATTR:
            size += 256
        if extra & ~<uint64_t>CLFE_KNOWN:
            record.unknown_extension = True
    size += record.name_size
    if left < size:
        return TRUNCATED
    record.size = size
    if record.unknown_extension:
        return find_end(at, left, record)
    return NOTHING


# ── What a record says of its FIDs ────────────────────────────────────────────────────────────────────────────────────

cdef inline void touch(Touch *touches, int *count, Fid fid, uint64_t time, uint32_t flags) noexcept nogil:
    if fid.seq | fid.oid:
        touches[count[0]].fid = fid
        touches[count[0]].time = time
        touches[count[0]].flags = flags
        count[0] += 1


cdef inline int read_touches(Record *record, Touch *touches) noexcept nogil:
    """Which FIDs a record names, and what may have changed of each. Returns how many.

    Parents count in records of the namespace only: elsewhere they are another request's (section 9, item 14).
    """
    cdef int count = 0
    cdef uint32_t kind = record.type, flags = 0
    cdef uint64_t time = record.time
    cdef bint namespace = False
    if kind == CREAT:
        flags, namespace = F_NAMES | F_ATTRIBUTES | F_DATA | F_OPEN | F_MADE, True
    elif kind == MKDIR or kind == SLINK or kind == MKNOD:
        flags, namespace = F_NAMES | F_ATTRIBUTES | F_MADE, True
        if kind == MKNOD:
            flags |= F_DATA
    elif kind == HLINK:
        flags, namespace = F_NAMES | F_ATTRIBUTES, True
    elif kind == UNLNK or kind == RMDIR:
        flags, namespace = F_NAMES | F_ATTRIBUTES, True
        if record.flags & LAST:
            flags |= F_REMOVED
    elif kind == RENME or kind == RNMTO:
        flags, namespace = F_NAMES | F_ATTRIBUTES, True
        if kind == RENME and record.flags & LAST:
            flags |= F_REMOVED
    elif kind == MIGRT:
        flags, namespace = F_NAMES | F_ATTRIBUTES, True
    elif kind == CLOSE:
        # With OPEN in the mask those who only read say so, too: nothing changed, and others may have it open.
        if record.flags & ACCESS != READING or record.flags & CHANGING:
            flags = F_DATA | F_ATTRIBUTES | F_CLOSED
    elif kind == OPENED:
        if record.open_flags & WRITING:
            flags = F_DATA | F_OPEN
    elif kind == LYOUT or kind == TRUNC or kind == MTIME or kind == FLRW or kind == RESYNC:
        # swap_layouts says LYOUT and nothing else; truncating a file with its data on the MDT says MTIME
        flags = F_DATA | F_ATTRIBUTES
    elif kind == SATTR or kind == XATTR or kind == HSM or kind == CTIME:
        flags = F_ATTRIBUTES
    elif kind >= TYPES:
        flags, namespace = F_NAMES | F_ATTRIBUTES | F_DATA, record.name_size > 0
    if flags:
        touch(touches, &count, record.target, time, flags)
    if namespace:
        if (kind == UNLNK or kind == RMDIR) and not (record.target.seq | record.target.oid):
            touch(touches, &count, record.parent, time, F_ATTRIBUTES | F_LIST)  # lfs rm_entry
        else:
            touch(touches, &count, record.parent, time, F_ATTRIBUTES)
    if record.flags & CLF_RENAME and (namespace or kind >= TYPES):
        touch(touches, &count, record.source, time, F_NAMES | F_ATTRIBUTES | (F_DATA if kind >= TYPES else 0))
        touch(touches, &count, record.source_parent, time, F_ATTRIBUTES)
    return count
