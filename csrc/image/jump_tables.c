/* jump_tables.c: names the entries of the tables that switch statements jump
 * through, once an instruction set's finder has seen the code that reads them. */
#include "jump_tables.h"

#include "../common/bytes.h"
#include "sort.h"
#include "tables.h"

/* Without a bounds check in sight, an entry that leads further than this from
 * the jump ends its table. */
#define NEAR (UINT64_C(128) << 10)

static bool table_less(void *items, size_t a, size_t b) {
    const bspi_jump_table *x = (const bspi_jump_table *)items + a;
    const bspi_jump_table *y = (const bspi_jump_table *)items + b;
    if (x->addr != y->addr)
        return x->addr < y->addr;
    return x->site < y->site; /* one jump has one table */
}

static void table_swap(void *items, size_t a, size_t b) {
    bspi_jump_table *tables = items, kept = tables[a];
    tables[a] = tables[b];
    tables[b] = kept;
}

static bool is_near(uint64_t a, uint64_t b) {
    return (a > b ? a - b : b - a) <= NEAR;
}

/* Whether the entry at `bytes` can be one of `table`: it leads into `section`. */
static bool entry_ok(const bspi_jump_table *table, const bspi_section *section, uint8_t arch,
                     const uint8_t *bytes) {
    uint64_t target;
    if (!bspi_ref_read(table->kind, bytes, 0, table->base, &target))
        return false;
    if (target < section->addr || target - section->addr >= section->file_size)
        return false;
    if (arch == BSPI_ARCH_ARM64 && (target & 3) != 0)
        return false;
    return table->counted || is_near(target, table->site);
}

/* Names the entries of `table`, at most `count`. */
static bool add_entries(bspi_file *file, bspi_image *image, const bspi_section *section,
                        const bspi_jump_table *table, uint64_t count) {
    uint64_t size = bspi_ref_size(table->kind), off;
    uint32_t aux = 0;
    bool has_base = false; /* registered with the first entry that is added */
    const bspi_section *home = bspi_section_with_addr(image, table->addr);
    if (home == NULL || !bspi_addr_to_off(image, table->addr, size, &off))
        return true;
    count = BSPI_MIN(count, (home->file_size - (table->addr - home->addr)) / size);
    for (uint64_t i = 0; i < count; i++) {
        const uint8_t *entry = file->data + off + i * size;
        /* The kinds read unsigned; leave alone what the code reads as negative. */
        if (table->is_signed && (entry[size - 1] & 0x80) != 0)
            continue;
        if (!entry_ok(table, section, image->arch, entry))
            break;
        if (!has_base && !bspi_image_add_base(file, image, table->base, &aux))
            return false;
        has_base = true;
        if (!bspi_image_add_ref(file, image, off + i * size, table->kind, aux))
            return false;
    }
    return true;
}

bool bspi_jump_table_refs(bspi_file *file, bspi_image *image, const bspi_section *section) {
    bspi_jump_tables tables = {.heap = file->heap};
    bspi_section code = *section; /* adding to the image may move it */
    const uint8_t *bytes = file->data + code.file_off;
    bool ok = true;
    if (!code.mapped)
        return true;
    if (image->arch == BSPI_ARCH_ARM64)
        ok = bspi_arm64_jump_tables(bytes, code.file_size, code.addr, &tables);
    else if (image->arch == BSPI_ARCH_X86_64)
        ok = bspi_x86_64_jump_tables(bytes, code.file_size, code.addr, &tables);
    if (ok)
        bspi_sort(tables.items, tables.count, table_less, table_swap);
    for (size_t i = 0; i < tables.count && ok; i++) {
        const bspi_jump_table *table = &tables.items[i];
        uint64_t count = table->count, size = bspi_ref_size(table->kind);
        if (i > 0 && tables.items[i - 1].addr == table->addr)
            continue; /* several jumps through one table */
        size_t next = i + 1;
        while (next < tables.count && tables.items[next].addr == table->addr)
            next++;
        if (next < tables.count)
            count = BSPI_MIN(count, (tables.items[next].addr - table->addr) / size);
        ok = add_entries(file, image, &code, table, count);
    }
    bspi_free(file->heap, tables.items);
    return ok;
}
