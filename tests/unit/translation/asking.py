"""Asking the reference and the kernels the same question. Answers are tuples that begin with a word."""

import numpy as np

from tests.reference import translation as reference
from vmxemu.outcome import EPT_MISCONFIG, EPT_VIOLATION, FAULT, PML_FULL, SPP_EVENT
from vmxemu.translation import bits
from vmxemu.translation.invalidate import invalidate_all
from vmxemu.translation.layout import (
    EPT_CONVERT_TO_VE,
    EPT_MODE_BASED_EXECUTE,
    EPT_PAGE_MODIFICATION_LOG,
    EPT_SUBPAGE_WRITE,
    FETCH,
    IMPLICIT_SUPERVISOR,
    READ,
    SHADOW_STACK,
    WRITE,
)
from vmxemu.translation.memory_type import memory_type
from vmxemu.translation.translate import translate, translate_guest_physical

ACCESS = {reference.READ: int(READ), reference.WRITE: int(WRITE), reference.FETCH: int(FETCH)}
IMPLICIT, ON_SHADOW_STACK = int(IMPLICIT_SUPERVISOR), int(SHADOW_STACK)
EXTENSIONS = {
    "mbe": int(EPT_MODE_BASED_EXECUTE),
    "spp": int(EPT_SUBPAGE_WRITE),
    "pml": int(EPT_PAGE_MODIFICATION_LOG),
    "ve": int(EPT_CONVERT_TO_VE),
}
KIND_FAULT, KIND_VIOLATION, KIND_MISCONFIGURATION = int(FAULT), int(EPT_VIOLATION), int(EPT_MISCONFIG)
KIND_PML_FULL, KIND_SPP_EVENT = int(PML_FULL), int(SPP_EVENT)


def ask_reference(processor, access):
    """What the reference says, without `why`."""
    return why_and_answer(processor, access)[1]


def why_and_answer(processor, access):
    processor.cpl, processor.ac, processor.code_64 = access.cpl, access.ac, access.code_64
    processor.pkru, processor.pkrs = access.pkru, access.pkrs
    try:
        if access.physical:
            return None, ("done", access.address, processor.translate_guest_physical(access.address, access.kind))
        answer = processor.translate(access.address, access.kind, access.implicit, access.shadow_stack)
    except reference.PageFault as fault:
        return fault.why, ("#PF", fault.error_code)
    except reference.EptViolation as violation:
        return violation.why, ("violation", violation.gpa, violation.qualification, violation.convertible)
    except reference.EptMisconfiguration as misconfiguration:
        return misconfiguration.why, ("misconfiguration", misconfiguration.gpa)
    except reference.SppEvent as event:
        return event.why, ("SPP event", event.gpa, event.qualification)
    except reference.PmlFull as full:
        return full.why, ("PML full", full.gpa)
    except reference.GeneralProtection as fault:
        return fault.why, ("#GP",)
    return None, ("done", *answer)


def words_of(record):
    return memoryview(record.bytes()[: record.bytes().size // 8 * 8]).cast("Q")


def index_of(record, name):
    return record._layout.FIELDS[name].offset // 8


class Subject:
    """The kernels of a Walker, fed and read through plain views of its records: a record's attributes are slow."""

    def __init__(self, walker):
        self.walker, m = walker, walker.m
        self.m = m
        self.registers, self.paging, self.walk = words_of(m.r), words_of(m.paging), words_of(m.walk)
        self.mode = memoryview(m.r.bytes()[: m.r.bytes().size // 4 * 4]).cast("I")
        self.mode_index = m.r._layout.FIELDS["mode"].offset // 4
        self.eflags = index_of(m.r, "eflags")
        self.pkru, self.pkrs, self.pml_index = (index_of(m.paging, name) for name in ("pkru", "pkrs", "pml_index"))
        names = ("gpa", "hpa", "qualification", "convertible", "word", "references")
        self.gpa, self.hpa, self.qualification, self.convertible, self.word, self.references = (
            index_of(m.walk, name) for name in names
        )

    def load(self, world):
        """Put a world into the walker, which has RAM of the same size."""
        m = self.m
        self.walker.ram.view(np.uint64)[:] = world.words
        m.cpu.physical_bits, m.cpu.vmx_msr[bits.EPT_VPID_CAP] = world.maxphyaddr, world.capabilities
        m.r.cr[0], m.r.cr[3], m.r.cr[4], m.r.efer, m.r.pat = world.cr0, world.cr3, world.cr4, world.efer, world.pat
        m.cpu.mtrr_def_type, m.cpu.mtrr_fixed.numpy[:] = world.mtrrs.def_type, world.mtrrs.fixed
        ranges = world.mtrrs.variable + [(0, 0)] * (10 - len(world.mtrrs.variable))
        m.cpu.mtrr_base.numpy[:], m.cpu.mtrr_mask.numpy[:] = zip(*ranges, strict=True)
        paging = m.paging
        paging.ept_pointer, paging.no_1g_pages = world.eptp, int(not world.page_1g)
        paging.pdpte0, paging.pdpte1, paging.pdpte2, paging.pdpte3 = world.pdpte
        paging.ept_extensions = sum(word for name, word in EXTENSIONS.items() if name in world.features)
        paging.spp_table, paging.pml_address, paging.pml_index = world.spp_table, world.pml_address, world.pml_index
        invalidate_all(m)

    def ask(self, access):
        """What the kernel says, in the form of the reference's answers."""
        m, walk = self.m, self.walk
        self.mode[self.mode_index] = access.cpl | access.code_64 << 15
        self.registers[self.eflags] = access.ac << 18
        self.paging[self.pkru], self.paging[self.pkrs] = access.pkru, access.pkrs
        word = ACCESS[access.kind]
        if access.physical:
            outcome = int(translate_guest_physical.compiled(m, np.uint64(access.address), np.uint64(word)))
        else:
            word |= access.implicit * IMPLICIT | access.shadow_stack * ON_SHADOW_STACK
            outcome = int(translate.compiled(m, np.uint64(access.address), np.uint64(word)))
        kind = outcome & 0xFF
        if kind == 0:
            answer = ("done", walk[self.gpa], walk[self.hpa])
            if access.physical:
                return answer
            return (*answer, int(memory_type.compiled(m)), walk[self.word] >> 59 & 0xF)
        if kind == KIND_FAULT:
            return ("#PF", outcome >> 32) if outcome >> 8 & 0xFF == 14 else ("#GP",)
        if kind == KIND_VIOLATION:
            return "violation", walk[self.gpa], walk[self.qualification], walk[self.convertible]
        if kind == KIND_MISCONFIGURATION:
            return "misconfiguration", walk[self.gpa]
        if kind == KIND_SPP_EVENT:
            return "SPP event", walk[self.gpa], walk[self.qualification]
        assert kind == KIND_PML_FULL, outcome
        return "PML full", walk[self.gpa]


def agree(expected, said):
    """Whether two answers are equal. The reference says None for a memory type that the SDM leaves undefined, and where
    no protection key has effect.
    """
    if expected == said:
        return True
    if len(expected) != len(said) or expected[0] != "done":
        return False
    return expected[:3] == said[:3] and all(e is None or e == s for e, s in zip(expected[3:], said[3:], strict=True))
