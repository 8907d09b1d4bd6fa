"""The text that ``lb init`` writes."""

from __future__ import annotations

from lbcore.config.toml import toml_key, toml_value

HEAD = """\
# The configuration of lb: a section for each job. `lb config validate` checks this file, `lb config show`
# prints all values in effect. Lines that begin with '#' show what else can be set.

"""

_JOB = """\
[job.{key}]
# The folder to back up, and the folder that holds the backup: an ordinary copy in tree/, the rest in .lb/.
source = {source}
target = {target}

# The target is used only while something is mounted there: an empty mount point would get a new first backup.
{target_mount}

# What brings the content of files, in the order they are tried. rsync sends only the changed parts of
# large files (package lb-rsync).
transfer = ["copy"]
# transfer = ["rsync", "copy"]

# What to leave out, in gitignore syntax, relative to the source; `include` brings back parts of it.
exclude = []
# exclude = ["/scratch/", "*.tmp", ".cache/"]
# include = ["important.tmp"]

# Do not enter other filesystems that are mounted in the source.
one_filesystem = false

# The brake: a run that would remove more than this stops and changes nothing, until `lb approve`. "25% and 1000" stops
# it when it would remove more than a quarter of all objects and also more than 1000; for a small tree say "25%".
max_delete = "25% and 1000"

# Compare what a run has brought with the catalog when it is done ("checksum" also reads the content); `lb verify`
# looks at the whole backup.
# verify = ["attributes"]

# Where the database is, when the target is on a network filesystem: a folder on a local disk.
# state_dir = "/var/lib/lb/{name}"

# How many workers copy at the same time; as many as there are processors, at most 8, when it is not set.
# workers = 4
"""


def job_section(name: str, source: str, target: str, target_mount: str | None) -> str:
    """A commented section for a job; ``target_mount`` is where the target is mounted, None when it is not."""
    mount = f"{'# ' if target_mount is None else ''}target_mount = {toml_value(target_mount or target)}"
    return _JOB.format(
        name=name, key=toml_key(name), source=toml_value(source), target=toml_value(target), target_mount=mount
    )
