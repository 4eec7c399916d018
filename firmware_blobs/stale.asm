; stale: software that makes the right invalidation, and software that makes a wrong one or none. A page is read, its mapping is
; changed from the frame "old" to the frame "new", and it is read again: what is printed is what the second read finds.
; Topology: bare. Which of the wrong ones shows depends on the TLB, as it does on hardware: try --tlb lazy, --tlb eager and
; --check-translations. Exit status 0 = it came to its end.

%include "rom.inc"
%include "finish.inc"
%include "say.inc"
%include "isa.inc"
%include "start64.inc"
%include "vmx_pages.inc"
%include "vmx.inc"

EPT_PML4    equ 0x110000
EPT_PDPT    equ 0x111000
EPT_PD      equ 0x112000        ; four pages
EPT_PT      equ 0x116000        ; of the 2 MiB from OLD on
PAGE_PD     equ 0x280000
PAGE_PT     equ 0x281000        ; of PAGE and the page after it
GUEST_IDT   equ IDT
GUEST_STACK equ 0x9000
OLD         equ 0x1000000
NEW         equ 0x1001000
PAGE        equ 0x100000000     ; linear address
GUEST_VPID  equ 1

            bits 64
            FINISH 64

main64:     mov     edi, VMXON_PAGE
            call    start_vmx
            ja      .on
            say_line "VMXON failed"
            mov     eax, 4
            jmp     finish64
.on:        call    build_tables
            or      dword [want_cpu2], SECONDARY_VPID
            mov     rdi, VMCS_PAGE
            call    fresh_vmcs
            call    reset_fields
            vmset   VIRTUAL_PROCESSOR_ID, GUEST_VPID
            vmset   GUEST_RIP, guest
            call    apply_controls
            jc      no_control

            mov     r15, PAGE
            say     "own page, INVLPG: "
            call    fresh_page
            mov     al, [r15]
            mov     dword [PAGE_PT], NEW | 7
            invlpg  [r15]
            mov     al, [r15]
            call    say_which

            say     "own page, INVLPG of the next one: "
            call    fresh_page
            mov     al, [r15]
            mov     dword [PAGE_PT], NEW | 7
            invlpg  [r15 + 0x1000]
            mov     al, [r15]
            call    say_which

            say     "EPT, INVEPT: "
            call    fresh_page
            call    guest_reads
            mov     dword [EPT_PT], NEW | 0x37
            call    invalidate_ept
            call    guest_reads
            call    say_which

            say     "EPT, nothing: "
            call    fresh_page
            call    guest_reads
            mov     dword [EPT_PT], NEW | 0x37
            call    guest_reads
            call    say_which

            say     "guest's page, INVVPID: "
            call    fresh_page
            call    guest_reads
            mov     dword [PAGE_PT], NEW | 7
            call    invalidate_vpid
            call    guest_reads
            call    say_which

            say     "guest's page, INVLPG in the VMM: "
            call    fresh_page
            call    guest_reads
            mov     dword [PAGE_PT], NEW | 7
            invlpg  [r15]
            call    guest_reads
            call    say_which

            say_line "DONE"
            xor     eax, eax
            jmp     finish64

; PAGE is OLD for everybody, and nobody has anything else of it in a cache.
fresh_page: mov     dword [PAGE_PT], OLD | 7
            mov     dword [EPT_PT], OLD | 0x37
            mov     rcx, PAGE
            invlpg  [rcx]
            call    invalidate_vpid
invalidate_ept:
            mov     eax, 2                  ; all contexts
            invept  rax, [nothing]
            ret
invalidate_vpid:
            mov     eax, 1                  ; single context
            invvpid rax, [the_vpid]
            ret

            align 16
nothing:    dq 0, 0
the_vpid:   dq GUEST_VPID, 0

; AL = the byte that the guest finds at PAGE.
guest_reads:
            call    enter_guest
            test    eax, eax
            jnz     failed
            vmget   rax, VM_EXIT_REASON
            cmp     eax, REASON_VMCALL
            jne     failed
            vmset   GUEST_RIP, guest
            mov     al, [guest_rax]
            ret

            align 16
guest:      mov     rcx, PAGE
            movzx   eax, byte [rcx]
            vmcall

say_which:  cmp     al, 'n'
            je      .new
            say_line "old"
            ret
.new:       say_line "new"
            ret

no_control: say_line "a control is missing"
            mov     eax, 5
            jmp     finish64
failed:     say_line "not the VM exit that should come"
            mov     eax, 6
            jmp     finish64
say_vmfail: say_line "VM entry failed"
            ret

; EPT: 4 GiB one to one by 2-MiB pages, those around OLD by 4-KiB pages. PAGE and the page after it in our own tables.
build_tables:
            mov     edi, EPT_PML4
            mov     ecx, 0x7000 / 8
            xor     eax, eax
            rep stosq
            mov     edi, PAGE_PD
            mov     ecx, 0x2000 / 8
            rep stosq
            mov     dword [EPT_PML4], EPT_PDPT | 7
            mov     edi, EPT_PDPT
            mov     eax, EPT_PD | 7
            mov     ecx, 4
            mov     edx, 0x1000
            call    consecutive
            mov     edi, EPT_PD
            mov     eax, 0xB7
            mov     ecx, 2048
            mov     edx, 0x200000
            call    consecutive
            mov     dword [EPT_PD + (OLD >> 21) * 8], EPT_PT | 7
            mov     edi, EPT_PT
            mov     eax, OLD | 0x37
            mov     ecx, 512
            mov     edx, 0x1000
            call    consecutive
            mov     dword [PDPT + (PAGE >> 30) * 8], PAGE_PD | 7
            mov     dword [PAGE_PD], PAGE_PT | 7
            mov     dword [PAGE_PT + 8], OLD | 7
            mov     byte [OLD], 'o'
            mov     byte [NEW], 'n'
            ret
; ECX entries at RDI, each RDX further, from RAX.
consecutive:
            mov     [rdi], rax
            add     edi, 8
            add     rax, rdx
            loop    consecutive
            ret

%include "vmx_guest.inc"
            ROM_END
