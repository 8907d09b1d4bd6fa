# cython: language_level=3
"""liblustreapi, loaded when it is asked for: this module can be imported where there is no Lustre.

Every call that may wait for a server lets other threads run. What a function returns is judged in ``checked`` alone.
"""

import os

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset
from posix.stat cimport struct_stat

from lb_lustre._record cimport NOTHING, Record, parse

from lb_lustre._records import RECORD_SIZE_MAX
from lb_lustre.errors import LustreUnavailableError
from lb_lustre.fid import pack

cdef extern from "<dlfcn.h>" nogil:
    void *dlopen(const char *, int)
    void *dlsym(void *, const char *)
    int dlclose(void *)
    char *dlerror()
    int RTLD_NOW, RTLD_LOCAL

NAME = "liblustreapi.so.1"
VARIABLE = "LB_LUSTREAPI"

cdef enum:
    BUFFER_BYTES = 256 << 10
    LONGEST_BYTES = 952  # CR_MAXSIZE
    BASE_BYTES = 64

assert LONGEST_BYTES == RECORD_SIZE_MAX


cdef int checked(int result, str what) except -1:
    """What a function returned, when it is no error; a negative one is an errno.

    :raises OSError: with that errno, naming the function.
    """
    if result < 0:
        raise OSError(-result, os.strerror(-result), what)
    return result


cdef class Library:
    """One loaded library. For several threads at once."""

    def __init__(self):
        """Load the library of this node, or the one that ``LB_LUSTREAPI`` names.

        :raises LustreUnavailableError: when there is none.
        """
        self.path = os.environ.get(VARIABLE) or NAME
        path = os.fsencode(self.path)
        self._handle = dlopen(path, RTLD_NOW | RTLD_LOCAL)
        if self._handle == NULL:
            raise LustreUnavailableError(
                f"{self.path} is not on this node, or cannot be loaded ({os.fsdecode(dlerror())}): install the Lustre "
                f"client's package, or name the library in {VARIABLE}"
            )

    def __dealloc__(self):
        if self._handle != NULL:
            dlclose(self._handle)

    cdef void *_function(self, str name) except NULL:
        cdef void *found = dlsym(self._handle, name.encode())
        if found == NULL:
            raise LustreUnavailableError(
                f"{self.path} has no function {name}: it is too old, or no liblustreapi; install the package of a "
                f"newer Lustre client, or name another library in {VARIABLE}"
            )
        return found

    def clear(self, str mdt not None, str user not None, uint64_t index):
        """``user`` needs no record of ``mdt`` (such as ``scratch-MDT0000``) up to ``index``.

        :raises OSError: as the server refuses.
        """
        cdef changelog_clear_t call = <changelog_clear_t>self._function("llapi_changelog_clear")
        mdt_bytes, user_bytes = mdt.encode(), user.encode()
        cdef const char *mdt_text = mdt_bytes
        cdef const char *user_text = user_bytes
        cdef int result
        with nogil:
            result = call(mdt_text, user_text, <long long>index)
        checked(result, "llapi_changelog_clear")

    def data_version(self, int fd, bint flush):
        """A number that is another one once the content of the open file is another.

        :param flush: first make whoever writes the file send what it has cached (``LL_DV_RD_FLUSH``).
        :raises OSError: as the servers fail.
        """
        cdef get_data_version_t call = <get_data_version_t>self._function("llapi_get_data_version")
        cdef uint64_t version = 0
        cdef uint64_t flags = LL_DV_RD_FLUSH if flush else 0
        cdef int result
        with nogil:
            result = call(fd, &version, flags)
        checked(result, "llapi_get_data_version")
        return version

    def hsm_state(self, path):
        """The states of HSM (section 7) and the number of the archive of the file at a path.

        :raises OSError: as the server fails.
        """
        cdef hsm_state_get_t call = <hsm_state_get_t>self._function("llapi_hsm_state_get")
        path_bytes = os.fsencode(path)
        cdef const char *path_text = path_bytes
        cdef hsm_user_state state
        cdef int result
        with nogil:
            result = call(path_text, &state)
        checked(result, "llapi_hsm_state_get")
        return state.states, state.archive_id

    def hsm_import(
        self, bytes path not None, *, int archive, mode, uid, gid, size, mtime_ns, unsigned long long stripe_size=0,
        int stripe_count=0, int pattern=0, bytes pool=None,
    ):
        """Make a file that is released: its content is in an archive of HSM, which does not know it yet.

        :param archive: its number.
        :param mode: ``st_mode``; nothing but the permission bits is used.
        :param size: bytes; may be given at no other time, as setting it would bring the content back.
        :param stripe_size: bytes; 0 for what is usual there, as for the other three. Servers are chosen anew.
        :returns: the FID of the new file.
        :raises OSError: when it cannot be made; nothing is there then.
        """
        cdef hsm_import_t call = <hsm_import_t>self._function("llapi_hsm_import")
        cdef const char *path_text = path
        cdef char *pool_text = NULL
        cdef struct_stat wanted
        cdef lu_fid fid
        cdef int result
        if pool is not None:
            pool_text = pool
        memset(&wanted, 0, sizeof(wanted))
        wanted.st_mode = mode
        wanted.st_uid = uid
        wanted.st_gid = gid
        wanted.st_size = size
        wanted.st_mtim.tv_sec = wanted.st_atim.tv_sec = mtime_ns // 10**9
        wanted.st_mtim.tv_nsec = wanted.st_atim.tv_nsec = mtime_ns % 10**9
        with nogil:
            result = call(path_text, archive, &wanted, stripe_size, -1, stripe_count, pattern, pool_text, &fid)
        checked(result, "llapi_hsm_import")
        return pack(fid.seq, fid.oid, fid.ver)

    def mdt_index(self, int mount, bytes object_id not None):
        """The number of the metadata server that has a FID, whether or not there is such an object.

        :param mount: file descriptor of a directory on the mounted filesystem.
        :raises OSError: when no server has it.
        """
        cdef get_mdt_index_by_fid_t call = <get_mdt_index_by_fid_t>self._function("llapi_get_mdt_index_by_fid")
        cdef lu_fid fid
        cdef int number = -1
        cdef int result
        fid.seq = int.from_bytes(object_id[:8], "big")
        fid.oid = int.from_bytes(object_id[8:12], "big")
        fid.ver = int.from_bytes(object_id[12:], "big")
        with nogil:
            result = call(mount, &fid, &number)
        checked(result, "llapi_get_mdt_index_by_fid")
        return number


cdef class ChangelogReader:
    """The records of one metadata server, as they lie behind one another. Not for two threads at once."""

    cdef Library _library
    cdef void *_private
    cdef uint8_t *_buffer
    cdef int _failed
    cdef changelog_recv_t _recv
    cdef changelog_free_t _free
    cdef changelog_fini_t _fini

    def __init__(self, Library library not None, str mdt not None, uint64_t start):
        """
        :param mdt: such as ``scratch-MDT0000``.
        :param start: index of the first record that is wanted.
        :raises OSError: when the changelog cannot be opened.
        """
        self._library = library
        self._recv = <changelog_recv_t>library._function("llapi_changelog_recv")
        self._free = <changelog_free_t>library._function("llapi_changelog_free")
        self._fini = <changelog_fini_t>library._function("llapi_changelog_fini")
        cdef changelog_start_t call = <changelog_start_t>library._function("llapi_changelog_start")
        cdef changelog_set_xflags_t keep = <changelog_set_xflags_t>library._function("llapi_changelog_set_xflags")
        self._buffer = <uint8_t *>malloc(BUFFER_BYTES)
        if self._buffer == NULL:
            raise MemoryError
        mdt_bytes = mdt.encode()
        cdef const char *mdt_text = mdt_bytes
        cdef int result
        with nogil:
            # Without these two flags the library warns on stderr.
            result = call(&self._private, CHANGELOG_FLAG_JOBID | CHANGELOG_FLAG_EXTRA_FLAGS, mdt_text, <long long>start)
        if result < 0:
            self._private = NULL
        checked(result, "llapi_changelog_start")
        # Of the extensions, how a file was opened is all that counts.
        checked(keep(self._private, CHANGELOG_EXTRA_FLAG_OMODE), "llapi_changelog_set_xflags")

    def read(self):
        """Whole records, up to 256 KiB of them; ``b""`` at the end.

        :raises OSError: when the server fails; what came before was given by then.
        """
        cdef size_t used = 0
        cdef int result = self._failed
        if self._private == NULL:
            raise ValueError("the changelog is closed")
        if not result:
            with nogil:
                result = self._fill(&used)
            if used and result < 0:
                self._failed, result = result, 0
        checked(result, "llapi_changelog_recv")
        return PyBytes_FromStringAndSize(<char *>self._buffer, used)

    cdef int _fill(self, size_t *used) noexcept nogil:
        """Take records as long as there is room for another; 0, 1 at the end, or -errno."""
        cdef void *record
        cdef Record parsed
        cdef size_t size
        cdef int result = 0
        while used[0] + LONGEST_BYTES <= BUFFER_BYTES:
            result = self._recv(self._private, &record)
            if result:
                break
            # Of what cannot be understood so much is passed on that whoever reads it can say so.
            size = parsed.size if parse(<uint8_t *>record, LONGEST_BYTES, &parsed) == NOTHING else BASE_BYTES
            memcpy(self._buffer + used[0], record, size)
            used[0] += size
            self._free(&record)
        return result

    def close(self):
        """End the reading."""
        if self._private != NULL:
            with nogil:
                self._fini(&self._private)
            self._private = NULL

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def __dealloc__(self):
        if self._private != NULL:
            self._fini(&self._private)
        free(self._buffer)
