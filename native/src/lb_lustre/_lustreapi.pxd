"""liblustreapi as it is called: the types of its functions, what they take and give.

The library has no symbol versions: what is declared here is what every release since 2.10 has. Facts from
include/lustre/lustreapi.h and include/uapi/linux/lustre/lustre_user.h (Lustre 2.17); sections 1, 7 and 8 of the
reference.
"""

from libc.stdint cimport uint32_t, uint64_t
from posix.stat cimport struct_stat

cdef packed struct lu_fid:
    uint64_t seq
    uint32_t oid
    uint32_t ver

cdef packed struct hsm_user_state:
    uint32_t states
    uint32_t archive_id
    uint32_t in_progress_state
    uint32_t in_progress_action
    uint64_t extent_offset
    uint64_t extent_length

cdef enum:
    CHANGELOG_FLAG_JOBID = 0x04
    CHANGELOG_FLAG_EXTRA_FLAGS = 0x08
    CHANGELOG_EXTRA_FLAG_OMODE = 0x04
    LL_DV_RD_FLUSH = 0x01

# All but recv return 0 or -errno; recv 1 at the end. A record is ``struct changelog_rec``: bytes here.
ctypedef int (*changelog_start_t)(void **, int, const char *, long long) noexcept nogil
ctypedef int (*changelog_set_xflags_t)(void *, int) noexcept nogil
ctypedef int (*changelog_recv_t)(void *, void **) noexcept nogil
ctypedef int (*changelog_free_t)(void **) noexcept nogil
ctypedef int (*changelog_fini_t)(void **) noexcept nogil
ctypedef int (*changelog_clear_t)(const char *, const char *, long long) noexcept nogil
ctypedef int (*get_data_version_t)(int, uint64_t *, uint64_t) noexcept nogil
ctypedef int (*hsm_state_get_t)(const char *, hsm_user_state *) noexcept nogil
# Path, archive, what the file is to be; size, first server, number and kind of stripes, pool; gives the FID.
ctypedef int (*hsm_import_t)(
    const char *, int, const struct_stat *, unsigned long long, int, int, int, char *, lu_fid *
) noexcept nogil
ctypedef int (*get_mdt_index_by_fid_t)(int, const lu_fid *, int *) noexcept nogil

cdef class Library:
    cdef void *_handle
    cdef readonly str path
    cdef void *_function(self, str name) except NULL
