; paging: a VMM generates guest tables and EPT tables at random and lets a guest make one access through both. One line per case:
;
;   00042 W3 -NE-CD-PG- 2:44124 s1 done a5c3000000421234 g7351 e1 135 135 131 13. 137
;         | |           | |     |  outcome               |     flags of the EPT entries: PML4; PDPT, PD and PT of each guest page
;         | |           | |     how EPT tables are shared (s0..s2), which guest page is another one (l0..l3)
;         | CPL         | EPT page size of the guest's PML4, PDPT, PD, PT and of its page: 4 KiB, 2 MiB, 1 GiB
;         access        guest page size                  flags of the guest's entries, PML4 first
;   access   Read Write Fetch Modify (ADD to memory) Lar (reads a descriptor) Vector (a gate is read for an injected exception)
;   letters  CR0.WP, EFER.NXE, CR4.SMEP, CR4.SMAP, RFLAGS.AC, EPT A/D flags, VPID, CR4.PCIDE, CR4.PGE, EPTP uncacheable
;   flags    accessed 1, dirty 2 after the access; + 4 and + 8 where the access has set them. '.': no such entry. 'X': other bits changed
;
; Topology: bare. Needs 32 MiB of RAM, VMX with EPT (4 levels, execute-only, A/D flags, 1-GiB pages), VPID and EFER controls.
; Exit status 0 = all cases were worked off. A case depends on its number and the seed only.

%include "rom.inc"
%include "finish.inc"
%include "say.inc"
%include "isa.inc"
%include "start64.inc"
%include "vmx_pages.inc"
%include "vmx.inc"

GUEST_IDT   equ IDT
GUEST_STACK equ 0x9000

; EPT: entry 0 of the PML4 maps the first GiB one to one, for the stubs; entry 1 leads to what is generated.
EPT_PML4    equ 0x110000
EPT_STUBS   equ 0x111000
EPT_PDPT    equ 0x112000
EPT_PD      equ 0x113000        ; five pages, one for each of the guest's pages
EPT_PT      equ 0x118000        ; five pages
; The guest's well-behaved tables: the stubs for CPL 0, and 1 GiB higher once more for CPL 3.
STUB_PDPT   equ 0x11D000
STUB_PD     equ 0x11E000
STUB_PD_USER equ 0x11F000
LAST_TABLE  equ 0x120000
USER_ALIAS  equ 0x40000000
; Where the generated guest tables and the guest's page stand: 2 MiB each.
TABLE_AREA  equ 0x1000000
DATA_AREA   equ 0x1200000
AREA_PAGES  equ 512

; The guest's pages by number.
PAGE_DATA   equ 0
PAGE_PML4   equ 4
PAGES       equ 5
; Entries on the path: the guest's four, EPT's PML4 entry, then three (PDPT, PD, PT) for each guest page, PML4 first.
RECORD_EPT  equ 4
RECORD_PAGES equ 5
RECORDS     equ 20

; In code's own page a store is slow: variables stand elsewhere.
            [absolute 0x30000]
random_state: resq 1
case_gla:   resq 1
case_cr3:   resq 1
case_rip:   resq 1
target:     resq 1              ; host-physical address of what is accessed, and what stood there
target_before: resq 1
page_gpa:   resq PAGES
page_hpa:   resq PAGES
page_size:  resb 8              ; of the EPT page: 0 = 4 KiB, 1 = 2 MiB, 2 = 1 GiB
record_at:  resq RECORDS
record_before: resq RECORDS
index_at:   resq 4              ; the guest's table indices, level 1 first
case_number: resd 1
controls:   resd 1
kind:       resb 1
cpl:        resb 1
us_policy:  resb 1
wildness:   resb 1              ; of 256: probability of a defect in an entry
share:      resb 1
guest_size: resb 1
loop_page:  resb 1              ; this page is the one above it; 0xFF: none
            align 8, resb 1
common_pdpt: resd 1
common_pd:  resd 1
with_vpid:  resq 1
without_vpid: resq 1
outcomes:   resd 6
            __?SECT?__

            bits 64
            FINISH 64

main64:     say_line "paging: generated guest tables and EPT tables, one access each"
            mov     edi, VMXON_PAGE
            call    start_vmx
            ja      .on
            say_line "VMXON failed"
            mov     eax, 4
            jmp     finish64
.on:        call    prepare
            mov     eax, [first_case]
            mov     [case_number], eax
.case:      call    generate
            call    enter_case
            test    eax, eax
            jnz     .failed
            call    say_case
            cmp     dword [details], 0
            je      .clean
            call    say_details
.clean:     call    clean
            inc     dword [case_number]
            dec     dword [case_count]
            jnz     .case
            call    say_totals
            xor     eax, eax
            jmp     finish64
.failed:    mov     eax, 5
            jmp     finish64

; A tool may change these in the image: it finds the eight letters. The defaults make a run of a few seconds.
            align 8
settings:   db      "PAGING-1"
seed:       dq      0x5DEECE66D
first_case: dd      0
case_count: dd      4096
details:    dd      0                       ; 1 = print every entry of each case

%include "vmx_guest.inc"
%include "paging_choose.inc"
%include "paging_entries.inc"
%include "paging_cases.inc"
%include "paging_tables.inc"
%include "paging_run.inc"
%include "paging_print.inc"
%include "paging_details.inc"

            ROM_END
