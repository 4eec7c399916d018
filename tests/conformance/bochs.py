"""Debian's Bochs as a second opinion: runs a blob headless and gives what it wrote to the debug port."""

import shutil
import subprocess
from pathlib import Path

AVAILABLE = shutil.which("bochs") is not None

# Bochs insists on a file here; the blobs never look at it, and Debian's own is in a package that `bochs` does not bring along.
VGA_BIOS = bytes(512)

SETTINGS = """\
display_library: rfb, options="timeout=0"
cpu: model=corei7_skylake_x, count=1, ips=50000000, reset_on_triple_fault=0
memory: guest={memory}, host={memory}
romimage: file={image}, address=0xffff0000
vgaromimage: file={folder}/vga_bios
sound: waveoutdrv=dummy
port_e9_hack: enabled=1
com1: enabled=0
log: {folder}/bochs.log
panic: action=fatal
error: action=ignore
info: action=ignore
debug: action=ignore
clock: sync=none
"""


def run(image: Path, folder: Path, memory_mib: int = 64, timeout_seconds: float = 120) -> list[str]:
    """The lines that the image prints until it shuts the machine down.

    The debugger build of Bochs prints its own banner before them and the stopping instruction after them: both go away.
    """
    settings, commands = folder / "bochsrc", folder / "commands"
    settings.write_text(SETTINGS.format(memory=memory_mib, image=image, folder=folder))
    commands.write_text("c\n")
    (folder / "vga_bios").write_bytes(VGA_BIOS)
    done = subprocess.run(
        ["bochs", "-q", "-f", str(settings), "-rc", str(commands)],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=timeout_seconds,
    )
    text = done.stdout.decode("latin-1")
    _, started, text = text.partition("Next at t=0\n")
    assert started, f"Bochs did not start: {done.stderr.decode('latin-1')[-500:]}"
    return [line for line in text.splitlines() if not line.startswith(("(0)", "=====", "Bochs is exiting"))]
