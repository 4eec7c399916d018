"""A process of its own for images that might bring the emulator down: `python fuzz_child.py KIND FIRST LAST`.

Each seed makes one image; a line `seed reason seconds message` follows each run, so that the parent knows where a crash happened.
"""

import faulthandler
import hashlib
import random
import sys
import time

from vmxemu.configuration import Configuration, blobs
from vmxemu.configuration.image import Image
from vmxemu.machine import Machine

MOST_SECONDS = 60
MOST_CYCLES = 3_000_000
# What random bytes rarely make by themselves: prefixes, string I/O, system instructions, far transfers, LOCK
SPICE = (
    b"\x0f\x22\xc0 \x0f\x20\xc0 \x0f\x01\xc1 \x0f\x01\xd0 \x0f\x01\x10 \x0f\x01\x18 \x0f\x00\xd8 \x0f\x00\xd0 \x0f\x30 "
    b"\x0f\x32 \x0f\xa2 \x0f\x31 "
    b"\xf0\x0f\xc1\x07 \xf0\x0f\xb1\x0f \xf0\x0f\xc7\x0f \xf3\x6c \xf3\x6e \x67\xf3\x6f \xcf \xcd\x80 \xcc \xf4 \xfb "
    b"\xfa \x8e\xd0 \x9d \x9c \xca\x00\x00 "
    b"\xea\x00\x00\x00\xf0 \x9a\x00\x00\x00\xf0 \x0f\xaa \x0f\x0b \x0f\xae\x07 \x0f\xae\x0f \x0f\x05 \x0f\x34 "
    b"\x0f\xc7\x37 \x0f\x78\xc0 \x0f\x79\xc0 \x0f\x23\xf8 "
    b"\xf3\xa4 \xf3\xab \x66\xf3\xa5 \xe4\x60 \xe6\x80 \xec \xee \xd9\x07 \xdd\x27 \xc8\xff\xff\x1f \xc5\x07 \x62\x07 "
    b"\x0f\x01\x38 \x0f\x01\xf8 \x0f\x07"
).split(b" ")


def image_for(kind: str, seed: int) -> bytes:
    """The image of a seed: random bytes, or a shipped blob with some bytes changed."""
    source = random.Random(f"{kind} {seed}")
    if kind == "random":
        page = bytearray(source.randbytes(4096))
        for _ in range(source.randrange(200)):
            piece = source.choice(SPICE)
            at = source.randrange(4096 - len(piece))
            page[at : at + len(piece)] = piece
        return bytes(page) * 16
    path = blobs.find_image(kind)
    assert path is not None
    data = bytearray(path.read_bytes())
    used = [at for at, byte in enumerate(data) if byte not in (0, 0xFF, 0x90)]
    for _ in range(source.randrange(1, 30)):
        at = source.choice(used)
        data[at] = source.choice((source.randrange(256), data[at] ^ 1 << source.randrange(8)))
    return bytes(data)


def configuration_for(kind: str, seed: int) -> Configuration:
    """The machine that runs it; a mutated scenario keeps its injections and policy."""
    data = image_for(kind, seed)
    image = Image("fuzz", "fuzz", hashlib.sha256(data).hexdigest(), data)
    if kind == "nested-ras":
        return Configuration.find("nested-ras").model_copy(update={"image": image, "max_cycles": 100 * MOST_CYCLES})
    return Configuration._build("fuzz", {"image": image}, {"max_cycles": MOST_CYCLES, "memory_size": "64M"})


def main(kind: str, first: int, last: int) -> None:
    faulthandler.enable()
    for seed in range(first, last):
        print(seed, end=" ", flush=True)
        faulthandler.dump_traceback_later(MOST_SECONDS, exit=True)
        began = time.monotonic()
        result = Machine(configuration_for(kind, seed)).run()
        print(result.reason, round(time.monotonic() - began, 2), result.message, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
