/* fills.c: the code signature's page hashes and the hashes of its own blobs,
 * recomputed from the new file. */
#include "fills.h"

#include <string.h>

#include "../common/bytes.h"
#include "../common/sha1.h"
#include "../common/sha256.h"

/* Blobs of a signature are big endian: Apple, cs_blobs.h. */
#define SUPERBLOB UINT32_C(0xfade0cc0)
#define CODE_DIRECTORY UINT32_C(0xfade0c02)
#define DIRECTORY_HEAD 44u
#define MAX_BLOBS 64u

static uint32_t load_be32(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | (uint32_t)p[3];
}

static uint32_t signature_name(void) {
    static const char name[] = "__LINKEDIT,code_signature";
    return bspi_name_hash(name, sizeof name - 1);
}

static void hash_page(uint32_t hash, const uint8_t *data, size_t len, uint8_t *out) {
    uint8_t digest[BSPI_SHA256_LEN];
    if (hash == BSPI_FILL_SHA1)
        bspi_sha1(data, len, digest);
    else
        bsp_sha256(data, len, digest);
    memcpy(out, digest, (size_t)bspi_fill_hash_len(hash));
}

/* True when the hashes that stand at the fill's place are those of the pages. */
static bool holds(const bspi_fill *fill, const bspi_file *file) {
    uint64_t page = UINT64_C(1) << fill->page_bits, len = bspi_fill_hash_len(fill->hash);
    const uint8_t *stored = file->data + fill->new_off;
    for (uint64_t done = 0; done < fill->data_len; done += page, stored += len) {
        uint8_t digest[BSPI_SHA256_LEN];
        hash_page(fill->hash, file->data + fill->data_off + done,
                  (size_t)BSPI_MIN(page, fill->data_len - done), digest);
        if (memcmp(digest, stored, (size_t)len) != 0)
            return false;
    }
    return true;
}

typedef struct signature {
    bspi_content *content;
    const bspi_file *file;
    const bspi_file *old;
    const bspi_image *image;
    uint64_t off, len;
    uint32_t count; /* of blobs */
} signature;

static bool add_fill(bspi_content *content, const bspi_fill *fill) {
    if (!BSPI_ENSURE(content->fills, content->fill_count, content->fill_capacity, content->heap))
        return false;
    size_t at = content->fill_count++;
    for (; at > 0 && content->fills[at - 1].new_off > fill->new_off; at--)
        content->fills[at] = content->fills[at - 1];
    content->fills[at] = *fill;
    return true;
}

/* True when one of the old file's signatures has these bytes: copying them is
 * cheaper than to say what they are hashes of. */
static bool known_before(const bspi_file *old, const uint8_t *bytes, size_t len) {
    uint32_t wanted = signature_name();
    for (size_t i = 0; i < old->image_count; i++)
        for (size_t j = 0; j < old->images[i].section_count; j++) {
            const bspi_section *section = &old->images[i].sections[j];
            if (section->name != wanted)
                continue;
            const uint8_t *at = old->data + section->file_off;
            for (uint64_t left = section->file_size; left >= len; at++, left--)
                if (*at == *bytes && memcmp(at, bytes, len) == 0)
                    return true;
        }
    return false;
}

/* Slot -k of a code directory holds the hash of the signature's blob of type k:
 * requirements, entitlements and the like.  (Those of files outside are no
 * function of this one.) */
static bool add_special_slots(const signature *s, const uint8_t *blob, uint64_t blob_off,
                              uint64_t hash_off) {
    uint32_t special = load_be32(blob + 24), hash = blob[37];
    uint64_t hash_len = bspi_fill_hash_len(hash);
    for (uint32_t i = 0; i < s->count; i++) {
        const uint8_t *entry = s->file->data + s->off + 12 + (uint64_t)i * 8;
        uint32_t type = load_be32(entry), at = load_be32(entry + 4);
        if (type == 0 || type > special || (uint64_t)type * hash_len > hash_off ||
            !bspi_within(at, 8, s->len))
            continue;
        uint32_t length = load_be32(s->file->data + s->off + at + 4);
        bspi_fill fill = {blob_off + hash_off - type * hash_len, s->off + at, length,
                          BSPI_FILL_WHOLE, hash};
        if (length == 0 || !bspi_within(at, length, s->len) ||
            !bspi_fill_is_one_block(&fill) || !holds(&fill, s->file) ||
            known_before(s->old, s->file->data + fill.new_off,
                         (size_t)hash_len))
            continue;
        if (!add_fill(s->content, &fill))
            return false;
    }
    return true;
}

static bool add_directory(const signature *s, uint64_t blob_off, uint64_t blob_len) {
    if (blob_len < DIRECTORY_HEAD)
        return true;
    const bspi_image *image = s->image;
    const uint8_t *blob = s->file->data + blob_off;
    uint32_t length = load_be32(blob + 4), hash_off = load_be32(blob + 16);
    uint32_t slots = load_be32(blob + 28);
    if (load_be32(blob) != CODE_DIRECTORY || length > blob_len)
        return true;
    bspi_fill fill = {blob_off + hash_off, image->file_off, load_be32(blob + 32), blob[39],
                      blob[37]};
    if (fill.hash < BSPI_FILL_SHA1 || fill.hash > BSPI_FILL_SHA256_20 || hash_off > length ||
        blob[36] != bspi_fill_hash_len(fill.hash))
        return true;
    if (!add_special_slots(s, blob, blob_off, hash_off))
        return false;
    if (fill.page_bits < 12 || fill.page_bits > 16 || fill.data_len == 0 ||
        fill.data_len > image->file_size || fill.data_off % (UINT64_C(1) << fill.page_bits) != 0)
        return true;
    uint64_t len = bspi_fill_len(&fill);
    if (len != slots * bspi_fill_hash_len(fill.hash) || !bspi_within(hash_off, len, length) ||
        fill.data_off + fill.data_len > blob_off || !holds(&fill, s->file))
        return true;
    return add_fill(s->content, &fill);
}

static bool add_signature(signature *s) {
    if (s->len < 12 || load_be32(s->file->data + s->off) != SUPERBLOB)
        return true;
    s->count = load_be32(s->file->data + s->off + 8);
    if (s->count > MAX_BLOBS || s->count > (s->len - 12) / 8)
        return true;
    for (uint32_t i = 0; i < s->count; i++) {
        uint32_t blob = load_be32(s->file->data + s->off + 12 + (uint64_t)i * 8 + 4);
        if (blob < s->len && !add_directory(s, s->off + blob, s->len - blob))
            return false;
    }
    return true;
}

/* Drops fills that overlap another one's bytes or hash them: the reader refuses
 * such a patch. */
static void drop_conflicts(bspi_content *content) {
    uint64_t hashed = 0;
    for (size_t i = 0; i < content->fill_count;) {
        const bspi_fill *a = &content->fills[i];
        bool conflict = i >= BSPI_MAX_FILLS ||
                        a->data_len > BSPI_MAX_HASHINGS * content->new_size - hashed;
        for (size_t j = 0; j < content->fill_count; j++) {
            const bspi_fill *b = &content->fills[j];
            uint64_t b_end = b->new_off + bspi_fill_len(b);
            conflict |= a->data_off < b_end && b->new_off < a->data_off + a->data_len;
            conflict |= j < i && b_end > a->new_off;
        }
        if (conflict) {
            memmove(&content->fills[i], &content->fills[i + 1],
                    (content->fill_count - i - 1) * sizeof *content->fills);
            content->fill_count--;
        } else {
            hashed += a->data_len;
            i++;
        }
    }
}

bsp_status bspi_find_fills(bspi_content *content, const bspi_file *old, const bspi_file *new_,
                           bsp_fault *fault) {
    uint32_t wanted = signature_name();
    for (size_t i = 0; i < new_->image_count; i++) {
        const bspi_image *image = &new_->images[i];
        for (size_t j = 0; j < image->section_count; j++) {
            const bspi_section *section = &image->sections[j];
            signature found = {content, new_, old, image, section->file_off, section->file_size, 0};
            if (section->name == wanted && !add_signature(&found))
                return bspi_nomem(content->heap, fault, "fills");
        }
    }
    drop_conflicts(content);
    return BSP_OK;
}

bsp_status bspi_cut_fills(bspi_content *content, bsp_fault *fault) {
    if (content->fill_count == 0)
        return BSP_OK;
    bspi_cover_list cut = {content->heap, NULL, 0, 0};
    size_t fill = 0;
    for (size_t i = 0; i < content->cover.count; i++) {
        bspi_cover entry = content->cover.items[i];
        while (entry.len != 0) {
            while (fill < content->fill_count &&
                   content->fills[fill].new_off + bspi_fill_len(&content->fills[fill]) <=
                       entry.new_off)
                fill++;
            uint64_t keep = entry.len, drop = 0;
            if (fill < content->fill_count) {
                const bspi_fill *f = &content->fills[fill];
                if (f->new_off < entry.new_off + entry.len) {
                    keep = f->new_off > entry.new_off ? f->new_off - entry.new_off : 0;
                    drop = BSPI_MIN(f->new_off + bspi_fill_len(f) - (entry.new_off + keep),
                                    entry.len - keep);
                }
            }
            bspi_cover kept = {entry.new_off, entry.old_off, keep};
            if (keep != 0 && !bspi_cover_push(&cut, kept)) {
                bspi_cover_free(&cut);
                return bspi_nomem(content->heap, fault, "fills");
            }
            entry.new_off += keep + drop;
            entry.old_off += keep + drop;
            entry.len -= keep + drop;
        }
    }
    bspi_cover_free(&content->cover);
    content->cover = cut;
    return BSP_OK;
}
