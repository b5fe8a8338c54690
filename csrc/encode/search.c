/* search.c: matches normalised views, maps addresses, and matches again. */
#include "search.h"

#include "../match/match.h"
#include "corrections.h"
#include "fills.h"
#include "normalise.h"

/* Each round makes the map better and with it the next round's choices. */
#define REPOINT_ROUNDS 1u

typedef struct {
    uint8_t *old;
    uint8_t *new_;
    uint32_t *old_paired;
    uint32_t *new_paired;
} views;

static bsp_status allocate_views(views *v, bspi_heap *heap, const bspi_content *content,
                                 const bspi_file *old, const bspi_file *new_, bsp_fault *fault) {
    v->old = bspi_alloc(heap, old->size + 1, 1, false);
    v->new_ = bspi_alloc(heap, new_->size + 1, 1, false);
    v->old_paired = bspi_alloc(heap, old->image_count + 1, sizeof *v->old_paired, false);
    v->new_paired = bspi_alloc(heap, new_->image_count + 1, sizeof *v->new_paired, false);
    if (v->old == NULL || v->new_ == NULL || v->old_paired == NULL || v->new_paired == NULL)
        return bspi_nomem(heap, fault, "search");
    bspi_large_pages(v->old, old->size);
    bspi_large_pages(v->new_, new_->size);
    for (size_t i = 0; i < old->image_count; i++)
        v->old_paired[i] = BSPI_NO_PAIR;
    for (size_t i = 0; i < new_->image_count; i++)
        v->new_paired[i] = 0; /* labels of unpaired images are harmless */
    for (size_t i = 0; i < content->layout.image_count; i++)
        v->old_paired[content->layout.images[i].old_image] = (uint32_t)i;
    return BSP_OK;
}

static void free_views(views *v, bspi_heap *heap) {
    bspi_free(heap, v->old);
    bspi_free(heap, v->new_);
    bspi_free(heap, v->old_paired);
    bspi_free(heap, v->new_paired);
}

static bsp_status round_of(bspi_content *content, const bspi_file *old, const bspi_file *new_,
                           const bsp_diff_options *options, views *v, bspi_label_rule rule,
                           unsigned effort, bsp_control *control, bsp_fault *fault) {
    unsigned jobs = options->jobs;
    const bspi_predictor *predictor = content->has_predictor ? &content->predictor : NULL;
    BSPI_TRY(bspi_normalise(old, rule, predictor, v->old_paired, jobs, v->old, fault));
    BSPI_TRY(bspi_normalise(new_, rule, NULL, v->new_paired, jobs, v->new_, fault));
    if (content->has_predictor)
        bspi_predictor_free(&content->predictor);
    content->has_predictor = false;
    bspi_cover_free(&content->cover);
    bspi_match_options match = {jobs, effort};
    return bspi_match(content->heap, v->old, old->size, v->new_, new_->size, &match, control,
                      &content->cover, fault);
}

/* Lets references choose among equal places that the cover could copy from. */
static bsp_status prefer_expected(bspi_content *content, const bspi_file *old,
                                  const bspi_file *new_, const bsp_diff_options *options,
                                  const views *v, bsp_control *control, bsp_fault *fault) {
    BSPI_TRY(bspi_content_predictor(content, old, fault));
    bsp_status status = bspi_choose_overrides(content, old, new_, false, options->jobs, control,
                                              fault);
    if (status == BSP_OK)
        bspi_repoint_cover(content, old, v->old, v->new_);
    bspi_content_forget_overrides(content);
    bspi_predictor_free(&content->predictor);
    content->has_predictor = false;
    return status;
}

bsp_status bspi_search_cover(bspi_content *content, const bspi_file *old, const bspi_file *new_,
                             const bsp_diff_options *options, bsp_control *control,
                             bsp_fault *fault) {
    bspi_heap *heap = content->heap;
    unsigned effort = options->profile; /* fast, balanced, max: quick, normal, thorough */
    if (content->layout.image_count == 0) {
        bspi_match_options match = {options->jobs, effort};
        BSPI_TRY(bspi_match(heap, old->data, old->size, new_->data, new_->size, &match, control,
                            &content->cover, fault));
        return bspi_cut_fills(content, fault);
    }
    views v = {0};
    bsp_status status = allocate_views(&v, heap, content, old, new_, fault);
    if (status == BSP_OK)
        status = round_of(content, old, new_, options, &v, BSPI_LABEL_SECTION, 0, control, fault);
    if (status == BSP_OK)
        status = bspi_content_predictor(content, old, fault);
    if (status == BSP_OK)
        status = round_of(content, old, new_, options, &v, BSPI_LABEL_TARGET, effort, control,
                          fault);
    if (status == BSP_OK && options->profile == BSP_PROFILE_MAX) {
        /* Once more with what the second round could not yet know. */
        status = bspi_content_predictor(content, old, fault);
        if (status == BSP_OK)
            status = bspi_choose_overrides(content, old, new_, true, options->jobs, control,
                                           fault);
        if (status == BSP_OK)
            status = round_of(content, old, new_, options, &v, BSPI_LABEL_TARGET, effort, control,
                              fault);
        bspi_content_forget_overrides(content);
        for (unsigned i = 0; i < REPOINT_ROUNDS && status == BSP_OK; i++)
            status = prefer_expected(content, old, new_, options, &v, control, fault);
    }
    if (status == BSP_OK)
        status = bspi_cut_fills(content, fault);
    free_views(&v, heap);
    return status;
}
