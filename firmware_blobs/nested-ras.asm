; nested-ras: firmware boots the outer VMM (VMM1), announces the end of the boot phase, and a second VMM (VMM2) boots in VMM1's virtual
; machine and runs a guest (VM2) while management interrupts come in. Topology: layered.
; Assembled with -DLATE it is late-vmm1: the firmware ends the boot phase before it asks for VMM1, which must be refused.
; Assembled with -DSTOCK it is layered-firmware: VM1 runs the user's image, from the reset state, instead of our VMM2.
; Assembled with -DBARE it is vmm2-bare: the same VMM2 and VM2 on the bare processor, without the firmware's VMM1 part.
;
; Exit status: 0 VM2's checksums never changed; 2 an unexpected exception; 3..0x1F see the line of text that says why.

%include "rom.inc"
%include "finish.inc"
%include "say.inc"
%include "isa.inc"
%include "start64.inc"
%include "vmx_pages.inc"
%include "vmx.inc"

; ---- memory of VM1 (guest-physical addresses of VM1; of the machine, in the bare build)
;  006000h memory map   010000h this image   020000h page tables   026000h firmware's IDT   030000h SMBASE until relocation; VM1's SMBASE
MEMORY_MAP  equ 0x6000          ; a quadword with the number of entries, then entries: base, length (quadwords), type, 1 (doublewords)
VMM2_IDT    equ 0x28000
SMBASE      equ 0x30000
EPT_PML4    equ 0x110000        ; EPT12; its tables follow
EPT_TABLES  equ 0x111000
EPT_END     equ 0x200000
POOL        equ 0x800000        ; frames for VM2's 4-KiB pages
POOL_END    equ 0x1000000
LARGE_FRAME equ 0x1000000       ; for VM2's 2-MiB page

; ---- memory of VM2 (guest-physical addresses of VM2)
VM2_PML4    equ 0x1000
VM2_PDPT    equ 0x2000
VM2_PD      equ 0x3000
GUEST_IDT   equ 0x4000
GUEST_STACK equ 0x9000
PATTERN     equ 0x200000        ; 4 MiB: 2 MiB by 4-KiB pages, then 2 MiB by one 2-MiB page
LARGE_PAGE  equ 0x400000
PATTERN_END equ 0x600000
START_IMAGE equ 0x564D5831      ; VMCALL: start the user's image
FACTOR      equ 0x9E3779B97F4A7C15

PASSES      equ 40
PERIOD      equ 4000000         ; of VMM2's timer, in cycles of the time-stamp counter
TIMER       equ 0x40            ; vectors of VMM2
CMCI        equ 0xF2
SPURIOUS    equ 0xFF
VM2_TICK    equ 0x20            ; vector of VM2
VM2_PORT    equ 0x510           ; a port and an MSR that only VMM2 gives to VM2
VM2_MSR     equ 0x40000001

            bits 64
            FINISH 64

; fail status, "text": a line, and the end
%macro fail 2+
            say_line %2
            mov     eax, %1
            jmp     finish64
%endmacro

%ifndef BARE
%include "nested_firmware.inc"
%include "nested_smm.inc"
%include "nested_vm1.inc"
%else
main64:
%endif

; ---- VM1 starts here, in 64-bit mode
vm1_start:
%ifdef STOCK
            mov     ecx, VMXEMU_PHASE
            mov     eax, 1
            xor     edx, edx
            wrmsr
            say_line "firmware: VMM1 is up, the boot phase is over; VM1 starts the image"
            mov     eax, START_IMAGE
            vmcall                          ; VMM1 resets VM1: the image finds a processor after RESET
            fail    13, "firmware: FAILED: VMM1 did not start the image"
%else
%ifndef BARE
            call    end_boot_phase
%endif
%include "nested_vmm2.inc"
%include "nested_vmm2_exits.inc"
%include "nested_vmm2_events.inc"
%include "nested_vm2.inc"
%endif
%include "ept_map.inc"
%include "vmx_guest.inc"

say_vmfail: jc      .invalid
            say     "VM entry: VMfailValid "
            vmget   rax, VM_INSTRUCTION_ERROR
            call    say_decimal
            say     10
            ret
.invalid:   say_line "VM entry: VMfailInvalid"
            ret

            ROM_END
