"""Builds the blobs: isa.inc, every blob of MANIFEST.toml, and the sizes and hashes there. Needs nasm only."""

import csv
import hashlib
import re
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
ISA = HERE.parent / "isa"


def rows(table: str) -> list[dict[str, str]]:
    """The rows of a table of isa/."""
    with (ISA / f"{table}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def constants() -> dict[str, int]:
    """What sources may use: VMCS fields, control masks and MSRs by name; exit reasons as REASON_, VMfail as ERROR_."""
    found = {row["name"]: int(row["encoding"], 0) for row in rows("vmcs_fields")}
    found |= {row["name"]: 1 << int(row["bit"]) for row in rows("controls")}
    found |= {row["name"]: int(row["address"], 0) for row in rows("msrs")}
    found |= {f"REASON_{row['name']}": int(row["number"]) for row in rows("exit_reasons")}
    found |= {f"ERROR_{row['name']}": int(row["number"]) for row in rows("vm_instruction_errors")}
    return found


def isa_inc() -> str:
    """The contents of isa.inc: the constants that the sources use."""
    sources = sorted(path for path in HERE.rglob("*.*") if path.suffix in (".asm", ".inc") and path.name != "isa.inc")
    code = "\n".join(re.sub(r";.*", "", path.read_text()) for path in sources)
    used = set(re.findall(r"\b[A-Z][A-Z0-9_]+\b", code))
    lines = [f"{name:<36}equ 0x{value:X}" for name, value in constants().items() if name in used]
    return "; Made by build.py from the tables of isa/; do not edit.\n\n" + "\n".join(lines) + "\n"


def command(source: str, defines: str, target: str) -> list[str]:
    """The assembler's command line."""
    return ["nasm", "-f", "bin", "-w+all", "-w+error", *defines.split(), "-o", target, source]


def assemble(source: str, defines: str, target: Path) -> bytes:
    """Assemble one blob; its bytes."""
    subprocess.run(command(source, defines, str(target)), cwd=HERE, check=True)
    return target.read_bytes()


def main() -> None:
    """Build everything."""
    (HERE / "isa.inc").write_text(isa_inc())
    version = subprocess.run(["nasm", "-v"], capture_output=True, text=True, check=True).stdout.split()[2]
    manifest = (HERE / "MANIFEST.toml").read_text()
    blocks = manifest.split("[[blob]]\n")
    for number, block in enumerate(blocks[1:], 1):
        fields = dict(re.findall(r'^(\w+) = "(.*)"$', block, re.MULTILINE))
        data = assemble(fields["source"], fields.get("defines", ""), HERE / fields["file"])
        line = command(fields["source"], fields.get("defines", ""), fields["file"])
        built_with = " ".join(["NASM", version + ":", *line])
        block = re.sub(r"^sha256 = .*$", f'sha256 = "{hashlib.sha256(data).hexdigest()}"', block, flags=re.MULTILINE)
        block = re.sub(r"^bytes = .*$", f"bytes = {len(data)}", block, flags=re.MULTILINE)
        blocks[number] = re.sub(r"^built_with = .*$", f'built_with = "{built_with}"', block, flags=re.MULTILINE)
        print(fields["file"], hashlib.sha256(data).hexdigest()[:16])
    (HERE / "MANIFEST.toml").write_text("[[blob]]\n".join(blocks))


if __name__ == "__main__":
    main()
