; exits: a small VMM whose guest causes every VM exit that vmxemu supports; each exit becomes a line of text.
; Topology: bare. Needs 32 MiB of RAM, a local APIC, VMX with EPT and unrestricted guest. Exit status 0 = the list was worked off.
;
; One test = name, action, setup, guest stub (exits_tests_*.inc). The guest is in 64-bit mode, CPL 0, on the VMM's own page tables.

%include "rom.inc"
%include "finish.inc"
%include "say.inc"
%include "isa.inc"
%include "start64.inc"
%include "vmx_pages.inc"
%include "vmx.inc"

OTHER_VMCS  equ 0x102000
EPT_PML4    equ 0x110000
EPT_PDPT    equ 0x111000
EPT_PD      equ 0x112000        ; four pages
EPT_PT      equ 0x116000        ; the window's 4-KiB pages
WINDOW      equ 0x1000000
GUEST_IDT   equ 0x27000
GUEST_STACK equ 0x9000
ABSENT      equ 0x100000000     ; a linear address without translation
VECTOR      equ 0x41            ; external interrupt

            bits 64
            FINISH 64

main64:     say_line "exits: a VMM and the VM exits of its guest"
            mov     qword [handlers + VECTOR * 8], on_interrupt
            mov     ebx, LAPIC
            mov     dword [rbx + 0xF0], 0x1FF
            mov     edi, VMXON_PAGE
            call    start_vmx
            ja      .on
            say_line "VMXON failed"
            mov     eax, 4
            jmp     finish64
.on:        call    build_ept
            mov     edi, VMCS_PAGE
            call    fresh_vmcs
            call    instruction_errors
            mov     dword [test_at], test_0

.test:      call    prepare
            mov     ebx, [test_at]
            lea     rsi, [rbx + 12]
            call    say_text
            say     10
            mov     [stub_at], rsi
            vmset   GUEST_RIP, rsi
            mov     ebx, [rbx + 4]
            test    ebx, ebx
            jz      .controls
            call    rbx
.controls:  call    apply_controls
            jc      .absent
            mov     dword [exits_left], 24
.enter:     call    enter_guest
            test    eax, eax
            jnz     .next
            vmget   rax, VM_EXIT_REASON
            cmp     eax, REASON_VMCALL
            jne     .exit
            call    guest_call
            jc      .next
            jz      .skip
.exit:      call    say_exit
            mov     ebx, [test_at]
            mov     ebx, [rbx + 8]
            call    rbx
            cmp     eax, STOP
            je      .next
            cmp     eax, STAY
            je      .again
.skip:      vmget   rbx, GUEST_RIP
            vmget   rdx, VM_EXIT_INSTRUCTION_LEN
            add     rbx, rdx
            vmset   GUEST_RIP, rbx
            vmset   GUEST_INTERRUPTIBILITY_INFO, 0
.again:     dec     dword [exits_left]
            jnz     .enter
            say_line "  FAILED: no end"
            mov     eax, 5
            jmp     finish64
.absent:    say_line "  not available"
.next:      mov     ebx, [test_at]
            mov     ebx, [rbx]
            mov     [test_at], ebx
            cmp     ebx, tests_end
            jne     .test
            say_line "exits: done"
            xor     eax, eax
            jmp     finish64

; The host's handler of external interrupts.
on_interrupt:
            inc     dword [interrupts]
            mov     eax, LAPIC
            mov     dword [rax + 0xB0], 0
            ret

; VMCALL with EAX = 'DONE' ends the test (CF), 'TELL' prints RBX, 'EVNT' an event (RBX vector, RCX error code, RDX RIP);
; ZF: handled. Other VMCALLs are exits like any other (neither).
guest_call: mov     eax, [guest_rax]
            cmp     eax, 'DONE'
            je      .done
            cmp     eax, 'TELL'
            je      .tell
            cmp     eax, 'EVNT'
            je      .event
            test    rsp, rsp
            ret
.done:      stc
            ret
.tell:      say     "  guest: "
            mov     rax, [guest_rbx]
            mov     cl, 16
            call    say_hex
            say     10
            xor     eax, eax
            ret
.event:     say     "  guest event: vector "
            mov     rax, [guest_rbx]
            mov     cl, 2
            call    say_hex
            say     " error "
            mov     rax, [guest_rcx]
            mov     cl, 4
            call    say_hex
            say     " rip "
            mov     rax, [guest_rdx]
            call    say_rip
            say     10
            xor     eax, eax
            ret

; Actions: what to do after an exit was printed.
SKIP        equ 0               ; past the instruction
STAY        equ 1               ; resume where it is
STOP        equ 2               ; the test is over
skip:       mov     eax, SKIP
            ret
stay:       mov     eax, STAY
            ret
stop:       mov     eax, STOP
            ret

%include "vmx_guest.inc"
%include "exits_state.inc"
%include "exits_print.inc"
%include "exits_errors.inc"

; TEST "name", action, setup: the stub follows.
%assign test_number 0
%macro TEST 2-3 0
  %assign next_number test_number + 1
            align 4
test_%[test_number]:
            dd      test_%[next_number], %3, %2
            db      %1, 0
  %assign test_number next_number
%endmacro
%macro DONE 0
            mov     eax, 'DONE'
            vmcall
%endmacro
%macro TELL 1
            mov     rbx, %1
            mov     eax, 'TELL'
            vmcall
%endmacro
%macro SET_BIT 2
            or      byte [%1 + (%2) / 8], 1 << ((%2) & 7)
%endmacro
; want cpu, CPU_HLT: ask for control bits (in a setup)
%macro want 2
            or      dword [want_%1], %2
%endmacro

%include "exits_tests_instructions.inc"
%include "exits_tests_registers.inc"
%include "exits_tests_io.inc"
%include "exits_tests_events.inc"
%include "exits_tests_memory.inc"
%include "exits_tests_modes.inc"
test_%[test_number]:
tests_end:

; The guest's exceptions and interrupts: told by a VMCALL. Faults end the test, other events return.
guest_event:
            push    rax
            push    rbx
            push    rcx
            push    rdx
            mov     rbx, [rsp + 32]
            mov     rcx, [rsp + 40]
            mov     rdx, [rsp + 48]
            mov     eax, 'EVNT'
            vmcall
            cmp     ebx, VECTOR
            jne     .no_eoi
            mov     eax, LAPIC
            mov     dword [rax + 0xB0], 0
.no_eoi:    cmp     ebx, 32
            jae     .return
            cmp     ebx, 3
            ja      .fault
            test    ebx, ebx
            jz      .fault
.return:    pop     rdx
            pop     rcx
            pop     rbx
            pop     rax
            add     rsp, 16
            iretq
.fault:     DONE
            ENTRY_POINTS guest_points, guest_event

            align 8
test_at:    dq 0
stub_at:    dq 0
exits_left: dd 0
interrupts: dd 0

            ROM_END
