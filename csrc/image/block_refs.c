/* block_refs.c: every reference of one block of a file: what the instruction
 * sets find in its code, merged with what the tables named beforehand. */
#include "../common/bytes.h"
#include "image.h"

/* A code reference that leads further than this from everything the image maps
 * is taken for data that looks like code. */
#define TARGET_SLACK 4096u

static bool has_base(uint8_t kind) {
    switch (kind) {
    case BSPI_REF_BASE32:
    case BSPI_REF_BASE16X4:
    case BSPI_REF_BASE8X4:
    case BSPI_REF_BASE24:
    case BSPI_REF_INDEX24:
    case BSPI_REF_CHAIN64_OFFSET:
    case BSPI_REF_CHAIN_ARM64E_AUTH:
    case BSPI_REF_CHAIN_ARM64E_OFFSET:
        return true;
    default:
        return false;
    }
}

/* Index of the first data reference at or after `off`. */
static size_t first_data_ref(const bspi_data_refs *data, uint64_t off) {
    size_t low = 0, high = data->count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (data->keys[mid] >> 8 < off)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

/* Reads data reference `index` of the image; false when its bytes are no such
 * field, or its address cannot be known. */
static bool resolve(const bspi_file *file, const bspi_image *image, size_t index, bspi_ref *ref) {
    uint64_t off = image->data.keys[index] >> 8;
    uint8_t kind = (uint8_t)(image->data.keys[index] & 0xFF);
    uint32_t aux = image->data.aux[index];
    uint64_t site = 0, base = 0, target;
    if (kind == BSPI_REF_PC32 || kind == BSPI_REF_BACK32) {
        const bspi_section *s = bspi_section_at(image, off);
        if (s == NULL || !s->mapped)
            return false;
        site = s->addr + (off - s->file_off);
    }
    if (has_base(kind)) {
        if (aux >= image->base_count)
            return false;
        base = image->bases[aux];
    }
    if (!bspi_ref_read(kind, file->data + off, site, base, &target))
        return false;
    *ref = (bspi_ref){.off = off,
                      .target = target,
                      .base = base,
                      .kind = kind,
                      .size = (uint8_t)bspi_ref_size(kind)};
    return true;
}

/* Appends what the instruction set finds in the image's code in [begin, end). */
static void find_code_refs(const bspi_file *file, const bspi_image *image, uint64_t begin,
                           uint64_t end, bspi_ref_list *refs) {
    size_t low = 0, high = image->section_count;
    while (low < high) { /* the first section that ends after begin */
        size_t mid = low + (high - low) / 2;
        const bspi_section *s = &image->sections[mid];
        if (s->file_size != 0 && s->file_off + s->file_size <= begin)
            low = mid + 1;
        else
            high = mid;
    }
    for (size_t i = low; i < image->section_count; i++) {
        const bspi_section *s = &image->sections[i];
        if (s->file_size == 0 || s->file_off >= end)
            return;
        if (s->role != BSPI_ROLE_CODE || !s->mapped)
            continue;
        uint64_t from = BSPI_MAX(begin, s->file_off) - s->file_off;
        uint64_t to = BSPI_MIN(end, s->file_off + s->file_size) - s->file_off;
        const uint8_t *code = file->data + s->file_off;
        if (image->arch == BSPI_ARCH_ARM64)
            bspi_arm64_refs(code, s->file_size, from, to, s->addr, s->file_off, refs);
        else if (image->arch == BSPI_ARCH_X86_64)
            bspi_x86_64_refs(code, s->file_size, from, to, s->addr, s->file_off, refs);
    }
}

static bool plausible(const bspi_image *image, uint64_t target) {
    uint64_t low = image->addr_low < TARGET_SLACK ? 0 : image->addr_low - TARGET_SLACK;
    uint64_t high = image->addr_high > UINT64_MAX - TARGET_SLACK ? UINT64_MAX
                                                                 : image->addr_high + TARGET_SLACK;
    return target >= low && target <= high;
}

static void image_block_refs(const bspi_file *file, const bspi_image *image, uint64_t begin,
                             uint64_t end, bspi_ref_list *refs) {
    const bspi_data_refs *data = &image->data;
    bspi_ref_list code = {.heap = file->heap};
    find_code_refs(file, image, begin, end, &code);

    size_t next = first_data_ref(data, begin);
    uint64_t done = begin; /* everything before is dealt with */
    if (next > 0) {        /* a field that reaches over from the block before */
        uint64_t key = data->keys[next - 1];
        done = BSPI_MAX(done, (key >> 8) + bspi_ref_size((uint8_t)(key & 0xFF)));
    }
    size_t i = 0;
    for (;;) {
        /* The next data field, at or after `end` too: code gives way to it. */
        bspi_ref field = {.off = UINT64_MAX};
        while (next < data->count && !resolve(file, image, next, &field)) {
            if (data->keys[next] >> 8 >= end)
                break;
            next++;
        }
        for (; i < code.count && code.items[i].off < field.off; i++) {
            bspi_ref ref = code.items[i];
            if (ref.off < done || ref.off >= end || ref.size > field.off - ref.off ||
                !bspi_within(ref.off, ref.size, file->size) || !plausible(image, ref.target))
                continue;
            bspi_ref_push(refs, ref);
            done = ref.off + ref.size;
        }
        if (field.off >= end)
            break;
        bspi_ref_push(refs, field);
        done = field.off + field.size;
        next++;
    }
    if (code.failed)
        refs->failed = true;
    bspi_ref_list_free(&code);
}

void bspi_block_refs(const bspi_file *file, uint64_t block, bspi_ref_list *refs) {
    if (block > file->size >> BSPI_BLOCK_BITS)
        return;
    uint64_t begin = block << BSPI_BLOCK_BITS;
    uint64_t end = BSPI_MIN(file->size, begin + (UINT64_C(1) << BSPI_BLOCK_BITS));
    for (size_t i = 0; i < file->image_count; i++) {
        const bspi_image *image = &file->images[i];
        uint64_t from = BSPI_MAX(begin, image->file_off);
        uint64_t to = BSPI_MIN(end, image->file_off + image->file_size);
        if (from < to)
            image_block_refs(file, image, from, to, refs);
    }
}
