/*
 * A stand-in for liblustreapi.so.1 that works on the simulated Lustre mounted at $LB_SIMULATED_LUSTRE.
 *
 * It has those functions that this program calls, with their names, arguments and results (sections 2 and 8 of the
 * reference). Records come from the stand-ins of the devices, 4096 bytes at a time and repacked, as the library does
 * it; the rest is asked of the simulator by extended attributes that it alone has.
 */

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { READ_BYTES = 4096, RECORD_BYTES = 952, BASE_BYTES = 64 };
enum { FLAG_JOBID = 0x04, FLAG_EXTRA_FLAGS = 0x08 };
enum { CLF_VERSION = 0x1000, CLF_RENAME = 0x2000, CLF_JOBID = 0x4000, CLF_EXTRA_FLAGS = 0x8000 };
enum { LL_DV_RD_FLUSH = 0x01 };

/* The extensions that cr_extra_flags announces, in their order (section 1). */
static const struct {
    uint64_t flag;
    size_t size;
} extras[] = {{0x01, 16}, {0x02, 24}, {0x04, 4}, {0x08, 256}};

struct reader {
    int fd;
    int flags;
    uint64_t extra_flags;
    size_t at, end;
    unsigned char buffer[READ_BYTES];
};

struct fid {
    uint64_t seq;
    uint32_t oid, ver;
} __attribute__((packed));

struct hsm_user_state {
    uint32_t states, archive_id, in_progress_state, in_progress_action;
    uint64_t offset, length;
} __attribute__((packed));

static int open_device(const char *mdt, int flags)
{
    char path[4096];
    const char *mount = getenv("LB_SIMULATED_LUSTRE");
    int fd;

    snprintf(path, sizeof(path), "%s/dev/changelog-%s", mount ? mount : "", mdt);
    fd = open(path, flags | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

int llapi_changelog_start(void **private, int flags, const char *mdt, long long start)
{
    struct reader *reader;
    int fd = open_device(mdt, O_RDONLY);

    if (fd < 0)
        return fd;
    if (start && lseek(fd, start, SEEK_SET) < 0) {
        int failed = -errno;
        close(fd);
        return failed;
    }
    if (!(flags & FLAG_EXTRA_FLAGS))
        fprintf(stderr, "warning: llapi_changelog_start() called without CHANGELOG_FLAG_EXTRA_FLAGS\n");
    if (!(flags & FLAG_JOBID))
        fprintf(stderr, "warning: llapi_changelog_start() called without CHANGELOG_FLAG_JOBID\n");
    reader = calloc(1, sizeof(*reader));
    if (!reader) {
        close(fd);
        return -ENOMEM;
    }
    reader->fd = fd;
    reader->flags = flags;
    *private = reader;
    return 0;
}

int llapi_changelog_set_xflags(void *private, int extra_flags)
{
    ((struct reader *)private)->extra_flags = extra_flags;
    return 0;
}

/* Copy a record without the extensions that were not asked for; the length of the original. */
static size_t repack(const struct reader *reader, const unsigned char *in, unsigned char *out)
{
    const unsigned char *from = in + BASE_BYTES;
    unsigned char *to = out + BASE_BYTES;
    uint16_t name_size, flags, kept;
    uint64_t extra, kept_extra;
    size_t number;

    memcpy(&name_size, in, 2);
    memcpy(&flags, in + 2, 2);
    memcpy(out, in, BASE_BYTES);
    kept = flags | CLF_VERSION;
    if (flags & CLF_RENAME) {
        memcpy(to, from, 32);
        from += 32, to += 32;
    }
    if (flags & CLF_JOBID) {
        if (reader->flags & FLAG_JOBID) {
            memcpy(to, from, 32);
            to += 32;
        } else {
            kept &= ~CLF_JOBID;
        }
        from += 32;
    }
    if (flags & CLF_EXTRA_FLAGS) {
        memcpy(&extra, from, 8);
        from += 8;
        kept_extra = reader->flags & FLAG_EXTRA_FLAGS ? extra & reader->extra_flags : 0;
        if (reader->flags & FLAG_EXTRA_FLAGS) {
            memcpy(to, &kept_extra, 8);
            to += 8;
        } else {
            kept &= ~CLF_EXTRA_FLAGS;
        }
        for (number = 0; number < sizeof(extras) / sizeof(extras[0]); number++) {
            if (!(extra & extras[number].flag))
                continue;
            if (kept_extra & extras[number].flag) {
                memcpy(to, from, extras[number].size);
                to += extras[number].size;
            }
            from += extras[number].size;
        }
    }
    memcpy(out + 2, &kept, 2);
    memcpy(to, from, name_size);
    return from + name_size - in;
}

int llapi_changelog_recv(void *private, void **record)
{
    struct reader *reader = private;
    ssize_t got;

    if (reader->at == reader->end) {
        got = read(reader->fd, reader->buffer, READ_BYTES);
        if (got <= 0)
            return got < 0 ? -errno : 1;
        reader->at = 0;
        reader->end = got;
    }
    *record = calloc(1, RECORD_BYTES);
    if (!*record)
        return -ENOMEM;
    reader->at += repack(reader, reader->buffer + reader->at, *record);
    return 0;
}

int llapi_changelog_free(void **record)
{
    free(*record);
    *record = NULL;
    return 0;
}

int llapi_changelog_fini(void **private)
{
    struct reader *reader = *private;

    if (!reader)
        return -EINVAL;
    close(reader->fd);
    free(reader);
    *private = NULL;
    return 0;
}

int llapi_changelog_clear(const char *mdt, const char *user, long long index)
{
    char command[64];
    int failed = 0, length, fd;

    if (index < 0)
        return -EINVAL;
    length = snprintf(command, sizeof(command), "clear:%s:%lld", user, index);
    if (length >= (int)sizeof(command))
        return -EINVAL;
    fd = open_device(mdt, O_WRONLY);
    if (fd < 0)
        return fd;
    if (write(fd, command, length) < 0)
        failed = -errno;
    close(fd);
    return failed;
}

int llapi_get_data_version(int fd, uint64_t *version, uint64_t flags)
{
    const char *name = flags & LL_DV_RD_FLUSH ? "trusted.simulated.flushed_version" : "trusted.simulated.version";

    if (fgetxattr(fd, name, version, sizeof(*version)) >= 0)
        return 0;
    /* Elsewhere than on Lustre the library says that there is no such ioctl. */
    return errno == ENODATA || errno == ENOTSUP ? -ENOTTY : -errno;
}

int llapi_hsm_state_get(const char *path, struct hsm_user_state *state)
{
    /* struct hsm_attrs (lustre_idl.h): compat, flags, archive id, archive version */
    unsigned char kept[24];

    memset(state, 0, sizeof(*state));
    if (lgetxattr(path, "trusted.hsm", kept, sizeof(kept)) < 0)
        return errno == ENODATA ? 0 : -errno;
    memcpy(&state->states, kept + 4, 4);
    memcpy(&state->archive_id, kept + 8, 4);
    return 0;
}

int llapi_hsm_import(const char *path, int archive, const struct stat *wanted, unsigned long long stripe_size,
                     int stripe_offset, int stripe_count, int pattern, char *pool, struct fid *fid)
{
    /* struct lustre_mdt_attrs (lustre_idl.h): compat, incompat, FID */
    unsigned char kept[24];
    char text[512];
    int failed = 0, length;
    int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, wanted->st_mode & 0777);

    (void)stripe_offset; /* content lies nowhere in particular */
    if (fd < 0)
        return -errno;
    length = snprintf(text, sizeof(text),
                      "{\"archive\": %d, \"mode\": %u, \"uid\": %u, \"gid\": %u, \"size\": %lld, \"mtime\": %lld, "
                      "\"stripe_size\": %llu, \"stripe_count\": %d, \"pattern\": %d, \"pool\": \"%s\"}",
                      archive, wanted->st_mode, wanted->st_uid, wanted->st_gid, (long long)wanted->st_size,
                      (long long)wanted->st_mtim.tv_sec, stripe_size, stripe_count, pattern, pool ? pool : "");
    if (fgetxattr(fd, "trusted.lma", kept, sizeof(kept)) < 0 ||
        fsetxattr(fd, "trusted.simulated.import", text, length, 0) < 0)
        failed = -errno;
    else
        memcpy(fid, kept + 8, sizeof(*fid));
    close(fd);
    if (failed)
        unlink(path);
    return failed;
}

int llapi_get_mdt_index_by_fid(int fd, const struct fid *fid, int *index)
{
    char name[128];
    uint32_t found;

    snprintf(name, sizeof(name), "trusted.simulated.mdt_of.0x%" PRIx64 ":0x%" PRIx32 ":0x%" PRIx32, fid->seq, fid->oid,
             fid->ver);
    if (fgetxattr(fd, name, &found, sizeof(found)) < 0)
        return -errno;
    *index = found;
    return *index;
}
