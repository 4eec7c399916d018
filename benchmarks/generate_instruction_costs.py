"""Write isa/instruction_costs.csv from LLVM's scheduling models, as llvm-mca prints them.

Run: python benchmarks/generate_instruction_costs.py [llvm-mca]
llvm-mca is in the Debian package llvm-14 (Apache-2.0 with LLVM exception).
"""

import csv
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

TABLE = Path(__file__).resolve().parent.parent / "isa" / "instruction_costs.csv"
COLUMNS = ("cpu", "mnemonic", "form", "latency_16ths", "reciprocal_throughput_16ths", "uops", "source")
CPUS = {"skylake-sp": "skylake-avx512", "icelake-sp": "icelake-server"}
words = str.split
CONDITIONS = words("a ae b be e g ge l le ne no np ns o p s")

# Mnemonics by the shape of their operands.
TWO_OPERAND = words("add adc sub sbb and or xor")
SHIFTS = words("shl shr sar rol ror rcl rcr")
UNARY = words("inc dec neg not")
BARE = words(
    "nop ret leave cdq cdqe cqo cwd cwde cbw lahf sahf clc stc cmc cld std stosb stosd stosq scasb scasd scasq "
    "lfence mfence sfence"
)
SSE_TWO = words(
    "addps addpd subps subpd mulps mulpd divps divpd minps minpd maxps maxpd andps andpd andnps andnpd orps orpd "
    "xorps xorpd unpcklps unpcklpd unpckhps unpckhpd sqrtps sqrtpd rcpps rsqrtps haddps haddpd addsubps cvtdq2ps "
    "cvtps2dq cvttps2dq paddb paddw paddd paddq psubb psubw psubd psubq pmullw pmulld pmulhw pmulhuw pmuludq "
    "pmuldq pmaddwd pmaddubsw psadbw pand pandn por pxor pcmpeqb pcmpeqw pcmpeqd pcmpeqq pcmpgtb pcmpgtw pcmpgtd "
    "pcmpgtq pminub pminsw pminsd pminud pmaxub pmaxsw pmaxsd pmaxud pavgb pavgw packsswb packuswb packssdw "
    "packusdw punpcklbw punpcklwd punpckldq punpcklqdq punpckhbw punpckhwd punpckhdq punpckhqdq pshufb phaddw "
    "phaddd pabsb pabsw pabsd psllw pslld psllq psraw psrad psrlw psrld psrlq ptest aesenc aesenclast aesdec "
    "aesdeclast aesimc"
)
SSE_SCALAR = words("add sub mul div min max sqrt")
SSE_IMMEDIATE = words(
    "shufps shufpd pshufd pshuflw pshufhw palignr blendps blendpd pblendw cmpps cmppd pclmulqdq aeskeygenassist "
    "pcmpistri pcmpestri roundps roundpd dpps"
)

Forms = list[tuple[str, str, str]]  # Capstone mnemonic, form (register, load, store), assembly


def _integer_forms() -> Forms:
    forms: Forms = []
    for name in TWO_OPERAND:
        forms += [(name, "register", f"{name} rax, rbx"), (name, "load", f"{name} rax, qword ptr [rsi]")]
        forms += [(name, "store", f"{name} qword ptr [rsi], rax")]
    for name in ("cmp", "test"):
        forms += [(name, "register", f"{name} rax, rbx"), (name, "load", f"{name} qword ptr [rsi], rax")]
    for name in SHIFTS:
        forms += [(name, "register", f"{name} rax, 3"), (name, "store", f"{name} qword ptr [rsi], 3")]
    for name in ("shld", "shrd"):
        forms += [(name, "register", f"{name} rax, rbx, 3"), (name, "store", f"{name} qword ptr [rsi], rbx, 3")]
    for name in UNARY:
        forms += [(name, "register", f"{name} rax"), (name, "store", f"{name} qword ptr [rsi]")]
    for name in ("mul", "div", "idiv"):
        forms += [(name, "register", f"{name} rbx"), (name, "load", f"{name} qword ptr [rsi]")]
    for name in ("imul", "bsf", "bsr", "popcnt", "lzcnt", "tzcnt", "adcx", "adox"):
        forms += [(name, "register", f"{name} rax, rbx"), (name, "load", f"{name} rax, qword ptr [rsi]")]
    for name in ("blsi", "blsr", "blsmsk"):
        forms += [(name, "register", f"{name} rax, rbx"), (name, "load", f"{name} rax, qword ptr [rsi]")]
    for name in ("andn", "pdep", "pext", "mulx"):
        forms += [(name, "register", f"{name} rax, rbx, rcx"), (name, "load", f"{name} rax, rbx, qword ptr [rsi]")]
    for name in ("bextr", "bzhi", "sarx", "shlx", "shrx"):
        forms += [(name, "register", f"{name} rax, rbx, rcx"), (name, "load", f"{name} rax, qword ptr [rsi], rcx")]
    forms += [("rorx", "register", "rorx rax, rbx, 3"), ("rorx", "load", "rorx rax, qword ptr [rsi], 3")]
    for name in ("bt", "bts", "btr", "btc"):
        form = "load" if name == "bt" else "store"
        forms += [(name, "register", f"{name} rax, 3"), (name, form, f"{name} qword ptr [rsi], 3")]
    for condition in CONDITIONS:
        cmov, set_byte = f"cmov{condition}", f"set{condition}"
        forms += [(cmov, "register", f"{cmov} rax, rbx"), (cmov, "load", f"{cmov} rax, qword ptr [rsi]")]
        forms += [(set_byte, "register", f"{set_byte} al"), (set_byte, "store", f"{set_byte} byte ptr [rsi]")]
        forms += [(f"j{condition}", "register", f"j{condition} 1f\n1:")]
    return forms


def _transfer_forms() -> Forms:
    forms: Forms = [("mov", "register", "mov rax, rbx"), ("mov", "load", "mov rax, qword ptr [rsi]")]
    forms += [("mov", "store", "mov qword ptr [rsi], rax"), ("movabs", "register", "movabs rax, 0x123456789abcdef0")]
    for name in ("movzx", "movsx"):
        forms += [(name, "register", f"{name} eax, bl"), (name, "load", f"{name} eax, byte ptr [rsi]")]
    forms += [("movsxd", "register", "movsxd rax, ebx"), ("movsxd", "load", "movsxd rax, dword ptr [rsi]")]
    forms += [("movbe", "load", "movbe rax, qword ptr [rsi]"), ("movbe", "store", "movbe qword ptr [rsi], rax")]
    forms += [("lea", "register", "lea rax, [rsi + rbx]"), ("bswap", "register", "bswap rax")]
    forms += [("push", "register", "push rax"), ("push", "load", "push qword ptr [rsi]")]
    forms += [("pop", "register", "pop rax"), ("pop", "store", "pop qword ptr [rsi]")]
    for name in ("xchg", "xadd", "cmpxchg"):
        forms += [(name, "register", f"{name} rbx, rax"), (name, "store", f"{name} qword ptr [rsi], rax")]
    forms.append(("cmpxchg8b", "store", "cmpxchg8b qword ptr [rsi]"))
    forms.append(("cmpxchg16b", "store", "cmpxchg16b xmmword ptr [rsi]"))
    for name in ("jmp", "call"):
        forms += [(name, "register", f"{name} rax"), (name, "load", f"{name} qword ptr [rsi]")]
    forms += [(name, "register", name) for name in BARE]
    forms += [("crc32", "register", "crc32 rax, rbx"), ("crc32", "load", "crc32 rax, qword ptr [rsi]")]
    prefetches = ("prefetcht0", "prefetcht1", "prefetchnta", "prefetchw")
    forms += [(name, "load", f"{name} byte ptr [rsi]") for name in prefetches]
    forms.append(("movnti", "store", "movnti qword ptr [rsi], rax"))
    return forms


def _sse_forms() -> Forms:
    forms: Forms = []
    for name in SSE_TWO:
        forms += [(name, "register", f"{name} xmm0, xmm1"), (name, "load", f"{name} xmm0, xmmword ptr [rsi]")]
    for name in SSE_IMMEDIATE:
        forms += [(name, "register", f"{name} xmm0, xmm1, 1"), (name, "load", f"{name} xmm0, xmmword ptr [rsi], 1")]
    for suffix, size in (("ss", "dword"), ("sd", "qword")):
        names = [operation + suffix for operation in SSE_SCALAR] + [f"ucomi{suffix}", f"comi{suffix}"]
        for name in [*names, "cvtss2sd" if suffix == "ss" else "cvtsd2ss"]:
            forms += [(name, "register", f"{name} xmm0, xmm1"), (name, "load", f"{name} xmm0, {size} ptr [rsi]")]
        for name in (f"cvt{suffix}2si", f"cvtt{suffix}2si"):
            forms += [(name, "register", f"{name} rax, xmm1"), (name, "load", f"{name} rax, {size} ptr [rsi]")]
        name = f"cvtsi2{suffix}"
        forms += [(name, "register", f"{name} xmm0, rax"), (name, "load", f"{name} xmm0, qword ptr [rsi]")]
        forms += [(f"mov{suffix}", "register", f"mov{suffix} xmm0, xmm1")]
        forms += [(f"mov{suffix}", "load", f"mov{suffix} xmm0, {size} ptr [rsi]")]
        forms += [(f"mov{suffix}", "store", f"mov{suffix} {size} ptr [rsi], xmm0")]
    for name in ("movaps", "movups", "movapd", "movupd", "movdqa", "movdqu"):
        forms += [(name, "register", f"{name} xmm0, xmm1"), (name, "load", f"{name} xmm0, xmmword ptr [rsi]")]
        forms += [(name, "store", f"{name} xmmword ptr [rsi], xmm0")]
    for name, size, register in (("movd", "dword", "eax"), ("movq", "qword", "rax")):
        forms += [(name, "register", f"{name} xmm0, {register}"), (name, "load", f"{name} xmm0, {size} ptr [rsi]")]
        forms += [(name, "store", f"{name} {size} ptr [rsi], xmm0")]
    for name in ("movntdq", "movntps", "movntpd"):
        forms += [(name, "store", f"{name} xmmword ptr [rsi], xmm0")]
    for name in ("movlps", "movhps", "movlpd", "movhpd"):
        forms += [(name, "load", f"{name} xmm0, qword ptr [rsi]"), (name, "store", f"{name} qword ptr [rsi], xmm0")]
    forms += [("pmovmskb", "register", "pmovmskb eax, xmm1"), ("movmskps", "register", "movmskps eax, xmm1")]
    forms += [("pinsrq", "register", "pinsrq xmm0, rax, 1"), ("pextrq", "register", "pextrq rax, xmm0, 1")]
    return forms


# Cycles where llvm-mca has placeholders only. Of a system instruction this is what the block pays; the profile has the
# cost of the event itself.
ASSUMED_WORDS = {
    1: "default, hlt, in, out",
    2: "fld, fst, fstp",
    3: "fadd, fnstcw, fnstsw",
    4: "fmul",
    5: "cli, pushfq, lodsb, lodsw, lodsd, lodsq, movsb, movsw, movsq",
    6: "sti, ldmxcsr, stmxcsr, fild, cmpsb, cmpsw, cmpsq",
    7: "fistp, fldcw",
    10: (
        "iretq, syscall, sysretq, cpuid, rdmsr, wrmsr, invlpg, wbinvd, lgdt, lidt, ltr, lldt, clts, int, int3, "
        "ud2, xgetbv, vmcall, vmread, vmwrite, vmlaunch, vmresume, vmptrld, vmptrst, vmclear, vmxon, vmxoff, "
        "invept, invvpid, clflush, clflushopt, clwb, emms, rdfsbase, rdgsbase, wrfsbase, wrgsbase"
    ),
    15: "fdiv",
    20: "rdtsc",
    22: "popfq, swapgs",
    30: "rep movsb, rep movsd, rep movsq, rep stosb, rep stosd, rep stosq, repe cmpsb, repne scasb",
    32: "rdtscp",
    70: "fninit",
    76: "idiv",
    90: "fxsave, fxrstor",
    140: "pause",
}
ASSUMED = {name: cycles for cycles, text in ASSUMED_WORDS.items() for name in text.split(", ")}


def measure(llvm_mca: str, model: str, assembly: str) -> tuple[float, float, int] | None:
    """Latency, reciprocal throughput and micro-operations, or None where LLVM does not know the form."""
    command = [llvm_mca, f"-mcpu={model}", "-mtriple=x86_64", "-json", "-instruction-info", "-iterations=1"]
    source = f".intel_syntax noprefix\n{assembly}\n"
    done = subprocess.run(command, input=source, capture_output=True, text=True, check=False)
    if done.returncode:
        return None
    info = json.loads(done.stdout)["CodeRegions"][0]["InstructionInfoView"]["InstructionList"][0]
    latency, throughput = float(info["Latency"]), float(info["RThroughput"])
    return None if latency >= 100 else (latency, throughput, int(info["NumMicroOpcodes"]))


def rows_for(llvm_mca: str, version: str, cpu: str) -> list[tuple[str | int, ...]]:
    """The rows of one profile, by mnemonic and form."""
    forms = _integer_forms() + _transfer_forms() + _sse_forms()
    with ThreadPoolExecutor() as pool:
        found = list(pool.map(lambda form: measure(llvm_mca, CPUS[cpu], form[2]), forms))
    source = f"llvm-mca {version} -mcpu={CPUS[cpu]}"
    rows: list[tuple[str | int, ...]] = []
    for (mnemonic, form, _), numbers in zip(forms, found, strict=True):
        if numbers is None:
            print(f"{cpu}: no model for {mnemonic} ({form})", file=sys.stderr)
            continue
        latency, throughput, uops = numbers
        rows.append((cpu, mnemonic, form, round(16 * latency), max(round(16 * throughput), 1), uops, source))
    for mnemonic, cycles in ASSUMED.items():
        extra = {"default": (("load", 6), ("store", 7))}.get(mnemonic, ())
        rows.append((cpu, mnemonic, "register", 16 * cycles, 16 * cycles if cycles > 1 else 4, 1, "assumption"))
        rows += [(cpu, mnemonic, form, 16 * slow, 16, 2, "assumption") for form, slow in extra]
    return sorted(rows, key=lambda row: (row[1] != "default", row[1], row[2]))


def main() -> None:
    llvm_mca = sys.argv[1] if len(sys.argv) > 1 else "llvm-mca-14"
    text = subprocess.run([llvm_mca, "--version"], capture_output=True, text=True, check=True).stdout
    version = text.split("version ")[1].split()[0]
    rows = [row for cpu in CPUS for row in rows_for(llvm_mca, version, cpu)]
    rows += [("ideal", "default", form, 16, 16, 1, "one cycle by definition") for form in ("register", "load", "store")]
    with TABLE.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows)
    print(f"{len(rows)} rows in {TABLE.name}")


if __name__ == "__main__":
    main()
