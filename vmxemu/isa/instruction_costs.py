"""Latency and throughput of instructions by Capstone mnemonic, in 1/16 cycle."""

from dataclasses import dataclass

from vmxemu.isa import data

FORMS = ("register", "load", "store")
DEFAULT = "default"
ISSUE_WIDTH = 4


@dataclass(frozen=True, slots=True)
class InstructionCost:
    """One instruction in one form: `load` reads its memory operand, `store` writes it (perhaps reads it first).

    A latency of the `load` and `store` forms includes an L1 hit.
    """

    cpu: str
    mnemonic: str
    form: str
    latency_16ths: int
    reciprocal_throughput_16ths: int
    uops: int
    source: str


@dataclass(frozen=True, slots=True)
class CostTable:
    """All instructions of one table."""

    by_form: dict[tuple[str, str], InstructionCost]

    def cost(self, mnemonic: str, form: str) -> InstructionCost:
        """The row of a mnemonic in a form; where there is none, its register form, and else the default of the form."""
        exact = self.by_form.get((mnemonic, form))
        if exact is not None:
            return exact
        if form == "register":
            return self.by_form[DEFAULT, form]
        return self.by_form.get((mnemonic, "register"), self.by_form[DEFAULT, form])

    def throughput_cycles(self) -> dict[str, tuple[float, float, float]]:
        """Cycles by mnemonic of the register form, and what the load and the store form add: to be summed over a block.

        An instruction takes its reciprocal throughput, or its share of a front end that issues four micro-operations.
        """
        found = {}
        for mnemonic in dict.fromkeys(name for name, _ in self.by_form):
            register, load, store = (_throughput(self.cost(mnemonic, form)) for form in FORMS)
            found[mnemonic] = (register, max(load - register, 0.0), max(store - register, 0.0))
        return found


def _throughput(cost: InstructionCost) -> float:
    return max(cost.reciprocal_throughput_16ths / 16, cost.uops / ISSUE_WIDTH)


def names() -> list[str]:
    """The tables there are; a profile's `instruction_costs` is one of them."""
    return sorted({row["cpu"] for row in data.table("instruction_costs")})


def load(cpu: str) -> CostTable:
    """The table `cpu`. Raises ValueError, naming the tables, if there is no such table."""
    by_form = {
        (row["mnemonic"], row["form"]): InstructionCost(
            row["cpu"],
            row["mnemonic"],
            row["form"],
            data.number(row["latency_16ths"]),
            data.number(row["reciprocal_throughput_16ths"]),
            data.number(row["uops"]),
            row["source"],
        )
        for row in data.table("instruction_costs")
        if row["cpu"] == cpu
    }
    if not by_form:
        raise ValueError(f"no instruction costs for {cpu!r}; known: {', '.join(names())}")
    return CostTable(by_form)
