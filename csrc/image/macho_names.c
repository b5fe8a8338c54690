/* macho_names.c: looks the names of symbols and imports up. */
#include "macho_names.h"

#include "../common/bytes.h"

#define NAME_LIMIT 4096u /* more bytes of a name are not looked at */
#define SYMBOL_SIZE 16u
#define IMPORT_SIZE 4u
#define IMPORT_NAME_SHIFT 9u

static bool hash_string(const bspi_file *file, const bspi_image *image, uint64_t addr,
                        uint32_t *hash) {
    uint64_t off;
    if (!bspi_addr_to_off(image, addr, 1, &off))
        return false;
    const uint8_t *text = file->data + off;
    uint64_t most = BSPI_MIN(file->size - off, NAME_LIMIT);
    const uint8_t *end = memchr(text, 0, (size_t)most);
    *hash = bspi_name_hash(text, end == NULL ? (size_t)most : (size_t)(end - text));
    return true;
}

/* What the field of `kind` at file offset `off` counts from. */
static bool base_of(const bspi_image *image, uint64_t off, uint8_t kind, uint64_t *base) {
    uint64_t key = bspi_data_find(&image->data, off).key;
    if (key == BSPI_DATA_NONE || bspi_data_off(key) != off || bspi_data_kind(key) != kind ||
        bspi_data_aux(key) >= image->base_count)
        return false;
    *base = image->bases[bspi_data_aux(key)];
    return true;
}

static bool is_string(const bspi_image *image, uint64_t addr) {
    static const char name[] = "__LINKEDIT,strtab";
    const bspi_section *section = bspi_section_with_addr(image, addr);
    return section != NULL && section->name == bspi_name_hash(name, sizeof name - 1);
}

static bool find_name(const bspi_file *file, const bspi_image *image, const bspi_ref *ref,
                      uint32_t *hash) {
    uint64_t row, base;
    if (image->format != BSPI_FORMAT_MACHO)
        return false;
    switch (ref->kind) {
    case BSPI_REF_IMPORT23:
        return hash_string(file, image, ref->target, hash);
    case BSPI_REF_CHAIN_BIND24:
    case BSPI_REF_CHAIN_BIND16:
        return bspi_addr_to_off(image, ref->target, IMPORT_SIZE, &row) &&
               base_of(image, row, BSPI_REF_IMPORT23, &base) &&
               hash_string(file, image,
                           base + (bspi_load32(file->data + row) >> IMPORT_NAME_SHIFT), hash);
    case BSPI_REF_BASE32: /* a symbol's, or of another table */
        return is_string(image, ref->target) && hash_string(file, image, ref->target, hash);
    case BSPI_REF_INDEX16:
        return bspi_addr_to_off(image, ref->target, SYMBOL_SIZE, &row) &&
               base_of(image, row, BSPI_REF_BASE32, &base) &&
               hash_string(file, image, base + bspi_load32(file->data + row), hash);
    default:
        return false;
    }
}

bool bspi_macho_name(const bspi_file *file, const bspi_image *image, const bspi_ref *ref,
                     uint64_t *label) {
    uint32_t hash;
    if (!find_name(file, image, ref, &hash))
        return false;
    *label = (uint64_t)image->subtype << 40 | (uint64_t)image->arch << 32 | hash;
    return true;
}
