/* Translation of arrays of addresses in plain C: the yardstick for vmxemu.translation, compiled with cc -O2.

   Tables, checks (permissions, reserved bits, misconfiguration, accessed and dirty flags), TLB (page sizes, sets, ways,
   LRU, two levels), costs and counters are those of the kernels, for 64-bit mode with 4 levels through a 4-level EPT or
   none. What the kernels would do on a fault or to set a flag is left out: such a translation gives all ones. */
#include <stdint.h>
#include <stddef.h>
#include <string.h>
#include <time.h>

typedef uint64_t u64;
enum { CAPACITY = 16384, MISS = CAPACITY };
enum { L1D, L1I, STLB, GROUPS, CLASSES = 3 }; /* a class is a page size: 4K, 2M, 1G */
#define FRAME 0x000FFFFFFFFFF000ull
#define FAILED (~0ull)

struct array { u64 ways, stride, set_mask, first, hash_shift, hash_mask; }; /* as translation.tlb_layout.TlbArray */
struct counters { u64 stlb_hits, walks, references, cycles; };
struct tlb {
    struct array arrays[GROUPS * CLASSES];
    u64 clock, live, stlb_cycles, walk_cycles, reference_cycles, guest_walks[8], ept_walks[8][4];
    struct counters counted;
    u64 tags[CAPACITY], spaces[CAPACITY], stamps[CAPACITY], words[CAPACITY], gpas[CAPACITY];
};
struct machine { const char *ram; u64 ram_bytes, cr3, eptp, physical_bits, required, space; struct tlb tlb; };

static inline u64 set_of(const struct array *a, u64 page)
{
    return a->first + ((page ^ (page >> a->hash_shift & a->hash_mask)) & a->set_mask) * a->stride;
}

static inline u64 find_in(const struct tlb *t, u64 number, u64 tag, u64 page, u64 space)
{
    const struct array *a = &t->arrays[number];
    u64 slot = set_of(a, page), end = slot + a->ways;
    for (; slot < end; slot++)
        if (t->tags[slot] == tag && t->spaces[slot] == space)
            return slot;
    return MISS;
}

static __attribute__((noinline)) u64 find_large(const struct tlb *t, u64 number, u64 gla, u64 space)
{
    for (u64 class = 1, slot; class < CLASSES; class++) {
        u64 page = gla >> (12 + class * 9);
        if (t->live >> (number + class) & 1 && (slot = find_in(t, number + class, page << 12, page, space | class << 54)) != MISS)
            return slot;
    }
    return MISS;
}

static inline u64 find(const struct tlb *t, u64 group, u64 gla, u64 space)
{
    u64 number = group * CLASSES, slot = find_in(t, number, gla & ~0xFFFull, gla >> 12, space);
    return slot == MISS && t->live >> number & 6 ? find_large(t, number, gla, space) : slot;
}

static inline void put(struct tlb *t, const struct array *a, u64 tag, u64 page, u64 space, u64 word, u64 gpa)
{
    u64 slot = set_of(a, page), end = slot + a->ways, oldest = slot;
    for (slot++; slot < end; slot++)
        if (t->stamps[slot] < t->stamps[oldest])
            oldest = slot;
    t->tags[oldest] = tag;
    t->spaces[oldest] = space;
    t->words[oldest] = word;
    t->gpas[oldest] = gpa;
    t->stamps[oldest] = t->clock;
}

/* A page larger than the group can hold is kept as its part around the address. */
static __attribute__((noinline)) void insert_large(struct tlb *t, u64 group, u64 gla, u64 space, u64 word, u64 gpa)
{
    u64 class = word >> 6 & 3, offset = (4096ull << class * 9) - 1, low, page;
    while (!t->arrays[group * CLASSES + class].ways)
        if (!class--)
            return;
    page = gla >> (12 + class * 9);
    low = (4096ull << class * 9) - 1;
    put(t, &t->arrays[group * CLASSES + class], gla & ~low, page, space | class << 54,
        (word & ~0xC0ull) | class << 6 | (gla & offset & ~low), gpa | (gla & offset & ~low));
    t->live |= 1ull << (group * CLASSES + class);
}

static inline void insert(struct tlb *t, u64 group, u64 gla, u64 space, u64 word, u64 gpa)
{
    const struct array *a = &t->arrays[group * CLASSES];
    if (word & 0xC0)
        insert_large(t, group, gla, space, word, gpa);
    else if (a->ways)
        put(t, a, gla & ~0xFFFull, gla >> 12, space, word, gpa);
}

static inline int entry_at(const struct machine *m, u64 at, u64 *entry)
{
    if (at >= m->ram_bytes)
        return 0;
    memcpy(entry, m->ram + at, 8);
    return 1;
}

/* Frame, R W X in 2:0, "no dirty flag is needed for a store" in 3, page-size class in 5:4; or FAILED. */
static u64 ept_walk(struct machine *m, u64 gpa, u64 want, int guest_level)
{
    u64 reserved = ~0ull << m->physical_bits & 0xFFFFFFFFFFFFFull, both = ~0ull, table = m->eptp & FRAME, entry;
    int level;
    if (!m->eptp) /* the size of the guest's page decides */
        return (gpa & FRAME) | 0xF | (CLASSES - 1) << 4;
    if (gpa >> 48)
        return FAILED;
    for (level = 4;; level--) {
        if (!entry_at(m, table | (gpa >> (level * 9) & 0xFF8), &entry))
            return FAILED;
        m->tlb.counted.references++;
        if ((entry & 7) == 0 || (entry & 3) == 2 || (entry & 7) == 4 || entry & reserved)
            return FAILED;
        both &= entry;
        if (level == 1 || entry & 0x80)
            break;
        if (entry & 0x78)
            return FAILED;
        table = entry & FRAME;
    }
    if (0x8C >> (entry >> 3 & 7) & 1)
        return FAILED;
    if (level > 1 && (level == 4 || entry & ((1ull << (level * 9 + 3)) - 1) & FRAME))
        return FAILED;
    if ((both & want) != want)
        return FAILED;
    if (m->eptp & 0x40 && (!(both & 0x100) || (want & 2 && !(entry & 0x200))))
        return FAILED;
    m->tlb.ept_walks[guest_level][level - 1]++;
    u64 offset = (1ull << (level * 9 + 3)) - 1;
    return (entry & FRAME & ~offset) | (gpa & offset & FRAME) | (both & 7) | (m->eptp & 0x40 ? entry >> 6 & 8 : 8)
           | (u64)(level - 1) << 4;
}

/* The TLB's word: frame, rights in 5:0, page-size class in 7:6; or FAILED. */
static u64 walk(struct machine *m, u64 gla, u64 access, u64 *gpa_out)
{
    u64 reserved = ~0ull << m->physical_bits & 0xFFFFFFFFFFFFFull, both = ~0ull, either = 0, table = m->cr3 & FRAME;
    u64 entry, answer, table_access = m->eptp & 0x40 ? 3 : 1;
    int level;
    if ((gla + (1ull << 47)) >> 48)
        return FAILED;
    for (level = 4;; level--) {
        u64 at = table | (gla >> (level * 9) & 0xFF8);
        answer = ept_walk(m, at, table_access, level);
        if (answer == FAILED || !entry_at(m, (answer & FRAME) | (at & 0xFFF), &entry))
            return FAILED;
        m->tlb.counted.references++;
        if (!(entry & 1) || entry & reserved)
            return FAILED;
        both &= entry;
        either |= entry;
        if (level == 1)
            break;
        if (entry & 0x80) {
            if (level == 4 || entry & ((1ull << (level * 9 + 3)) - 1) & ~0x1FFFull)
                return FAILED;
            break;
        }
        table = entry & FRAME;
    }
    m->tlb.guest_walks[level]++;
    if (!(both & 0x20) || (access == 1 && !(entry & 0x40)))
        return FAILED;
    u64 offset = (1ull << (level * 9 + 3)) - 1, gpa = (entry & FRAME & ~offset) | (gla & offset);
    answer = ept_walk(m, gpa, 1ull << access, 0);
    if (answer == FAILED)
        return FAILED;
    u64 size = level - 1, ept_size = answer >> 4 & 3;
    if (ept_size < size)
        size = ept_size;
    u64 store = answer >> 1 & answer >> 3 & entry >> 6 & 1, rights = (answer & 1) | store << 5;
    if (both & 2)
        rights |= store << 1;
    if (!(either >> 63))
        rights |= answer & 4;
    rights |= both & 4 ? 8 : 16;
    u64 low = (1ull << (size * 9 + 12)) - 1;
    *gpa_out = gpa & ~low;
    return (answer & FRAME & ~low) | rights | size << 6;
}

static inline u64 translate(struct machine *m, u64 gla, u64 access)
{
    struct tlb *t = &m->tlb;
    u64 group = access >> 1, word, gpa, before, slot = find(t, group, gla, m->space);
    t->clock++;
    if (slot != MISS && !(m->required & ~t->words[slot])) {
        word = t->words[slot];
        t->stamps[slot] = t->clock;
    } else if ((slot = find(t, STLB, gla, m->space)) != MISS && !(m->required & ~t->words[slot])) {
        word = t->words[slot];
        t->stamps[slot] = t->clock;
        t->counted.stlb_hits++;
        t->counted.cycles += t->stlb_cycles;
        insert(t, group, gla, m->space, word, t->gpas[slot]);
    } else {
        before = t->counted.references;
        t->counted.walks++;
        word = walk(m, gla, access, &gpa);
        t->counted.cycles += t->walk_cycles + (t->counted.references - before) * t->reference_cycles;
        if (word == FAILED || m->required & ~word)
            return FAILED;
        insert(t, group, gla, m->space, word, gpa);
        insert(t, STLB, gla, m->space, word, gpa);
    }
    return (word & FRAME) | (gla & ((4096ull << (word >> 6 & 3) * 9) - 1));
}

static struct machine the;

void twin_invalidate(void)
{
    memset(the.tlb.spaces, 0, sizeof the.tlb.spaces);
    the.tlb.live = 0;
}

/* `arrays`: those of the kernel's record. Everything is invalid afterwards; 0 if there is no room for the arrays. */
int twin_setup(const void *ram, const u64 *numbers, const struct array *arrays)
{
    memset(&the, 0, sizeof the);
    the.ram = ram;
    the.ram_bytes = numbers[0];
    the.cr3 = numbers[1];
    the.eptp = numbers[2];
    the.physical_bits = numbers[3];
    the.space = numbers[2] | 1;
    the.tlb.stlb_cycles = numbers[4];
    the.tlb.walk_cycles = numbers[5];
    the.tlb.reference_cycles = numbers[6];
    memcpy(the.tlb.arrays, arrays, sizeof the.tlb.arrays);
    for (int i = 0; i < GROUPS * CLASSES; i++)
        if (arrays[i].first + (arrays[i].set_mask + 1) * arrays[i].stride > CAPACITY)
            return 0;
    return 1;
}

/* Translates for reads (access 0), writes (1) or fetches (2) of a supervisor. `dependent`: each address is made with
   what came out of the translation before, as vmxemu.measure.chase does it. Gives nanoseconds, and what was counted. */
u64 twin_translate_many(const u64 *glas, u64 *hpas, u64 count, u64 access, int dependent, struct counters *counted)
{
    struct timespec a, b;
    u64 unknown_zero = 0;
    the.required = 1ull << access;
    memset(&the.tlb.counted, 0, sizeof the.tlb.counted);
    clock_gettime(CLOCK_MONOTONIC, &a);
    if (dependent)
        for (u64 i = 0; i < count; i++) {
            u64 gla = glas[i] ^ unknown_zero;
            hpas[i] = translate(&the, gla, access);
            unknown_zero = (hpas[i] ^ gla) & 0xFFF;
        }
    else
        for (u64 i = 0; i < count; i++)
            hpas[i] = translate(&the, glas[i], access);
    clock_gettime(CLOCK_MONOTONIC, &b);
    *counted = the.tlb.counted;
    return (u64)(b.tv_sec - a.tv_sec) * 1000000000ull + (u64)b.tv_nsec - (u64)a.tv_nsec;
}
