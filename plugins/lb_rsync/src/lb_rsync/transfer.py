"""The transfer ``rsync``: one process brings the content of a whole batch."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lb_rsync.command import command, environment
from lb_rsync.options import RsyncOptions
from lb_rsync.output import Messages, Sent, parse_line
from lb_rsync.process import Rsync
from lb_rsync.stall import Stall
from lb_rsync.status import check_status
from lb_rsync.watch import Watch
from lbcore.beneath import Root
from lbcore.errors import SourceError, TargetError
from lbcore.model import Delivered, Delivery, NotDelivered, TransferItem, View

_LONGEST_PATH = 2048
_DEEPEST_PATH = 256
"""Far from rsync's limits, which depend on its version and on the folder's path: 4096 bytes (PATH_MAX) for
both together, and in 3.5.0 about a thousand folders in each other."""
_ROUND_SECONDS = 0.05
"""How often results are looked for: seldom enough that many come at once."""
_MISSES = 16
"""So many files that are not there yet end a round: rsync writes them in the order it sends them."""


@dataclass(frozen=True, slots=True)
class RsyncTransfer:
    """Brings content through rsync; see ``lbcore.plugins.types.Transfer``."""

    options: RsyncOptions

    def accepts(self, item: TransferItem) -> bool:
        """All but files whose path is too long for rsync."""
        return len(item.path) <= _LONGEST_PATH and item.path.count(b"/") < _DEEPEST_PATH

    def deliver(self, view: View, items: Sequence[TransferItem], folder: bytes, tree: bytes) -> Iterator[Delivery]:
        """Write each item's content below ``folder`` under the path it has in the view.

        :raises TargetError: when ``folder`` cannot be written.
        :raises SourceError: when the view is not there, or hangs.
        :raises UsageError: when rsync cannot be started.
        :raises LbError: when rsync fails for a reason that is not one file's.
        """
        try:
            source = Root(view.root)
        except OSError as error:
            raise SourceError(f"{os.fsdecode(view.root)}: {error.strerror}") from error
        with source:
            try:
                target = Root(folder)
            except OSError as error:
                raise TargetError(f"{os.fsdecode(folder)}: {error.strerror}") from error
            with target:
                watch = Watch(source, stable=view.stable)
                batch = _Batch(watch, target)
                yield from batch.admit(items)
                while batch.waiting:
                    yield from self._run(view, batch, folder, tree)

    def _run(self, view: View, batch: _Batch, folder: bytes, tree: bytes) -> Iterator[Delivery]:
        names = tuple(batch.waiting)
        deltas = any(item.basis is not None for item in batch.waiting.values())
        arguments = command(self.options, root=view.root, folder=folder, tree=tree, deltas=deltas)
        messages = Messages(view.root, folder, frozenset(names))
        # "./": a name that begins with '#' or ';' would be taken for a comment.
        given = (b"./" + name for name in names)
        with Rsync(arguments, environment(os.environb), given) as rsync:
            stall = Stall(rsync.pid, self.options.timeout_seconds)
            while (lines := rsync.read(_ROUND_SECONDS)) is not None:
                for line in lines.errors:
                    messages.add(line)
                for line in lines.output:
                    batch.add(parse_line(line))
                yield from batch.arrived(_MISSES)
                if messages.target is not None:
                    raise TargetError(f"{os.fsdecode(folder)}: {messages.target}")
                if stall.reached():
                    yield from self._stalled(view, batch)
                    return
            status = rsync.finish()
        yield from batch.arrived(len(names))
        check_status(status, messages, folder)
        yield from batch.failed(messages)

    def _stalled(self, view: View, batch: _Batch) -> Iterator[Delivery]:
        """Go on without the files whose place something else has taken, if that is why rsync waits.

        It waits for ever at a pipe: whoever puts one there must not stop the backup of all others.

        :raises SourceError: when it waits for another reason.
        """
        replaced = list(batch.replaced())
        if not replaced:
            raise SourceError(
                f"{os.fsdecode(view.root)}: rsync moved no data for {self.options.timeout_seconds} seconds "
                "(timeout_seconds); look whether the source or the target hangs"
            )
        yield from replaced


class _Batch:
    """What is not yet decided of a batch."""

    def __init__(self, watch: Watch, target: Root) -> None:
        self._watch = watch
        self._target = target
        self._sent: dict[bytes, Sent] = {}
        self.waiting: dict[bytes, TransferItem] = {}
        """By path."""

    def admit(self, items: Sequence[TransferItem]) -> Iterator[NotDelivered]:
        """Take the items that rsync can be given; yield the others."""
        for item in items:
            refusal = self._watch.refusal(item)
            if refusal is not None:
                yield refusal
            elif item.path in self.waiting:
                # Observed one after the other in a live tree; whose content is there now is not known.
                yield NotDelivered(obj=item.obj, reason="another file has its name now", changed=True)
            else:
                self.waiting[item.path] = item

    def add(self, sent: Sent | None) -> None:
        """Take note of a line of output. A file that is sent twice counts as the second time."""
        if sent is not None and sent.path in self.waiting:
            self._sent.pop(sent.path, None)
            self._sent[sent.path] = sent

    def arrived(self, misses: int) -> Iterator[Delivery]:
        """The results for files that rsync has sent and, as far as it is known yet, written.

        A file gets its final name only once its content is complete and rsync has compared the digests.
        ``misses``: stop after so many that are not there.
        """
        there = []
        for sent in self._sent.values():
            size = self._size(sent.path)
            if size is not None:
                there.append((sent, size))
            else:
                misses -= 1
                if misses < 0:
                    break
        # Only now: the source is to be looked at after rsync has read it.
        self._watch.look_again()
        for sent, size in there:
            del self._sent[sent.path]
            yield self._result(self.waiting.pop(sent.path), sent, size)

    def _size(self, path: bytes) -> int | None:
        """The size of the delivered file; None when it is not there."""
        try:
            found = os.stat(path, dir_fd=self._target.fd, follow_symlinks=False)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise TargetError(f"{os.fsdecode(self._target.path + b'/' + path)}: {error.strerror}") from error
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def _result(self, item: TransferItem, sent: Sent, size: int) -> Delivery:
        problem = self._watch.problem(item, sent.digest)
        if problem is not None:
            return problem
        if size != item.attributes.size:
            return NotDelivered(obj=item.obj, reason=f"{size} bytes arrived of {item.attributes.size}")
        return Delivered(obj=item.obj, path=item.path, digest=sent.digest, sent_bytes=sent.sent_bytes)

    def replaced(self) -> Iterator[NotDelivered]:
        """The results for files that are gone, or not what they were; only the others go on waiting."""
        self._watch.look_again()
        self._sent.clear()
        for item in tuple(self.waiting.values()):
            problem = self._watch.problem(item)
            if problem is not None:
                del self.waiting[item.path]
                yield problem

    def failed(self, messages: Messages) -> Iterator[NotDelivered]:
        """The results for what rsync did not bring."""
        self._watch.look_again()
        while self.waiting:
            item = self.waiting.popitem()[1]
            reason = messages.reason(item.path) or "rsync gave no result for it"
            yield self._watch.problem(item) or NotDelivered(obj=item.obj, reason=reason)
