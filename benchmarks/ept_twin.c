/* Translation of arrays of addresses in plain C: the yardstick for vmxemu.translation, compiled with cc -O2.

   Tables, checks (permissions, reserved bits, misconfiguration, accessed and dirty flags), TLB (page sizes, sets, ways,
   replacement, two levels), walk caches, nested TLBs, costs and counters are those of the kernels, for 64-bit mode with 4
   levels through a 4-level EPT or none. What the kernels would do on a fault or to set a flag is left out: such a
   translation gives all ones. */
#include "ept_twin_caches.h"
#include <time.h>

#define FRAME 0x000FFFFFFFFFF000ull
#define FAILED (~0ull)
#define RW_US 6ull
#define XD (1ull << 63)
#define NESTED_SPACE 2ull /* of guest-physical addresses; that of linear ones is odd */

struct machine { const char *ram; u64 ram_bytes, cr3, eptp, physical_bits, required, space; struct tlb tlb; };

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
    u64 reserved = ~0ull << m->physical_bits & 0xFFFFFFFFFFFFFull, both = ~0ull, table = m->eptp & FRAME, entry, at, known;
    u64 words[5];
    int level = 0, first;
    if (!m->eptp) /* the size of the guest's page decides */
        return (gpa & FRAME) | 0xF | (CLASSES - 1) << 4;
    if (gpa >> 48)
        return FAILED;
    if (m->tlb.ept_tables_on && (level = find_table(&m->tlb, EPT_TABLES, gpa, NESTED_SPACE, &known)) != 0) {
        table = known & FRAME;
        both = known | ~7ull;
    }
    for (first = level = level ? level : 4;; level--) {
        at = table | (gpa >> (level * 9) & 0xFF8);
        if (!entry_at(m, at, &entry))
            return FAILED;
        refer(&m->tlb, at);
        if ((entry & 7) == 0 || (entry & 3) == 2 || (entry & 7) == 4 || entry & reserved)
            return FAILED;
        both &= entry;
        if (level == 1 || entry & 0x80)
            break;
        if (entry & 0x78)
            return FAILED;
        table = entry & FRAME;
        words[level] = table | (both & 7);
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
    if (m->tlb.ept_tables_on)
        for (; first > level; first--)
            keep_table(&m->tlb, EPT_TABLES + first, gpa >> (first * 9 + 3), NESTED_SPACE, words[first], gpa);
    u64 offset = (1ull << (level * 9 + 3)) - 1;
    return (entry & FRAME & ~offset) | (gpa & offset & FRAME) | (both & 7) | (m->eptp & 0x40 ? entry >> 6 & 8 : 8)
           | (u64)(level - 1) << 4;
}

/* The same, or what a nested TLB knows. */
static inline u64 nested_walk(struct machine *m, u64 number, u64 gpa, u64 want, int guest_level)
{
    struct tlb *t = &m->tlb;
    const struct array *a = &t->arrays[number];
    u64 page = gpa >> 12, answer;
    if (!a->ways || !m->eptp)
        return ept_walk(m, gpa, want, guest_level);
    u64 slot = find_in(t, number, page << 12, page, NESTED_SPACE);
    if (slot != MISS) {
        answer = t->words[slot];
        if ((answer & want) == want && (!(want & 2) || answer & 8)) {
            used(t, a, page, slot);
            t->counted.nested_hits++;
            return answer;
        }
    }
    answer = ept_walk(m, gpa, want, guest_level);
    if (answer != FAILED)
        put(t, a, page << 12, page, NESTED_SPACE, answer, page << 12);
    return answer;
}

/* The TLB's word: frame, rights in 5:0, page-size class in 7:6; or FAILED. */
static u64 walk(struct machine *m, u64 gla, u64 access, u64 *gpa_out)
{
    u64 reserved = ~0ull << m->physical_bits & 0xFFFFFFFFFFFFFull, both = ~0ull, either = 0, table = m->cr3 & FRAME;
    u64 entry = m->cr3, answer, table_access = m->eptp & 0x40 ? 3 : 1, known = 0;
    int level = 0, first;
    if ((gla + (1ull << 47)) >> 48)
        return FAILED;
    if (m->tlb.tables_on && (level = find_table(&m->tlb, TABLES, gla, m->space, &known)) != 0) {
        both = known | ~RW_US;
        either = known & XD;
    }
    first = level = level ? level : 4;
    for (;; level--) {
        u64 at = table | (gla >> (level * 9) & 0xFF8), hpa;
        if (known) {
            hpa = (known & FRAME) | (at & 0xFFF);
            known = 0;
        } else {
            answer = nested_walk(m, NESTED_TABLES, at, table_access, level);
            if (answer == FAILED)
                return FAILED;
            hpa = (answer & FRAME) | (at & 0xFFF);
        }
        if (m->tlb.tables_on && level != first && both & 0x20)
            keep_table(&m->tlb, TABLES + level + 1, gla >> (level * 9 + 12), m->space,
                       (hpa & FRAME) | (both & RW_US) | (either & XD) | (entry & 0x18), table);
        if (!entry_at(m, hpa, &entry))
            return FAILED;
        refer(&m->tlb, hpa);
        if (!(entry & 1) || entry & reserved)
            return FAILED;
        if (level == 1)
            break;
        if (entry & 0x80) {
            if (level == 4 || entry & ((1ull << (level * 9 + 3)) - 1) & ~0x1FFFull)
                return FAILED;
            break;
        }
        both &= entry;
        either |= entry;
        table = entry & FRAME;
    }
    both &= entry;
    either |= entry;
    m->tlb.guest_walks[first][level]++;
    if (!(both & 0x20) || (access == 1 && !(entry & 0x40)))
        return FAILED;
    u64 offset = (1ull << (level * 9 + 3)) - 1, gpa = (entry & FRAME & ~offset) | (gla & offset);
    answer = nested_walk(m, NESTED_PAGES, gpa, 1ull << access, 0);
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

static __attribute__((noinline)) u64 missed(struct machine *m, u64 gla, u64 access, u64 group)
{
    struct tlb *t = &m->tlb;
    u64 before = t->counted.references, word, gpa;
    t->counted.walks++;
    t->memory_cycles = 0;
    word = walk(m, gla, access, &gpa);
    if (!t->caches.on)
        t->memory_cycles = (t->counted.references - before) * t->reference_cycles;
    t->counted.cycles += t->walk_cycles + t->memory_cycles;
    if (word == FAILED || m->required & ~word)
        return FAILED;
    insert(t, group, gla, m->space, word, gpa);
    insert(t, STLB, gla, m->space, word, gpa);
    return word;
}

/* The array and the page number that a found entry belongs to. */
static inline void used_page(struct tlb *t, u64 group, u64 gla, u64 slot)
{
    u64 class = t->words[slot] >> 6 & 3;
    used(t, &t->arrays[group * CLASSES + class], gla >> (12 + class * 9), slot);
}

static inline u64 translate(struct machine *m, u64 gla, u64 access)
{
    struct tlb *t = &m->tlb;
    u64 group = access >> 1, word, slot = find(t, group, gla, m->space);
    if (slot != MISS && !(m->required & ~t->words[slot])) {
        word = t->words[slot];
        used_page(t, group, gla, slot);
    } else if ((slot = find(t, STLB, gla, m->space)) != MISS && !(m->required & ~t->words[slot])) {
        word = t->words[slot];
        used_page(t, STLB, gla, slot);
        t->counted.stlb_hits++;
        t->counted.cycles += t->stlb_cycles;
        insert(t, group, gla, m->space, word, t->gpas[slot]);
    } else {
        word = missed(m, gla, access, group);
        if (word == FAILED)
            return FAILED;
    }
    return (word & FRAME) | (gla & ((4096ull << (word >> 6 & 3) * 9) - 1));
}

static struct machine the;

void twin_invalidate(void) { empty(&the.tlb); }

/* `arrays` and `caches`: those of the kernel's records. Everything is invalid afterwards. 0 if there is no room. */
int twin_setup(const void *ram, const u64 *numbers, const struct array *arrays, const struct data_caches *caches)
{
    struct tlb *t = &the.tlb;
    for (int i = 0; i < DATA_CACHES; i++)
        free(t->caches.level[i].tags);
    memset(&the, 0, sizeof the);
    the.ram = ram;
    the.ram_bytes = numbers[0];
    the.cr3 = numbers[1];
    the.eptp = numbers[2];
    the.physical_bits = numbers[3];
    the.space = numbers[2] | 1;
    t->stlb_cycles = numbers[4];
    t->walk_cycles = numbers[5];
    t->reference_cycles = numbers[6];
    memcpy(t->arrays, arrays, sizeof t->arrays);
    t->caches = *caches;
    plant(t);
    for (int i = 0; i < ARRAYS; i++) {
        if (arrays[i].first + (arrays[i].set_mask + 1) * arrays[i].stride > CAPACITY)
            return 0;
        t->tables_on |= i >= TABLES + 2 && i <= TABLES + 5 && arrays[i].ways;
        t->ept_tables_on |= i >= EPT_TABLES + 2 && arrays[i].ways;
    }
    return own_data_caches(&t->caches);
}

/* Translates for reads (access 0), writes (1) or fetches (2) of a supervisor. `dependent`: each address is made with
   what came out of the translation before, as vmxemu.measure.chase does it. Gives nanoseconds of the thread's
   processor time, and what was counted. */
u64 twin_translate_many(const u64 *glas, u64 *hpas, u64 count, u64 access, int dependent, struct counters *counted)
{
    struct timespec a, b;
    u64 unknown_zero = 0;
    the.required = 1ull << access;
    memset(&the.tlb.counted, 0, sizeof the.tlb.counted);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &a);
    if (dependent)
        for (u64 i = 0; i < count; i++) {
            u64 gla = glas[i] ^ unknown_zero;
            hpas[i] = translate(&the, gla, access);
            unknown_zero = (hpas[i] ^ gla) & 0xFFF;
        }
    else
        for (u64 i = 0; i < count; i++)
            hpas[i] = translate(&the, glas[i], access);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &b);
    *counted = the.tlb.counted;
    return (u64)(b.tv_sec - a.tv_sec) * 1000000000ull + (u64)b.tv_nsec - (u64)a.tv_nsec;
}
