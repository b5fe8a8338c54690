/* support.c: applying and checking, shared by the fuzz targets. */
#include <stdlib.h>
#include <string.h>

#include "../common/bytes.h"
#include "../patch/container.h"
#include "fuzz.h"

bool fuzz_split(const uint8_t *data, size_t size, fuzz_parts *parts) {
    size_t at = 4 + 2 * FUZZ_STREAMS;
    if (size < at)
        return false;
    parts->new_size = bspi_load32(data) % (FUZZ_MAX_FILE + 1);
    for (unsigned i = 0; i < FUZZ_STREAMS; i++) {
        size_t len = bspi_load16(data + 4 + 2 * i);
        parts->len[i] = BSPI_MIN(len, size - at);
        parts->bytes[i] = data + at;
        at += parts->len[i];
    }
    parts->old = data + at;
    parts->old_len = size - at;
    return true;
}

void fuzz_join(const fuzz_parts *parts, bspi_buffer *patch) {
    bspi_container container;
    memset(&container, 0, sizeof container);
    container.version = BSP_FORMAT_VERSION;
    container.old_size = parts->old_len;
    container.new_size = parts->new_size;
    for (uint32_t i = 0; i < FUZZ_STREAMS; i++) {
        if (parts->len[i] == 0)
            continue;
        bspi_stream_entry *entry = &container.streams[container.stream_count++];
        entry->id = i + 1;
        entry->codec = BSP_CODEC_PLAIN;
        entry->plain_len = entry->encoded_len = parts->len[i];
        entry->encoded = parts->bytes[i];
    }
    CHECK(bspi_container_write(&container, patch));
}

/* --- applying --- */

static bsp_status provide(bsp_patch *patch, uint32_t count, uint8_t **plain) {
    for (uint32_t i = 0; i < count; i++) {
        bsp_stream_info info;
        CHECK(bsp_patch_stream(patch, i, &info) == BSP_OK);
        if (info.codec != BSP_CODEC_ZSTD && info.codec != BSP_CODEC_LZMA)
            continue;
        CHECK(info.plain_len <= FUZZ_MAX_PLAIN);
        plain[i] = calloc(1, (size_t)info.plain_len + 1);
        CHECK(plain[i] != NULL);
        for (size_t at = 0; info.bytes_len != 0 && at < info.plain_len; at++)
            plain[i][at] = info.bytes[at % (size_t)info.bytes_len];
        CHECK(bsp_patch_provide(patch, i, plain[i], (size_t)info.plain_len) == BSP_OK);
    }
    return BSP_OK;
}

static bsp_status rebuild(bsp_patch *patch, uint64_t new_size, uint64_t step, uint8_t *out) {
    for (uint64_t at = 0; at < new_size; at += step) {
        bsp_status status = bsp_patch_window(patch, at, out + at,
                                             (size_t)BSPI_MIN(step, new_size - at), NULL);
        if (status != BSP_OK)
            return status;
    }
    for (uint32_t i = 0; i < bsp_patch_fill_count(patch); i++) {
        uint64_t off, len;
        CHECK(bsp_patch_fill_range(patch, i, &off, &len) == BSP_OK);
        CHECK(bspi_within(off, len, new_size));
        CHECK(bsp_patch_fill(patch, i, out + off, (size_t)len, NULL) == BSP_OK);
    }
    return BSP_OK;
}

bsp_status fuzz_apply_patch(const uint8_t *bytes, size_t len, const uint8_t *old, size_t old_len,
                      uint64_t bound, uint8_t **made, size_t *made_len) {
    bsp_patch *patch = NULL;
    bsp_patch_info info;
    uint8_t *plain[FUZZ_STREAMS] = {NULL}, *out = NULL, *again = NULL;
    bsp_status status = bsp_patch_open(bytes, len, FUZZ_MAX_PLAIN, FUZZ_BUDGET, &patch, NULL);
    if (status != BSP_OK)
        return status;
    bsp_patch_get_info(patch, &info);
    CHECK(info.plain_bytes <= FUZZ_MAX_PLAIN && info.stream_count <= FUZZ_STREAMS);
    status = info.new_size > bound ? BSP_E_LIMIT : provide(patch, info.stream_count, plain);
    if (status == BSP_OK)
        status = bsp_patch_prepare(patch, old, old_len, NULL, NULL);
    if (status == BSP_OK) {
        out = malloc((size_t)info.new_size + 1);
        again = malloc((size_t)info.new_size + 1);
        CHECK(out != NULL && again != NULL);
        memset(out, 0x55, (size_t)info.new_size + 1);
        memset(again, 0xaa, (size_t)info.new_size + 1);
        status = rebuild(patch, info.new_size, BSP_WINDOW_ALIGN, out);
        if (status == BSP_OK)
            status = rebuild(patch, info.new_size, BSP_WINDOW_ALIGN * 16, again);
        if (status == BSP_OK)
            CHECK(memcmp(out, again, (size_t)info.new_size) == 0);
        CHECK(out[info.new_size] == 0x55 && again[info.new_size] == 0xaa);
    }
    CHECK(bsp_patch_peak_memory(patch) <= FUZZ_BUDGET);
    bsp_patch_close(patch);
    for (unsigned i = 0; i < FUZZ_STREAMS; i++)
        free(plain[i]);
    free(again);
    if (status != BSP_OK) {
        free(out);
        return status;
    }
    *made = out;
    *made_len = (size_t)info.new_size;
    return BSP_OK;
}

/* --- images --- */

static void check_sections(const bspi_file *file, const bspi_image *image) {
    uint64_t end = image->file_off, unused;
    bool zero_fill = false;
    CHECK(bspi_within(image->file_off, image->file_size, file->size));
    for (size_t i = 0; i < image->section_count; i++) {
        const bspi_section *s = &image->sections[i];
        CHECK(s->role <= BSPI_ROLE_ZEROFILL && s->mapped <= 1);
        if (s->file_size == 0) {
            zero_fill = true;
        } else {
            CHECK(!zero_fill && s->file_off >= end);
            CHECK(bspi_within(s->file_off, s->file_size, image->file_off + image->file_size));
            end = s->file_off + s->file_size;
            CHECK(bspi_section_at(image, s->file_off) == s && bspi_section_at(image, end - 1) == s);
        }
        if (s->mapped) {
            CHECK(s->mem_size >= s->file_size && bspi_add64(s->addr, s->mem_size, &unused));
            CHECK(s->addr >= image->addr_low && s->addr + s->mem_size <= image->addr_high);
        }
    }
}

void fuzz_check_refs(const bspi_ref_list *refs, const uint8_t *data, uint64_t size,
                     uint64_t begin, uint64_t end) {
    uint64_t done = begin;
    for (size_t i = 0; i < refs->count; i++) {
        const bspi_ref *ref = &refs->items[i];
        uint8_t field[8];
        CHECK(ref->size == bspi_ref_size(ref->kind) && ref->size != 0 && ref->size <= 8);
        CHECK(ref->off >= done && ref->off < end && bspi_within(ref->off, ref->size, size));
        memcpy(field, data + ref->off, ref->size);
        bspi_ref_label(ref->kind, field, ref->target);
        done = ref->off + ref->size;
    }
}

void fuzz_check_file(const bspi_file *file) {
    uint64_t end = 0;
    for (size_t i = 0; i < file->image_count; i++) {
        CHECK(file->images[i].file_off >= end);
        check_sections(file, &file->images[i]);
        end = file->images[i].file_off + file->images[i].file_size;
    }
    for (uint64_t block = 0; block <= file->size >> BSPI_BLOCK_BITS; block++) {
        bspi_ref_list refs = {.heap = file->heap};
        uint64_t begin = block << BSPI_BLOCK_BITS;
        bspi_block_refs(file, block, &refs);
        fuzz_check_refs(&refs, file->data, file->size, begin,
                        begin + (UINT64_C(1) << BSPI_BLOCK_BITS));
        bspi_ref_list_free(&refs);
    }
}

uint64_t fuzz_parse_all(const uint8_t *data, size_t size) {
    bspi_heap heap;
    bspi_file file;
    bspi_ref_list refs = {.heap = &heap};
    bspi_heap_init(&heap, 0);
    CHECK(bspi_file_parse(&heap, data, size, &file, NULL) == BSP_OK);
    for (uint64_t block = 0; block <= size >> BSPI_BLOCK_BITS; block++) {
        refs.count = 0;
        bspi_block_refs(&file, block, &refs);
    }
    bspi_ref_list_free(&refs);
    bspi_file_free(&file);
    CHECK(heap.in_use == 0);
    return heap.peak;
}
