"""The commands of lb itself; those of plugins come through ``lb_register_commands``."""

from __future__ import annotations

COMMANDS = {
    "init": ("lbcore.cli.init:init", "Write a configuration for a source and a target."),
    "run": ("lbcore.cli.run:run", "Bring the backup of each job to the present state of its source."),
    "collect": ("lbcore.cli.collect:collect", "Read the change feed of each job, so that it stays short."),
    "approve": ("lbcore.cli.run:approve", "Let a run go on that the brake stopped."),
    "check": ("lbcore.cli.check:check", "Look whether each job can run, and say what to do."),
    "status": ("lbcore.cli.status:status", "Show the last good run of each job, sizes, and what is open."),
    "runs": ("lbcore.cli.runs:runs", "List the runs of a job: its points in time."),
    "ls": ("lbcore.cli.ls:ls", "List what the backup holds, now or at an earlier time."),
    "history": ("lbcore.cli.history:history", "List all versions of a file, across renames."),
    "diff": ("lbcore.cli.diff:diff", "Show what changed between two runs."),
    "restore": ("lbcore.cli.restore:restore", "Copy files out of the backup, as they are or were."),
    "verify": ("lbcore.cli.verify:verify", "Compare the mirror with the catalog."),
    "config": ("lbcore.cli.config:config", "Check or show the configuration."),
    "plugins": ("lbcore.cli.plugins:plugins", "List the plugins and what they provide."),
}
"""In the order of ``lb --help``. A command returns its exit status; None is 0."""
