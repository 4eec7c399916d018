"""Single steps and NMIs as real-mode code meets them, interrupts off all the time."""

from pathlib import Path

from vmxemu.configuration import Configuration
from vmxemu.machine import Machine

#         xor ax,ax / mov ds,ax / mov ss,ax / mov sp,7000h / vector 1 = F000:on_db / vector 2 = F000:on_nmi / xor bp,bp
#         pushf / pop ax / or ax,100h / push ax / popf         from here on each instruction traps
#         cpuid / nop / pushf / pop ax / and ax,FEFFh / push ax / popf / nop
#         mov ax,bp / add al,'0' / out E9h,al                  how many did
#         mov si,0 / mov cx,2000 / dec cx / jnz $-1 / hlt      an NMI ends this
#         mov al,'.' / out E9h,al / xor eax,eax / out F4h,al
# on_db:  inc bp / iret
# on_nmi: mov al,'(' / out E9h,al / push cx / mov cx,3000 / dec cx / jnz $-1 / pop cx / mov al,')' / out E9h,al / iret
CODE = bytes.fromhex(
    "31c08ed88ed0bc0070c70604004e00c706060000f0c70608005000c7060a0000f031ed9c580d0001509d0fa2909c5825fffe509d9089e8"
    "0430e6e9be0000b9d0074975fdf4b02ee6e96631c0e6f445cfb028e6e951b9b80b4975fd59b029e6e9cf"
)
JUMP_TO_CODE = bytes.fromhex("ea000000f0")


def test_steps_and_nmis(kernels: None, tmp_path: Path) -> None:
    image = tmp_path / "steps.bin"
    image.write_bytes(CODE.ljust(0xFFF0, b"\xf4") + JUMP_TO_CODE.ljust(16, b"\0"))
    machine = Machine(Configuration.from_image(image, memory_size="64M"))
    printed: list[bytes] = []
    machine.on_output(lambda channel, data: printed.append(data))
    machine.inject("nmi@cycle=3000")  # wakes HLT
    machine.inject("nmi@cycle=4000")  # waits for the first one's IRET, which leaves RFLAGS.IF = 0
    assert machine.run().exit_status == 0
    assert b"".join(printed) == b"7()()."
