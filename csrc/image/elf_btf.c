/* Finds the type numbers and string offsets in a kernel module's .BTF, which
 * describes its types.
 *
 * The numbers go on counting where the kernel's own BTF ends, so every build
 * of the kernel shifts nearly all of them by the same amount.  As references
 * into two made-up spaces of addresses they move together. */
#include "elf.h"
#include "elf_shadow.h"

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
    KIND_COUNT = 20,

    MAX_TEXT_LEN = 256
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

/* Where the parts of a .BTF are in the file. */
typedef struct parts {
    const uint8_t *data; /* the file's */
    uint64_t types, types_end;
    uint64_t strings, strings_end;
} parts;

static bool find_parts(const uint8_t *data, uint64_t off, uint64_t size, parts *found) {
    if (size < HEADER_LEN || bspi_load16(data + off) != BTF_MAGIC)
        return false;
    const uint8_t *head = data + off;
    uint64_t head_len = bspi_load32(head + 4);
    uint64_t types = head_len + bspi_load32(head + 8), types_len = bspi_load32(head + 12);
    uint64_t strings = head_len + bspi_load32(head + 16), strings_len = bspi_load32(head + 20);
    if (!bspi_within(types, types_len, size) || !bspi_within(strings, strings_len, size))
        return false;
    *found = (parts){data, off + types, off + types + types_len, off + strings,
                     off + strings + strings_len};
    return true;
}

/* Is told of each field that is not nothing; false ends the walk. */
typedef bool (*field_visit)(void *context, uint64_t off, char field, uint32_t value);

static bool visit_field(const parts *btf, uint64_t off, char field, field_visit visit,
                        void *context) {
    uint32_t value = bspi_load32(btf->data + off);
    return field == '.' || value == 0 || visit(context, off, field, value);
}

/* Walks the types; false when `visit` said so. */
static bool walk_types(const parts *btf, field_visit visit, void *context) {
    uint64_t off = btf->types, end = btf->types_end;
    while (end - off >= TYPE_LEN) {
        uint32_t info = bspi_load32(btf->data + off + 4);
        uint32_t kind = info >> 24 & 31;
        if (kind == 0 || kind >= KIND_COUNT)
            return true;
        const shape *s = &shapes[kind];
        if (!visit_field(btf, off, 's', visit, context) ||
            (s->third_is_type && !visit_field(btf, off + 8, 't', visit, context)))
            return false;
        off += TYPE_LEN;
        uint32_t rows = s->counted ? info & 0xffff : s->words != 0;
        for (; rows > 0; rows--) {
            if (end - off < s->words * 4u)
                return true;
            for (unsigned i = 0; i < s->words; i++, off += 4)
                if (!visit_field(btf, off, s->fields[i], visit, context))
                    return false;
        }
    }
    return true;
}

/* --- as references --- */

typedef struct ref_context {
    bspi_elf *elf;
    uint32_t types; /* the two spaces' starts as bases */
    uint32_t strings;
} ref_context;

static bool add_field(void *context, uint64_t off, char field, uint32_t value) {
    ref_context *c = context;
    if (value >= ELF_BTF_SPACE)
        return true;
    return bspi_image_add_ref(c->elf->file, c->elf->image, off, BSPI_REF_BASE32,
                              field == 't' ? c->types : c->strings);
}

bool bspi_elf_btf_refs(bspi_elf *elf, const bspi_elf_section *section) {
    ref_context context = {.elf = elf};
    parts btf;
    if (!find_parts(elf->file->data, section->off, section->size, &btf))
        return true;
    return bspi_image_add_base(elf->file, elf->image, elf->btf_types, &context.types) &&
           bspi_image_add_base(elf->file, elf->image, elf->btf_strings, &context.strings) &&
           walk_types(&btf, add_field, &context);
}

/* --- as the matcher sees them --- */

typedef struct shadow_context {
    const parts *btf;
    uint64_t first; /* the string offset that stands for the first of our own */
    bspi_shadow_visit visit;
    void *visit_context;
} shadow_context;

static bool find_last(void *context, uint64_t off, char field, uint32_t value) {
    uint64_t *last = context;
    (void)off;
    if (field == 's' && value > *last)
        *last = value;
    return true;
}

static bool show_field(void *context, uint64_t off, char field, uint32_t value) {
    const shadow_context *c = context;
    if (field != 's' || value < c->first)
        return true;
    const uint8_t *text = c->btf->data + c->btf->strings + (value - c->first);
    uint64_t limit = c->btf->strings_end - c->btf->strings - (value - c->first), len = 0;
    while (len < limit && len < MAX_TEXT_LEN && text[len] != 0)
        len++;
    bspi_shadow slot = {off, bspi_name_hash(text, (size_t)len), 4, true};
    c->visit(c->visit_context, &slot);
    return true;
}

/* Every string of a module is somebody's name, so the highest offset is that
 * of the last string, which tells where the kernel's end. */
void bspi_elf_btf_shadow(const bspi_file *file, uint64_t off, uint64_t size,
                         bspi_shadow_visit visit, void *context) {
    uint64_t last = 0;
    parts btf;
    if (!find_parts(file->data, off, size, &btf) || btf.strings_end - btf.strings < 2)
        return;
    (void)walk_types(&btf, find_last, &last);
    uint64_t start = btf.strings_end - 1;
    while (start > btf.strings && file->data[start - 1] != 0)
        start--;
    start -= btf.strings;
    shadow_context shadow = {&btf, last - start, visit, context};
    if (last >= start)
        (void)walk_types(&btf, show_field, &shadow);
}
