/* bsipatch.h: the only public header of the bsipatch core.
 *
 * The core turns two builds of a file into a patch and a patch back into the
 * new build.  It is C11, needs libc and nothing else, never prints, never
 * aborts and keeps no global state (but for the guards of mapped files, as a
 * signal handler is global): every call works on what it is handed, so
 * distinct handles may be used from distinct threads at the same time.  One
 * handle may be used by one thread at a time unless its functions say
 * otherwise.
 *
 * Conventions.  `_len` counts bytes, `_count` items, `_off` is an offset in
 * bytes from the start of a file.  Every fallible call returns a bsp_status
 * and hands results out through pointers that are untouched on failure.
 * Everything on disk is little endian.
 */
#ifndef BSIPATCH_H
#define BSIPATCH_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define BSP_MUST_CHECK __attribute__((warn_unused_result))
#else
#define BSP_MUST_CHECK
#endif

#define BSP_VERSION_STRING "0.1.0"
/* Version of the patch format this core writes (docs/format.md). */
#define BSP_FORMAT_VERSION 1

/* Status codes.  Grouped with gaps; a published number never changes meaning. */
typedef enum bsp_status {
    BSP_OK = 0,
    /* The caller broke a precondition of this header.  Fix the caller. */
    BSP_E_ARG = -1,
    /* The cancel flag of the control block was set.  Nothing is lost. */
    BSP_E_CANCELLED = -2,
    /* The system refused memory.  Free some and try again. */
    BSP_E_NOMEM = -10,
    /* The call would exceed the memory budget it was given. */
    BSP_E_MEMLIMIT = -11,
    /* The patch is of a format version this core does not know. */
    BSP_E_VERSION = -20,
    /* The bytes are not a patch at all (wrong magic). */
    BSP_E_MAGIC = -21,
    /* The patch contradicts itself; it was damaged or made by an attacker. */
    BSP_E_CORRUPT = -22,
    /* The patch ends before what it declares. */
    BSP_E_TRUNCATED = -23,
    /* The patch is sound but needs a limit larger than the caller allows. */
    BSP_E_LIMIT = -24,
    /* The old file is not the one that the patch was made for. */
    BSP_E_OLD_MISMATCH = -30,
    /* What came out is not what the patch promised. */
    BSP_E_NEW_MISMATCH = -31,
    /* A defect in the core itself.  Please report it. */
    BSP_E_INTERNAL = -99
} bsp_status;

/* Where and why a call failed.  Caller-owned, filled only on failure; may be
 * NULL wherever it is accepted. `place` points to a static string. */
typedef struct bsp_fault {
    int32_t code;       /* the bsp_status returned */
    const char *place;  /* the field or step, e.g. "cover.old_off" */
    uint64_t offset;    /* byte offset in the patch, 0 where it has no meaning */
    uint64_t expected;  /* the bound or value expected, 0 where unknown */
    uint64_t found;     /* the value found */
} bsp_fault;

/* Shared between a running call and a watching thread.  The watcher sets
 * `cancel` to non-zero to stop the call at its next poll (some milliseconds)
 * and may read `done` and `total` (in bytes of the new file, `phase` as in
 * bsp_phase) at any time.  All members are accessed atomically. */
typedef struct bsp_control {
    uint32_t cancel;
    uint32_t phase;
    uint64_t done;
    uint64_t total;
} bsp_control;

/* What a running call is busy with, for bsp_control.phase. */
typedef enum bsp_phase {
    BSP_PHASE_IDLE = 0,
    BSP_PHASE_PARSE = 1,   /* understanding the files */
    BSP_PHASE_MATCH = 2,   /* searching the cover */
    BSP_PHASE_PREDICT = 3, /* predicting, weighing corrections */
    BSP_PHASE_ENCODE = 4,  /* entropy coding */
    BSP_PHASE_DECODE = 5,  /* reading a patch's streams */
    BSP_PHASE_WRITE = 6    /* reconstructing windows */
} bsp_phase;

typedef enum bsp_profile {
    BSP_PROFILE_FAST = 0,     /* generic codecs only, quick search */
    BSP_PROFILE_BALANCED = 1, /* modelled streams, quick search */
    BSP_PROFILE_MAX = 2       /* everything that makes the patch smaller */
} bsp_profile;

/* How a stream's bytes are coded inside a patch.  The generic codecs are
 * decoded by the caller (the core depends on libc alone). */
typedef enum bsp_codec {
    BSP_CODEC_PLAIN = 0, /* the stream's plain bytes */
    BSP_CODEC_MODEL = 1, /* the core's own range coder, all such streams in one */
    BSP_CODEC_ZSTD = 2,  /* one zstd frame without content size or checksum */
    BSP_CODEC_LZMA = 3,  /* raw LZMA2, dictionary size in docs/format.md */
    BSP_CODEC_MODEL_OWN = 4 /* as MODEL, in a code of its own; chosen by the core for MODEL */
} bsp_codec;

typedef struct bsp_stream_info {
    uint32_t id;            /* which stream, docs/format.md */
    uint32_t codec;         /* bsp_codec */
    const uint8_t *bytes;   /* bsp_diff: plain bytes; bsp_patch: encoded bytes, NULL for MODEL and MODEL_OWN */
    uint64_t bytes_len;
    uint64_t plain_len;     /* length once decoded */
    uint64_t modelled_len;  /* bsp_diff only: about what MODEL costs, in bytes */
} bsp_stream_info;

/* --- making a patch --- */

typedef struct bsp_diff bsp_diff;

typedef struct bsp_diff_options {
    uint32_t profile;       /* bsp_profile */
    uint32_t jobs;          /* threads, 1 or more; never changes the result */
    uint64_t memory_budget; /* bytes the core may allocate, 0 for no limit */
    uint32_t flags;         /* BSP_DIFF_RAW to look at both files as raw bytes */
} bsp_diff_options;
#define BSP_DIFF_RAW 1u

/* Computes the streams of a patch from old to new.  Both buffers must stay
 * valid and unchanged until bsp_diff_free.  control and fault may be NULL.
 * Errors: ARG, CANCELLED, NOMEM, MEMLIMIT. */
BSP_MUST_CHECK bsp_status bsp_diff_new(const uint8_t *old, size_t old_len, const uint8_t *new_,
                                       size_t new_len, const bsp_diff_options *options,
                                       bsp_control *control, bsp_diff **diff, bsp_fault *fault);
uint32_t bsp_diff_stream_count(const bsp_diff *diff);
/* Stream `index`, 0 to count - 1. Pointers live as long as diff. */
BSP_MUST_CHECK bsp_status bsp_diff_stream(const bsp_diff *diff, uint32_t index,
                                          bsp_stream_info *info);
/* Chooses how stream `index` is coded.  For ZSTD and LZMA `encoded` holds the
 * coded bytes, which are copied; for PLAIN and MODEL it must be NULL and 0. */
BSP_MUST_CHECK bsp_status bsp_diff_set_codec(bsp_diff *diff, uint32_t index, uint32_t codec,
                                             const uint8_t *encoded, size_t encoded_len);
/* Writes the patch; *patch lives as long as diff or until the next call of
 * bsp_diff_finish.  old_check and new_check: the first 8 bytes of the SHA-256
 * of each file.  May be called again after other codec choices. */
BSP_MUST_CHECK bsp_status bsp_diff_finish(bsp_diff *diff, const uint8_t old_check[8],
                                          const uint8_t new_check[8], const uint8_t **patch,
                                          size_t *patch_len, bsp_fault *fault);
void bsp_diff_free(bsp_diff *diff); /* NULL is fine */

/* --- applying one --- */

typedef struct bsp_patch bsp_patch;

typedef struct bsp_patch_info {
    uint64_t old_size;
    uint64_t new_size;
    uint8_t old_check[8]; /* first 8 bytes of SHA-256(old) */
    uint8_t new_check[8]; /* first 8 bytes of SHA-256(new) */
    uint32_t format_version;
    uint32_t stream_count;
    uint64_t plain_bytes; /* sum of plain_len over all streams */
} bsp_patch_info;

/* Reads and validates header and stream directory.  `bytes` must stay valid
 * until bsp_patch_close.  max_plain bounds the sum of the streams' decoded
 * lengths (BSP_E_LIMIT beyond it); memory_budget bounds every allocation made
 * for this handle, 0 for no limit. Errors: MAGIC, VERSION, CORRUPT, TRUNCATED,
 * LIMIT, NOMEM, MEMLIMIT. */
BSP_MUST_CHECK bsp_status bsp_patch_open(const uint8_t *bytes, size_t len, uint64_t max_plain,
                                         uint64_t memory_budget, bsp_patch **patch,
                                         bsp_fault *fault);
void bsp_patch_get_info(const bsp_patch *patch, bsp_patch_info *info);
BSP_MUST_CHECK bsp_status bsp_patch_stream(const bsp_patch *patch, uint32_t index,
                                           bsp_stream_info *info);
/* Hands in the decoded bytes of a ZSTD or LZMA stream, exactly plain_len of
 * them; they must stay valid until bsp_patch_close. */
BSP_MUST_CHECK bsp_status bsp_patch_provide(bsp_patch *patch, uint32_t index,
                                            const uint8_t *plain, size_t plain_len);
/* How many threads preparing may use, 0 and 1 for the caller's alone.
 * Takes more memory with more; the result is the same. */
BSP_MUST_CHECK bsp_status bsp_patch_set_jobs(bsp_patch *patch, uint32_t jobs);
/* Decodes and validates everything against the old file (which must stay valid
 * and unchanged until bsp_patch_close) and builds the predictor.  After it the
 * handle is ready for bsp_patch_window.  Errors: as above, OLD_MISMATCH when
 * old_len is not the patch's. */
BSP_MUST_CHECK bsp_status bsp_patch_prepare(bsp_patch *patch, const uint8_t *old, size_t old_len,
                                            bsp_control *control, bsp_fault *fault);
/* The same in two halves, so that windows can be made while the second runs beside
 * them: after bsp_patch_begin the handle is ready for bsp_patch_window, and a window
 * waits for what bsp_patch_finish has yet to decode for it.  Where that fails, all who
 * wait and all who come later get its error; cancelling its control block is the way to
 * stop them.  The new file is right only when both returned OK.  On a handle that is
 * prepared bsp_patch_finish does nothing. */
BSP_MUST_CHECK bsp_status bsp_patch_begin(bsp_patch *patch, const uint8_t *old, size_t old_len,
                                          bsp_control *control, bsp_fault *fault);
BSP_MUST_CHECK bsp_status bsp_patch_finish(bsp_patch *patch, bsp_control *control,
                                           bsp_fault *fault);
/* Window starts and ends (except at the end of the file) are multiples of this. */
#define BSP_WINDOW_ALIGN 65536u
/* Reconstructs new[new_off, new_off + len) into `out`.  new_off must be a
 * multiple of BSP_WINDOW_ALIGN, len too unless the window ends the file.
 * Distinct windows may be made by several threads at the same time. */
BSP_MUST_CHECK bsp_status bsp_patch_window(bsp_patch *patch, uint64_t new_off, uint8_t *out,
                                           size_t len, bsp_fault *fault);
/* Ranges that are functions of the finished bytes (page hashes of a code
 * signature).  bsp_patch_window leaves them zero; the caller asks for each and
 * writes it over its place once every window is made that begins before what
 * bsp_patch_fill_needs says, in bytes of the new file. */
uint32_t bsp_patch_fill_count(const bsp_patch *patch);
BSP_MUST_CHECK bsp_status bsp_patch_fill_range(const bsp_patch *patch, uint32_t index,
                                               uint64_t *new_off, uint64_t *len);
BSP_MUST_CHECK bsp_status bsp_patch_fill_needs(const bsp_patch *patch, uint32_t index,
                                               uint64_t *new_end);
BSP_MUST_CHECK bsp_status bsp_patch_fill(bsp_patch *patch, uint32_t index, uint8_t *out,
                                         size_t len, bsp_fault *fault);
/* The most memory the handle has had allocated at once, in bytes. */
uint64_t bsp_patch_peak_memory(const bsp_patch *patch);
void bsp_patch_close(bsp_patch *patch); /* NULL is fine */

/* --- explaining one --- */

/* Where the bytes of a patch went, told from the patch and the old file.  Every
 * count is exact.  A price is what the models take for it, in 1/65536 bits; for
 * a stream coded otherwise it is a weight by which to share out the stream's
 * coded length, no more. */
typedef struct bsp_explanation bsp_explanation;

/* Streams by id, 1 to this - 1 (docs/format.md); index 0 is unused. */
#define BSP_EXPLAIN_STREAMS 7u
/* Not in any image, or not a section of the old file. */
#define BSP_EXPLAIN_NONE UINT32_MAX

/* A section of the new file; the last place is all that lies outside of them. */
typedef struct bsp_explain_place {
    uint32_t image;     /* number in the new file's layout, or BSP_EXPLAIN_NONE */
    uint32_t old_image; /* the old image that it continues, or BSP_EXPLAIN_NONE */
    uint32_t format;    /* 0 raw, 1 Mach-O, 2 ELF */
    uint32_t arch;      /* 0 none, 1 arm64, 2 x86-64 */
    uint32_t role;      /* 0 data, 1 code, 2 zero-fill */
    uint32_t paired;    /* 1 when it continues a section of the old file */
    uint64_t new_off;
    uint64_t len;       /* bytes of the new file that are in it and in no place before */
    uint64_t addr;      /* 0 when it has none */
    uint64_t old_off;   /* of the old section, when paired */
    uint64_t old_len;
} bsp_explain_place;

/* What a place holds of one kind of reference; kind 0: bytes of no reference.
 * refs = right + overridden + fixed + corrected. */
typedef struct bsp_explain_row {
    uint32_t place;           /* index */
    uint32_t kind;            /* docs/format.md */
    uint64_t refs;            /* carried from the old file */
    uint64_t refs_moved;      /* of them, whose field says something else than in the old file */
    uint64_t refs_right;      /* predicted without help */
    uint64_t refs_overridden; /* answered by an override */
    uint64_t refs_fixed;      /* put right by a reference correction */
    uint64_t refs_corrected;  /* put right, or changed otherwise, by byte corrections */
    uint64_t byte_fixes;      /* bytes corrected */
    uint64_t byte_runs;       /* in so many runs */
    uint64_t literal_bytes;
    uint64_t cover_entries;   /* that begin here */
    uint64_t cover_bytes;
    uint64_t fill_bytes;      /* made from the finished bytes */
    uint64_t price[BSP_EXPLAIN_STREAMS];
} bsp_explain_row;

/* One stream of the patch, in the order of bsp_patch_stream. */
typedef struct bsp_explain_stream {
    uint32_t id;
    uint32_t codec;
    uint64_t entries;     /* cover entries, overrides, fixes, literal bytes, sections */
    uint64_t plain_len;
    uint64_t coded_len;   /* 0 when it shares the MODEL coder */
    uint64_t price;       /* all of it, */
    uint64_t price_frame; /* what of it is in no row: counts, the layout, unused overrides */
} bsp_explain_stream;

/* What becomes of the bytes of a stretch of the new file. */
typedef struct bsp_explain_bucket {
    uint64_t carried;   /* as in the old file */
    uint64_t predicted; /* references, rewritten and right */
    uint64_t corrected; /* by a correction of a reference or a byte */
    uint64_t literal;
    uint64_t filled;
} bsp_explain_bucket;

/* Explains a prepared patch, which must stay open until bsp_explain_free.  The
 * new file is cut into `bucket_count` stretches, 1 to 65536, of which number i
 * begins at i * new_size / bucket_count, rounded up.  No other call on the patch
 * may run meanwhile; control and fault may be NULL.
 * Errors: ARG, NOMEM, MEMLIMIT, CANCELLED. */
BSP_MUST_CHECK bsp_status bsp_explain_new(bsp_patch *patch, uint32_t bucket_count,
                                          bsp_control *control, bsp_explanation **explanation,
                                          bsp_fault *fault);
/* Each copies up to `capacity` items into the caller's array and returns how
 * many there are in all.  Rows are ascending by place, then kind; a row without
 * anything in it is left out. */
size_t bsp_explain_places(const bsp_explanation *explanation, bsp_explain_place *places,
                          size_t capacity);
size_t bsp_explain_rows(const bsp_explanation *explanation, bsp_explain_row *rows,
                        size_t capacity);
size_t bsp_explain_streams(const bsp_explanation *explanation, bsp_explain_stream *streams,
                           size_t capacity);
size_t bsp_explain_buckets(const bsp_explanation *explanation, bsp_explain_bucket *buckets,
                           size_t capacity);
void bsp_explain_free(bsp_explanation *explanation); /* NULL is fine */

/* --- mapped files --- */

/* Guards a mapping of a file while others read it, until bsp_guard_end: where the
 * file turns out to end earlier, or its disk fails, the readers see zeros instead
 * of the process being killed, and bsp_guard_failed says 1 from then on.  Keeps a
 * handler of SIGBUS installed while any guard is held; what is not about a guarded
 * range goes to the handler before.  Thread safe.  Errors: ARG, NOMEM (256 guards
 * are held, or the system refuses the handler). */
BSP_MUST_CHECK bsp_status bsp_guard_begin(const void *addr, size_t len, uint32_t *guard);
uint32_t bsp_guard_failed(uint32_t guard);
void bsp_guard_end(uint32_t guard);

/* --- odds and ends --- */

/* BSP_VERSION_STRING of the compiled core. */
const char *bsp_version(void);
/* A static English sentence for a status code: what happened and what to do. */
const char *bsp_status_text(int32_t code);
/* SHA-256 of `len` bytes by the fastest path of this machine. */
void bsp_sha256(const uint8_t *data, size_t len, uint8_t digest[32]);

/* A SHA-256 under way.  Plain memory, nothing to be freed; one thread at a time. */
typedef struct bsp_sha256_state {
    uint32_t words[8];
    uint64_t len;      /* bytes taken in, below 2^61 */
    uint8_t rest[64];  /* the last len % 64 of them */
} bsp_sha256_state;

/* 1 where two messages at once take clearly less time than one after the other. */
int32_t bsp_sha256_pays_in_pairs(void);
void bsp_sha256_begin(bsp_sha256_state *state);
void bsp_sha256_update(bsp_sha256_state *state, const uint8_t *data, size_t len);
/* As two updates by `len` bytes each; at once while both states are between blocks. */
void bsp_sha256_update_two(bsp_sha256_state *first, const uint8_t *first_data,
                           bsp_sha256_state *second, const uint8_t *second_data, size_t len);
/* The digest of what was taken in; the state may go on. */
void bsp_sha256_digest(const bsp_sha256_state *state, uint8_t digest[32]);

#endif
