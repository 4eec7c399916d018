"""Why a translation ended as it did, in one sentence, and which entry decided it."""

from collections.abc import Callable
from dataclasses import dataclass

from vmxemu import outcome as outcomes
from vmxemu.isa import bits, paging
from vmxemu.presentation.walk_story import Row, Story, target_name
from vmxemu.translation.account import EPT, GUEST, LEGACY, SPP, Account
from vmxemu.translation.layout import EPT_MODE_BASED_EXECUTE, FETCH, WRITE

VERBS = {0: "read", 1: "write", 2: "fetch"}


@dataclass(frozen=True, slots=True)
class Reason:
    """The sentence, and the row that decided (None: no entry did)."""

    sentence: str
    row: Row | None = None


def reason(story: Story) -> Reason:
    """Why the translation ended so."""
    teller = TELLERS.get(story.account.kind)
    return teller(story) if teller else Reason("The walk ended in a way that has no name here.")


def access_name(account: Account) -> str:
    """'user read', 'supervisor shadow-stack write', 'implicit supervisor read'."""
    who = "user" if account.user else "implicit supervisor" if account.processor.cpl == 3 else "supervisor"
    return f"{who} {'shadow-stack ' if account.shadow_stack else ''}{VERBS[account.operation]}"


def entry_name(row: Row) -> str:
    """'the guest PDE (15)', 'the EPT PTE for the page (24)'."""
    whom = f" for {'the ' if row.target else ''}{target_name(row.target)}" if row.kind == EPT else ""
    return f"the {row.title}{whom}" + (f" (reference {row.number})" if row.number else "")


def _success(story: Story) -> Reason:
    account = story.account
    if any(row.title in ("L1 TLB", "STLB") for row in story.rows):
        return Reason("The TLB holds this translation with the right that the access needs: no table was read.")
    if account.count == 0:
        return Reason("Paging and EPT are off: the address is physical.")
    if vector := story.of(SPP):
        part = account.gpa >> 7 & 31
        return Reason(f"EPT forbids writes to the page, but {entry_name(vector[-1])} permits them to sub-page {part}.")
    return Reason(f"Every entry on the way permits this {access_name(account)}.")


def _fault(story: Story) -> Reason:
    if not story.account.is_page_fault:
        width = 57 if story.account.processor.guest_levels == 5 else 48
        return Reason(f"The address is not canonical: bits 63:{width - 1} are not all equal. Nothing was read.")
    code = paging.decode("PAGE_FAULT", story.account.error_code & 0xFFFFFFFF)
    row = next(reversed(story.of(GUEST)), None)
    if not code["P"]:
        return _not_present(story, row)
    if code["RSVD"] and row is not None:
        return Reason(f"In {entry_name(row)} {_reserved(story, row)}.", row)
    if code["PK"]:
        return _key(story)
    return _shadow_stack(story) if code["SS"] else _protection(story)


def _not_present(story: Story, row: Row | None) -> Reason:
    if row is None:
        number = story.account.gla >> 30 & 3
        return Reason(f"PDPTE register {number} is not present (P = 0): no table was read.")
    return Reason(f"The walk ends at {entry_name(row)}: it is not present (P = 0).", row)


def _reserved(story: Story, row: Row) -> str:
    processor, entry = story.account.processor, row.reference.entry
    width = 52 if processor.mode == LEGACY else processor.physical_bits
    wrong = paging.reserved_bits_set(row.structure, entry, width)
    if wrong:
        beyond = f" (this processor has {processor.physical_bits} physical-address bits)" if wrong[-1] >= width else ""
        many = len(wrong) > 1
        return f"reserved bit{'s' * many} {', '.join(map(str, wrong))} {'are' if many else 'is'} 1{beyond}"
    if not processor.efer & int(bits.EFER_NXE) and entry >> 63:
        return "XD is 1, which is reserved while EFER.NXE = 0"
    return "PS is 1, but there is no page of that size here"


def _key(story: Story) -> Reason:
    row, account = story.guest_leaf, story.account
    if row is None:
        return Reason("The protection key of the page forbids the access.")
    key = paging.decode(row.structure, row.reference.entry)["KEY"]
    user_page = all(_fields(one)["US"] for one in story.of(GUEST))
    name, value = ("PKRU", account.processor.pkru) if user_page else ("IA32_PKRS", account.processor.pkrs)
    what = "AD" if value >> 2 * key & 1 else "WD"
    means = f"no {'data access' if what == 'AD' else 'write'} is allowed"
    return Reason(f"{_start(entry_name(row))} has protection key {key}, and {name}.{what}{key} = 1: {means}.", row)


def _shadow_stack(story: Story) -> Reason:
    rows, user = story.of(GUEST), story.account.user
    if not rows:
        return Reason("The page is no shadow-stack page.")
    leaf, above = rows[-1], rows[:-1]
    for row in above:
        if not _fields(row)["RW"]:
            return Reason(f"{_start(entry_name(row))} has R/W = 0: above a shadow-stack page R/W must be 1.", row)
    fields = _fields(leaf)
    if fields["RW"] or not fields.get("D"):
        return Reason(
            f"{_start(entry_name(leaf))} maps no shadow-stack page: such a page has R/W = 0 and D = 1, "
            f"this one R/W = {fields['RW']}, D = {fields.get('D', 0)}.",
            leaf,
        )
    if user:
        return _lacking(rows, "US", 0, "U/S = 0: a user access needs U/S = 1 in every entry") or Reason("")
    return Reason("U/S is 1 in every entry: a supervisor shadow stack must be on a supervisor page.", leaf)


def _protection(story: Story) -> Reason:
    account, rows = story.account, story.of(GUEST)
    processor, operation = account.processor, account.operation
    user_page = all(_fields(row)["US"] for row in rows)
    found: Reason | None = None
    if account.user:
        found = _lacking(rows, "US", 0, "U/S = 0: user mode may not use what it maps")
    if found is None and operation == int(WRITE):
        why = "" if account.user else ", and CR0.WP = 1 makes that hold for supervisor mode too"
        found = _lacking(rows, "RW", 0, f"R/W = 0: no write is allowed through it{why}")
    if found is None and operation == int(FETCH):
        found = _lacking(rows, "XD", 1, "XD = 1: no instruction may be fetched through it")
    if found is None and user_page and rows and not account.user:
        if operation == int(FETCH) and processor.cr4 & int(bits.CR4_SMEP):
            return Reason("U/S is 1 in every entry: a user page, from which SMEP lets no supervisor fetch.", rows[-1])
        why = "implicit supervisor accesses never may" if processor.cpl == 3 else "RFLAGS.AC = 0"
        return Reason(f"U/S is 1 in every entry: a user page, which SMAP keeps from supervisor data accesses ({why}).", rows[-1])
    return found or Reason("An entry that a cache holds does not permit the access.")


def _lacking(rows: list[Row], name: str, bad: int, text: str) -> Reason | None:
    """The first entry whose bit `name` is `bad`."""
    wrong = [row for row in rows if _fields(row).get(name) == bad]
    if not wrong:
        return None
    return Reason(f"{_start(entry_name(wrong[0]))} has {text}.", wrong[0])


def _ept_rows(story: Story) -> list[Row]:
    """Those of the EPT walk that came last."""
    rows = story.of(EPT)
    target = rows[-1].target if rows else None
    found: list[Row] = []
    for row in reversed(rows):
        if row.target != target or (found and row.reference.level <= found[-1].reference.level):
            break
        found.append(row)
    return found[::-1]


def _violation(story: Story) -> Reason:
    account, rows = story.account, _ept_rows(story)
    told = paging.decode("EPT_VIOLATION", account.qualification)
    width = account.processor.ept_levels * 9 + 12
    if account.gpa >> width:
        return Reason(f"Guest-physical address {account.gpa:#x} has bits above the {width} that this EPT translates.")
    if not rows:
        return Reason("The cached guest-physical translation does not permit the access.")
    if not rows[-1].present:
        return Reason(f"The EPT walk ends at {entry_name(rows[-1])}: it is not present.", rows[-1])
    if (vector := next(reversed(story.of(SPP)), None)) is not None:
        part = account.gpa >> 7 & 31
        return Reason(f"Sub-page {part} of the page (128 bytes each) may not be written, says {entry_name(vector)}.", vector)
    if told["SHADOW_STACK"] and not account.user and account.processor.eptp & paging.bits_of("EPTP", "SSS"):
        return _supervisor_shadow_stack(rows)
    return _lacking_right(story, rows, told)


def _supervisor_shadow_stack(rows: list[Row]) -> Reason:
    for row in rows:
        fields = _fields(row)
        if row is rows[-1] and not fields.get("SSS"):
            return Reason(f"{_start(entry_name(row))} has bit 60 = 0: its page is no supervisor shadow stack.", row)
        if not fields["R"] or (row is not rows[-1] and not fields["W"]):
            return Reason(f"{_start(entry_name(row))} lacks a right: a shadow stack needs R and W above the page.", row)
    return Reason("The EPT entries do not permit the access.", rows[-1])


def _lacking_right(story: Story, rows: list[Row], told: dict[str, int]) -> Reason:
    mode_based = story.account.processor.has(int(EPT_MODE_BASED_EXECUTE))
    checks = [
        ("READ", "R", "no read is allowed through it"),
        ("WRITE", "W", "no write is allowed through it"),
        ("FETCH", "X", "no instruction may be fetched through it" + (" in supervisor mode" if mode_based else "")),
        ("FETCH", "XU", "no instruction may be fetched through it in user mode") if mode_based else ("", "", ""),
    ]
    for access, name, text in checks:
        if access and told[access] and (found := _lacking(rows, name, 0, f"{name} = 0: {text}")):
            return Reason(found.sentence + _why_write(story, told), found.row)
    return Reason("The EPT entries do not permit the access.", rows[-1])


def _why_write(story: Story, told: dict[str, int]) -> str:
    """Why the processor wrote where the program only asked for a translation."""
    if told["TRANSLATION"] or not told["WRITE"]:
        return ""
    if story.account.processor.eptp & paging.bits_of("EPTP", "AD"):
        return " With EPT accessed and dirty flags on, every use of a guest's table counts as a write."
    return " The processor had to set an accessed or dirty flag in the guest's table."


def _misconfiguration(story: Story) -> Reason:
    rows = _ept_rows(story)
    if not rows:
        return Reason("An EPT entry is misconfigured.")
    row, processor = rows[-1], story.account.processor
    fields, name = _fields(row), entry_name(row)
    execute = fields["X"] or (processor.has(int(EPT_MODE_BASED_EXECUTE)) and fields["XU"])
    wrong = paging.reserved_bits_set(row.structure, row.reference.entry, processor.physical_bits)
    if fields["W"] and not fields["R"]:
        return Reason(f"{_start(name)} allows writes but no reads (W = 1, R = 0).", row)
    if execute and not fields["R"] and not processor.ept_capabilities & 1:
        return Reason(f"{_start(name)} is execute-only, which this processor does not support.", row)
    if wrong:
        return Reason(f"In {name} {_reserved(story, row)}.", row)
    if fields.get("TYPE", 0) not in (0, 1, 4, 5, 6):
        return Reason(f"{_start(name)} has the reserved memory type {fields['TYPE']}.", row)
    return Reason(f"{_start(name)} maps a page of a size that this processor does not support.", row)


def _spp(story: Story) -> Reason:
    row = next(reversed(story.of(SPP)), None)
    if row is None:
        return Reason("The sub-page permission table has no entry for the page.")
    if not row.present:
        return Reason(f"The write depends on sub-page permissions, but {entry_name(row)} is not valid (SPPT miss).", row)
    return Reason(f"In {entry_name(row)} reserved bits are 1 (SPPT misconfiguration).", row)


def _pml_full(story: Story) -> Reason:
    rows = _ept_rows(story)
    text = "The write would set a dirty flag of EPT, and the page-modification log has no room: nothing was changed."
    return Reason(text, rows[-1] if rows else None)


def _retired(story: Story) -> Reason:
    return Reason(f"The tables permit the access, but the frame at {story.account.hpa:#x} has been retired.")


def _poison(story: Story) -> Reason:
    return Reason(f"The tables permit the access, but the frame at {story.account.hpa:#x} is poisoned.")


def _fields(row: Row) -> dict[str, int]:
    return paging.decode(row.structure, row.reference.entry)


def _start(text: str) -> str:
    return text[:1].upper() + text[1:]


TELLERS: dict[int, Callable[[Story], Reason]] = {
    int(outcomes.DONE): _success,
    int(outcomes.FAULT): _fault,
    int(outcomes.EPT_VIOLATION): _violation,
    int(outcomes.EPT_MISCONFIG): _misconfiguration,
    int(outcomes.SPP_EVENT): _spp,
    int(outcomes.PML_FULL): _pml_full,
    int(outcomes.RETIRED_FRAME): _retired,
    int(outcomes.POISON): _poison,
}
