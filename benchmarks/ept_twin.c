/* Translation of arrays of addresses in plain C: the yardstick for vmxemu.translation, compiled with cc -O2.

   Tables, checks (permissions, reserved bits, misconfiguration, accessed and dirty flags), TLB (sets, ways, LRU, two
   levels) and counters are those of the kernels, for 64-bit mode with 4 levels through a 4-level EPT. What the kernels
   would do on a fault or to set a flag is left out: such a translation gives all ones. */
#include <stdint.h>
#include <stddef.h>
#include <string.h>
#include <time.h>

typedef uint64_t u64;
enum { CAPACITY = 12288, MISS = CAPACITY };
#define FRAME 0x000FFFFFFFFFF000ull
#define FAILED (~0ull)

struct array { u64 ways, set_mask, first, hash_shift; };
struct tlb {
    struct array l1, l2;
    u64 clock, stlb_hits, walks, references, guest_walks[8], ept_walks[8][4];
    u64 tags[CAPACITY], spaces[CAPACITY], stamps[CAPACITY], words[CAPACITY], gpas[CAPACITY];
};
struct machine { const char *ram; u64 ram_bytes, cr3, eptp, physical_bits, required, space; struct tlb tlb; };

static u64 set_of(const struct array *a, u64 page)
{
    return a->first + ((page ^ (a->hash_shift ? page >> a->hash_shift : 0)) & a->set_mask) * a->ways;
}

static u64 find(const struct tlb *t, const struct array *a, u64 page, u64 space)
{
    if (!a->ways)
        return MISS;
    u64 slot = set_of(a, page), end = slot + a->ways;
    for (; slot < end; slot++)
        if (t->tags[slot] == page << 12 && t->spaces[slot] == space)
            return slot;
    return MISS;
}

static void insert(struct tlb *t, const struct array *a, u64 page, u64 space, u64 word, u64 gpa)
{
    if (!a->ways)
        return;
    u64 slot = set_of(a, page), end = slot + a->ways, oldest = slot;
    for (slot++; slot < end; slot++)
        if (t->stamps[slot] < t->stamps[oldest])
            oldest = slot;
    t->tags[oldest] = page << 12;
    t->spaces[oldest] = space;
    t->words[oldest] = word;
    t->gpas[oldest] = gpa;
    t->stamps[oldest] = t->clock;
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
    if (gpa >> 48)
        return FAILED;
    for (level = 4;; level--) {
        if (!entry_at(m, table | (gpa >> (level * 9) & 0xFF8), &entry))
            return FAILED;
        m->tlb.references++;
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
        m->tlb.references++;
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

static u64 translate(struct machine *m, u64 gla, u64 access)
{
    struct tlb *t = &m->tlb;
    u64 page = gla >> 12, word, gpa, slot = find(t, &t->l1, page, m->space);
    t->clock++;
    if (slot != MISS && !(m->required & ~t->words[slot])) {
        word = t->words[slot];
        t->stamps[slot] = t->clock;
    } else if ((slot = find(t, &t->l2, page, m->space)) != MISS && !(m->required & ~t->words[slot])) {
        word = t->words[slot];
        t->stamps[slot] = t->clock;
        t->stlb_hits++;
        insert(t, &t->l1, page, m->space, word, t->gpas[slot]);
    } else {
        t->walks++;
        word = walk(m, gla, access, &gpa);
        if (word == FAILED || m->required & ~word)
            return FAILED;
        insert(t, &t->l1, page, m->space, word, gpa);
        insert(t, &t->l2, page, m->space, word, gpa);
    }
    return (word & FRAME) | (gla & ((4096ull << (word >> 6 & 3) * 9) - 1));
}

static struct machine the;

/* Entries and ways of both levels (0 = none); everything is invalid afterwards. */
void twin_setup(const void *ram, u64 ram_bytes, u64 cr3, u64 eptp, u64 l1, u64 l1_ways, u64 l2, u64 l2_ways)
{
    memset(&the, 0, sizeof the);
    the.ram = ram;
    the.ram_bytes = ram_bytes;
    the.cr3 = cr3;
    the.eptp = eptp;
    the.physical_bits = 46;
    the.space = eptp | 1;
    the.tlb.l1 = (struct array){l1_ways, l1_ways ? l1 / l1_ways - 1 : 0, 0, 0};
    the.tlb.l2 = (struct array){l2_ways, l2_ways ? l2 / l2_ways - 1 : 0, l1, 7};
}

void twin_invalidate(void) { memset(the.tlb.spaces, 0, sizeof the.tlb.spaces); }

/* Translates for reads (access 0), writes (1) or fetches (2) of a supervisor; gives nanoseconds. */
u64 twin_translate_many(const u64 *glas, u64 *hpas, u64 count, u64 access)
{
    struct timespec a, b;
    the.required = 1ull << access;
    clock_gettime(CLOCK_MONOTONIC, &a);
    for (u64 i = 0; i < count; i++)
        hpas[i] = translate(&the, glas[i], access);
    clock_gettime(CLOCK_MONOTONIC, &b);
    return (u64)(b.tv_sec - a.tv_sec) * 1000000000ull + (u64)b.tv_nsec - (u64)a.tv_nsec;
}
