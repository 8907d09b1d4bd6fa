"""The transfer `rsync` of lb."""
