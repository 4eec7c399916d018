/* Part of ept_twin.c: TLB arrays, walk caches and nested TLBs (one pool, with the keys of translation.tlb), their replacement,
   and the data caches that say what a reference costs. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t u64;
enum { CAPACITY = 16384, MISS = CAPACITY };
enum { L1D, L1I, STLB, GROUPS, CLASSES = 3 };                       /* a class is a page size: 4K, 2M, 1G */
/* TABLES + level 2..5: paging-structure caches; EPT_TABLES + level: those of EPT */
enum { TABLES = 7, NESTED_TABLES = 13, NESTED_PAGES = 14, EPT_TABLES = 13, ARRAYS = 19 };
enum { DEPTH = 6, DATA_CACHES = 3, SET = 16 }; /* places of a data cache's set */

struct array { u64 ways, stride, set_mask, first, hash_shift, hash_mask, tree_levels, tree_nodes, small; }; /* as translation.tlb_layout.TlbArray */
struct data_cache { uint32_t *tags; u64 ways, set_mask, cycles, hits; };    /* DataCache and Caches of the same */
struct data_caches { u64 on, memory_cycles, misses, uncached; struct data_cache level[DATA_CACHES]; };
struct counters { u64 stlb_hits, walks, references, cycles, table_hits, ept_table_hits, nested_hits; };
struct tlb {
    struct array arrays[ARRAYS];
    u64 uses, live, tables_on, ept_tables_on, stlb_cycles, walk_cycles, reference_cycles, memory_cycles;
    u64 guest_walks[8][8], ept_walks[8][4], kept[1 << DEPTH], pointed[1 << DEPTH];
    struct counters counted;
    struct data_caches caches;
    u64 tags[CAPACITY], spaces[CAPACITY], stamps[CAPACITY], words[CAPACITY], gpas[CAPACITY], trees[CAPACITY / 4];
};

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
    for (u64 class = 1; class < CLASSES; class++) {
        u64 page = gla >> (12 + class * 9), tag = page << (12 + class * 9), slot = MISS;
        if (t->live >> (number + class) & 1)
            slot = find_in(t, number + class, tag, page, space | class << 54);
        if (slot != MISS)
            return slot;
    }
    return MISS;
}

static inline u64 find(const struct tlb *t, u64 group, u64 gla, u64 space)
{
    u64 number = group * CLASSES, slot = find_in(t, number, gla & ~0xFFFull, gla >> 12, space);
    return slot == MISS && t->live >> number & 6 ? find_large(t, number, gla, space) : slot;
}

/* Tree pseudo-LRU: 64 leaves, nodes numbered from 1 as in a heap, a bit of a word each. */
static void plant(struct tlb *t)
{
    for (u64 way = 0; way < 1 << DEPTH; way++) {
        t->kept[way] = ~0ull;
        t->pointed[way] = 0;
        for (u64 depth = 0; depth < DEPTH; depth++) {
            u64 node = 1ull << depth | way >> (DEPTH - depth);
            t->kept[way] &= ~(1ull << node);
            t->pointed[way] |= (~way >> (DEPTH - 1 - depth) & 1) << node;
        }
    }
}

static inline void used(struct tlb *t, const struct array *a, u64 page, u64 slot)
{
    if (a->tree_levels) {
        u64 first = set_of(a, page), *tree = &t->trees[first / 4];
        *tree = (*tree & t->kept[slot - first]) | t->pointed[slot - first];
    } else
        t->stamps[slot] = ++t->uses;
}

static u64 tree_victim(u64 tree, u64 ways)
{
    u64 node = 1, way = 0;
    for (u64 half = 1 << (DEPTH - 1); half; half /= 2) {
        u64 right = way + half < ways ? tree >> node & 1 : 0;
        way += half * right;
        node = node * 2 + right;
    }
    return way;
}

static inline void put(struct tlb *t, const struct array *a, u64 tag, u64 page, u64 space, u64 word, u64 gpa)
{
    u64 first = set_of(a, page), slot = first, end = first + a->ways, oldest = first;
    for (slot++; slot < end; slot++)
        if (t->stamps[slot] < t->stamps[oldest])
            oldest = slot;
    if (a->tree_levels && t->stamps[oldest])
        oldest = first + tree_victim(t->trees[first / 4], a->ways);
    t->tags[oldest] = tag;
    t->spaces[oldest] = space;
    t->words[oldest] = word;
    t->gpas[oldest] = gpa;
    t->stamps[oldest] = ++t->uses;
    if (a->tree_levels)
        used(t, a, page, oldest);
}

/* The deepest table for an address that the paging-structure caches know: gives the level of its entries, or 0. */
static int find_table(struct tlb *t, u64 caches, u64 address, u64 space, u64 *word)
{
    for (int level = 2; level <= 4; level++) {
        const struct array *a = &t->arrays[caches + level];
        u64 page = address >> (level * 9 + 3), slot;
        if (a->ways && (slot = find_in(t, caches + level, page << 12, page, space)) != MISS) {
            used(t, a, page, slot);
            *(caches == TABLES ? &t->counted.table_hits : &t->counted.ept_table_hits) += 1;
            *word = t->words[slot];
            return level - 1;
        }
    }
    return 0;
}

static inline void keep_table(struct tlb *t, u64 number, u64 page, u64 space, u64 word, u64 gpa)
{
    if (t->arrays[number].ways)
        put(t, &t->arrays[number], page << 12, page, space, word, gpa);
}

/* A page larger than the group can hold is kept as its part around the address. */
static __attribute__((noinline)) void insert_large(struct tlb *t, u64 group, u64 gla, u64 space, u64 word, u64 gpa)
{
    u64 class = word >> 6 & 3, offset = (4096ull << class * 9) - 1, low;
    while (!t->arrays[group * CLASSES + class].ways)
        if (!class--)
            return;
    low = (4096ull << class * 9) - 1;
    put(t, &t->arrays[group * CLASSES + class], gla & ~low, gla >> (12 + class * 9), space | class << 54,
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

static inline int bring_to_front(const struct data_cache *cache, uint32_t tag)
{
    uint32_t *at = cache->tags + ((tag - 1) & cache->set_mask) * SET, *end = at + cache->ways, previous = tag;
    for (; at < end; at++) {
        uint32_t current = *at;
        *at = previous;
        if (current == tag)
            return 1;
        previous = current;
    }
    return 0;
}

static __attribute__((noinline)) u64 latency(struct data_caches *caches, u64 hpa)
{
    u64 tag = (hpa >> 6) + 1;
    for (int i = 0; i < DATA_CACHES; i++) {
        struct data_cache *cache = &caches->level[i];
        if (cache->ways && bring_to_front(cache, tag)) {
            cache->hits++;
            return cache->cycles;
        }
    }
    caches->misses++;
    return caches->memory_cycles;
}

/* All memory is write-back. */
static inline void refer(struct tlb *t, u64 hpa)
{
    t->counted.references++;
    if (t->caches.on)
        t->memory_cycles += latency(&t->caches, hpa);
}

static int own_data_caches(struct data_caches *caches)
{
    for (int i = 0; i < DATA_CACHES; i++) {
        struct data_cache *cache = &caches->level[i];
        size_t bytes = (cache->set_mask + 1) * SET * sizeof *cache->tags;
        if (!cache->ways)
            cache->tags = NULL;
        else if (cache->ways <= SET && (cache->tags = aligned_alloc(SET * sizeof *cache->tags, bytes)))
            memset(cache->tags, 0, bytes);
        else
            return 0;
    }
    return 1;
}

static void empty(struct tlb *t)
{
    memset(t->spaces, 0, sizeof t->spaces);
    memset(t->stamps, 0, sizeof t->stamps);
    t->live = 0;
}
