"""The snapshotter ``lustre``: made by ``lctl`` on the MGS, mounted on this client (reference, sections 5 and 9)."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import time
from collections.abc import Collection, Iterator

from lb_lustre import listing
from lb_lustre.checking import check_mounting
from lb_lustre.errors import LustreError
from lb_lustre.lctl import Answer, Lctl, run
from lb_lustre.listing import MOUNTED, NOT_MOUNTED, Listed
from lb_lustre.mounts import find_device, find_mount, is_mounted
from lb_lustre.options import FILESYSTEM, LustreOptions
from lbcore.model import View
from lbcore.plugins.types import Finding, Source

_log = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_PAUSE_SECONDS = 5.0
"""Between two attempts: the servers' tools refuse to work side by side, and a program may just be leaving a mount."""
_TRANSIENT = (errno.EAGAIN, errno.EBUSY, errno.ETIMEDOUT)
_SSH_FAILED = 255

_ADVICE = {
    ("snapshot_create", errno.ETIMEDOUT): "the barrier lapsed before every server had made its part; raise "
    "'barrier_seconds', or set 'barrier = false'",
    ("snapshot_create", errno.EEXIST): "there is one of this name already; destroy it with lctl snapshot_destroy",
    ("snapshot_mount", errno.EINVAL): "if a part of it is gone, destroy it with lctl snapshot_destroy -f",
    ("snapshot_destroy", errno.EPERM): "a server still has it mounted: lctl snapshot_umount, then try again",
}
"""What to do, by command and exit status (recorded: ``i_snapshot``, ``l_dirty``)."""


class LustreSnapshots:
    """Snapshots of a Lustre whose servers all use ZFS."""

    stable = True

    def __init__(self, options: LustreOptions) -> None:
        self._options = options
        self._mgs = Lctl(options.mgs, timeout_seconds=options.timeout_seconds)
        self._client = Lctl(options.client, timeout_seconds=options.timeout_seconds)

    # -- the snapshotter ----------------------------------------------------------------------------------------

    def create(self, path: bytes, name: str) -> None:
        """Make a snapshot of all servers.

        :raises LustreError: when it could not be made.
        """
        held = ("-t", str(self._options.barrier_seconds)) if self._options.barrier else ("-boff",)
        self._command("snapshot_create", path, name, *held)

    def list(self, path: bytes) -> Collection[str]:
        """The names of all snapshots of the filesystem.

        :raises LustreError: when they cannot be listed.
        """
        return {one.name for one in self._listed(path)}

    @contextlib.contextmanager
    def mount(self, path: bytes, name: str) -> Iterator[View]:
        """What ``path`` was, below a mount of the snapshot.

        :raises LustreError: when it is gone, or cannot be mounted.
        """
        folder = self._folder(name)
        one = self._find(path, name)
        if one is None:
            raise LustreError(f"the snapshot {name} is gone")
        if not FILESYSTEM.fullmatch(one.filesystem):
            raise LustreError(f"the snapshot {name} cannot be mounted: only a part of it is there; destroy it")
        self._unmount(path, one, folder)
        self._command("snapshot_mount", path, name)
        try:
            self._mount_client(path, one, folder)
            yield View(
                root=os.path.normpath(os.path.join(folder, self._below(path))),
                stable=True,
                name=name,
                filesystem=one.filesystem,
                late_data=True,
            )
        finally:
            self._release(path, name, folder)

    def destroy(self, path: bytes, name: str) -> None:
        """Unmount it wherever a run has mounted it, and destroy it.

        :raises LustreError: when it is in use, or could not be destroyed.
        """
        one = self._find(path, name)
        if one is None:
            return
        self._unmount(path, one, self._folder(name))
        answer = self._ask("snapshot_destroy", path, name)
        if "Miss snapshot piece" in answer.errors:
            # Half of one. By force only then: it would destroy one that is mounted, too.
            answer = self._ask("snapshot_destroy", path, name, "-f")
        self._check("snapshot_destroy", name, answer)

    def check(self, source: Source) -> Iterator[Finding]:
        """What keeps this node from mounting a snapshot. That they can be listed, the core tries by itself.

        :raises LustreError: when the source is on no Lustre.
        """
        return check_mounting(self._options, source.path)

    # -- on the servers -----------------------------------------------------------------------------------------

    def _filesystem(self, path: bytes) -> str:
        return self._options.filesystem or find_device(path)[1]

    def _listed(self, path: bytes) -> Collection[Listed]:
        answer = self._mgs.run("snapshot_list", "-F", self._filesystem(path))
        self._check("snapshot_list", "", answer)
        return listing.parse(answer.output)

    def _find(self, path: bytes, name: str) -> Listed | None:
        return next((one for one in self._listed(path) if one.name == name), None)

    def _ask(self, command: str, path: bytes, name: str, *more: str) -> Answer:
        if not _NAME.fullmatch(name):
            raise LustreError(f"{name!r} is no name for a snapshot: use letters, digits, '.', '_' and '-'")
        return self._mgs.run(command, "-F", self._filesystem(path), "-n", name, *more)

    def _command(self, command: str, path: bytes, name: str, *more: str) -> None:
        """A command that is tried again while it is refused for the time being."""
        for attempt in range(self._options.retries + 1):
            if attempt:
                time.sleep(_PAUSE_SECONDS)
            answer = self._ask(command, path, name, *more)
            if answer.status not in _TRANSIENT:
                break
        self._check(command, name, answer)

    @staticmethod
    def _check(command: str, name: str, answer: Answer) -> None:
        """
        :raises LustreError: when the command failed, saying what to do.
        """
        if answer.status == 0 or (command == "snapshot_umount" and answer.status == errno.EALREADY):
            return  # EALREADY: the servers have not mounted it
        advice = _ADVICE.get((command, answer.status), "see /var/log/lsnapshot.log on the MGS")
        if answer.status == _SSH_FAILED:
            advice = "is the MGS reachable, and does it take this node's key? See 'mgs'"
        what = f"lctl {command} {name}".rstrip()
        raise LustreError(f"{what} failed with status {answer.status}: {answer.reason}; {advice}")

    # -- on this node -------------------------------------------------------------------------------------------

    def _folder(self, name: str) -> bytes:
        return os.path.join(os.path.realpath(os.fsencode(self._options.folder)), os.fsencode(name))

    @staticmethod
    def _below(path: bytes) -> bytes:
        """Where a path is in its filesystem."""
        return os.path.relpath(os.path.realpath(path), find_mount(path))

    def _mount_client(self, path: bytes, one: Listed, folder: bytes) -> None:
        os.makedirs(os.path.dirname(folder), mode=0o700, exist_ok=True)
        os.makedirs(folder, mode=0o700, exist_ok=True)
        device = self._options.device or find_device(path)[0] + ":/{}"
        command = [*self._options.mount, device.replace("{}", one.filesystem), os.fsdecode(folder)]
        answer = run(command, timeout_seconds=self._options.timeout_seconds)
        if answer.status != 0:
            raise LustreError(f"'{' '.join(command)}' failed: {answer.reason}")
        # Else every file that is closed after reading floods the servers' log (section 9, item 5).
        for setting in ("lsom", "mdc_lsom"):
            if self._tried("set_param", f"mdc.{one.filesystem}*.{setting}=off"):
                return
        _log.info("mdc.%s*.lsom could not be set on this node", one.filesystem)

    def _tried(self, *words: str) -> bool:
        try:
            return self._client.run(*words).status == 0
        except LustreError:
            return False  # it only spares the servers' logs

    def _unmount(self, path: bytes, one: Listed, folder: bytes) -> None:
        """Whatever a killed run has left mounted: first here, else this node's mount would hang (section 9, item 6).

        :raises LustreError: when it is in use.
        """
        self._unmount_client(folder, servers_there=one.status == MOUNTED)
        if one.status != NOT_MOUNTED:
            self._command("snapshot_umount", path, one.name)

    def _unmount_client(self, folder: bytes, *, servers_there: bool) -> None:
        """
        :raises LustreError: when a program still uses the mount.
        """
        attempts, refusal, force = 0, "", () if servers_there else ("-f",)
        while is_mounted(folder):
            if attempts > self._options.retries:
                raise LustreError(f"{os.fsdecode(folder)} cannot be unmounted: {refusal}; who uses it?")
            if attempts:
                time.sleep(_PAUSE_SECONDS)
            command = ["umount", *force, os.fsdecode(folder)]
            refusal = run(command, timeout_seconds=self._options.timeout_seconds).reason
            attempts += 1
        with contextlib.suppress(OSError):  # it may not be there, or hold what is not ours
            os.rmdir(folder)

    def _release(self, path: bytes, name: str, folder: bytes) -> None:
        """Leave nothing mounted. What fails here fails no run: whoever destroys or mounts it next does it again."""
        try:
            self._unmount_client(folder, servers_there=True)
            self._command("snapshot_umount", path, name)
        except LustreError as error:
            _log.warning("the snapshot %s is still mounted: %s", name, error)
