"""Exception vectors: `exceptions.PF`. SDM Vol. 3A, 'Interrupt and Exception Handling'."""

from dataclasses import dataclass

from vmxemu.isa import data


@dataclass(frozen=True, slots=True)
class ExceptionVector:
    """One vector. `contributory`: benign, contributory, page_fault or double_fault, its double-fault class."""

    vector: int
    mnemonic: str
    kind: str
    error_code: bool
    contributory: str
    sdm: str


ROWS: tuple[ExceptionVector, ...] = tuple(
    ExceptionVector(
        data.number(row["vector"]),
        row["mnemonic"],
        row["class"],
        row["error_code"] == "1",
        row["contributory"],
        row["sdm"],
    )
    for row in data.table("exceptions")
)
NAMES: dict[int, str] = {row.vector: row.mnemonic for row in ROWS}

# Bit n of each mask stands for vector n, so that a kernel tests a class with one shift.
WITH_ERROR_CODE_MASK: int
CONTRIBUTORY_MASK: int
PAGE_FAULT_MASK: int

globals().update(data.constants({row.mnemonic: row.vector for row in ROWS}))
globals().update(
    data.constants(
        {
            "WITH_ERROR_CODE_MASK": sum(1 << row.vector for row in ROWS if row.error_code),
            "CONTRIBUTORY_MASK": sum(1 << row.vector for row in ROWS if row.contributory == "contributory"),
            "PAGE_FAULT_MASK": sum(1 << row.vector for row in ROWS if row.contributory == "page_fault"),
        }
    )
)


def __getattr__(name: str) -> int:
    raise AttributeError(f"isa/exceptions.csv has no vector {name}")
