; hello: from the reset vector through every operating mode and back, with exceptions and interrupts in each.
; Topology: bare. Needs 16 MiB of RAM, a PIC, a PIT, a local APIC. Exit status 0 = all as expected.

%include "rom.inc"

CODE16      equ 0x08
DATA16      equ 0x10
CODE32      equ 0x18
CODE64      equ 0x20
DATA        equ 0x28
USER32      equ 0x30 | 3
USER_DATA   equ 0x38 | 3
USER64      equ 0x40 | 3
TSS64       equ 0x48
TSS32       equ 0x58
STACK16     equ 0x60

STACK       equ 0x7C00
USER_STACK  equ 0x9000
IST_STACK   equ 0xA000
LAPIC       equ 0xFEE00000
LEGACY_PD   equ 0x20000
PAE_PDPT    equ 0x21000
PAE_PD      equ 0x22000         ; four pages
PML4        equ 0x26000
LONG_PDPT   equ 0x27000
LEGACY_PT   equ 0x28000
PAE_PT      equ 0x29000
PATTERN     equ 0x30000         ; what the read-only alias shows
ABSENT      equ 0x400000        ; a linear address that no page table maps
ALIAS       equ 0x800000        ; read-only alias of PATTERN
TICK_VECTOR equ 0x20
APIC_VECTOR equ 0x40
INT_N       equ 0x30

%include "finish.inc"
%include "say.inc"
%include "expect.inc"
%include "hello16.inc"
%include "hello32.inc"
%include "hello64.inc"

            bits 16
            HANDLER 16, 0, 0
            HANDLER 16, 6, 0
            HANDLER 16, 13, 1
            HANDLER 16, INT_N, 0
on16_tick:  TICK    16, 0
            CHECK   16
            bits 32
            HANDLER 32, 0, 0
            HANDLER 32, 6, 0
            HANDLER 32, 13, 1
            HANDLER 32, 14, 1
            HANDLER 32, INT_N, 0
on32_tick:  TICK    32, 0
            CHECK   32
            bits 64
            HANDLER 64, 0, 0
            HANDLER 64, 6, 0
            HANDLER 64, 13, 1
            HANDLER 64, 14, 1
            HANDLER 64, INT_N, 0
on64_tick:  TICK    64, 0
on64_apic:  TICK    64, 1
            CHECK   64

            align 8
gdt:        dq 0
            dq 0x00009B010000FFFF   ; 16-bit code at BASE
            dq 0x000093010000FFFF   ; 16-bit data at BASE
            dq 0x00CF9B000000FFFF   ; 32-bit code
            dq 0x00AF9B000000FFFF   ; 64-bit code
            dq 0x00CF93000000FFFF   ; data
            dq 0x00CFFB000000FFFF   ; user 32-bit code
            dq 0x00CFF3000000FFFF   ; user data
            dq 0x00AFFB000000FFFF   ; user 64-bit code
tss64_descriptor:
            dw 0x67, R(tss64)
            db BASE >> 16, 0x89, 0, 0
            dq 0
            dw 0x67, R(tss32)
            db BASE >> 16, 0x89, 0, 0
            dq 0x000093000000FFFF   ; 16-bit stack at 0
gdt_end:
gdtr:       dw gdt_end - gdt - 1
            dd gdt
ivtr:       dw 0x3FF
            dd 0

            align 8
tss32:      dd 0, STACK - 0x400, DATA
            times 104 - ($ - tss32) db 0
tss64:      dd 0
            dq STACK - 0x400, 0, 0, 0, IST_STACK
            times 104 - ($ - tss64) db 0

            ROM_END
