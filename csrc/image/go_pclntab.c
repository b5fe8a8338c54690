/* go_pclntab.c: the table of functions that the Go runtime unwinds by: offsets
 * of code, names and line tables, in the form that Go has had since 1.20. */
#include "../common/bytes.h"
#include "tables.h"

#define MAGIC 0xFFFFFFF1u
#define HEADER_SIZE 72u
#define FUNCTION_SIZE 44u /* the fixed part of a record */
#define NO_DATA 0xFFFFFFFFu
/* The tree of what was inlined into a function: one of its function data, and
 * the table that says of each instruction in which leaf it is. */
#define TREE_FUNCDATA 3u
#define TREE_PCDATA 2u
#define TREE_ENTRY_SIZE 16u
#define TREE_NAME 4u
/* Words of the module data, whose first two are the table and its names. */
#define MODULE_TEXT 22u
#define MODULE_FUNCDATA 40u
#define MODULE_WORDS 41u

typedef struct table {
    bspi_file *file;
    bspi_image *image;
    const uint8_t *data;
    uint64_t off; /* of the table in the file */
    uint64_t size;
    uint64_t budget; /* references it may still name */
    uint64_t steps;  /* bytes of line tables that may still be read */
    uint64_t pcs_off;
    uint32_t text, names, pcs, functions, funcdata;
    bool has_funcdata;
    uint64_t funcdata_addr;
} table;

static bool add(table *t, uint64_t at, uint32_t base) {
    if (t->budget == 0)
        return true;
    t->budget--;
    return bspi_image_add_ref(t->file, t->image, t->off + at, BSPI_REF_BASE32, base);
}

/* Names `count` words at `at` but for those that are `none`. */
static bool add_words(table *t, uint64_t at, uint64_t count, uint32_t none, uint32_t base) {
    for (uint64_t i = 0; i < count && t->budget != 0; i++)
        if (bspi_load32(t->data + at + i * 4) != none && !add(t, at + i * 4, base))
            return false;
    return true;
}

static uint32_t read_uleb(table *t, uint64_t *at) {
    uint32_t value = 0;
    unsigned shift = 0;
    while (*at < t->size && t->steps != 0) {
        uint8_t byte = t->data[(*at)++];
        t->steps--;
        if (shift < 32) {
            value |= (uint32_t)(byte & 0x7F) << shift;
            shift += 7;
        }
        if ((byte & 0x80) == 0)
            return value;
    }
    return 0;
}

/* The highest value of the line table at `at`, -1 when it has none. */
static int64_t highest_value(table *t, uint64_t at) {
    int32_t value = -1, most = -1;
    for (bool first = true; at < t->size && t->steps != 0; first = false) {
        uint32_t delta = read_uleb(t, &at);
        if (delta == 0 && !first)
            break;
        value = (int32_t)((uint32_t)value + ((delta >> 1) ^ (0 - (delta & 1))));
        most = BSPI_MAX(most, value);
        read_uleb(t, &at);
    }
    return most;
}

/* The names of the functions in the tree of inlined calls. */
static bool read_tree(table *t, uint64_t addr, uint32_t pcdata) {
    int64_t last = highest_value(t, t->pcs_off + pcdata);
    for (int64_t i = 0; i <= last && t->budget != 0; i++) {
        uint64_t off;
        if (!bspi_addr_to_off(t->image, addr + (uint64_t)i * TREE_ENTRY_SIZE, TREE_ENTRY_SIZE,
                              &off))
            break;
        t->budget--;
        if (!bspi_image_add_ref(t->file, t->image, off + TREE_NAME, BSPI_REF_BASE32, t->names))
            return false;
    }
    return true;
}

/* The record of one function: where its code, its name and its tables are. */
static bool read_function(table *t, uint64_t at) {
    if (!bspi_within(at, FUNCTION_SIZE, t->size))
        return true;
    uint64_t pcdata = bspi_load32(t->data + at + 28), funcdata = t->data[at + 43];
    uint64_t end = at + FUNCTION_SIZE;
    if (!bspi_within(end, (pcdata + funcdata) * 4, t->size))
        return true;
    if (!add(t, at, t->text) || !add(t, at + 4, t->names) ||
        !add_words(t, at + 16, 3, 0, t->pcs) || !add_words(t, end, pcdata, 0, t->pcs))
        return false;
    if (!t->has_funcdata)
        return true;
    uint64_t words = end + pcdata * 4;
    if (funcdata > TREE_FUNCDATA && pcdata > TREE_PCDATA) {
        uint32_t tree = bspi_load32(t->data + words + TREE_FUNCDATA * 4);
        uint32_t leaves = bspi_load32(t->data + end + TREE_PCDATA * 4);
        if (tree != NO_DATA && leaves != 0 && !read_tree(t, t->funcdata_addr + tree, leaves))
            return false;
    }
    return add_words(t, words, funcdata, NO_DATA, t->funcdata);
}

/* Where function data counts from stands in the module data alone. */
static bool find_funcdata(table *t, uint64_t table_addr, uint64_t names, uint64_t text) {
    for (size_t i = 0; i < t->image->section_count; i++) {
        const bspi_section *section = &t->image->sections[i];
        if (section->role != BSPI_ROLE_OTHER)
            continue;
        const uint8_t *data = t->file->data + section->file_off;
        for (uint64_t at = 0; bspi_within(at, MODULE_WORDS * 8, section->file_size); at += 8) {
            if (bspi_load64(data + at) != table_addr || bspi_load64(data + at + 8) != names ||
                bspi_load64(data + at + MODULE_TEXT * 8) != text)
                continue;
            t->has_funcdata = true;
            t->funcdata_addr = bspi_load64(data + at + MODULE_FUNCDATA * 8);
            return bspi_image_add_base(t->file, t->image, t->funcdata_addr, &t->funcdata);
        }
    }
    return true;
}

bool bspi_go_pclntab_refs(bspi_file *file, bspi_image *image, const bspi_section *section) {
    table t = {.file = file,
               .image = image,
               .data = file->data + section->file_off,
               .off = section->file_off,
               .size = section->file_size,
               .budget = section->file_size / 4,
               .steps = section->file_size};
    if (t.size < HEADER_SIZE || !section->mapped || bspi_load32(t.data) != MAGIC ||
        t.data[7] != 8 /* bytes of a pointer */)
        return true;
    uint64_t count = bspi_load64(t.data + 8), text = bspi_load64(t.data + 24);
    uint64_t names = bspi_load64(t.data + 32), pcs = bspi_load64(t.data + 56);
    uint64_t functions = bspi_load64(t.data + 64);
    if (names > t.size || pcs > t.size || functions > t.size)
        return true;
    count = BSPI_MIN(count, (t.size - functions) / 8);
    t.pcs_off = pcs;
    if (!bspi_image_add_base(file, image, text, &t.text) ||
        !bspi_image_add_base(file, image, section->addr + names, &t.names) ||
        !bspi_image_add_base(file, image, section->addr + pcs, &t.pcs) ||
        !bspi_image_add_base(file, image, section->addr + functions, &t.functions) ||
        !find_funcdata(&t, section->addr, section->addr + names, text))
        return false;
    for (uint64_t i = 0; i < count && t.budget != 0; i++) {
        uint64_t at = functions + i * 8;
        uint64_t record = functions + bspi_load32(t.data + at + 4);
        if (!add(&t, at, t.text) || !add(&t, at + 4, t.functions) || !read_function(&t, record))
            return false;
    }
    return true;
}
