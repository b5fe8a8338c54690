/* content.h: what a patch says, apart from how it is coded (docs/format.md). */
#ifndef BSPI_CONTENT_H
#define BSPI_CONTENT_H

#include "../predict/predictor.h"

/* Streams, in the order in which they are coded and decoded.  A later one may
 * use what an earlier one said. */
typedef enum bspi_stream_id {
    BSPI_STREAM_LAYOUT = 1,
    BSPI_STREAM_COVER = 2,
    BSPI_STREAM_OVERRIDES = 3,
    BSPI_STREAM_REFS = 4,
    BSPI_STREAM_BYTES = 5,
    BSPI_STREAM_LITERALS = 6
} bspi_stream_id;
#define BSPI_STREAM_COUNT 6u

typedef struct bspi_byte_fix {
    uint64_t new_off;
    uint8_t diff; /* new byte - predicted byte, modulo 256, never 0 */
} bspi_byte_fix;

/* What the finished bytes determine: hash i of the fill is that of
 * new[data_off + i * page_size, ...) up to data_off + data_len. */
typedef enum bspi_fill_hash {
    BSPI_FILL_SHA1 = 1,         /* 20 bytes */
    BSPI_FILL_SHA256 = 2,       /* 32 bytes */
    BSPI_FILL_SHA256_20 = 3     /* SHA-256 cut to 20 bytes */
} bspi_fill_hash;

typedef struct bspi_fill {
    uint64_t new_off; /* where the hashes stand */
    uint64_t data_off;
    uint64_t data_len;
    uint32_t page_bits; /* log2 of the page size, 12 to 16; or BSPI_FILL_WHOLE */
    uint32_t hash;      /* bspi_fill_hash */
} bspi_fill;

/* One hash of all the data, which need not begin at a page but lies within one
 * aligned block of 2^16 bytes, so that a window has all or nothing of it. */
#define BSPI_FILL_WHOLE 17u
#define BSPI_FILL_BLOCK_BITS 16u

/* Fills of one patch, and how often over they may hash the new file: a few bytes
 * of a hostile patch could else ask for hours of hashing. */
#define BSPI_MAX_FILLS 512u
#define BSPI_MAX_HASHINGS 8u

typedef struct bspi_content {
    bspi_heap *heap;
    uint64_t old_size;
    uint64_t new_size;
    bool raw; /* written without looking for images: the layout names none, though old may have some */
    bspi_layout layout;
    bspi_fill *fills; /* ascending by new_off, disjoint, outside the cover */
    size_t fill_count;
    size_t fill_capacity;
    bspi_cover_list cover;
    /* Overrides of all images of the layout, one after the other. */
    bspi_override *overrides;
    size_t override_capacity;
    size_t *override_starts; /* image_count + 1 */
    bspi_ref_fix *refs;
    size_t ref_count;
    size_t ref_capacity;
    bspi_byte_fix *bytes;
    size_t byte_count;
    size_t byte_capacity;
    uint8_t *literals; /* the bytes outside cover and fills, in order */
    uint64_t literal_count;
    /* Told while literals are read how many are there; NULL tells nobody. */
    void (*literals_made)(void *context, uint64_t count);
    void *literals_context;
    bspi_unwind_pages pages;  /* of the new file */
    bspi_predictor predictor; /* valid from the COVER stream on */
    bool has_predictor;
} bspi_content;

void bspi_content_init(bspi_content *content, bspi_heap *heap);
void bspi_content_free(bspi_content *content);

uint64_t bspi_fill_hash_len(uint32_t hash);
/* Bytes that the fill's hashes take. */
uint64_t bspi_fill_len(const bspi_fill *fill);
/* True when the data lies within one aligned block. */
bool bspi_fill_is_one_block(const bspi_fill *fill);

/* Builds the predictor from old, layout and cover (no overrides yet). */
bsp_status bspi_content_predictor(bspi_content *content, const bspi_file *old, bsp_fault *fault);
/* Puts the overrides into the predictor's maps. */
bsp_status bspi_content_override(bspi_content *content, bsp_fault *fault);
/* Finds the pages that the predictor needs, with `read` for what is known of the
 * new file without them. */
bsp_status bspi_content_pages(bspi_content *content, const bspi_file *old, bspi_read_new read,
                              void *context, bsp_fault *fault);
void bspi_content_forget_overrides(bspi_content *content);

struct bspi_column;
/* Transfers one stream between content and column, in either direction.  When
 * reading, everything is validated and what later streams need is built; `old`
 * is the parsed old file.  Failures end up in column->status. */
void bspi_stream_transfer(bspi_stream_id id, struct bspi_column *column, bspi_content *content,
                          const bspi_file *old);

#endif
