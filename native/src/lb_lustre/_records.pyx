# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Changelog records, reduced to a set of FIDs with flags: one loop, no Python object for a record.

The table is open addressing over an array: a slot has 4 bytes (27 bits of the number of an entry, 5 of its hash), and
the entries, of 28 bytes, lie in chunks that never move. Records come in batches, so that the memory that a FID needs
is on its way before its turn comes.

Layout and meaning of records: sections 1 and 3 of the reference; lustre_user.h and mdd_dir.c, mdd_object.c of Lustre.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, qsort, realloc
from libc.string cimport memcpy

from lb_lustre.errors import MalformedError

cdef extern from *:
    """
    #define lb_prefetch(address) __builtin_prefetch(address)
    #define lb_likely(x) __builtin_expect(!!(x), 1)

    #include <stdlib.h>
    #include <string.h>
    #include <sys/mman.h>
    /* Zeroed memory in large pages where the kernel has them: the table is read at random places. */
    static void *lb_allocate(size_t size) {
        void *memory;
        if (posix_memalign(&memory, size < (1 << 21) ? 64 : 1 << 21, size))
            return NULL;
        madvise(memory, size, MADV_HUGEPAGE);
        return memset(memory, 0, size);
    }
    """
    void *lb_allocate(size_t) nogil
    void lb_prefetch(const void *) nogil
    bint lb_likely(bint) nogil

# Flags of an entry; the first five are those of lbcore.model.HintFlag.
DATA, ATTRIBUTES, NAMES, OPEN, CLOSED, PASSING, LIST = (1 << bit for bit in range(7))

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

RECORD_SIZE_MAX = 952
"""CR_MAXSIZE: no record is longer; a read(2) of the device must have room for one."""

_FAULTS = {
    TRUNCATED: "the record goes on beyond what was read",
    NAME_TOO_LONG: "the length of its name cannot be",
    EXTENSION: "it has an extension that this version does not know, and the next record was not found",
}

cdef enum:
    CHUNK_BITS = 18
    CHUNK = 1 << CHUNK_BITS
    NUMBER_BITS = 27
    NUMBER_MASK = (1 << NUMBER_BITS) - 1
    BATCH = 128
    TOUCHES = 6  # at most, of one record
    AHEAD = 16

ENTRIES_MAX = NUMBER_MASK - 1
"""A reduction holds no more FIDs than this."""


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


cdef Fault parse(const uint8_t *at, size_t left, Record *record) noexcept nogil:
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


cdef Fault find_end(const uint8_t *at, size_t left, Record *record) noexcept nogil:
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


cdef inline bint near(uint64_t time, uint64_t other) noexcept nogil:
    return (time - other if time > other else other - time) >> 30 < NEAR_SECONDS


# ── What a record says of its FIDs ────────────────────────────────────────────────────────────────────────────────────

cdef inline void touch(Touch *touches, int *count, Fid fid, uint64_t time, uint32_t flags) noexcept nogil:
    if fid.seq | fid.oid:
        touches[count[0]].fid = fid
        touches[count[0]].time = time
        touches[count[0]].flags = flags
        count[0] += 1


cdef int read_touches(Record *record, Touch *touches) noexcept nogil:
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


# ── The table ─────────────────────────────────────────────────────────────────────────────────────────────────────────

cdef inline uint64_t hash_of(uint64_t seq, uint32_t oid, uint32_t ver) noexcept nogil:
    cdef uint64_t value = seq * <uint64_t>0x9E3779B97F4A7C15 + (<uint64_t>ver << 32 | oid)
    value ^= value >> 32
    value *= <uint64_t>0xD6E8FEB86659FD93
    value ^= value >> 29
    value *= <uint64_t>0xD6E8FEB86659FD93
    return value ^ value >> 32


cdef inline uint64_t hash_entry(const Entry *entry) noexcept nogil:
    return hash_of(entry.seq, entry.oid, entry.ver)


cdef class Stream:
    """Where one metadata server's changelog has been read to, and what was noticed on the way."""

    cdef readonly uint64_t expected
    """Index of the record that comes next; 0 before the first."""
    cdef readonly uint64_t first
    """Index of the first record; 0 when there was none."""
    cdef readonly uint64_t last
    cdef readonly uint64_t last_time
    """``cr_time`` of the last record."""
    cdef readonly Py_ssize_t records
    cdef readonly Py_ssize_t unknown
    """Records of types or with extensions that this version does not know."""
    cdef readonly bint went_back
    """True when an index came that was not higher than the one before it."""
    cdef readonly list holes
    """Runs of indices that did not come, as (first, last)."""
    cdef readonly object watched
    """(``cr_time``, FID of the target) of the record at the watched index, once it came."""
    cdef Fid last_target
    cdef uint64_t watch
    cdef uint64_t known
    cdef uint64_t counts[TYPES]

    def __init__(self, uint64_t expected=0, uint64_t watch=0, uint64_t known=0):
        """
        :param expected: index of the record that should come first; 0 when any may.
        :param watch: an index whose record is to be remembered.
        :param known: up to this index records were taken before: they ask for a look, not for a comparison of content.
        """
        self.expected = expected
        self.watch = watch
        self.known = known
        self.holes = []

    @property
    def last_fid(self):
        """The target of the last record, as ``fid.ObjectId``; None when there was no record."""
        return packed(self.last_target) if self.records else None

    @property
    def types(self):
        """How many records there were of each known type, by its number."""
        return {kind: self.counts[kind] for kind in range(TYPES) if self.counts[kind]}

    cdef int note(self, Record *record) except -1:
        """A hole, or a step back: rare, so that this may make objects."""
        if self.expected and record.index > self.expected:
            self.holes.append((self.expected, record.index - 1))
        elif self.expected and record.index < self.expected:
            self.went_back = True
        return 0

    cdef int see_watched(self, Record *record) except -1:
        self.watched = (record.time, packed(record.target))
        return 0


cdef class Reduction:
    """A set of FIDs with what records said of each. Not for two threads at once."""

    cdef Entry **_chunks
    cdef uint32_t *_slots
    cdef uint64_t _mask
    cdef uint64_t _count
    cdef uint64_t _limit
    cdef Touch _waiting[BATCH + TOUCHES]
    cdef int _waiting_count
    cdef bytearray _renumbered

    def __cinit__(self, Py_ssize_t limit=ENTRIES_MAX):
        """:param limit: ``feed`` stops before a buffer that could lead to more FIDs than this."""
        if not 0 < limit <= ENTRIES_MAX:
            raise ValueError(f"a reduction holds between 1 and {ENTRIES_MAX} FIDs")
        self._limit = limit
        self._mask = 0
        self._renumbered = bytearray()
        self._allocate(1 << 12)

    cdef int _allocate(self, uint64_t slots) except -1:
        cdef uint32_t *table = <uint32_t *>lb_allocate(slots * sizeof(uint32_t))
        if table == NULL:
            raise MemoryError
        free(self._slots)
        self._slots = table
        self._mask = slots - 1
        return 0

    def __dealloc__(self):
        cdef uint64_t chunk
        if self._chunks != NULL:
            for chunk in range((self._count + CHUNK - 1) >> CHUNK_BITS):
                free(self._chunks[chunk])
            free(self._chunks)
        free(self._slots)

    def __len__(self):
        return self._count

    @property
    def full(self):
        """True when another buffer might not fit: take the hints, and go on with a new reduction."""
        return self._count >= self._limit

    @property
    def memory_bytes(self):
        """What the table takes."""
        cdef uint64_t chunks = (self._count + CHUNK - 1) >> CHUNK_BITS
        return chunks * CHUNK * sizeof(Entry) + (self._mask + 1) * sizeof(uint32_t)

    def renumbered(self):
        """Migrations as (old id, new id), in the order of their records."""
        cdef Py_ssize_t at
        for at in range(0, len(self._renumbered), 32):
            yield bytes(self._renumbered[at : at + 16]), bytes(self._renumbered[at + 16 : at + 32])

    def feed(self, buffer, Stream stream not None):
        """Take the whole records in ``buffer``, as the device gives them.

        Returns how many there were. All records before a malformed one are taken.

        :raises MalformedError: naming the index after which the stream cannot be understood.
        """
        cdef Py_buffer view
        cdef Py_ssize_t before = stream.records
        cdef Py_ssize_t used = 0
        cdef Fault fault
        PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE)
        try:
            fault = self._feed(<const uint8_t *>view.buf, <size_t>view.len, stream, &used)
            self._settle()
        finally:
            PyBuffer_Release(&view)
        if fault != NOTHING:
            raise MalformedError(after_index=stream.last, offset_bytes=used, reason=_FAULTS[fault])
        return stream.records - before

    cdef Fault _feed(self, const uint8_t *start, size_t size, Stream stream, Py_ssize_t *used) except *:
        cdef size_t offset = 0
        cdef Record record
        cdef Fault fault
        cdef int added, number
        while offset < size:
            fault = parse(start + offset, size - offset, &record)
            if fault != NOTHING:
                used[0] = <Py_ssize_t>offset
                return fault
            if not lb_likely(record.index == stream.expected):
                stream.note(&record)
            if record.index == stream.watch:
                stream.see_watched(&record)
            if not stream.records:
                stream.first = record.index
            stream.records += 1
            stream.last = record.index
            stream.expected = record.index + 1
            stream.last_time = record.time
            stream.last_target = record.target
            if lb_likely(record.type < TYPES):
                stream.counts[record.type] += 1
            if record.type >= TYPES or record.unknown_extension:
                stream.unknown += 1
            if record.type == MIGRT and record.flags & CLF_RENAME:
                self._renumber(&record)
            added = read_touches(&record, &self._waiting[self._waiting_count])
            for number in range(added):
                if record.index <= stream.known:
                    self._waiting[self._waiting_count + number].flags &= ~<uint32_t>F_DATA
                self._announce(&self._waiting[self._waiting_count + number])
            self._waiting_count += added
            if self._waiting_count >= BATCH:
                self._settle()
            offset += record.size
        return NOTHING

    cdef int _renumber(self, Record *record) except -1:
        old, new = packed(record.source), packed(record.target)
        if old != new and record.source.seq and record.target.seq:
            self._renumbered += old + new
        return 0

    cdef inline void _announce(self, Touch *one) noexcept nogil:
        one.hash = hash_of(one.fid.seq, one.fid.oid, one.fid.ver)
        lb_prefetch(&self._slots[one.hash & self._mask])

    cdef int _settle(self) except -1:
        """Enter what waits into the table."""
        cdef int number
        cdef uint32_t slot
        if 4 * (self._count + <uint64_t>self._waiting_count) > 3 * (self._mask + 1):
            self._grow()
        for number in range(self._waiting_count):
            slot = self._slots[self._waiting[number].hash & self._mask]
            if slot:
                lb_prefetch(self._entry((slot & NUMBER_MASK) - 1))
        for number in range(self._waiting_count):
            self._enter(&self._waiting[number])
        self._waiting_count = 0
        return 0

    cdef inline Entry *_entry(self, uint64_t number) noexcept nogil:
        return &self._chunks[number >> CHUNK_BITS][number & (CHUNK - 1)]

    cdef int _enter(self, Touch *one) except -1:
        cdef uint64_t at = one.hash & self._mask
        cdef uint32_t tag = <uint32_t>(one.hash >> (64 - 5)) << NUMBER_BITS
        cdef uint32_t slot
        cdef Entry *entry
        while True:
            slot = self._slots[at]
            if slot == 0:
                break
            if slot & ~<uint32_t>NUMBER_MASK == tag:
                entry = self._entry((slot & NUMBER_MASK) - 1)
                if entry.oid == one.fid.oid and entry.seq == one.fid.seq and entry.ver == one.fid.ver:
                    join(entry, one)
                    return 0
            at = (at + 1) & self._mask
        if self._count > ENTRIES_MAX:
            raise MemoryError("more FIDs than a reduction can hold")
        if self._count & (CHUNK - 1) == 0:
            self._add_chunk()
        entry = self._entry(self._count)
        entry.seq, entry.oid, entry.ver = one.fid.seq, one.fid.oid, one.fid.ver
        entry.time = 0
        entry.flags = 0
        join(entry, one)
        self._count += 1
        self._slots[at] = <uint32_t>self._count | tag
        return 0

    cdef int _add_chunk(self) except -1:
        cdef uint64_t chunks = self._count >> CHUNK_BITS
        cdef Entry **moved = <Entry **>realloc(self._chunks, (chunks + 1) * sizeof(Entry *))
        if moved == NULL:
            raise MemoryError
        self._chunks = moved
        self._chunks[chunks] = <Entry *>lb_allocate(CHUNK * sizeof(Entry))
        if self._chunks[chunks] == NULL:
            raise MemoryError
        return 0

    cdef int _grow(self) except -1:
        cdef uint64_t number, hashed, at
        self._allocate(2 * (self._mask + 1))
        for number in range(self._count):
            if number + AHEAD < self._count:
                lb_prefetch(&self._slots[hash_entry(self._entry(number + AHEAD)) & self._mask])
            hashed = hash_entry(self._entry(number))
            at = hashed & self._mask
            while self._slots[at]:
                at = (at + 1) & self._mask
            self._slots[at] = <uint32_t>(number + 1) | <uint32_t>(hashed >> (64 - 5)) << NUMBER_BITS
        return 0

    def hints(self):
        """Yield (id, flags, time in ns of the last data record or 0) of each FID, in the order of ids.

        What records made and removed again has the flag ``PASSING``.
        """
        cdef uint64_t number
        cdef Entry *entry
        cdef uint32_t *order = self._sorted()
        try:
            for number in range(self._count):
                entry = self._entry(order[number])
                yield packed_entry(entry), outer_flags(entry.flags), nanoseconds(entry.time)
        finally:
            free(order)

    cdef uint32_t *_sorted(self) except NULL:
        global sorting
        cdef uint64_t number
        cdef uint32_t *order = <uint32_t *>malloc((self._count + 1) * sizeof(uint32_t))
        if order == NULL:
            raise MemoryError
        for number in range(self._count):
            order[number] = <uint32_t>number
        sorting = self._chunks
        qsort(order, self._count, sizeof(uint32_t), &compare)
        return order


cdef inline void join(Entry *entry, const Touch *one) noexcept nogil:
    cdef uint32_t flags = one.flags
    if flags & F_CLOSED:
        entry.flags &= ~<uint32_t>F_OPEN
    elif flags & F_OPEN:
        if one.time < entry.time:
            flags &= ~<uint32_t>F_OPEN  # another server's record: it was closed after that
        else:
            entry.flags &= ~<uint32_t>F_CLOSED
    entry.flags |= flags
    if flags & F_DATA and one.time > entry.time:
        entry.time = one.time


cdef inline uint32_t outer_flags(uint32_t flags) noexcept nogil:
    cdef uint32_t shown = flags & (F_DATA | F_ATTRIBUTES | F_NAMES | F_OPEN | F_CLOSED | F_LIST)
    if flags & F_MADE and flags & F_REMOVED:
        shown |= F_PASSING
    if flags & F_REMOVED:
        shown &= ~<uint32_t>F_OPEN
    return shown


cdef inline int64_t nanoseconds(uint64_t time) noexcept nogil:
    """``cr_time`` as nanoseconds since 1970: seconds << 30 | nanoseconds (mdd_internal.h)."""
    return <int64_t>((time >> 30) * 1000000000 + (time & 0x3fffffff))


cdef bytes packed(Fid fid):
    """A FID as ``ObjectId``: big-endian, so that ids sort as FIDs do."""
    cdef uint8_t out[16]
    cdef int byte
    for byte in range(8):
        out[byte] = <uint8_t>(fid.seq >> (8 * (7 - byte)))
    for byte in range(4):
        out[8 + byte] = <uint8_t>(fid.oid >> (8 * (3 - byte)))
        out[12 + byte] = <uint8_t>(fid.ver >> (8 * (3 - byte)))
    return PyBytes_FromStringAndSize(<char *>out, 16)


cdef bytes packed_entry(Entry *entry):
    cdef Fid fid
    fid.seq, fid.oid, fid.ver = entry.seq, entry.oid, entry.ver
    return packed(fid)


cdef Entry **sorting  # of the one sort that is under way: qsort(3) passes nothing on, and the GIL is held


cdef int compare(const void *left, const void *right) noexcept nogil:
    cdef uint32_t a = (<const uint32_t *>left)[0], b = (<const uint32_t *>right)[0]
    cdef Entry *x = &sorting[a >> CHUNK_BITS][a & (CHUNK - 1)]
    cdef Entry *y = &sorting[b >> CHUNK_BITS][b & (CHUNK - 1)]
    if x.seq != y.seq:
        return -1 if x.seq < y.seq else 1
    if x.oid != y.oid:
        return -1 if x.oid < y.oid else 1
    return 0 if x.ver == y.ver else (-1 if x.ver < y.ver else 1)
