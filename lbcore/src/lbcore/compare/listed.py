"""Directories as a scan lists them, name by name against the catalog."""

from __future__ import annotations

import errno
import os
import stat
from typing import Any

from lbcore import _posix
from lbcore._posix import check_name
from lbcore.beneath import Root
from lbcore.catalog.objects import ROOT, Row
from lbcore.catalog.steps import PlainFile, What
from lbcore.compare.draft import Draft, differs, step_row
from lbcore.keeping import Keeping
from lbcore.model import Attributes, Entry, HintFlag, Listing, ObjectId
from lbcore.scope import Scope

_VANISHED = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


class Listed:
    """Compares listings. What they do not tell of an object (links, extended attributes) is read by its path."""

    def __init__(self, draft: Draft, scope: Scope, keeping: Keeping) -> None:
        self._draft = draft
        self._keeping = keeping
        self._catalog = draft.catalog
        self._scope = scope
        self._root = Root(draft.view.root)
        self._doubts = draft.catalog.hints.has(HintFlag.ATTRIBUTES)
        self._whole = True
        """Whether all of the last row could be read."""

    def close(self) -> None:
        """Let go of the view."""
        self._root.close()

    def see_root(self, object_id: ObjectId, attributes: Attributes) -> None:
        """The directory at the top of the source."""
        row = self._catalog.objects.get(ROOT)
        entry = Entry(b"", object_id, attributes, has_xattrs=True)
        if row is None:
            if self._catalog.plan.step(ROOT) is None:
                self._catalog.plan.put(self._row(ROOT, entry, b"", What.NEW | What.ATTRIBUTES))
        elif differs(row, entry):
            self._catalog.plan.put(self._row(ROOT, entry, b"", What.ATTRIBUTES, row))
        self._draft.begin_after(ROOT)

    def see(self, listing: Listing) -> None:
        """One directory, or a part of a large one."""
        parent = self._draft.number(listing.directory)
        if parent is None:
            return  # it was moved out of the covered part meanwhile; whatever holds it now is listed too
        if listing.again:
            self._draft.moving = True
            self._draft.flush()
            self._catalog.plan.forget_directory(parent)
        if listing.entries is None:
            return
        objects = self._catalog.objects
        first = self._draft.empty
        children = {} if first or listing.part else objects.children(parent)
        complete = True
        for entry in self._take_plain(parent, listing) if first else listing.entries:
            row = objects.child(parent, entry.name) if listing.part else children.pop(entry.name, None)
            complete &= self._see_entry(parent, listing.path, entry, row)
        self._lose_missing(parent, listing, children)
        if listing.fingerprint is not None and complete and listing.last:
            self._catalog.listings.see(parent, listing.fingerprint)

    def _take_plain(self, parent: int, listing: Listing) -> list[Entry]:
        """The first backup, where it is fast: plain files with one name. Returns the other entries."""
        others = []
        new_number, add_plain, racy_since_ns = self._draft.new_number, self._draft.add_plain, self._draft.racy_since_ns
        for entry in listing.entries or ():
            name, object_id, now, _, has_xattrs = entry
            if has_xattrs or now.nlink != 1 or not stat.S_ISREG(now.mode) or now.ctime_ns >= racy_since_ns:
                others.append(entry)
                continue
            check_name(name)
            mode, uid, gid, _, size, mtime_ns, ctime_ns, _ = now
            add_plain(PlainFile(new_number(), object_id, mode, uid, gid, size, mtime_ns, ctime_ns, parent, name))
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

    # -- one name -----------------------------------------------------------------------------------------------

    def _see_entry(self, parent: int, path: bytes, entry: Entry, row: Row | None) -> bool:
        """One name of a listing; False when it must be looked at again by the next run."""
        if row is not None and row.id == entry.id:
            if differs(row, entry) or self._is_in_doubt(entry.id):
                return self._changed(path, entry, row)
            return True
        unmounted = row is not None and row.mount and not entry.mount and stat.S_ISDIR(entry.attributes.mode)
        if unmounted and not self._scope.one_filesystem:
            self._draft.add_problem(
                _join(path, entry.name),
                "another filesystem was mounted here and is not now; mount it, or exclude this path to drop it",
            )
            return False
        if row is not None:
            self._catalog.plan.lose_name(parent, entry.name, row.obj)
        return self._new_name(parent, path, entry)

    def _new_name(self, parent: int, path: bytes, entry: Entry) -> bool:
        check_name(entry.name)
        obj = self._draft.number_of_entry(entry)
        try:
            if obj is None:
                what = What.NEW | (What.DATA if stat.S_ISREG(entry.attributes.mode) else What.ATTRIBUTES)
                obj = self._draft.new_number()
                self._draft.add_new(self._row(obj, entry, path, what), entry.id)
                self._draft.keep_entry_if_racy(entry)
                whole = self._whole
            else:
                whole = self._seen_elsewhere(obj, path, entry)
        except OSError as error:
            self._unreadable(path, entry, error)
            return False
        self._draft.add_name(parent, entry.name, obj)
        return whole

    def _seen_elsewhere(self, obj: int, path: bytes, entry: Entry) -> bool:
        """An object that the catalog, or this run, knows by another name; False when it is to be looked at again."""
        row = self._catalog.objects.get(obj)
        if row is None:
            return True
        self._catalog.plan.put((*row, What.NAMES))
        return self._changed(path, entry, row) if differs(row, entry) or self._is_in_doubt(entry.id) else True

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
        if what != What.ATTRIBUTES or differs(row, entry) or changed[:-1] != tuple(row):
            self._catalog.plan.put(changed)
        self._draft.keep_entry_if_racy(entry)
        return self._whole

    def _unreadable(self, path: bytes, entry: Entry, error: OSError) -> None:
        """Something about an entry could not be read: the backup keeps what it has of it."""
        if error.errno not in _VANISHED:  # else the directory has changed, and is read again
            self._draft.add_problem(_join(path, entry.name), error.strerror or str(error))

    def _is_in_doubt(self, object_id: ObjectId) -> bool:
        """Whether something about an object could not be read by an earlier run, with its times as they are now."""
        return self._doubts and bool(self._catalog.hints.flags(object_id) & HintFlag.ATTRIBUTES)

    # -- what a listing does not tell ---------------------------------------------------------------------------

    def _row(self, obj: int, entry: Entry, path: bytes, what: int, known: Row | None = None) -> tuple[Any, ...]:
        """The columns of a step. ``path`` is that of the directory.

        :raises OSError: when the object is gone by now, or its link target cannot be read.
        """
        self._whole = True
        target = known.link_target if known else None
        extras = None
        if entry.has_xattrs or (target is None and stat.S_ISLNK(entry.attributes.mode)):
            target, extras = self._details(obj, entry, path)
        return step_row(obj, entry, what, known, link_target=target, extras=extras)

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
            there = b"/proc/self/fd/%d/%s" % (directory, entry.name or b".")
            found = self._keeping.read(there, entry.attributes.mode)
        except OSError as error:
            if error.errno in _VANISHED:
                raise
            self._draft.add_problem(_join(path, entry.name), f"extended attributes: {error.strerror}")
            self._whole = False
            self._draft.keep_hint(entry.id, HintFlag.ATTRIBUTES)
            known = self._catalog.objects.get(obj)
            return target, known.extras if known else None
        self._check_same(directory, entry)
        return target, self._catalog.extras.number(found)

    def _check_same(self, directory: int, entry: Entry) -> None:
        """What was read by its path belongs to the object that was listed, in the state that was listed.

        :raises FileNotFoundError: when another object, or another state, may have been read.
        """
        if self._draft.view.stable or not entry.name:
            return
        now = _posix.look(directory, entry.name)
        # Without FIDs the rest of an id depends on the filesystem mounted here; the times of two objects differ.
        same = now[0] == entry.id or (now[0][:8] == entry.id[:8] and not _posix.has_fids(directory))
        if not same or Attributes._make(now[1:9]).ctime_ns != entry.attributes.ctime_ns:
            raise FileNotFoundError(errno.ENOENT, "another object has this name now", entry.name)


def _join(directory: bytes, name: bytes) -> bytes:
    return directory + b"/" + name if directory else name
