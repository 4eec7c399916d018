"""Writes isa.inc: the numbers of isa/ that the blobs' sources use, as NASM constants. Run after a source starts to use another name."""

import csv
import re
from pathlib import Path

HERE = Path(__file__).parent
ISA = HERE.parent / "isa"


def rows(table: str) -> list[dict[str, str]]:
    """The rows of a table of isa/."""
    with (ISA / f"{table}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def constants() -> dict[str, int]:
    """Every constant that sources may use: VMCS fields, control masks and MSRs by their names; REASON_ and ERROR_ names."""
    found = {row["name"]: int(row["encoding"], 0) for row in rows("vmcs_fields")}
    found |= {row["name"]: 1 << int(row["bit"]) for row in rows("controls")}
    found |= {row["name"]: int(row["address"], 0) for row in rows("msrs")}
    found |= {f"REASON_{row['name']}": int(row["number"]) for row in rows("exit_reasons")}
    found |= {f"ERROR_{row['name']}": int(row["number"]) for row in rows("vm_instruction_errors")}
    return found


def text() -> str:
    """The contents of isa.inc."""
    sources = [path for path in sorted(HERE.glob("*.*")) if path.suffix in (".asm", ".inc") and path.name != "isa.inc"]
    used = set(re.findall(r"\b[A-Z][A-Z0-9_]+\b", "\n".join(re.sub(r";.*", "", path.read_text()) for path in sources)))
    known = constants()
    lines = [f"{name:<36}equ 0x{known[name]:X}" for name in known if name in used]
    return "; Made by isa_inc.py from the tables of isa/; do not edit.\n\n" + "\n".join(lines) + "\n"


if __name__ == "__main__":
    (HERE / "isa.inc").write_text(text())
