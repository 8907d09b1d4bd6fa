"""The figures of ``make bench``: lb beside rsync, restic and borg, in the same run on the same tree."""
