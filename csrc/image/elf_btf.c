/* Finds the type numbers and string offsets in a kernel module's .BTF, which
 * describes its types.
 *
 * The numbers go on counting where the kernel's own BTF ends, so every build
 * of the kernel shifts nearly all of them by the same amount.  As references
 * into two made-up spaces of addresses they move together. */
#include "elf.h"

enum {
    BTF_MAGIC = 0xeb9f,
    HEADER_LEN = 24,
    TYPE_LEN = 12,

    KIND_INT = 1,
    KIND_PTR = 2,
    KIND_ARRAY = 3,
    KIND_STRUCT = 4,
    KIND_UNION = 5,
    KIND_ENUM = 6,
    KIND_FWD = 7,
    KIND_TYPEDEF = 8,
    KIND_FUNC = 12,
    KIND_FUNC_PROTO = 13,
    KIND_VAR = 14,
    KIND_DATASEC = 15,
    KIND_FLOAT = 16,
    KIND_DECL_TAG = 17,
    KIND_TYPE_TAG = 18,
    KIND_ENUM64 = 19,
    KIND_COUNT = 20
};

/* What follows a type of a kind: `rows` of `words` 4-byte words each, or as
 * many rows as the type says when it is `counted`. */
typedef struct shape {
    uint8_t third_is_type; /* the type's own last word is a type, not a size */
    uint8_t counted;
    uint8_t words;
    char fields[4]; /* of a row: 's' string offset, 't' type, '.' a number */
} shape;

static const shape shapes[KIND_COUNT] = {
    [KIND_INT] = {0, 0, 1, "."},
    [KIND_PTR] = {1, 0, 0, ""},
    [KIND_ARRAY] = {0, 0, 3, "tt."},
    [KIND_STRUCT] = {0, 1, 3, "st."},
    [KIND_UNION] = {0, 1, 3, "st."},
    [KIND_ENUM] = {0, 1, 2, "s."},
    [KIND_FWD] = {0, 0, 0, ""},
    [KIND_TYPEDEF] = {1, 0, 0, ""},
    [KIND_TYPEDEF + 1] = {1, 0, 0, ""}, /* volatile, const, restrict */
    [KIND_TYPEDEF + 2] = {1, 0, 0, ""},
    [KIND_TYPEDEF + 3] = {1, 0, 0, ""},
    [KIND_FUNC] = {1, 0, 0, ""},
    [KIND_FUNC_PROTO] = {1, 1, 2, "st"},
    [KIND_VAR] = {1, 0, 1, "."},
    [KIND_DATASEC] = {0, 1, 3, "t.."},
    [KIND_FLOAT] = {0, 0, 0, ""},
    [KIND_DECL_TAG] = {1, 0, 1, "."},
    [KIND_TYPE_TAG] = {1, 0, 0, ""},
    [KIND_ENUM64] = {0, 1, 3, "s.."},
};

/* The two spaces' starts as bases. */
typedef struct spaces {
    uint32_t types;
    uint32_t strings;
} spaces;

static bool field_ref(bspi_elf *elf, uint64_t off, char field, const spaces *bases) {
    uint32_t value = bspi_load32(elf->file->data + off);
    if (field == '.' || value == 0 || value >= ELF_BTF_SPACE)
        return true;
    return bspi_image_add_ref(elf->file, elf->image, off, BSPI_REF_BASE32,
                              field == 't' ? bases->types : bases->strings);
}

/* Walks the types in [off, end). */
static bool type_refs(bspi_elf *elf, uint64_t off, uint64_t end, const spaces *bases) {
    while (end - off >= TYPE_LEN) {
        uint32_t info = bspi_load32(elf->file->data + off + 4);
        uint32_t kind = info >> 24 & 31;
        if (kind == 0 || kind >= KIND_COUNT)
            return true;
        const shape *s = &shapes[kind];
        if (!field_ref(elf, off, 's', bases) ||
            (s->third_is_type && !field_ref(elf, off + 8, 't', bases)))
            return false;
        off += TYPE_LEN;
        uint32_t rows = s->counted ? info & 0xffff : s->words != 0;
        for (; rows > 0; rows--) {
            if (end - off < s->words * 4u)
                return true;
            for (unsigned i = 0; i < s->words; i++, off += 4)
                if (!field_ref(elf, off, s->fields[i], bases))
                    return false;
        }
    }
    return true;
}

bool bspi_elf_btf_refs(bspi_elf *elf, const bspi_elf_section *section) {
    if (section->size < HEADER_LEN)
        return true;
    const uint8_t *head = bspi_elf_bytes(elf, section);
    uint64_t head_len = bspi_load32(head + 4);
    uint64_t start = head_len + bspi_load32(head + 8), len = bspi_load32(head + 12);
    spaces bases;
    if (bspi_load16(head) != BTF_MAGIC || !bspi_within(start, len, section->size))
        return true;
    if (!bspi_image_add_base(elf->file, elf->image, elf->btf_types, &bases.types) ||
        !bspi_image_add_base(elf->file, elf->image, elf->btf_strings, &bases.strings))
        return false;
    return type_refs(elf, section->off + start, section->off + start + len, &bases);
}
