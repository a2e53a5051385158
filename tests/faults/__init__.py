"""Faults on purpose: processes that die, disks that fill, folders that vanish, and links that lead astray."""
