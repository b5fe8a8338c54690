/* image.c: the model of a file that holds executables: sections, addresses and
 * the references of its tables; picks the reader by the file's first bytes. */
#include "image.h"

#include "../common/bytes.h"
#include "sort.h"

#define MACHO_MAGIC_64 0xFEEDFACFu
#define ELF_MAGIC 0x464C457Fu
/* The fat headers are the one big-endian thing here; as a little-endian load
 * sees them. */
#define FAT_MAGIC 0xBEBAFECAu
#define FAT_MAGIC_64 0xBFBAFECAu

uint32_t bspi_name_hash(const void *name, size_t len) {
    const uint8_t *p = name;
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < len; i++)
        hash = (hash ^ p[i]) * 16777619u;
    return hash;
}

bool bspi_image_add_section(bspi_file *file, bspi_image *image, const bspi_section *section) {
    if (!BSPI_ENSURE(image->sections, image->section_count, image->section_capacity, file->heap))
        return false;
    /* Every section may need a place in the address index; taking it here
     * leaves bspi_image_finish nothing to fail at. */
    while (image->by_addr_capacity <= image->section_count)
        if (!bspi_ensure(file->heap, (void **)&image->by_addr, &image->by_addr_capacity,
                         sizeof *image->by_addr))
            return false;
    image->sections[image->section_count++] = *section;
    return true;
}

bool bspi_image_add_ref(bspi_file *file, bspi_image *image, uint64_t off, uint8_t kind,
                        uint32_t aux) {
    bspi_data_refs *data = &image->data;
    if (off >> BSPI_DATA_OFF_BITS != 0 || kind >> BSPI_DATA_KIND_BITS != 0 ||
        aux >> BSPI_DATA_AUX_BITS != 0)
        return true;
    if (!BSPI_ENSURE(data->keys, data->count, data->capacity, file->heap))
        return false;
    data->keys[data->count++] =
        (off << BSPI_DATA_KIND_BITS | kind) << BSPI_DATA_AUX_BITS | aux;
    return true;
}

bool bspi_image_add_base(bspi_file *file, bspi_image *image, uint64_t addr, uint32_t *aux) {
    /* Tables tend to ask for the same base again and again. */
    if (image->base_count != 0 && image->bases[image->base_count - 1] == addr) {
        *aux = (uint32_t)(image->base_count - 1);
        return true;
    }
    if (image->base_count != 0 && image->bases[0] == addr) {
        *aux = 0;
        return true;
    }
    if (image->base_count >= UINT32_MAX ||
        !BSPI_ENSURE(image->bases, image->base_count, image->base_capacity, file->heap))
        return false;
    *aux = (uint32_t)image->base_count;
    image->bases[image->base_count++] = addr;
    return true;
}

/* --- putting sections in order --- */

static bool section_less(void *items, size_t a, size_t b) {
    const bspi_section *x = (const bspi_section *)items + a;
    const bspi_section *y = (const bspi_section *)items + b;
    if ((x->file_size == 0) != (y->file_size == 0))
        return x->file_size != 0;
    if (x->file_off != y->file_off)
        return x->file_off < y->file_off;
    if (x->addr != y->addr)
        return x->addr < y->addr;
    if (x->file_size != y->file_size)
        return x->file_size > y->file_size;
    if (x->mem_size != y->mem_size)
        return x->mem_size > y->mem_size;
    if (x->name != y->name)
        return x->name < y->name;
    if (x->role != y->role)
        return x->role < y->role;
    return x->mapped > y->mapped;
}

static void section_swap(void *items, size_t a, size_t b) {
    bspi_section *sections = items;
    bspi_section kept = sections[a];
    sections[a] = sections[b];
    sections[b] = kept;
}

/* Sorts sections; drops those that overlap an earlier one in the file, lie
 * outside the image or wrap around the end of memory. */
static void finish_sections(bspi_image *image) {
    bspi_sort(image->sections, image->section_count, section_less, section_swap);
    uint64_t end = image->file_off, limit = image->file_off + image->file_size;
    size_t kept = 0;
    for (size_t i = 0; i < image->section_count; i++) {
        bspi_section s = image->sections[i];
        uint64_t unused;
        if (s.mapped && (s.mem_size < s.file_size || !bspi_add64(s.addr, s.mem_size, &unused)))
            continue;
        if (s.file_size != 0) {
            if (s.file_off < end || !bspi_within(s.file_off, s.file_size, limit))
                continue;
            end = s.file_off + s.file_size;
        } else if (!s.mapped || s.mem_size == 0) {
            continue;
        }
        image->sections[kept++] = s;
    }
    image->section_count = kept;
}

static bool addr_less(void *items, size_t a, size_t b) {
    const bspi_image *image = items;
    uint32_t x = image->by_addr[a], y = image->by_addr[b];
    uint64_t x_addr = image->sections[x].addr, y_addr = image->sections[y].addr;
    return x_addr != y_addr ? x_addr < y_addr : x < y;
}

static void addr_swap(void *items, size_t a, size_t b) {
    bspi_image *image = items;
    uint32_t kept = image->by_addr[a];
    image->by_addr[a] = image->by_addr[b];
    image->by_addr[b] = kept;
}

static void finish_addresses(bspi_image *image) {
    image->by_addr_count = 0;
    image->addr_low = UINT64_MAX;
    image->addr_high = 0;
    for (size_t i = 0; i < image->section_count; i++) {
        const bspi_section *s = &image->sections[i];
        if (!s->mapped)
            continue;
        image->by_addr[image->by_addr_count++] = (uint32_t)i;
        image->addr_low = BSPI_MIN(image->addr_low, s->addr);
        image->addr_high = BSPI_MAX(image->addr_high, s->addr + s->mem_size);
    }
    if (image->by_addr_count == 0)
        image->addr_low = 0;
    bspi_sort(image, image->by_addr_count, addr_less, addr_swap);
}

/* --- putting data references in order --- */

static bool key_less(void *items, size_t a, size_t b) {
    const uint64_t *keys = items;
    return keys[a] < keys[b];
}

static void key_swap(void *items, size_t a, size_t b) {
    uint64_t *keys = items;
    uint64_t kept = keys[a];
    keys[a] = keys[b];
    keys[b] = kept;
}

static void insertion_sort(uint64_t *keys, size_t count) {
    for (size_t i = 1; i < count; i++) {
        uint64_t key = keys[i];
        size_t j = i;
        for (; j > 0 && key < keys[j - 1]; j--)
            keys[j] = keys[j - 1];
        keys[j] = key;
    }
}

/* Quick sort that falls back to heap sort when its pivots turn out bad.  The
 * readers emit long sorted runs, which this passes through quickly. */
static void sort_keys(uint64_t *keys, size_t count, unsigned depth) {
    while (count > 24) {
        if (depth-- == 0) {
            bspi_sort(keys, count, key_less, key_swap);
            return;
        }
        size_t first = 0, mid = count / 2, last = count - 1;
        if (keys[mid] < keys[first])
            key_swap(keys, mid, first);
        if (keys[last] < keys[mid]) {
            key_swap(keys, last, mid);
            if (keys[mid] < keys[first])
                key_swap(keys, mid, first);
        }
        uint64_t pivot = keys[mid];
        size_t i = 0, j = last;
        for (;;) {
            while (keys[i] < pivot)
                i++;
            while (keys[j] > pivot)
                j--;
            if (i >= j)
                break;
            key_swap(keys, i++, j--);
        }
        /* [0, j] <= pivot <= [j + 1, count), both shorter than the whole. */
        size_t left = j + 1, right = count - left;
        if (left < right) {
            sort_keys(keys, left, depth);
            keys += left;
            count = right;
        } else {
            sort_keys(keys + left, right, depth);
            count = left;
        }
    }
    insertion_sort(keys, count);
}

static void finish_refs(bspi_image *image) {
    bspi_data_refs *data = &image->data;
    bool sorted = true;
    for (size_t i = 1; i < data->count && sorted; i++)
        sorted = data->keys[i - 1] <= data->keys[i];
    if (!sorted)
        sort_keys(data->keys, data->count, 64);
    uint8_t size_of[1u << BSPI_DATA_KIND_BITS];
    for (unsigned kind = 0; kind < sizeof size_of; kind++)
        size_of[kind] = (uint8_t)bspi_ref_size((uint8_t)kind);
    uint64_t end = image->file_off, limit = image->file_off + image->file_size;
    size_t kept = 0;
    for (size_t i = 0; i < data->count; i++) {
        uint64_t off = bspi_data_off(data->keys[i]);
        uint64_t size = size_of[bspi_data_kind(data->keys[i])];
        if (size == 0 || off < end || !bspi_within(off, size, limit))
            continue;
        end = off + size;
        data->keys[kept++] = data->keys[i];
    }
    data->count = kept;
}

/* Gives back the room that the references turned out not to need. */
static bool trim(bspi_heap *heap, bspi_data_refs *data) {
    if (data->count == data->capacity)
        return true;
    uint64_t *keys = bspi_grow(heap, data->keys, data->count, sizeof *keys);
    if (keys == NULL)
        return false;
    data->keys = keys;
    data->capacity = data->count;
    return true;
}

void bspi_image_finish(bspi_image *image) {
    finish_sections(image);
    finish_addresses(image);
    finish_refs(image);
}

/* --- looking things up --- */

const bspi_section *bspi_section_at(const bspi_image *image, uint64_t off) {
    /* The last file-backed section that starts at or before off. */
    size_t low = 0, high = image->section_count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        const bspi_section *s = &image->sections[mid];
        if (s->file_size != 0 && s->file_off <= off)
            low = mid + 1;
        else
            high = mid;
    }
    if (low == 0)
        return NULL;
    const bspi_section *s = &image->sections[low - 1];
    return off - s->file_off < s->file_size ? s : NULL;
}

const bspi_section *bspi_section_with_addr(const bspi_image *image, uint64_t addr) {
    size_t low = 0, high = image->by_addr_count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (image->sections[image->by_addr[mid]].addr <= addr)
            low = mid + 1;
        else
            high = mid;
    }
    if (low == 0)
        return NULL;
    const bspi_section *s = &image->sections[image->by_addr[low - 1]];
    return addr - s->addr < s->mem_size ? s : NULL;
}

bool bspi_addr_to_off(const bspi_image *image, uint64_t addr, uint64_t len, uint64_t *off) {
    const bspi_section *s = bspi_section_with_addr(image, addr);
    if (s == NULL || !bspi_within(addr - s->addr, len, s->file_size))
        return false;
    *off = s->file_off + (addr - s->addr);
    return true;
}

/* --- a whole file --- */

bsp_status bspi_file_parse(bspi_heap *heap, const uint8_t *data, uint64_t size, bspi_file *file,
                           bsp_fault *fault) {
    bspi_file parsed = {.heap = heap, .data = data, .size = size};
    uint32_t magic = size >= 4 ? bspi_load32(data) : 0;
    bool ok = true;
    if (magic == MACHO_MAGIC_64 || magic == FAT_MAGIC || magic == FAT_MAGIC_64)
        ok = bspi_macho_parse(&parsed);
    else if (magic == ELF_MAGIC)
        ok = bspi_elf_parse(&parsed);
    for (size_t i = 0; ok && i < parsed.image_count; i++) {
        bspi_image_finish(&parsed.images[i]);
        ok = trim(heap, &parsed.images[i].data);
    }
    if (!ok) {
        bspi_file_free(&parsed);
        return bspi_nomem(heap, fault, "image");
    }
    *file = parsed;
    return BSP_OK;
}

void bspi_file_free(bspi_file *file) {
    for (size_t i = 0; i < file->image_count; i++) {
        bspi_image *image = &file->images[i];
        bspi_free(file->heap, image->sections);
        bspi_free(file->heap, image->data.keys);
        bspi_free(file->heap, image->bases);
        bspi_free(file->heap, image->by_addr);
    }
    if (file->heap != NULL)
        bspi_free(file->heap, file->images);
    file->images = NULL;
    file->image_count = file->image_capacity = 0;
}
