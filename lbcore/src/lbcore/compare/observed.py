"""Objects as a feed has them looked at, one by one, against the catalog."""

from __future__ import annotations

import os
import stat

from lbcore._posix import check_name
from lbcore.catalog.objects import ROOT, Row
from lbcore.catalog.renumbered import Old
from lbcore.catalog.steps import What
from lbcore.compare.draft import Draft, differs, step_row
from lbcore.model import Entry, HintFlag, ObjectId, Observation
from lbcore.scope import Scope

_ANY = HintFlag(-1)
_DEEPEST = 100_000
"""More directories on a path than this are a circle, which only moves during an observation can make."""


class Observed:
    """Compares single observations, and keeps what they lead to: what else must be looked at."""

    def __init__(self, draft: Draft, scope: Scope) -> None:
        self._draft = draft
        self._catalog = draft.catalog
        self._scope = scope
        self._renumbered = draft.catalog.renumbered.any()
        self._unconnected: list[Observation] = []
        self._unexplained: set[ObjectId] = set()
        self._new_directories: list[tuple[int, ObjectId]] = []
        self._doubtful_directories: set[int] = set(draft.catalog.hints.directories(HintFlag.LIST))
        self._new_directories += [
            (obj, row.id)
            for obj in draft.catalog.hints.directories(HintFlag.WHOLE)
            if (row := draft.catalog.objects.get(obj)) is not None
        ]
        self._untold: dict[int, Observation] = {}

    def see(self, seen: Observation) -> None:
        """One object: gone, out of the job's scope, or with all its names."""
        self._draft.flush()
        if self._renumbered and self._depends_on_another(seen):
            return
        row = self._row(seen.id)
        if not self._draft.view.stable:
            self._draft.moving = True
            number = self._draft.number(seen.id)
            if number is not None:
                self._catalog.plan.forget_names(number)
        if seen.attributes is None or not (seen.names or seen.untold):
            if row is not None:
                self._lose(row, seen)
            return
        if row is None and not seen.names:
            self._doubtful_directories |= set(self._catalog.hints.directories(_ANY))
            return  # a listing tells what it is called in the source, if it is
        parents = [self._draft.number(parent) for parent, _ in seen.names]
        if None in parents:
            self._unconnected.append(seen)
            self._unexplained |= {one for (one, _), number in zip(seen.names, parents, strict=True) if number is None}
            return
        wanted = {(parent, name) for parent, (_, name) in zip(parents, seen.names, strict=True) if parent}
        entry = Entry(b"", seen.id, seen.attributes)
        obj = self._draft.number(seen.id)
        if obj is None:
            obj = self._draft.new_number()
            if stat.S_ISDIR(seen.attributes.mode):
                self._new_directories.append((obj, seen.id))
        present = set(self._catalog.names.of(obj))
        self._put(obj, row, seen, entry, same_names=present == wanted)
        if row is not None and self._scope.by_path and wanted != present and stat.S_ISDIR(row.mode):
            self._new_directories.append((obj, seen.id))  # what is below it has other paths now
        if seen.untold:
            self._look_for_names(obj, seen, present | wanted)
            wanted |= present  # what it has lost of these is not listed any more
        self._name(obj, present, wanted)
        self._settle(row, seen)

    # -- what has another id now --------------------------------------------------------------------------------

    def _depends_on_another(self, seen: Observation) -> bool:
        """Whether it takes a look at the object's other id to know what an observation means."""
        renumbered = self._catalog.renumbered
        after = renumbered.after(seen.id)
        if self._catalog.objects.by_id(seen.id) is None:
            if after is not None:
                renumbered.see(seen.id, Old.GONE if seen.attributes is None else Old.THERE)
                if seen.attributes is None:
                    return True  # it was called so for a while
            unseen = renumbered.unseen_before(seen.id)
            if renumbered.before(seen.id) is None or not unseen:
                return False
            self._unconnected.append(seen)
            self._unexplained |= set(unseen)
            return True
        if after is None or self._catalog.objects.by_id(after) is not None:
            return False
        renumbered.see(seen.id, Old.GONE if seen.attributes is None else Old.THERE)
        return seen.attributes is None  # it is gone under this id only; what is seen of the new one counts

    def _row(self, object_id: ObjectId) -> Row | None:
        """What the catalog knows of an object, under the id it has or the one it had."""
        row = self._catalog.objects.by_id(object_id)
        if row is None and self._renumbered:
            before = self._catalog.renumbered.before(object_id)
            if before is not None and before.seen in (Old.GONE, Old.FOLLOWED):
                return self._catalog.objects.by_id(before.id)
        return row

    def _settle(self, row: Row | None, seen: Observation) -> None:
        """What an object is and what it is called now is known."""
        if row is not None and row.id != seen.id:
            self._catalog.renumbered.see(row.id, Old.FOLLOWED)

    def _lose(self, row: Row, seen: Observation) -> None:
        for parent, name in self._catalog.names.of(row.obj):
            self._catalog.plan.lose_name(parent, name, row.obj)
        self._settle(row, seen)

    # -- what has more names than were told ---------------------------------------------------------------------

    def _look_for_names(self, obj: int, seen: Observation, names: set[tuple[int, bytes]]) -> None:
        self._untold[obj] = seen
        self._doubtful_directories |= {parent for parent, _ in names}
        self._doubtful_directories |= set(self._catalog.hints.directories(_ANY))

    def report_untold(self) -> None:
        """Objects of which not all names were found are looked at again by the next run."""
        plan = self._catalog.plan
        for obj, seen in self._untold.items():
            names = {*self._catalog.names.of(obj), *plan.names(obj, gained=True)} - {*plan.names(obj, gained=False)}
            missing = len(seen.names) + seen.untold - len(names)
            if names and missing > 0:
                parent, name = min(names)
                path = self.path_in_view(parent) or b""
                reason = f"{missing} of its {len(seen.names) + seen.untold} names were not found"
                self._draft.add_problem(os.path.join(path, name), reason)
                self._draft.keep_hint(seen.id, HintFlag.NAMES)

    # -- names --------------------------------------------------------------------------------------------------

    def _name(self, obj: int, present: set[tuple[int, bytes]], wanted: set[tuple[int, bytes]]) -> None:
        """An object has the names ``wanted``, and in the catalog the names ``present``."""
        plan = self._catalog.plan
        for parent, name in present - wanted:
            plan.lose_name(parent, name, obj)
        if self._draft.moving:
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

    # -- what it is like ----------------------------------------------------------------------------------------

    def _put(self, obj: int, row: Row | None, seen: Observation, entry: Entry, *, same_names: bool) -> None:
        now = entry.attributes
        regular = stat.S_ISREG(now.mode)
        extras = self._catalog.extras.number(seen.extras)
        hinted = regular and bool(self._catalog.hints.flags(seen.id) & HintFlag.DATA)
        if row is None:
            what = What.NEW | (What.DATA if regular else What.ATTRIBUTES)
        elif _is_same(row, entry) and (row.extras, row.link_target) == (extras, seen.link_target):
            # What was seen before, and differently, has a step: that one has to say what it is like by now.
            still = self._draft.view.stable or self._catalog.plan.step(obj) is None
            if not hinted and same_names and still:
                return  # the feed mentioned it, and nothing is different
            what = What.COMPARE if hinted else What.NAMES
        elif regular and (now.size != row.size or now.mtime_ns != row.mtime_ns):
            what = What.ATTRIBUTES | What.DATA
        elif regular and (now.ctime_ns != row.ctime_ns or hinted):
            what = What.ATTRIBUTES | What.COMPARE
        else:
            what = What.ATTRIBUTES
        self._catalog.plan.put(step_row(obj, entry, what, row, link_target=seen.link_target, extras=extras))
        self._draft.keep_entry_if_racy(entry)

    # -- what else must be looked at ----------------------------------------------------------------------------

    def take_new_directories(self) -> list[tuple[int, ObjectId]]:
        """Directories seen since the last call that the catalog does not know: to be listed whole."""
        found, self._new_directories = self._new_directories, []
        return found

    def take_doubtful_directories(self) -> list[int]:
        """Known directories whose entries are to be listed, since no feed tells of all of them."""
        found, self._doubtful_directories = sorted(self._doubtful_directories), set()
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


def _is_same(row: Row, entry: Entry) -> bool:
    return row.id == entry.id and not differs(row, entry)
