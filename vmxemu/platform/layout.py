"""Devices' state (owned by the platform room; extend here)."""

from vmxemu.layout import Layout, u64


class Platform(Layout):
    """All devices."""

    exit_port: u64
