/* export_trie.c: the trie of exported names, whose nodes hold addresses and
 * the places of other nodes as ULEB128 numbers. */
#include "../common/bytes.h"
#include "macho.h"

#define KIND_MASK 0x03u
#define KIND_ABSOLUTE 0x02u
#define FLAG_REEXPORT 0x08u
#define FLAG_STUB_AND_RESOLVER 0x10u
#define ULEB_MAX 4u /* bytes of the longest number that has a kind */

typedef struct trie {
    const bspi_macho *macho;
    uint64_t off; /* of the trie in the file */
    const uint8_t *data;
    uint64_t size;
    uint64_t pos;
    bool sound;
} trie;

/* Reads a number, and leaves its first byte in *at and its length in *len. */
static uint64_t read_uleb(trie *t, uint64_t *at, unsigned *len) {
    uint64_t value = 0;
    *at = t->pos;
    *len = 0;
    while (t->pos < t->size) {
        uint8_t byte = t->data[t->pos++];
        if (*len < 9)
            value |= (uint64_t)(byte & 0x7F) << (7 * *len);
        ++*len;
        if ((byte & 0x80) == 0)
            return value;
    }
    t->sound = false;
    return 0;
}

static bool add_uleb(trie *t, uint32_t base) {
    uint64_t at;
    unsigned len;
    read_uleb(t, &at, &len);
    if (!t->sound || len > ULEB_MAX)
        return true;
    return bspi_image_add_ref(t->macho->file, t->macho->image, t->off + at,
                              (uint8_t)(BSPI_REF_ULEB1 + len - 1), base);
}

/* What a node exports: `size` bytes from t->pos on. */
static bool read_export(trie *t, uint64_t size, uint32_t image_base) {
    uint64_t end = t->pos + size, at;
    unsigned len;
    uint64_t flags = read_uleb(t, &at, &len);
    if ((flags & FLAG_REEXPORT) == 0) {
        if ((flags & KIND_MASK) != KIND_ABSOLUTE && !add_uleb(t, image_base))
            return false;
        if ((flags & FLAG_STUB_AND_RESOLVER) != 0 && !add_uleb(t, image_base))
            return false;
    }
    if (t->pos > end)
        t->sound = false;
    t->pos = end;
    return true;
}

/* Nodes stand one after the other, so one pass sees them all, and each once. */
bool bspi_export_trie_refs(const bspi_macho *macho, uint64_t off, uint64_t size) {
    trie t = {macho, off, macho->file->data + off, size, 0, true};
    uint32_t image_base, trie_base = 0;
    if (size == 0)
        return true;
    if (!bspi_image_add_base(macho->file, macho->image, macho->image->base_addr, &image_base) ||
        !bspi_macho_add_base_at(macho, off, &trie_base, &t.sound))
        return false;
    while (t.sound && t.pos < size) {
        uint64_t at;
        unsigned len;
        uint64_t export = read_uleb(&t, &at, &len);
        if (!t.sound || export > size - t.pos)
            break;
        if (export != 0 && !read_export(&t, export, image_base))
            return false;
        if (!t.sound || t.pos >= size)
            break;
        for (unsigned children = t.data[t.pos++]; children > 0 && t.sound; children--) {
            while (t.pos < size && t.data[t.pos] != 0)
                t.pos++;
            if (t.pos >= size)
                return true;
            t.pos++;
            if (!add_uleb(&t, trie_base))
                return false;
        }
    }
    return true;
}
