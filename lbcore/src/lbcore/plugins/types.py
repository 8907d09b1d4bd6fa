"""What each ``lb_register_*`` hook returns, and what the core calls on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Collection as AnyCollection
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from lbcore.model import ById, Delivery, Hint, ObjectId, Seen, TransferItem, View

if TYPE_CHECKING:
    import click

    from lbcore.scope import Scope


@dataclass(frozen=True, kw_only=True, slots=True)
class NoOptions:
    """The configuration of a plugin that has none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """The source end of a job, as plugins see it."""

    job: str
    path: bytes
    """Absolute path of the live tree."""


class Snapshotter(Protocol):
    """Makes, lists, mounts and destroys snapshots of the filesystem that a path lies on, at either end.

    The core makes the names, of ``A-Z a-z 0-9 . _ -``, and finds its own among the listed ones again. Every method
    raises an ``LbError`` (at the source a ``SourceError``) that says what to do; the run then stops, and loses nothing.
    """

    stable: bool
    """False when there are no snapshots, and ``mount`` gives the live tree."""

    def create(self, path: bytes, name: str) -> None:
        """Make a snapshot; it is complete when this returns."""

    def list(self, path: bytes) -> AnyCollection[str]:
        """The names of all snapshots there are, whoever made them and in whatever state."""

    def mount(self, path: bytes, name: str) -> AbstractContextManager[View]:
        """What ``path`` was when the snapshot was made; leaving the context unmounts it.

        A mount that a killed process left behind is no obstacle.
        """

    def destroy(self, path: bytes, name: str) -> None:
        """Destroy a snapshot, also half of one; first unmount it where a killed process left it mounted."""


class Known(Protocol):
    """What a detector may ask about the backup while it observes."""

    @property
    def seed(self) -> int:
        """Goes into fingerprints."""

    def fingerprint(self, directory: ObjectId) -> int | None:
        """The fingerprint of a directory whose listing the catalog holds exactly, else None."""

    def near(self, object_id: ObjectId, count: int) -> list[ObjectId]:
        """Up to ``count`` ids of the backup's objects that come right before or after this one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Collection:
    """What a detector found in its feed."""

    hints: Iterable[Hint]
    cursor: bytes
    """Position after the last hint; acknowledged once the hints are durable."""
    renumbered: Iterable[tuple[ObjectId, ObjectId]] = ()
    """Objects that are called otherwise now, as (old id, new id); both are hinted."""
    gap: str | None = None
    """Why the feed cannot be trusted since the last cursor; the run then scans."""
    notes: Sequence[str] = ()
    """What an administrator may want to know of the feed, a line each; goes into the run's log."""
    cut_ns: int = 0
    """Up to when the feed tells, by its own clock: data hints not much older are kept for the next run; 0: unknown."""


class Detector(Protocol):
    """Says what may have changed."""

    complete: bool
    """True when ``observe`` walks the whole view, so that what it did not see is gone."""

    def collect(self, source: Source, cursor: bytes | None, view: View | None = None) -> Collection:
        """Read the feed after ``cursor`` (None: from its beginning).

        :param view: what the run is about to look at. The feed may be read as it was when that was made, where the
            detector can. Such a collection is never acknowledged, and its cursor not kept; its ``cut_ns`` must not be
            later than the view.
        """

    def acknowledge(self, source: Source, cursor: bytes) -> None:
        """The hints up to ``cursor`` are durable: the feed may forget them."""

    def flush(self, source: Source, hints: Iterable[Hint]) -> Mapping[str, int]:
        """A snapshot is about to be made: see to it that it will hold what was written to these files just now.

        :returns: counts for the run's summary, where they are called ``flush_NAME``. What could not be flushed is
            looked at again by the next run anyway.
        """

    def observe(self, view: View, scope: Scope, known: Known, hints: Iterable[Hint]) -> Iterator[Seen]:
        """Look at each hinted object in the view (``complete``: at everything)."""


@runtime_checkable
class Peekable(Protocol):
    """What a detector with a feed may also be: then ``lb run --dry-run`` follows the feed, as a run would."""

    def peek(self, source: Source, cursor: bytes | None) -> Collection:
        """What ``collect`` would find now. Changes nothing: neither the feed, nor how the job is registered with it.

        :raises LbError: when the feed cannot be read.
        """


Pacing = Callable[[ObjectId, int], None]
"""Returns when so many operations on an object, or on what is in a directory, may be asked of the filesystem."""


@runtime_checkable
class Paced(Protocol):
    """What a detector may also be: then it limits how fast the core lists directories, as in a scan."""

    def pace(self, view: View) -> Pacing | None:
        """What is called before operations on the view, by several threads at once; None: there is no limit now.

        :raises LbError: when the limit cannot be kept; so may what is called.
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """Something that an administrator should see to."""

    what: str
    """What is wrong."""
    advice: str
    """What to do about it."""
    fatal: bool = True
    """Whether a run would fail, or be worth less; False: it is for later."""


@runtime_checkable
class Checkable(Protocol):
    """What a detector or a snapshotter may also be: ``lb check`` asks it, before any run does."""

    def check(self, source: Source) -> Iterable[Finding]:
        """Look whether it could do its work for ``source``. Changes nothing.

        :raises LbError: what is wrong as a whole; it counts as a finding.
        """


class Transfer(Protocol):
    """Brings the content of files to the target. Runs in a worker; must be picklable."""

    def accepts(self, item: TransferItem) -> bool:
        """Whether this transfer takes the file; the job's transfers are asked in their order."""

    def deliver(self, view: View, items: Sequence[TransferItem], folder: bytes, tree: bytes) -> Iterator[Delivery]:
        """Write each item's content below ``folder`` and yield one result per item.

        ``folder`` is an existing, empty, private folder on the target's filesystem (absolute path);
        ``tree`` is the mirror (absolute path), a basis for deltas, never written to. Nothing needs to be durable.

        :raises TargetError: when the target cannot be written: the run stops.
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class Expected:
    """One object as the catalog says the mirror holds it."""

    obj: int
    path: bytes
    """Relative to the tree."""
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    rdev: int
    digest: bytes | None
    link_target: bytes | None
    extras: dict[str, bytes]


@dataclass(frozen=True, kw_only=True, slots=True)
class Damage:
    """Something in the mirror that is not what the catalog says."""

    path: bytes
    what: str


class Verifier(Protocol):
    """Compares the mirror with the catalog."""

    def verify(self, tree: bytes, objects: Iterable[Expected]) -> Iterator[Damage]:
        """Check each object below ``tree``; yield what does not hold."""


class ExtrasKeeper(Protocol):
    """Keeps what a kind of filesystem has of an object beyond POSIX. Must be picklable.

    Paths may be ``/proc/self/fd/N/NAME``. The object itself is meant, should it be a symbolic link.
    """

    def applies(self, root: bytes) -> bool:
        """Whether the directory ``root`` (absolute path) is on a filesystem of this kind."""

    def read(self, path: bytes, mode: int) -> dict[str, bytes]:
        """What is kept with the object at ``path``, under keys of the keeper's own (``lustre:layout``).

        Nothing is opened. Equal states give equal bytes: what changes by itself, or names only the original, is left
        out, as each difference is a change of the object.

        :raises OSError: when something is there and cannot be read.
        """

    def content_is_away(self, extras: Mapping[str, bytes]) -> bool:
        """Whether content would first have to be brought back from elsewhere: then nobody opens the file."""

    def make(self, directory: int, name: bytes, mode: int, extras: Mapping[str, bytes]) -> list[str]:
        """Make an empty file (mode 0600) or directory (0700), as ``mode`` says, with what is kept of it.

        :param directory: descriptor of the open directory that it is made in.
        :returns: what could not be made anew, each in a few words with the reason. The object is there all the same.
        :raises OSError: when it cannot be made at all.
        """

    def give(self, directory: int, name: bytes, mode: int, extras: Mapping[str, bytes]) -> list[str]:
        """Give what is kept, as far as possible, to a directory that is there; returns as ``make`` does."""


@runtime_checkable
class ReadsById(Protocol):
    """What a keeper may also be: it knows how files of its filesystem are read by id."""

    def by_id(self, root: bytes) -> ById | None:
        """For the files below ``root``, on a live filesystem of this kind; None when it cannot be done from here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Absent:
    """A file whose content the backup never held: it was away."""

    id: ObjectId
    """Of the original, by which whoever has the content may know it."""
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    extras: Mapping[str, bytes]


class Stubs(Protocol):
    """Makes files whose content stays away. For one restore, and one thread."""

    def make(self, directory: int, name: bytes, file: Absent) -> list[str]:
        """Make the file, of its full size; the core gives it owner, mode, times and extended attributes.

        :param directory: descriptor of the open directory that it is made in.
        :param name: a temporary one.
        :returns: what could not be made anew, as ``ExtrasKeeper.make`` does.
        :raises SourceError: why there must be no such file.
        :raises OSError: when it cannot be made.
        """

    def bind(self, directory: int, name: bytes, file: Absent) -> str:
        """The file has its name, by this restore or an earlier one: let whoever has the content know it.

        :returns: what has become of the content, and what is left to do, in a line. It never fails.
        """


@runtime_checkable
class MakesStubs(Protocol):
    """What a keeper may also be: its filesystem has files whose content is elsewhere, and it can make them."""

    def stubs(self, root: bytes) -> Stubs | None:
        """For a restore to the directory ``root``; None when the job wants none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Registration:
    """What all things chosen by name have in common."""

    name: str
    """The word that selects it in the configuration."""
    summary: str
    """One line for ``lb plugins``."""
    config: type[Any] = NoOptions
    """A frozen dataclass; the section ``[job.NAME.<name>]`` is checked against it before anything runs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SnapshotterPlugin(Registration):
    """Return type of ``lb_register_snapshotters``."""

    create: Callable[[Any], Snapshotter]
    """Called with an instance of ``config``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DetectorPlugin(Registration):
    """Return type of ``lb_register_detectors``."""

    create: Callable[[Any], Detector]


@dataclass(frozen=True, kw_only=True, slots=True)
class TransferPlugin(Registration):
    """Return type of ``lb_register_transfers``."""

    create: Callable[[Any], Transfer]


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifierPlugin(Registration):
    """Return type of ``lb_register_verifiers``."""

    create: Callable[[Any], Verifier]


@dataclass(frozen=True, kw_only=True, slots=True)
class ExecutorPlugin(Registration):
    """Return type of ``lb_register_executors``."""

    create: Callable[[Any, int], Executor]
    """Called with an instance of ``config`` and the job's number of workers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExtrasPlugin(Registration):
    """Return type of ``lb_register_extras``."""

    create: Callable[[Any], ExtrasKeeper]


@dataclass(frozen=True, kw_only=True, slots=True)
class CommandPlugin(Registration):
    """Return type of ``lb_register_commands``. No job chooses it, so it has no ``config``."""

    create: Callable[[], click.Command]
    """Called when the command is: gives the command, or a group of commands."""
