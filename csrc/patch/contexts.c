/* contexts.c: what a correction or a literal byte may depend on. */
#include <string.h>

#include "../common/bytes.h"
#include "streams.h"

static uint32_t mix(uint32_t hash, uint32_t value) {
    hash = (hash ^ value) * UINT32_C(0x9E3779B1);
    return hash ^ hash >> 15;
}

/* The old byte that stands at `new_off` before correction, with the old file's
 * four bytes of the aligned word around it (fewer at the ends count as 0). */
static const uint8_t *old_at(const bspi_content *content, const bspi_file *old, size_t cover,
                             uint64_t new_off, uint64_t *left, uint64_t *right) {
    if (cover >= content->cover.count || content->cover.items[cover].new_off > new_off)
        return NULL;
    const bspi_cover *entry = &content->cover.items[cover];
    uint64_t old_off = entry->old_off + (new_off - entry->new_off);
    *left = old_off;
    *right = old->size - old_off;
    return old->data + old_off;
}

uint32_t bspi_fix_contexts(bspi_fix_history *history, const bspi_content *content,
                           const bspi_file *old, uint64_t new_off, uint32_t *contexts) {
    const bspi_cover_list *cover = &content->cover;
    while (history->cover < cover->count &&
           cover->items[history->cover].new_off + cover->items[history->cover].len <= new_off)
        history->cover++;
    uint64_t left = 0, right = 0;
    const uint8_t *at = old_at(content, old, history->cover, new_off, &left, &right);
    uint32_t place = (uint32_t)new_off & 3;
    uint32_t byte = at != NULL ? *at : 0, word = 0;
    if (at != NULL && left >= place && right >= 4 - place)
        word = bspi_load32(at - place);
    uint64_t gap = new_off + 1 - history->last_off;
    uint32_t near_by = gap > 15 ? 15 : (uint32_t)gap;
    uint32_t last = history->last & 0xff;
    contexts[0] = mix(1, place);
    contexts[1] = mix(mix(2, byte), place);
    contexts[2] = mix(mix(3, last), near_by);
    contexts[3] = mix(mix(4, word & 0xffe00000), place);
    contexts[4] = mix(mix(5, history->last & 0xffff), near_by);
    contexts[5] = mix(mix(mix(6, word), last), place);
    return place | (near_by == 1 ? 4u : 0u) | (near_by <= 4 ? 8u : 0u);
}

void bspi_fix_learn(bspi_fix_history *history, uint64_t new_off, uint8_t diff) {
    history->last = history->last << 8 | diff;
    history->last_off = new_off + 1;
}

bool bspi_next_literal_run(const bspi_content *content, bspi_literal_run *run) {
    const bspi_cover_list *cover = &content->cover;
    uint64_t at = run->next;
    for (;;) {
        if (run->cover < cover->count && cover->items[run->cover].new_off == at) {
            at += cover->items[run->cover].len;
            run->cover++;
        } else if (run->fill < content->fill_count &&
                   content->fills[run->fill].new_off == at) {
            at += bspi_fill_len(&content->fills[run->fill]);
            run->fill++;
        } else {
            break;
        }
    }
    if (at >= content->new_size)
        return false;
    uint64_t end = content->new_size;
    if (run->cover < cover->count)
        end = BSPI_MIN(end, cover->items[run->cover].new_off);
    if (run->fill < content->fill_count)
        end = BSPI_MIN(end, content->fills[run->fill].new_off);
    run->new_off = at;
    run->len = end - at;
    run->next = end;
    return true;
}

uint64_t bspi_literal_total(const bspi_content *content) {
    uint64_t total = content->new_size;
    for (size_t i = 0; i < content->cover.count; i++)
        total -= content->cover.items[i].len;
    for (size_t i = 0; i < content->fill_count; i++)
        total -= bspi_fill_len(&content->fills[i]);
    return total;
}

static bool in_code(const bspi_content *content, uint64_t new_off) {
    for (size_t i = 0; i < content->layout.image_count; i++) {
        const bspi_layout_section *section = bspi_layout_at(&content->layout.images[i], new_off);
        if (section != NULL)
            return section->role == BSPI_ROLE_CODE;
    }
    return false;
}

void bspi_literal_begin(bspi_literal_history *history, const bspi_content *content,
                        const bspi_file *old, const bspi_literal_run *run) {
    memset(history, 0, sizeof *history);
    history->new_off = run->new_off;
    history->code = in_code(content, run->new_off);
    if (run->cover == 0)
        return;
    const bspi_cover *before = &content->cover.items[run->cover - 1];
    uint64_t old_end = before->old_off + before->len;
    history->like = old->data + old_end;
    history->like_len = old->size - old_end;
    if (before->new_off + before->len != run->new_off)
        return; /* a fill stands between */
    for (unsigned i = 0; i < 16 && i < before->len; i++) {
        uint64_t byte = old->data[old_end - 1 - i];
        if (i < 8)
            history->recent |= byte << (8 * i);
        else
            history->older |= byte << (8 * (i - 8));
    }
}

uint32_t bspi_literal_contexts(const bspi_literal_history *history, uint32_t *contexts) {
    uint64_t recent = history->recent;
    uint32_t place = (uint32_t)history->new_off & 3;
    uint32_t like = history->like_len > 0 ? 1u + history->like[0] : 0;
    uint32_t kind = place | (history->code ? 4u : 0u);
    uint32_t low = (uint32_t)recent;
    contexts[0] = mix(1, kind);
    contexts[1] = mix(mix(2, low & 0xff), kind);
    contexts[2] = mix(mix(3, low & 0xffff), kind);
    contexts[3] = mix(mix(4, low & 0xffffff), kind);
    contexts[4] = mix(mix(5, low), kind);
    contexts[5] = mix(mix(mix(6, low), (uint32_t)(recent >> 32) & 0xffff), kind);
    contexts[6] = mix(mix(mix(7, like), low & 0xff), kind);
    if (history->code) {
        /* The word so far, and the top bytes (opcodes) of the two before. */
        uint32_t so_far = place == 0 ? 0 : low & (UINT32_MAX >> (8 * (4 - place)));
        uint32_t word1 = (uint32_t)(recent >> (8 * place));
        uint32_t word2 = place == 0 ? (uint32_t)(recent >> 32)
                                    : (uint32_t)(recent >> (32 + 8 * (place - 1)) >> 8);
        contexts[7] = mix(mix(mix(mix(8, so_far), word1 & 0xff), word2 & 0xff), place);
    } else {
        contexts[7] = mix(mix(8, (uint32_t)(recent >> 24) & 0xff), (uint32_t)(recent >> 56));
    }
    return kind;
}

void bspi_literal_learn(bspi_literal_history *history, uint8_t byte) {
    history->older = history->older << 8 | history->recent >> 56;
    history->recent = history->recent << 8 | byte;
    history->new_off++;
    if (history->like_len > 0) {
        history->like++;
        history->like_len--;
    }
}
