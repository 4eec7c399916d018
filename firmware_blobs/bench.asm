; bench: five phases, each between the lines "BEGIN name" and "END name ops=N"; time the lines from outside. All but the first run in
; a VMX guest under EPT.
; Topology: bare. Needs 128 MiB of RAM. Exit status 0 = every phase ended as it should.
;
;   touch   before VMXON: one load in each of 16,384 4-KiB pages; an op is a page
;   alu     10-instruction arithmetic loop; an op is an instruction
;   mem     6-instruction load/add/store loop over 64 KiB; an op is an instruction
;   cpuid   CPUID in a loop; an op is an exit with its handler: three VMREADs, one VMWRITE, VMRESUME
;   stride  one load in each of 16,384 pages, 4-KiB pages in both dimensions; an op is a page

%include "rom.inc"
%include "finish.inc"
%include "say.inc"
%include "isa.inc"
%include "start64.inc"
%include "vmx_pages.inc"
%include "vmx.inc"

ALU_LOOPS   equ 40000000
MEM_LOOPS   equ 30000000
CPUID_LOOPS equ 300000
PASSES      equ 200
PAGES       equ 16384

MTRR_ENABLE equ 1 << 11
TYPE_WRITE_BACK equ 6

EPT_PML4    equ 0x110000
EPT_PDPT    equ 0x111000
EPT_PD      equ 0x112000        ; four pages
EPT_PTS     equ 0x200000        ; 32 pages: LARGE_MEMORY by 4-KiB EPT pages
GUEST_PTS   equ 0x240000        ; 32 pages: LARGE_AREA by 4-KiB pages
GUEST_PD    equ 0x280000
GUEST_IDT   equ IDT
GUEST_STACK equ 0x9000
SMALL_AREA  equ 0x1000000       ; 64 KiB for `mem`
LARGE_MEMORY equ 0x4000000       ; 64 MiB for `stride`
LARGE_AREA  equ 0x100000000     ; its linear address

            bits 64
            FINISH 64

main64:     mov     ecx, IA32_MTRR_DEF_TYPE ; write-back, as firmware leaves RAM: a walk's references are cached
            mov     eax, MTRR_ENABLE | TYPE_WRITE_BACK
            xor     edx, edx
            wrmsr
            call    build_far
            say_line "BEGIN touch"
            call    stride
            say     "END touch ops="
            mov     eax, PASSES * PAGES
            call    say_decimal
            say     10
            mov     edi, VMXON_PAGE
            call    start_vmx
            ja      .on
            say_line "VMXON failed"
            mov     eax, 4
            jmp     finish64
.on:        call    build_ept
            or      dword [want_cpu2], SECONDARY_VPID ; as every hypervisor does: entry and exit need not forget translations
            mov     edi, phases
.phase:     push    rdi
            mov     rdi, VMCS_PAGE
            call    fresh_vmcs
            mov     byte [launched], 0
            call    reset_fields
            vmset   VIRTUAL_PROCESSOR_ID, 1
            call    apply_controls
            jc      no_control
            mov     rdi, [rsp]
            mov     rbx, [rdi]
            vmset   GUEST_RIP, rbx
            mov     rbx, [rdi + 8]
            vmset   HOST_RIP, rbx
            say     "BEGIN "
            lea     rsi, [rdi + 24]
            call    say_text
            say     10
            call    enter_guest
            test    eax, eax
            jnz     failed
            vmget   rax, VM_EXIT_REASON
            cmp     eax, REASON_VMCALL
            jne     unexpected_exit
            pop     rdi
            say     "END "
            lea     rsi, [rdi + 24]
            call    say_text
            mov     rax, [rdi + 16]
            say     " ops="
            call    say_decimal
            say     10
            mov     rdi, rsi
            cmp     edi, phases_end
            jb      .phase
            say_line "DONE"
            xor     eax, eax
            jmp     finish64

; An entry of the table: guest, exit handler, operations, name.
%macro PHASE 4
            dq      %1, %2, %3
            db      %4, 0
%endmacro
phases:     PHASE   guest_alu, exit_entry, ALU_LOOPS * 10, "alu"
            PHASE   guest_mem, exit_entry, MEM_LOOPS * 6, "mem"
            PHASE   guest_cpuid, exit_cpuid, CPUID_LOOPS, "cpuid"
            PHASE   guest_stride, exit_entry, PASSES * PAGES, "stride"
phases_end:

            align 64
guest_alu:  mov     ebx, ALU_LOOPS
            mov     eax, 0x1234567
            mov     ecx, 0x89ABCDE
            mov     edx, 11
            align 64
.loop:      add     rax, rcx
            lea     rdx, [rdx + rax + 5]
            xor     rcx, rdx
            ror     rdx, 7
            sub     rax, 3
            and     ecx, 0x7FFFFFFF
            imul    rdx, rax
            or      rcx, 1
            dec     ebx
            jnz     .loop
            vmcall

            align 64
guest_mem:  mov     ebx, MEM_LOOPS
            mov     esi, SMALL_AREA
            xor     ecx, ecx
            align 64
.loop:      mov     rax, [rsi + rcx]
            add     rax, 1
            mov     [rsi + rcx], rax
            add     cx, 64
            dec     ebx
            jnz     .loop
            vmcall

            align 64
guest_cpuid:
            mov     esi, CPUID_LOOPS
.loop:      cpuid
            dec     esi
            jnz     .loop
            vmcall
; HOST_RIP of the cpuid phase: the guest's registers other than RAX, RCX, RDX stay where they are.
            align 64
exit_cpuid: mov     ecx, VM_EXIT_REASON
            vmread  rax, rcx
            cmp     eax, REASON_CPUID
            jne     exit_entry
            mov     ecx, GUEST_RIP
            vmread  rax, rcx
            mov     edx, VM_EXIT_INSTRUCTION_LEN
            vmread  rdx, rdx
            add     rax, rdx
            vmwrite rcx, rax
            vmresume
            jmp     failed

            align 64
guest_stride:
            call    stride
            vmcall

            align 64
stride:     mov     edi, PASSES
.pass:      mov     rsi, LARGE_AREA
            mov     ecx, PAGES
.page:      mov     eax, [rsi]
            add     rsi, 0x1000
            dec     ecx
            jnz     .page
            dec     edi
            jnz     .pass
            ret

no_control: say_line "a control is missing"
            mov     eax, 5
            jmp     finish64
failed:     call    say_vmfail
            mov     eax, 6
            jmp     finish64
unexpected_exit:
            say     "unexpected exit: reason "
            mov     cl, 8
            call    say_hex
            say     " qualification "
            vmget   rax, EXIT_QUALIFICATION
            mov     cl, 16
            call    say_hex
            say     10
            mov     eax, 7
            jmp     finish64
say_vmfail: say_line "VM entry failed"
            ret

; EPT: 4 GiB one to one by 2-MiB pages, LARGE_MEMORY by 4-KiB pages.
build_ept:  mov     edi, EPT_PML4
            mov     ecx, 0x6000 / 8
            xor     eax, eax
            rep stosq
            mov     dword [EPT_PML4], EPT_PDPT | 7
            mov     edi, EPT_PDPT
            mov     eax, EPT_PD | 7
            mov     ecx, 4
            call    consecutive
            mov     edi, EPT_PD
            mov     eax, 0xB7
            mov     ecx, 2048
.pd:        mov     [rdi], rax
            add     edi, 8
            add     rax, 0x200000
            loop    .pd
            mov     edi, EPT_PD + (LARGE_MEMORY >> 21) * 8
            mov     eax, EPT_PTS | 7
            mov     ecx, 32
            call    consecutive
            mov     edi, EPT_PTS
            mov     eax, LARGE_MEMORY | 0x37
            mov     ecx, PAGES
            jmp     consecutive

; The guest's own tables: LARGE_AREA, 64 MiB, to LARGE_MEMORY.
build_far:  mov     edi, GUEST_PD
            mov     ecx, 0x1000 / 8
            xor     eax, eax
            rep stosq
            mov     dword [PDPT + (LARGE_AREA >> 30) * 8], GUEST_PD | 7
            mov     edi, GUEST_PD
            mov     eax, GUEST_PTS | 7
            mov     ecx, 32
            call    consecutive
            mov     edi, GUEST_PTS
            mov     eax, LARGE_MEMORY | 7
            mov     ecx, PAGES
; ECX entries at RDI, each 4 KiB further, from RAX.
consecutive:
            mov     [rdi], rax
            add     edi, 8
            add     rax, 0x1000
            loop    consecutive
            ret

%include "vmx_guest.inc"
            ROM_END
