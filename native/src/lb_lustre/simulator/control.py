"""What an administrator does to a simulated Lustre, and what may happen to it: one JSON request a line, on a socket."""

from __future__ import annotations

import errno
import gc
import json
import os
import socket
import stat
import threading
import time
from collections.abc import Callable
from typing import Any

from lb_lustre import fid, layout
from lb_lustre.record import Type
from lb_lustre.simulator import lctl_commands
from lb_lustre.simulator.changelog import Changelog
from lb_lustre.simulator.filesystem import Filesystem
from lb_lustre.simulator.mount import Mount
from lb_lustre.simulator.snapshots import Snapshots


class Control:
    """Carries out requests, between two operations of the mount."""

    def __init__(self, mount: Mount, filesystems: dict[str, Filesystem], live: str, snapshots: Snapshots) -> None:
        self._mount = mount
        self._filesystems = filesystems
        self._live = live
        self._requests: dict[str, Callable[..., Any]] = {
            name: getattr(self, name) for name in vars(Control) if not name.startswith("_") and name != "serve"
        }
        self._requests |= {
            f"snapshot_{name}": getattr(snapshots, name) for name in ("create", "list", "mount", "umount", "destroy")
        }
        self._refused: dict[str, int] = {}

    def serve(self, path: str) -> None:
        """Answer on a socket at ``path``, in a thread of its own, as long as the process lives."""
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen()
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=self._converse, args=(connection,), daemon=True).start()

    def _converse(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rw") as file:
            for line in file:
                file.write(json.dumps(self._answer(json.loads(line))) + "\n")
                file.flush()

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            if request["request"] == "lctl":  # several requests, between which the mount goes on
                return {"result": lctl_commands.run(self._do, request["program"], request["words"])}
            return {"result": self._do(**request)}
        except OSError as error:
            return {"errno": error.errno, "error": error.strerror}

    def _do(self, request: str, **arguments: Any) -> Any:
        with self._mount.mutex:
            return self._requests[request](**arguments)

    # -- requests -----------------------------------------------------------------------------------------------

    def _changelog(self, mdt: int) -> Changelog:
        return self._filesystems[self._live].changelogs[mdt]

    def register(self, mdt: int, name: str | None = None, mask: list[str] | None = None) -> str:
        """``lctl changelog_register``."""
        return self._changelog(mdt).register(name, None if mask is None else [Type[word] for word in mask])

    def deregister(self, mdt: int, user: str) -> None:
        """``lctl changelog_deregister``; also what a server does to a user who is idle for too long."""
        self._changelog(mdt).deregister(user)

    def users(self, mdt: int) -> dict[str, Any]:
        """``lctl get_param mdd.*.changelog_users``."""
        changelog = self._changelog(mdt)
        return {
            "current_index": changelog.index,
            "users": {
                user.name: {"cleared": user.cleared, "mask": sorted(kind.name for kind in user.mask)}
                for user in changelog.users.values()
            },
        }

    def parameters(self) -> dict[str, Any]:
        """What ``lctl get_param`` shows of the metadata servers."""
        filesystem, now = self._filesystems[self._live], time.monotonic()
        return {
            "filesystem": self._live,
            "mdts": [
                {
                    "current_index": changelog.index,
                    "mask": [kind.name for kind in changelog.mask],
                    "size_bytes": changelog.size_bytes,
                    "open_files": [fid.text(one) for one in self._mount.open_files(filesystem, changelog.mdt)],
                    "users": {
                        user.name: {
                            "cleared": user.cleared, "idle": int(now - user.cleared_at), "asked": user.asked,
                            "mask": [kind.name for kind in user.mask],
                        }
                        for user in changelog.users.values()
                    },
                }
                for changelog in filesystem.changelogs
            ],
        }  # fmt: skip

    def late(self, late: bool) -> None:
        """Whether clients send what they write only when they are made to, from now on."""
        self._filesystems[self._live].late = late

    def refuse(self, command: str, status: int) -> None:
        """The next ``lctl COMMAND`` is to end with a status, and to do nothing."""
        self._refused[command] = status

    def refused(self, command: str) -> int:
        """Whether this is such a command: its status, or 0."""
        return self._refused.pop(command, 0)

    def migrate(self, path: str, mdt: int, stale: bool = False) -> str:
        """``lfs migrate -m`` of this object alone; the new FID. For ``stale`` see there."""
        return fid.text(self._filesystems[self._live].migrate(os.fsencode(path), mdt, stale=stale).fid)

    def migrate_entry(self, path: str, mdt: int, source: str) -> None:
        """What ``lfs migrate -m`` of a directory does to an entry; ``source`` is the FID that the directory had."""
        self._filesystems[self._live].migrate_entry(os.fsencode(path), mdt, fid.parse(source))

    def migrated(self, path: str, servers: list[int]) -> None:
        """What it does to the directory in the end."""
        self._filesystems[self._live].migrated(os.fsencode(path), servers)

    def open_volatile(self, path: str) -> None:
        """What ``lfs migrate`` of a file copies it into."""
        filesystem = self._filesystems[self._live]
        filesystem.open_volatile(filesystem.find(os.fsencode(path)).mdt)

    def lay_out_anew(self, path: str, value: str) -> None:
        """``lfs migrate`` of a file; the layout in hexadecimal."""
        filesystem = self._filesystems[self._live]
        filesystem.lay_out_anew(filesystem.find(os.fsencode(path)), layout.parse(bytes.fromhex(value)))

    def swap_layouts(self, path: str, other: str) -> None:
        """``lfs swap_layouts``."""
        filesystem = self._filesystems[self._live]
        filesystem.swap_layouts(filesystem.find(os.fsencode(path)), filesystem.find(os.fsencode(other)))

    def populate(self, files: int, per_directory: int) -> None:
        """Make so many empty files, ``NNNNNN/NNNNNNNN``, faster than through the mount."""
        filesystem = self._filesystems[self._live]
        for number in range(files):
            directory = b"%06d" % (number // per_directory)
            if number % per_directory == 0:
                filesystem.make(directory, stat.S_IFDIR | 0o755)
            filesystem.make(b"%s/%08d" % (directory, number), stat.S_IFREG | 0o644)
        gc.freeze()  # they stay: to look for garbage among a million of them takes seconds, again and again

    def entries(self, path: str) -> list[tuple[str, str, dict[str, int]]]:
        """Name, FID and ``lstat`` of what is in a directory: the same as through the mount, faster."""
        directory = self._filesystems[self._live].find(os.fsencode(path))
        return [
            (os.fsdecode(name), fid.text(one), self._mount.getattr(f"fs/{self._live}/{path}/{os.fsdecode(name)}"))
            for name, one in directory.entries.items()
        ]

    def rm_entry(self, path: str) -> None:
        """``lfs rm_entry``."""
        self._filesystems[self._live].rm_entry(os.fsencode(path))

    def fid_of(self, path: str) -> str:
        """``lfs path2fid``."""
        return fid.text(self._filesystems[self._live].find(os.fsencode(path)).fid)

    def flushes(self, path: str) -> int:
        """How often the writers of a file were asked to send what they had cached."""
        return self._filesystems[self._live].find(os.fsencode(path)).flushes

    def set_hsm(self, path: str, states: int, archive: int = 1) -> None:
        """``lfs hsm_set``, and what a copytool does; kept as ``struct hsm_attrs`` (lustre_idl.h)."""
        filesystem = self._filesystems[self._live]
        filesystem.set_hsm(filesystem.find(os.fsencode(path)), states, archive)

    def disconnect(self, mdt: int, error: str) -> None:
        """This client has no connection to a server: its objects cannot be reached, in no filesystem."""
        for filesystem in self._filesystems.values():
            filesystem.disconnected[mdt] = getattr(errno, error)

    def connect(self, mdt: int) -> None:
        """The server is back."""
        for filesystem in self._filesystems.values():
            filesystem.disconnected.pop(mdt, None)

    def release(self, path: str) -> None:
        """``lfs hsm_archive`` and ``lfs hsm_release``."""
        filesystem = self._filesystems[self._live]
        filesystem.release(filesystem.find(os.fsencode(path)))

    def recall(self, path: str) -> None:
        """``lfs hsm_restore``."""
        filesystem = self._filesystems[self._live]
        filesystem.recall(filesystem.find(os.fsencode(path)))

    def rebind(self, old: str, new: str) -> None:
        """``lhsmtool_posix --rebind``."""
        self._filesystems[self._live].rebind(fid.parse(old), fid.parse(new))

    def recalls(self) -> list[int]:
        """How often a released file was opened, and how often one came back because it was read."""
        filesystem = self._filesystems[self._live]
        return [filesystem.released_opened, filesystem.recalled]

    def make_striped(self, path: str, count: int, first: int, kind: int) -> None:
        """``lfs mkdir``: with one stripe, a plain directory on that server."""
        mdt = None if first < 0 else first
        filesystem = self._filesystems[self._live]
        one = filesystem.make(os.fsencode(path), stat.S_IFDIR | 0o755, mdt=mdt)
        if count > 1:
            servers = [(one.mdt + number) % len(filesystem.changelogs) for number in range(count)]
            filesystem.stripe(one, servers, kind)

    def stripe_by_default(self, path: str, value: str) -> None:
        """``lfs setdirstripe -D``; the attribute in hexadecimal."""
        filesystem = self._filesystems[self._live]
        filesystem.set_xattr(filesystem.find(os.fsencode(path)), "trusted.dmv", bytes.fromhex(value))

    def project_of(self, path: str) -> list[int]:
        """``lfs project -d``: the id, and whether new entries inherit it."""
        kept = self._filesystems[self._live].find(os.fsencode(path)).kept
        return [kept.project, int(kept.inherits_project)]

    def damage(self, mdt: int, what: str, **how: int) -> None:
        """What may happen to a changelog; ``roll_back`` is a crash. See there."""
        changelog = self._changelog(mdt)
        happenings: dict[str, Callable[..., None]] = {
            "lose": changelog.lose, "roll_back": changelog.roll_back, "reset": changelog.reset,
            "restart": changelog.restart, "forget": changelog.forget, "delay": changelog.delay,
            "break_off": changelog.break_off, "dribble": changelog.dribble, "skew": changelog.skew,
        }  # fmt: skip
        happenings[what](**how)
