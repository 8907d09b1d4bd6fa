"""A backup driven by changelogs, on a simulated Lustre of two metadata servers: ``make demo-lustre``, as root.

Real programs change the filesystem through the kernel (FUSE); each server records what they do. The second run reads
these records, looks at the objects they name, and at nothing else.
"""

from __future__ import annotations

import os
import sys

from demo.demo import CHANGES, DemoError, Stage, chapter, copy_standard_library, differences, say, scratch_folder
from lb_lustre.errors import LustreError
from lb_lustre.record import decode
from lb_lustre.simulator.client import ask, served
from lb_lustre.simulator.standins import client_environment

MOUNT = "lustre/mount"
SOURCE = f"{MOUNT}/fs/simfs/project"
CONFIGURATION = """
[job.demo]
source = "{source}"
target = "{target}"
detector = "changelog"
racy_seconds = 0

[job.demo.changelog]
filesystem = "simfs"
devices = "{devices}"
users = {users}
"""


def records(stage: Stage) -> list[str]:
    """What the servers have recorded, as ``lfs changelog`` prints it."""
    lines = []
    for device in sorted((stage.scratch / MOUNT / "dev").iterdir()):
        with open(device, "rb", buffering=0) as changelog:
            while data := changelog.read(1 << 18):
                lines += [f"{device.name[-7:]} {record.text().decode('utf-8', 'replace')}" for record in decode(data)]
    return lines


def demonstrate(stage: Stage, control: str) -> int:
    """The whole story; the number of differences found."""
    chapter("A user on each metadata server, so that it records what happens")
    users = []
    for mdt in (0, 1):
        users.append(f"MDT{mdt:04x}={ask(control, 'register', mdt=mdt, name='lb-demo')}")
        say(f"lctl --device simfs-MDT{mdt:04x} changelog_register -u lb-demo      {users[-1].partition('=')[2]}")
    copy_standard_library(stage.scratch / SOURCE)
    where = {"source": SOURCE, "target": "backup", "devices": f"{MOUNT}/dev"}
    paths = {key: str(stage.scratch / path) for key, path in where.items()}
    (stage.scratch / "lb.toml").write_text(CONFIGURATION.format(**paths, users=repr(users).replace("'", '"')))

    chapter("First backup: a scan")
    first = stage.backup()
    stage.program("cp", "-a", SOURCE, "pristine")
    before = len(records(stage))

    chapter("Programs change the tree, on all servers")
    for purpose, commands in CHANGES:
        say(f"\n{purpose}")
        for argv in commands:
            if argv[-1] not in ("pickle_by_another_name.py", "decoder.py"):
                stage.program(*argv, folder=SOURCE)
    lines = records(stage)
    say(f"\n{len(lines) - before:,} records, of which the last are")
    for line in lines[-6:]:
        say("   " + line.replace("\n", "\\n")[:150])

    chapter("Second backup: what the records name")
    second = stage.backup()

    chapter("Comparing, with rsync as the judge")
    say("the first point in time, restored, with the copy made before the changes:")
    stage.lb("-c", "lb.toml", "restore", "--at", str(first["run"]), ".", "--to", "restored", lines=10)
    restored = differences(stage, "pristine", "restored", *OF_SERVERS)
    say("the backup's tree with the source as it is now:")
    mirrored = differences(stage, SOURCE, "backup/tree", *OF_SERVERS)

    chapter("Summary")
    say(f"first backup        {first['objects_new']:,} objects, by a scan, in {first['seconds']:.1f} s")
    say(
        f"after the changes   {second['objects_new']:,} new, {second['objects_changed']:,} changed,"
        f" {second['objects_removed']:,} removed, {second['files_copied']:,} files copied, in {second['seconds']:.1f} s"
    )
    return len(restored) + len(mirrored)


OF_SERVERS = ("--filter=-x trusted.*", "--filter=-x lustre.*")
"""What the servers keep with an object for themselves is not compared."""


def main() -> int:
    if os.geteuid() != 0 or not os.access("/dev/fuse", os.R_OK | os.W_OK):
        say("this demo needs root and FUSE: it mounts a simulated Lustre")
        return 1
    with scratch_folder(keep=False) as scratch:
        try:
            with served(str(scratch / "lustre")) as control:
                stage = Stage(scratch)
                stage.environment |= client_environment(str(scratch / "lustre"))
                problems = demonstrate(stage, control)
        except (DemoError, LustreError) as exc:
            say(f"\nFAILED: {exc}")
            return 1
    say(f"\nFAILED: {problems:,} differences" if problems else "\nAll is well.")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
