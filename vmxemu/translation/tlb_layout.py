"""Cached translations (owned by the translation room; extend here)."""

from vmxemu.layout import Layout, u64


class Tlb(Layout):
    """The TLB."""

    hits: u64
