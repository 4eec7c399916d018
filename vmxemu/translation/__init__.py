"""Address translation: linear to guest-physical to host-physical, as the SDM has it.

A reader's way through the room:

- One address, from the top: `translate` (first level, second level), `miss` (a walk, its cost, what is kept), `walk`, `guest`
  (the guest's tables), `finish` (rights, flags, the page itself), `ept` (each guest-physical address on the way). `rights` says
  what a page permits and an access requires, `closer` decides where that is not enough; `ept_failure`, `ept_flags`, `subpages`
  are EPT's special cases.
- Many addresses: `batch`, in its fast lane `lockstep` (sixteen walks at once, in `lanes`), `streams` (several cores).
- What is cached: `tlb` (keys, look-up), `replacement` and `tree_plru` (use, victims, insertion), `associative` on `bytes64`
  (walk caches), `walk_caches` and `ept_tables` (what walks do with them), `data_caches` (what a reference costs), `geometry` and
  `roomy` (sizes); `invalidate` and `forget` take it away again. The records are in `tlb_layout`, those of walks in `layout`.
- Uses of what should have gone: `stale`, with `births`, `stale_source`, `stale_report`, `stale_words`.
- Without a machine: `library`, with `structures`; `setting`, `scene`, `journal`, `account` are what `vmxemu walk` tells its
  story from.
- For emulated instructions: `access`, `pdpte`, `memory_type`.
"""
