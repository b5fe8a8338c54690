/* layout_stream.c: images, sections and fills, told as differences from the
 * old file's. */
#include <string.h>

#include "../common/bytes.h"
#include "streams.h"

enum {
    CONTEXT_COUNT = 0,
    CONTEXT_SAME = 40,
    CONTEXT_PAIR = 41,
    CONTEXT_ROLE = 42,
    CONTEXT_OFF = 43,
    CONTEXT_SIZE = 44,
    CONTEXT_ADDR = 45,
    CONTEXT_MEM = 46,
    CONTEXT_FILL = 47
};

/* No image of the readers has more; a bound for what a hostile patch can ask for. */
#define SECTION_LIMIT (UINT64_C(1) << 20)

static bool same_layout(const bspi_content *content, const bspi_file *old) {
    if (content->raw || content->layout.image_count != old->image_count)
        return false;
    for (size_t i = 0; i < old->image_count; i++) {
        const bspi_layout_image *image = &content->layout.images[i];
        const bspi_image *from = &old->images[i];
        if (image->old_image != i || image->section_count != from->section_count)
            return false;
        for (size_t j = 0; j < from->section_count; j++) {
            const bspi_layout_section *a = &image->sections[j];
            const bspi_section *b = &from->sections[j];
            if (a->pair != j || a->role != b->role || a->mapped != b->mapped ||
                a->file_off != b->file_off || a->file_size != b->file_size ||
                (b->mapped && (a->addr != b->addr || a->mem_size != b->mem_size)))
                return false;
        }
    }
    return true;
}

static bool allocate_images(bspi_column *column, bspi_content *content, size_t count) {
    bspi_layout *layout = &content->layout;
    layout->heap = content->heap;
    layout->images = bspi_alloc(content->heap, count + 1, sizeof *layout->images, true);
    if (layout->images == NULL)
        bspi_column_fail(column, BSP_E_NOMEM, "layout");
    return layout->images != NULL;
}

static bool allocate_sections(bspi_column *column, bspi_content *content,
                              bspi_layout_image *image, size_t count) {
    image->sections = bspi_alloc(content->heap, count + 1, sizeof *image->sections, true);
    if (image->sections == NULL) {
        bspi_column_fail(column, BSP_E_NOMEM, "layout");
        return false;
    }
    image->section_count = count;
    return true;
}

static void copy_layout(bspi_column *column, bspi_content *content, const bspi_file *old) {
    if (!allocate_images(column, content, old->image_count))
        return;
    for (size_t i = 0; i < old->image_count; i++) {
        const bspi_image *from = &old->images[i];
        bspi_layout_image *image = &content->layout.images[i];
        if (!allocate_sections(column, content, image, from->section_count))
            return;
        content->layout.image_count++;
        image->old_image = (uint32_t)i;
        for (size_t j = 0; j < from->section_count; j++) {
            const bspi_section *b = &from->sections[j];
            bspi_layout_section section = {
                b->file_off, b->file_size, b->mapped ? b->addr : 0,
                b->mapped ? b->mem_size : 0, (uint32_t)j, b->role, b->mapped};
            image->sections[j] = section;
        }
    }
}

/* Transfers `value` as its difference from `expected`. */
static void near(bspi_column *column, uint32_t context, uint64_t expected, uint64_t *value) {
    int64_t difference = (int64_t)(*value - expected);
    bspi_column_s64(column, context, &difference);
    if (bspi_column_reads(column))
        *value = expected + (uint64_t)difference;
}

typedef struct {
    uint64_t off_shift;  /* new - old of the last file-backed pair's end */
    uint64_t addr_shift; /* the same of addresses */
    uint64_t off, addr;  /* end of the last section */
    uint32_t pair;       /* the expected pair */
} running;

static void transfer_section(bspi_column *column, const bspi_image *from, running *run,
                             bspi_layout_section *section) {
    uint64_t pair = section->pair == BSPI_NO_PAIR
                        ? 0
                        : 1 + bspi_zigzag((int64_t)section->pair - (int64_t)run->pair);
    bspi_column_u64(column, CONTEXT_PAIR, &pair);
    if (bspi_column_reads(column)) {
        uint64_t index = pair == 0 ? 0 : run->pair + (uint64_t)bspi_unzigzag(pair - 1);
        if (pair != 0 && index >= from->section_count) {
            bspi_column_fail(column, BSP_E_CORRUPT, "layout.pair");
            return;
        }
        section->pair = pair == 0 ? BSPI_NO_PAIR : (uint32_t)index;
    }
    bspi_section none = {run->off - run->off_shift, 0, run->addr - run->addr_shift, 0, 0, 0, 1};
    const bspi_section *old = &none;
    if (section->pair != BSPI_NO_PAIR) {
        old = &from->sections[section->pair];
        run->pair = section->pair + 1;
    }
    uint64_t role = (uint64_t)section->role | (uint64_t)section->mapped << 2;
    uint64_t expected_role = (uint64_t)old->role | (uint64_t)old->mapped << 2;
    role ^= expected_role;
    bspi_column_u64(column, CONTEXT_ROLE, &role);
    role ^= expected_role;
    if (bspi_column_reads(column)) {
        if (role > 7 || (role & 3) > BSPI_ROLE_ZEROFILL) {
            bspi_column_fail(column, BSP_E_CORRUPT, "layout.role");
            return;
        }
        section->role = role & 3;
        section->mapped = role >> 2 & 1;
    }
    near(column, CONTEXT_SIZE, old->file_size, &section->file_size);
    if (section->file_size != 0)
        near(column, CONTEXT_OFF, old->file_off + run->off_shift, &section->file_off);
    if (section->mapped) {
        near(column, CONTEXT_ADDR, old->addr + run->addr_shift, &section->addr);
        near(column, CONTEXT_MEM, old->mem_size + (section->file_size - old->file_size),
             &section->mem_size);
    }
    if (section->file_size != 0) {
        run->off = section->file_off + section->file_size;
        run->off_shift = run->off - (old->file_off + old->file_size);
    }
    if (section->mapped) {
        run->addr = section->addr + section->mem_size;
        run->addr_shift = run->addr - (old->addr + old->mem_size);
    }
}

/* What bspi_layout_at and the address map rely on. */
static bool sound_image(const bspi_layout_image *image, uint64_t new_size) {
    uint64_t end = 0;
    bool zero_fill = false;
    for (size_t i = 0; i < image->section_count; i++) {
        const bspi_layout_section *section = &image->sections[i];
        uint64_t sum;
        if (section->file_size == 0) {
            zero_fill = true;
        } else {
            if (zero_fill || section->file_off < end ||
                !bspi_within(section->file_off, section->file_size, new_size))
                return false;
            end = section->file_off + section->file_size;
        }
        if (!bspi_add64(section->addr, section->mem_size, &sum) ||
            !bspi_add64(section->addr, section->file_size, &sum))
            return false;
    }
    return true;
}

static void transfer_images(bspi_column *column, bspi_content *content, const bspi_file *old) {
    bool reads = bspi_column_reads(column);
    uint64_t count = content->layout.image_count;
    if (!bspi_column_count(column, 2, &count))
        return;
    if (reads && (count > old->image_count || !allocate_images(column, content, (size_t)count))) {
        bspi_column_fail(column, BSP_E_CORRUPT, "layout.images");
        return;
    }
    for (size_t i = 0; i < count; i++) {
        bspi_layout_image *image = &content->layout.images[i];
        uint64_t pair = image->old_image, sections = image->section_count;
        bspi_column_u64(column, CONTEXT_PAIR, &pair);
        if (!bspi_column_count(column, 3, &sections))
            return;
        if (reads) {
            if (pair >= old->image_count || sections > SECTION_LIMIT) {
                bspi_column_fail(column, BSP_E_CORRUPT, "layout.images");
                return;
            }
            if (!allocate_sections(column, content, image, (size_t)sections))
                return;
            image->old_image = (uint32_t)pair;
            content->layout.image_count++;
        }
        running run = {0, 0, 0, 0, 0};
        for (size_t j = 0; j < sections && column->status == BSP_OK; j++)
            transfer_section(column, &old->images[image->old_image], &run, &image->sections[j]);
        if (reads && column->status == BSP_OK && !sound_image(image, content->new_size))
            bspi_column_fail(column, BSP_E_CORRUPT, "layout.sections");
    }
}

static bool sound_fill(const bspi_content *content, const bspi_fill *fill, uint64_t end) {
    if (fill->page_bits < 12 || fill->page_bits > BSPI_FILL_WHOLE ||
        fill->hash < BSPI_FILL_SHA1 || fill->hash > BSPI_FILL_SHA256_20 || fill->data_len == 0 ||
        fill->new_off < end)
        return false;
    if (fill->page_bits == BSPI_FILL_WHOLE
            ? !bspi_fill_is_one_block(fill)
            : fill->data_off % (UINT64_C(1) << fill->page_bits) != 0)
        return false;
    if (!bspi_within(fill->data_off, fill->data_len, content->new_size))
        return false;
    return bspi_within(fill->new_off, bspi_fill_len(fill), content->new_size);
}

static void transfer_fills(bspi_column *column, bspi_content *content) {
    bool reads = bspi_column_reads(column);
    uint64_t count = content->fill_count;
    if (!bspi_column_count(column, 4, &count))
        return;
    if (count > BSPI_MAX_FILLS) {
        bspi_column_fail(column, BSP_E_CORRUPT, "fill count");
        return;
    }
    if (reads) {
        content->fills = bspi_alloc(content->heap, (size_t)count + 1, sizeof *content->fills,
                                    true);
        if (content->fills == NULL) {
            bspi_column_fail(column, BSP_E_NOMEM, "fills");
            return;
        }
        content->fill_count = (size_t)count;
    }
    uint64_t end = 0;
    uint64_t to_hash = BSPI_MAX_HASHINGS * BSPI_MIN(content->new_size,
                                                    UINT64_MAX / BSPI_MAX_HASHINGS);
    for (size_t i = 0; i < count; i++) {
        bspi_fill *fill = &content->fills[i];
        uint64_t form = (uint64_t)(fill->page_bits - 12) << 2 | fill->hash;
        bspi_column_u64(column, CONTEXT_FILL, &form);
        near(column, CONTEXT_OFF, end, &fill->new_off);
        bspi_column_u64(column, CONTEXT_OFF, &fill->data_off);
        bspi_column_u64(column, CONTEXT_SIZE, &fill->data_len);
        if (reads && column->status == BSP_OK) {
            fill->hash = (uint32_t)(form & 3);
            fill->page_bits = (uint32_t)BSPI_MIN(form >> 2, 60u) + 12;
            if (!sound_fill(content, fill, end) || fill->data_len > to_hash) {
                bspi_column_fail(column, BSP_E_CORRUPT, "fills");
                return;
            }
            to_hash -= fill->data_len;
        }
        end = fill->new_off + bspi_fill_len(fill);
    }
    /* A fill must not hash what a fill writes. */
    for (size_t i = 0; reads && i < count; i++)
        for (size_t j = 0; j < count; j++) {
            const bspi_fill *a = &content->fills[i], *b = &content->fills[j];
            if (a->data_off < b->new_off + bspi_fill_len(b) &&
                b->new_off < a->data_off + a->data_len)
                bspi_column_fail(column, BSP_E_CORRUPT, "fills.data_off");
        }
}

void bspi_transfer_layout(bspi_column *column, bspi_content *content, const bspi_file *old) {
    uint64_t same = 0;
    if (!bspi_column_reads(column))
        same = same_layout(content, old);
    bspi_column_u64(column, CONTEXT_SAME, &same);
    if (column->status != BSP_OK)
        return;
    if (same > 1)
        bspi_column_fail(column, BSP_E_CORRUPT, "layout.same");
    else if (same == 0)
        transfer_images(column, content, old);
    else if (bspi_column_reads(column))
        copy_layout(column, content, old);
    transfer_fills(column, content);
}
