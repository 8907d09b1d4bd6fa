"""Lustre for lb."""
