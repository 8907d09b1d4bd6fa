# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Changelog records, reduced to a set of FIDs with flags: one loop, no Python object for a record.

The table is open addressing over an array: a slot has 4 bytes (27 bits of the number of an entry, 5 of its hash), and
the entries, of 28 bytes, lie in chunks that never move. Records come in batches, so that the memory that a FID needs
is on its way before its turn comes.

What one record says: ``_record.pxd``.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, qsort, realloc

from lb_lustre._record cimport (
    CLF_RENAME, EXTENSION, F_ATTRIBUTES, F_CLOSED, F_DATA, F_LIST, F_MADE, F_NAMES, F_OPEN, F_PASSING,
    F_REMOVED, MIGRT, NAME_TOO_LONG, NOTHING, TRUNCATED, TYPES, Fault, Fid, Record, Touch, parse, read_touches,
)

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
