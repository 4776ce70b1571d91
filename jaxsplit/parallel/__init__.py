"""Devices and processes: meshes, sharding, placement, and the hosts that train together."""
