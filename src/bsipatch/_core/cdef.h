/* What Python sees of csrc/include/bsipatch.h.  Written by hand; cffi compares
 * every value, field and signature with the real header when it compiles. */

#define BSP_FORMAT_VERSION 1
#define BSP_DIFF_RAW 1
#define BSP_WINDOW_ALIGN 65536

typedef enum bsp_status {
    BSP_OK = 0,
    BSP_E_ARG = -1,
    BSP_E_CANCELLED = -2,
    BSP_E_NOMEM = -10,
    BSP_E_MEMLIMIT = -11,
    BSP_E_VERSION = -20,
    BSP_E_MAGIC = -21,
    BSP_E_CORRUPT = -22,
    BSP_E_TRUNCATED = -23,
    BSP_E_LIMIT = -24,
    BSP_E_OLD_MISMATCH = -30,
    BSP_E_NEW_MISMATCH = -31,
    BSP_E_INTERNAL = -99
} bsp_status;

typedef struct bsp_fault {
    int32_t code;
    const char *place;
    uint64_t offset;
    uint64_t expected;
    uint64_t found;
} bsp_fault;

typedef struct bsp_control {
    uint32_t cancel;
    uint32_t phase;
    uint64_t done;
    uint64_t total;
} bsp_control;

typedef enum bsp_phase {
    BSP_PHASE_IDLE = 0,
    BSP_PHASE_PARSE = 1,
    BSP_PHASE_MATCH = 2,
    BSP_PHASE_PREDICT = 3,
    BSP_PHASE_ENCODE = 4,
    BSP_PHASE_DECODE = 5,
    BSP_PHASE_WRITE = 6
} bsp_phase;

typedef enum bsp_profile {
    BSP_PROFILE_FAST = 0,
    BSP_PROFILE_BALANCED = 1,
    BSP_PROFILE_MAX = 2
} bsp_profile;

typedef enum bsp_codec {
    BSP_CODEC_PLAIN = 0,
    BSP_CODEC_MODEL = 1,
    BSP_CODEC_ZSTD = 2,
    BSP_CODEC_LZMA = 3,
    BSP_CODEC_MODEL_OWN = 4
} bsp_codec;

typedef struct bsp_stream_info {
    uint32_t id;
    uint32_t codec;
    const uint8_t *bytes;
    uint64_t bytes_len;
    uint64_t plain_len;
    uint64_t modelled_len;
} bsp_stream_info;

typedef struct bsp_diff bsp_diff;

typedef struct bsp_diff_options {
    uint32_t profile;
    uint32_t jobs;
    uint64_t memory_budget;
    uint32_t flags;
} bsp_diff_options;

bsp_status bsp_diff_new(const uint8_t *old, size_t old_len, const uint8_t *new_, size_t new_len,
                        const bsp_diff_options *options, bsp_control *control, bsp_diff **diff,
                        bsp_fault *fault);
uint32_t bsp_diff_stream_count(const bsp_diff *diff);
bsp_status bsp_diff_stream(const bsp_diff *diff, uint32_t index, bsp_stream_info *info);
bsp_status bsp_diff_set_codec(bsp_diff *diff, uint32_t index, uint32_t codec,
                              const uint8_t *encoded, size_t encoded_len);
bsp_status bsp_diff_finish(bsp_diff *diff, const uint8_t *old_check, const uint8_t *new_check,
                           const uint8_t **patch, size_t *patch_len, bsp_fault *fault);
void bsp_diff_free(bsp_diff *diff);

typedef struct bsp_patch bsp_patch;

typedef struct bsp_patch_info {
    uint64_t old_size;
    uint64_t new_size;
    uint8_t old_check[8];
    uint8_t new_check[8];
    uint32_t format_version;
    uint32_t stream_count;
    uint64_t plain_bytes;
} bsp_patch_info;

bsp_status bsp_patch_open(const uint8_t *bytes, size_t len, uint64_t max_plain,
                          uint64_t memory_budget, bsp_patch **patch, bsp_fault *fault);
void bsp_patch_get_info(const bsp_patch *patch, bsp_patch_info *info);
bsp_status bsp_patch_stream(const bsp_patch *patch, uint32_t index, bsp_stream_info *info);
bsp_status bsp_patch_provide(bsp_patch *patch, uint32_t index, const uint8_t *plain,
                             size_t plain_len);
bsp_status bsp_patch_set_jobs(bsp_patch *patch, uint32_t jobs);
bsp_status bsp_patch_prepare(bsp_patch *patch, const uint8_t *old, size_t old_len,
                             bsp_control *control, bsp_fault *fault);
bsp_status bsp_patch_begin(bsp_patch *patch, const uint8_t *old, size_t old_len,
                           bsp_control *control, bsp_fault *fault);
bsp_status bsp_patch_finish(bsp_patch *patch, bsp_control *control, bsp_fault *fault);
bsp_status bsp_patch_window(bsp_patch *patch, uint64_t new_off, uint8_t *out, size_t len,
                            bsp_fault *fault);
uint32_t bsp_patch_fill_count(const bsp_patch *patch);
bsp_status bsp_patch_fill_range(const bsp_patch *patch, uint32_t index, uint64_t *new_off,
                                uint64_t *len);
bsp_status bsp_patch_fill_needs(const bsp_patch *patch, uint32_t index, uint64_t *new_end);
bsp_status bsp_patch_fill(bsp_patch *patch, uint32_t index, uint8_t *out, size_t len,
                          bsp_fault *fault);
uint64_t bsp_patch_peak_memory(const bsp_patch *patch);
void bsp_patch_close(bsp_patch *patch);


typedef struct bsp_explanation bsp_explanation;

#define BSP_EXPLAIN_STREAMS 7

#define BSP_EXPLAIN_NONE 4294967295

typedef struct bsp_explain_place {
    uint32_t image;
    uint32_t old_image;
    uint32_t format;
    uint32_t arch;
    uint32_t role;
    uint32_t paired;
    uint64_t new_off;
    uint64_t len;
    uint64_t addr;
    uint64_t old_off;
    uint64_t old_len;
} bsp_explain_place;

typedef struct bsp_explain_row {
    uint32_t place;
    uint32_t kind;
    uint64_t refs;
    uint64_t refs_moved;
    uint64_t refs_right;
    uint64_t refs_overridden;
    uint64_t refs_fixed;
    uint64_t refs_corrected;
    uint64_t byte_fixes;
    uint64_t byte_runs;
    uint64_t literal_bytes;
    uint64_t cover_entries;
    uint64_t cover_bytes;
    uint64_t fill_bytes;
    uint64_t price[7];
} bsp_explain_row;

typedef struct bsp_explain_stream {
    uint32_t id;
    uint32_t codec;
    uint64_t entries;
    uint64_t plain_len;
    uint64_t coded_len;
    uint64_t price;
    uint64_t price_frame;
} bsp_explain_stream;

typedef struct bsp_explain_bucket {
    uint64_t carried;
    uint64_t predicted;
    uint64_t corrected;
    uint64_t literal;
    uint64_t filled;
} bsp_explain_bucket;

bsp_status bsp_explain_new(bsp_patch *patch, uint32_t bucket_count,
                                          bsp_control *control, bsp_explanation **explanation,
                                          bsp_fault *fault);

size_t bsp_explain_places(const bsp_explanation *explanation, bsp_explain_place *places,
                          size_t capacity);
size_t bsp_explain_rows(const bsp_explanation *explanation, bsp_explain_row *rows,
                        size_t capacity);
size_t bsp_explain_streams(const bsp_explanation *explanation, bsp_explain_stream *streams,
                           size_t capacity);
size_t bsp_explain_buckets(const bsp_explanation *explanation, bsp_explain_bucket *buckets,
                           size_t capacity);
void bsp_explain_free(bsp_explanation *explanation);

bsp_status bsp_guard_begin(const void *addr, size_t len, uint32_t *guard);
uint32_t bsp_guard_failed(uint32_t guard);
void bsp_guard_end(uint32_t guard);

const char *bsp_version(void);
const char *bsp_status_text(int32_t code);
void bsp_sha256(const uint8_t *data, size_t len, uint8_t *digest);

typedef struct bsp_sha256_state {
    uint32_t words[8];
    uint64_t len;
    uint8_t rest[64];
} bsp_sha256_state;

int32_t bsp_sha256_pays_in_pairs(void);
void bsp_sha256_begin(bsp_sha256_state *state);
void bsp_sha256_update(bsp_sha256_state *state, const uint8_t *data, size_t len);
void bsp_sha256_update_two(bsp_sha256_state *first, const uint8_t *first_data,
                           bsp_sha256_state *second, const uint8_t *second_data, size_t len);
void bsp_sha256_digest(const bsp_sha256_state *state, uint8_t *digest);
