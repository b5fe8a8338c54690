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
    (void)image; /* one is read at a time */
    if (off >> BSPI_DATA_OFF_BITS != 0 || kind >> BSPI_DATA_KIND_BITS != 0 ||
        aux >> BSPI_DATA_AUX_BITS != 0)
        return true;
    if (!BSPI_ENSURE(file->keys, file->key_count, file->key_capacity, file->heap))
        return false;
    file->keys[file->key_count++] = (off << BSPI_DATA_KIND_BITS | kind) << BSPI_DATA_AUX_BITS | aux;
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

void bspi_image_finish(bspi_image *image) {
    finish_sections(image);
    finish_addresses(image);
}

bool bspi_image_finish_refs(bspi_file *file, bspi_image *image) {
    size_t count = file->key_count;
    file->key_count = 0;
    return bspi_data_refs_pack(file->heap, file->keys, count, image->file_off,
                               image->file_off + image->file_size, &image->data);
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

/* Gives the keys back, made small first: from the size of what is freed glibc
 * concludes that blocks of that size come and go, and it would keep the next ones
 * when they are given back. */
static bool drop_keys(bspi_file *file) {
    if (file->keys == NULL)
        return true;
    uint64_t *small = bspi_grow(file->heap, file->keys, 0, sizeof *small);
    bspi_free(file->heap, small == NULL ? file->keys : small);
    file->keys = NULL;
    file->key_count = file->key_capacity = 0;
    return small != NULL;
}

bsp_status bspi_file_parse(bspi_heap *heap, const uint8_t *data, uint64_t size, bspi_file *file,
                           bsp_fault *fault) {
    bspi_file parsed = {.heap = heap, .data = data, .size = size};
    uint32_t magic = size >= 4 ? bspi_load32(data) : 0;
    bool ok = true;
    if (magic == MACHO_MAGIC_64 || magic == FAT_MAGIC || magic == FAT_MAGIC_64)
        ok = bspi_macho_parse(&parsed);
    else if (magic == ELF_MAGIC)
        ok = bspi_elf_parse(&parsed);
    ok = drop_keys(&parsed) && ok;
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
        bspi_data_refs_free(file->heap, &image->data);
        bspi_free(file->heap, image->bases);
        bspi_free(file->heap, image->by_addr);
    }
    if (file->heap != NULL)
        bspi_free(file->heap, file->images);
    file->images = NULL;
    file->image_count = file->image_capacity = 0;
}
