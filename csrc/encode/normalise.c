/* normalise.c: replaces addresses by labels. */
#include "normalise.h"

#include <string.h>

#include "../common/bytes.h"
#include "../common/threads.h"
#include "../image/elf_shadow.h"
#include "../image/macho_names.h"

typedef struct {
    const bspi_file *file;
    bspi_label_rule rule;
    const bspi_predictor *predictor;
    const uint32_t *paired;
    uint8_t *view;
} normaliser;

static uint64_t scramble(uint64_t value) {
    value *= UINT64_C(0x9E3779B97F4A7C15);
    return value ^ value >> 31;
}

/* The name of the section whose memory holds addr; *hint is the last answer. */
static uint32_t section_name(const bspi_image *image, uint64_t addr, size_t *hint) {
    for (size_t i = 0; i < image->section_count; i++) {
        size_t at = (*hint + i) % image->section_count;
        const bspi_section *section = &image->sections[at];
        if (section->mapped && addr - section->addr < section->mem_size) {
            *hint = at;
            return section->name;
        }
    }
    return 0;
}

static int image_at(const bspi_file *file, uint64_t off) {
    for (size_t i = 0; i < file->image_count; i++)
        if (off - file->images[i].file_off < file->images[i].file_size)
            return (int)i;
    return -1;
}

static bsp_status normalise_block(void *context, size_t block, unsigned worker) {
    const normaliser *n = context;
    const bspi_file *file = n->file;
    (void)worker;
    uint64_t begin = (uint64_t)block << BSPI_BLOCK_BITS;
    uint64_t end = BSPI_MIN(begin + (UINT64_C(1) << BSPI_BLOCK_BITS), file->size);
    memcpy(n->view + begin, file->data + begin, (size_t)(end - begin));
    return BSP_OK;
}

static uint64_t label_of(const normaliser *n, size_t image, uint64_t target, size_t *hint) {
    if (n->rule == BSPI_LABEL_SECTION)
        return scramble(section_name(&n->file->images[image], target, hint));
    if (n->predictor != NULL)
        target = bspi_map_target(&n->predictor->maps[n->paired[image]], target);
    return scramble(target);
}

static bsp_status label_block(void *context, size_t block, unsigned worker) {
    const normaliser *n = context;
    const bspi_file *file = n->file;
    (void)worker;
    bspi_ref_list refs = {file->heap, NULL, 0, 0, false};
    bspi_block_refs(file, block, &refs);
    bool failed = refs.failed;
    size_t hint = 0;
    for (size_t i = 0; i < refs.count && !failed; i++) {
        const bspi_ref *ref = &refs.items[i];
        int image = image_at(file, ref->off);
        if (image < 0 || n->paired[image] == BSPI_NO_PAIR)
            continue;
        uint64_t name;
        bool named = bspi_macho_name(file, &file->images[image], ref, &name);
        bspi_ref_label(ref->kind, n->view + ref->off,
                       named ? scramble(name)
                             : label_of(n, (size_t)image, ref->target, &hint));
    }
    bspi_ref_list_free(&refs);
    return failed ? BSP_E_NOMEM : BSP_OK;
}

typedef struct {
    const normaliser *n;
    size_t image;
    size_t hint;
} shadow;

static void label_shadow(void *context, const bspi_shadow *slot) {
    shadow *s = context;
    uint64_t label = slot->elsewhere ? scramble(slot->target)
                                     : label_of(s->n, s->image, slot->target, &s->hint);
    if (slot->size == 8)
        bspi_store64(s->n->view + slot->off, label);
    else
        bspi_store32(s->n->view + slot->off, (uint32_t)label);
}

bsp_status bspi_normalise(const bspi_file *file, bspi_label_rule rule,
                          const bspi_predictor *predictor, const uint32_t *paired, unsigned jobs,
                          uint8_t *view, bsp_fault *fault) {
    normaliser n = {file, rule, predictor, paired, view};
    size_t blocks = (size_t)((file->size + (UINT64_C(1) << BSPI_BLOCK_BITS) - 1) >>
                             BSPI_BLOCK_BITS);
    /* Copy first: a field may reach into the next block. */
    BSPI_TRY(bspi_parallel(jobs, blocks, normalise_block, &n));
    /* Labels of neighbouring blocks touch disjoint bytes (fields are disjoint). */
    if (bspi_parallel(jobs, blocks, label_block, &n) != BSP_OK)
        return bspi_nomem(file->heap, fault, "normalise");
    for (size_t i = 0; i < file->image_count; i++) {
        shadow context = {&n, i, 0};
        if (paired[i] != BSPI_NO_PAIR)
            bspi_elf_shadow(file, &file->images[i], label_shadow, &context);
    }
    return BSP_OK;
}
