"""Snapshots of run stacks on disk: written, checked, read."""
