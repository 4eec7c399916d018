"""vmxemu: a cycle-approximate, ISA-level x86-64 emulator with Intel VMX."""
