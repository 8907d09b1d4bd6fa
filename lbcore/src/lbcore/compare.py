"""Compare what a detector sees with what the catalog holds: the differences are the run's steps."""

from __future__ import annotations

import errno
import itertools
import os
import sqlite3
import stat
from typing import Any

from lbcore import _posix, xattrs
from lbcore._posix import check_name
from lbcore.beneath import Root
from lbcore.catalog.catalog import Catalog
from lbcore.catalog.objects import ROOT, Row
from lbcore.catalog.steps import PlainFile, What
from lbcore.model import (
    Attributes,
    Entry,
    Hint,
    HintFlag,
    Listing,
    ObjectId,
    Observation,
    Seen,
    Unreadable,
    View,
)
from lbcore.scope import Scope

_BUFFER_ROWS = 5_000
_VANISHED = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_DEEPEST = 100_000
"""More directories on a path than this are a circle, which only moves during an observation can make."""
_NEW_FILE = What.NEW | What.DATA


class Comparison:
    """Takes observations one by one and writes steps; ``settle`` makes them a plan.

    Runs within one transaction of the caller's, who commits now and then.
    """

    def __init__(
        self, catalog: Catalog, run: int, view: View, scope: Scope, *, kept_collection: int, racy_since_ns: int
    ) -> None:
        """
        :param kept_collection: number under which hints are kept for the next run.
        :param racy_since_ns: content changed since then is compared again by the next run.
        """
        self._catalog = catalog
        self._run = run
        self._view = view
        self._scope = scope
        self._kept_collection = kept_collection
        self._racy_since_ns = racy_since_ns
        self._empty = catalog.objects.count() == 0
        self._next = catalog.objects.largest_number() + 1
        self._steps: list[tuple[Any, ...]] = []
        self._plain: list[PlainFile] = []
        self._names: list[tuple[int, bytes, int]] = []
        self._buffered: dict[ObjectId, int] = {}
        self._root = Root(view.root)
        self._doubts = catalog.hints.has(HintFlag.ATTRIBUTES)
        self._whole = True
        """Whether all of the last row could be read."""
        self._unconnected: list[Observation] = []
        self._unexplained: set[ObjectId] = set()
        self._new_directories: list[tuple[int, ObjectId]] = []
        self.moving = False
        """True when something was seen twice, and differently: the view did not hold still."""

    def close(self) -> None:
        """Let go of the view."""
        self._root.close()

    # -- what is seen ------------------------------------------------------------------------------------------

    def see(self, seen: Seen) -> None:
        """Take one observation."""
        if isinstance(seen, Listing):
            self._see_listing(seen)
        elif isinstance(seen, Observation):
            self._see_observation(seen)
        else:
            self._see_unreadable(seen)

    def see_root(self, object_id: ObjectId, attributes: Attributes) -> None:
        """The directory at the top of the source."""
        row = self._catalog.objects.get(ROOT)
        entry = Entry(b"", object_id, attributes, has_xattrs=True)
        if row is None:
            if self._catalog.plan.step(ROOT) is None:
                self._catalog.plan.put(self._row(ROOT, entry, b"", What.NEW | What.ATTRIBUTES))
        elif _differs(row, entry):
            self._catalog.plan.put(self._row(ROOT, entry, b"", What.ATTRIBUTES, row))
        self._next = max(self._next, ROOT + 1)

    def _see_unreadable(self, seen: Unreadable) -> None:
        self._problem(seen.path, seen.reason)
        self.moving = True  # what was there may have been seen at its new place
        if seen.directory is not None:
            self.flush()
            number = self._number(seen.directory)
            if number is not None:
                self._catalog.listings.doubt([number])
                self._catalog.plan.keep_lost_names(number)

    def _see_listing(self, listing: Listing) -> None:
        parent = self._number(listing.directory)
        if parent is None:
            return  # it was moved out of the covered part meanwhile; whatever holds it now is listed too
        if listing.again:
            self.moving = True
            self.flush()
            self._catalog.plan.forget_directory(parent)
        if listing.entries is None:
            return
        objects = self._catalog.objects
        children = {} if self._empty or listing.part else objects.children(parent)
        complete = True
        for entry in self._take_plain(parent, listing) if self._empty else listing.entries:
            row = objects.child(parent, entry.name) if listing.part else children.pop(entry.name, None)
            complete &= self._see_entry(parent, listing.path, entry, row)
        self._lose_missing(parent, listing, children)
        if listing.fingerprint is not None and complete and listing.last:
            self._catalog.listings.see(parent, listing.fingerprint)

    def _take_plain(self, parent: int, listing: Listing) -> list[Entry]:
        """The first backup, where it is fast: plain files with one name. Returns the other entries."""
        others = []
        for entry in listing.entries or ():
            name, object_id, now, _, has_xattrs = entry
            if has_xattrs or now.nlink != 1 or not stat.S_ISREG(now.mode) or now.ctime_ns >= self._racy_since_ns:
                others.append(entry)
                continue
            check_name(name)
            obj = self._next
            self._next += 1
            mode, uid, gid, _, size, mtime_ns, ctime_ns, _ = now
            self._plain.append(PlainFile(obj, object_id, mode, uid, gid, size, mtime_ns, ctime_ns, parent, name))
        if len(self._plain) >= _BUFFER_ROWS:
            self.flush()
        return others

    def _lose_missing(self, parent: int, listing: Listing, children: dict[bytes, Row]) -> None:
        """Names that the catalog has and the listing has not; a directory in parts is judged at its end."""
        if listing.part:
            names = [entry.name for entry in listing.entries or ()]
            self._catalog.listings.add_seen_names(parent, names)
            if not listing.last:
                return
            missing = self._catalog.listings.missing_names(parent)
        else:
            missing = [(name, row.obj) for name, row in children.items()]
        for name, obj in missing:
            if name not in listing.kept:
                self._catalog.plan.lose_name(parent, name, obj)

    def _see_entry(self, parent: int, path: bytes, entry: Entry, row: Row | None) -> bool:
        """One name of a listing; False when it must be looked at again by the next run."""
        if row is not None and row.id == entry.id:
            if _differs(row, entry) or self._is_in_doubt(entry.id):
                return self._changed(path, entry, row)
            return True
        unmounted = row is not None and row.mount and not entry.mount and stat.S_ISDIR(entry.attributes.mode)
        if unmounted and not self._scope.one_filesystem:
            self._problem(
                _join(path, entry.name),
                "another filesystem was mounted here and is not now; mount it, or exclude this path to drop it",
            )
            return False
        if row is not None:
            self._catalog.plan.lose_name(parent, entry.name, row.obj)
        return self._new_name(parent, path, entry)

    def _new_name(self, parent: int, path: bytes, entry: Entry) -> bool:
        check_name(entry.name)
        obj = self._number_of_entry(entry)
        try:
            if obj is None:
                what = What.NEW | (What.DATA if stat.S_ISREG(entry.attributes.mode) else What.ATTRIBUTES)
                obj = self._next
                row = self._row(obj, entry, path, what)
                self._steps.append(row)
                self._next += 1
                self._buffered[entry.id] = obj
                self._keep_racy(entry)
                whole = self._whole
            else:
                whole = self._seen_elsewhere(obj, path, entry)
        except OSError as error:
            self._unreadable(path, entry, error)
            return False
        self._names.append((parent, entry.name, obj))
        if len(self._names) >= _BUFFER_ROWS:
            self.flush()
        return whole

    def _unreadable(self, path: bytes, entry: Entry, error: OSError) -> None:
        """Something about an entry could not be read: the backup keeps what it has of it."""
        if error.errno not in _VANISHED:  # else the directory has changed, and is read again
            self._problem(_join(path, entry.name), error.strerror or str(error))

    def _number_of_entry(self, entry: Entry) -> int | None:
        obj = self._buffered.get(entry.id)
        if obj is not None:
            return obj
        # The first backup knows no object; only what has several names can be in the plan already.
        if self._empty and entry.attributes.nlink == 1:
            return None
        return self._number(entry.id)

    def _seen_elsewhere(self, obj: int, path: bytes, entry: Entry) -> bool:
        """An object that the catalog, or this run, knows by another name; False when it is to be looked at again."""
        row = self._catalog.objects.get(obj)
        if row is None:
            return True
        self._catalog.plan.put((*row, What.NAMES))
        return self._changed(path, entry, row) if _differs(row, entry) or self._is_in_doubt(entry.id) else True

    def _changed(self, path: bytes, entry: Entry, row: Row) -> bool:
        """An object that is known, with other attributes."""
        what = What.ATTRIBUTES
        now = entry.attributes
        if stat.S_ISREG(now.mode):
            if now.size != row.size or now.mtime_ns != row.mtime_ns or row.digest is None:
                what |= What.DATA
            elif now.ctime_ns != row.ctime_ns:
                what |= What.COMPARE
        try:
            changed = self._row(row.obj, entry, path, what, row)
        except OSError as error:
            self._unreadable(path, entry, error)
            return False
        if what != What.ATTRIBUTES or _differs(row, entry) or changed[:-1] != tuple(row):
            self._catalog.plan.put(changed)
        self._keep_racy(entry)
        return self._whole

    def _keep_racy(self, entry: Entry) -> None:
        """What changed so shortly before that it may change again under the same time stamps."""
        flags = HintFlag.ATTRIBUTES  # extended attributes may change without any other sign than the ctime
        if stat.S_ISREG(entry.attributes.mode):
            flags |= HintFlag.DATA
        self._keep_if_racy(entry.id, entry.attributes.ctime_ns, flags)

    def _keep_if_racy(self, object_id: ObjectId, ctime_ns: int, flags: HintFlag) -> None:
        if not self._view.stable and ctime_ns >= self._racy_since_ns:
            self._catalog.hints.keep(object_id, flags, self._kept_collection)

    def _row(self, obj: int, entry: Entry, path: bytes, what: int, known: Row | None = None) -> tuple[Any, ...]:
        """The columns of a step. ``path`` is that of the directory.

        :raises OSError: when the object is gone by now, or its link target cannot be read.
        """
        self._whole = True
        now = entry.attributes
        target = known.link_target if known else None
        extras = None
        if entry.has_xattrs or (target is None and stat.S_ISLNK(now.mode)):
            target, extras = self._details(obj, entry, path)
        size = 0 if stat.S_ISDIR(now.mode) else now.size
        digest, data_run = (known.digest, known.data_run) if known else (None, None)
        return (
            obj, entry.id, now.mode, now.uid, now.gid, size, now.mtime_ns, now.ctime_ns, now.rdev,
            int(entry.mount), target, extras, digest, data_run, what,
        )  # fmt: skip

    def _details(self, obj: int, entry: Entry, path: bytes) -> tuple[bytes | None, int | None]:
        """Target of a symbolic link and number of the extras."""
        directory = self._root.directory(path)
        target = None
        if stat.S_ISLNK(entry.attributes.mode):
            target = os.readlink(entry.name, dir_fd=directory)
        if not entry.has_xattrs:
            self._check_same(directory, entry)
            return target, None
        try:
            found = xattrs.read(b"/proc/self/fd/%d/%s" % (directory, entry.name or b"."))
        except OSError as error:
            if error.errno in _VANISHED:
                raise
            self._problem(_join(path, entry.name), f"extended attributes: {error.strerror}")
            self._whole = False
            self._catalog.hints.keep(entry.id, HintFlag.ATTRIBUTES, self._kept_collection)
            known = self._catalog.objects.get(obj)
            return target, known.extras if known else None
        self._check_same(directory, entry)
        return target, self._catalog.extras.number(found)

    def _check_same(self, directory: int, entry: Entry) -> None:
        """What was read by its path belongs to the object that was listed, in the state that was listed.

        :raises FileNotFoundError: when another object, or another state, may have been read.
        """
        if self._view.stable or not entry.name:
            return
        now = _posix.look(directory, entry.name)
        # Without FIDs the rest of an id depends on the filesystem mounted here; the times of two objects differ.
        same = now[0] == entry.id or (now[0][:8] == entry.id[:8] and not _posix.has_fids(directory))
        if not same or Attributes._make(now[1:9]).ctime_ns != entry.attributes.ctime_ns:
            raise FileNotFoundError(errno.ENOENT, "another object has this name now", entry.name)

    def _is_in_doubt(self, object_id: ObjectId) -> bool:
        """Whether something about an object could not be read by an earlier run, with its times as they are now."""
        return self._doubts and bool(self._catalog.hints.flags(object_id) & HintFlag.ATTRIBUTES)

    # -- objects seen one by one (feeds) ------------------------------------------------------------------------

    def _see_observation(self, seen: Observation) -> None:
        row = self._catalog.objects.by_id(seen.id)
        self.flush()
        if not self._view.stable:
            self.moving = True
            number = self._number(seen.id)
            if number is not None:
                self._catalog.plan.forget_names(number)
        if seen.attributes is None or not seen.names:
            if row is not None:
                for parent, name in self._catalog.names.of(row.obj):
                    self._catalog.plan.lose_name(parent, name, row.obj)
            return
        parents = [self._number(parent) for parent, _ in seen.names]
        if None in parents:
            self._unconnected.append(seen)
            self._unexplained |= {one for (one, _), number in zip(seen.names, parents, strict=True) if number is None}
            return
        wanted = {(parent, name) for parent, (_, name) in zip(parents, seen.names, strict=True) if parent}
        entry = Entry(b"", seen.id, seen.attributes)
        obj = self._number(seen.id)
        if obj is None:
            obj = self._next
            self._next += 1
            if stat.S_ISDIR(seen.attributes.mode):
                self._new_directories.append((obj, seen.id))
        present = set(self._catalog.names.of(obj))
        self._put_observed(obj, row, seen, entry, same_names=present == wanted)
        if row is not None and self._scope.by_path and wanted != present and stat.S_ISDIR(row.mode):
            self._new_directories.append((obj, seen.id))  # what is below it has other paths now
        self._name_observed(obj, present, wanted)

    def _name_observed(self, obj: int, present: set[tuple[int, bytes]], wanted: set[tuple[int, bytes]]) -> None:
        """An object has the names ``wanted``, and in the catalog the names ``present``."""
        plan = self._catalog.plan
        for parent, name in present - wanted:
            plan.lose_name(parent, name, obj)
        if self.moving:
            for parent, name in wanted:
                self._displace(parent, name, obj)
        for parent, name in wanted - present:
            check_name(name)
            other = self._catalog.names.child(parent, name)
            if other is not None and other != obj:
                plan.lose_name(parent, name, other)
                occupant = self._catalog.objects.get(other)
                if occupant is not None:
                    self._unexplained.add(occupant.id)
            plan.gain_name(parent, name, obj)

    def _displace(self, parent: int, name: bytes, obj: int) -> None:
        """An object is seen at a name where another was seen before: that one must be elsewhere now."""
        plan = self._catalog.plan
        other = plan.gaining(parent, name)
        if other is not None and other != obj:
            plan.drop_gained(parent, name)
            step = plan.step(other)
            if step is not None:
                self._unexplained.add(step.id)
        plan.keep_name(parent, name, obj)

    def _put_observed(self, obj: int, row: Row | None, seen: Observation, entry: Entry, *, same_names: bool) -> None:
        now = entry.attributes
        regular = stat.S_ISREG(now.mode)
        extras = self._catalog.extras.number(seen.extras)
        hinted = regular and bool(self._catalog.hints.flags(seen.id) & HintFlag.DATA)
        if row is None:
            what = What.NEW | (What.DATA if regular else What.ATTRIBUTES)
        elif not _differs(row, entry) and (row.extras, row.link_target) == (extras, seen.link_target):
            # What was seen before, and differently, has a step: that one has to say what it is like by now.
            still = self._view.stable or self._catalog.plan.step(obj) is None
            if not hinted and same_names and still:
                return  # the feed mentioned it, and nothing is different
            what = What.COMPARE if hinted else What.NAMES
        elif regular and (now.size != row.size or now.mtime_ns != row.mtime_ns):
            what = What.ATTRIBUTES | What.DATA
        elif regular and (now.ctime_ns != row.ctime_ns or hinted):
            what = What.ATTRIBUTES | What.COMPARE
        else:
            what = What.ATTRIBUTES
        digest, data_run = (row.digest, row.data_run) if row else (None, None)
        size = 0 if stat.S_ISDIR(now.mode) else now.size
        self._catalog.plan.put((
            obj, seen.id, now.mode, now.uid, now.gid, size, now.mtime_ns, now.ctime_ns, now.rdev, 0,
            seen.link_target, extras, digest, data_run, what,
        ))  # fmt: skip
        self._keep_racy(entry)

    def take_new_directories(self) -> list[tuple[int, ObjectId]]:
        """Directories seen since the last call that the catalog does not know: to be listed whole."""
        found, self._new_directories = self._new_directories, []
        return found

    def take_unexplained(self) -> set[ObjectId]:
        """Objects to be looked at too: unknown parents of names, and those whose name another one has now."""
        found, self._unexplained = self._unexplained, set()
        return found

    def take_unconnected(self) -> list[Observation]:
        """Observations with a name in a directory that is not known (yet)."""
        found, self._unconnected = self._unconnected, []
        return found

    def path_in_view(self, obj: int) -> bytes | None:
        """The path of a directory as the observations have it; None when it has none any more."""
        parts: list[bytes] = []
        while obj != ROOT:
            names = self._catalog.plan.names(obj, gained=True) or self._catalog.names.of(obj)
            if not names or len(parts) > _DEEPEST:
                return None
            obj, name = names[0]
            parts.append(name)
        return b"/".join(reversed(parts))

    # -- helpers ------------------------------------------------------------------------------------------------

    def _number(self, object_id: ObjectId) -> int | None:
        """The object of this id in this run's view of the world, or None."""
        obj = self._buffered.get(object_id)
        if obj is None:
            obj = self._catalog.plan.number_of(object_id)
        if obj is None and not self._empty:
            row = self._catalog.objects.by_id(object_id)
            obj = None if row is None else row.obj
        return obj

    def _problem(self, path: bytes, reason: str) -> None:
        self._catalog.runs.add_problem(self._run, path, reason, counted=True)

    def flush(self) -> None:
        """Write what is buffered."""
        plan = self._catalog.plan
        try:
            with self._catalog.database.savepoint():
                plan.add(self._steps)
                plan.add_plain(self._plain)
        except sqlite3.IntegrityError:
            self._flush_one_by_one()
        plan.gain_names(self._names)
        self._steps.clear()
        self._plain.clear()
        self._names.clear()
        self._buffered.clear()

    def _flush_one_by_one(self) -> None:
        """A file with one name was seen at two (it moved while the tree was walked): it stays one object."""
        plan = self._catalog.plan
        renumbered = {}
        plain = ((*file[:8], 0, 0, None, None, None, None, _NEW_FILE) for file in self._plain)
        for row in itertools.chain(self._steps, plain):
            obj = plan.number_of(row[1])
            if obj is not None:
                renumbered[row[0]] = obj
            plan.put((obj or row[0], *row[1:]))
        names = self._names + [(file.parent, file.name, file.obj) for file in self._plain]
        self._names = [(parent, name, renumbered.get(obj, obj)) for parent, name, obj in names]

    def compare_hinted(self) -> None:
        """Files with a data hint are compared by digest even where size and times are the same."""
        self.flush()
        for hint in self._catalog.hints.all():
            self._compare_hint(hint)

    def _compare_hint(self, hint: Hint) -> None:
        row, plan = self._catalog.objects.by_id(hint.id), self._catalog.plan
        if row is None:
            return
        if hint.flags & HintFlag.DAMAGED:
            if plan.step(row.obj) is None:
                plan.put((*row, What.ATTRIBUTES))
            if stat.S_ISREG(row.mode):
                plan.want_content(row.obj)
        elif hint.flags & HintFlag.DATA and stat.S_ISREG(row.mode):
            if plan.step(row.obj) is None:
                plan.put((*row, What.COMPARE if row.digest else What.DATA))
            else:
                plan.want_comparison(row.obj)  # what is known to differ may not be all
            self._keep_if_racy(row.id, row.ctime_ns, HintFlag.DATA)  # until it is quiet


def _differs(row: Row, entry: Entry) -> bool:
    """Whether an object is not as the catalog has it."""
    now = entry.attributes
    return (
        row.ctime_ns != now.ctime_ns
        or row.mtime_ns != now.mtime_ns
        or row.mode != now.mode
        or row.uid != now.uid
        or row.gid != now.gid
        or row.rdev != now.rdev
        or row.mount != entry.mount
        or (row.size != now.size and not stat.S_ISDIR(now.mode))
    )


def _join(directory: bytes, name: bytes) -> bytes:
    return directory + b"/" + name if directory else name
