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

/* The instruction set of the code that new_off lies in, or BSPI_ARCH_NONE. */
static uint8_t code_at(const bspi_content *content, const bspi_file *old, uint64_t new_off) {
    for (size_t i = 0; i < content->layout.image_count; i++) {
        const bspi_layout_image *image = &content->layout.images[i];
        const bspi_layout_section *section = bspi_layout_at(image, new_off);
        if (section != NULL)
            return section->role == BSPI_ROLE_CODE ? old->images[image->old_image].arch
                                                   : (uint8_t)BSPI_ARCH_NONE;
    }
    return BSPI_ARCH_NONE;
}

void bspi_literal_begin(bspi_literal_history *history, const bspi_content *content,
                        const bspi_file *old, const bspi_literal_run *run) {
    memset(history, 0, sizeof *history);
    history->new_off = run->new_off;
    history->left = run->len;
    history->arch = code_at(content, old, run->new_off);
    if (run->cover == 0)
        return;
    const bspi_cover *before = &content->cover.items[run->cover - 1];
    uint64_t old_end = before->old_off + before->len;
    history->like = old->data + old_end;
    history->like_len = old->size - old_end;
    if (before->new_off + before->len != run->new_off)
        return; /* a fill stands between */
    for (unsigned i = 0; i < 8 && i < before->len; i++)
        history->recent |= (uint64_t)old->data[old_end - 1 - i] << (8 * i);
}

/* Do the last bytes end where a 32-bit displacement to somewhere else begins?
 * CALL and JMP rel32, and MOV, LEA and their like with [rip + disp32]. */
static bool at_displacement(uint64_t recent) {
    uint8_t last = (uint8_t)recent, before = (uint8_t)(recent >> 8);
    if (last == 0xe8 || last == 0xe9)
        return true;
    return (last & 0xc7) == 0x05 && (before == 0x8b || before == 0x8d || before == 0x89 ||
                                     before == 0x3b || before == 0x83 || before == 0x10 ||
                                     before == 0x6f);
}

unsigned bspi_literal_group(bspi_literal_history *history) {
    bool word = history->arch == BSPI_ARCH_ARM64 && history->new_off % 4 == 0;
    bool displacement = history->arch == BSPI_ARCH_X86_64 && at_displacement(history->recent);
    history->group = (word || displacement) && history->left >= 4 ? 4 : 1;
    history->prefix = 0;
    history->done = 0;
    return history->group;
}

/* Adds `step` to the page number of an ADRP, modulo 2^21. */
static uint32_t move_adrp(uint32_t word, uint32_t step) {
    uint32_t page = (word >> 29 & 3) | (word >> 3 & 0x1ffffc);
    page = (page + step) & 0x1fffff;
    return (word & 0x9f00001f) | (page & 3) << 29 | (page & 0x1ffffc) << 3;
}

/* What is coded for a word of the file (or, undone, the other way round):
 * distances become places, so that what is named twice looks the same twice. */
static uint32_t move_word(const bspi_literal_history *history, uint32_t word, bool undo) {
    uint32_t at = (uint32_t)history->new_off;
    if (history->arch == BSPI_ARCH_X86_64)
        return undo ? word - at : word + at;
    if ((word & 0xfc000000) == 0x94000000) /* BL */
        return (word & 0xfc000000) |
               ((undo ? word - (at >> 2) : word + (at >> 2)) & 0x03ffffff);
    if ((word & 0x9f000000) == 0x90000000)
        return move_adrp(word, undo ? 0u - (at >> 12) : at >> 12);
    return word;
}

uint32_t bspi_literal_coded(const bspi_literal_history *history, const uint8_t *bytes) {
    return history->group == 4 ? move_word(history, bspi_load32(bytes), false) : *bytes;
}

void bspi_literal_decoded(const bspi_literal_history *history, uint32_t number, uint8_t *bytes) {
    if (history->group == 4)
        bspi_store32(bytes, move_word(history, number, true));
    else
        *bytes = (uint8_t)number;
}

/* A displacement of x86-64 code as the place it leads to, highest byte first. */
static uint32_t displacement_contexts(const bspi_literal_history *history, uint32_t *contexts) {
    uint32_t kind = 12 + history->done;
    uint32_t op = (uint32_t)history->recent & 0xffff;
    uint32_t start = mix(mix(1, kind), history->prefix);
    contexts[0] = mix(2, kind);
    contexts[1] = start;
    contexts[2] = mix(mix(start, 3), op & 0xff);
    contexts[3] = mix(mix(start, 4), op);
    contexts[4] = mix(mix(start, 5), (uint32_t)history->recent);
    contexts[5] = mix(mix(start, 6), (uint32_t)(history->recent >> 16));
    contexts[6] = mix(mix(start, 7), history->last_place >> 8);
    contexts[7] = mix(mix(8, kind), history->prefix & 0xff);
    return 12 + history->done;
}

/* An instruction word, its opcode byte first. */
static uint32_t word_contexts(const bspi_literal_history *history, uint32_t *contexts) {
    uint32_t place = history->done; /* 0 for the highest byte */
    uint32_t kind = 8 + place;
    uint32_t last = (uint32_t)history->recent, before = (uint32_t)(history->recent >> 32);
    /* recent has the newest byte lowest: byte 3 of the last word is bits 0 to 7. */
    uint32_t last_op = last & 0xff, before_op = before & 0xff;
    uint32_t start = mix(mix(1, kind), history->prefix);
    uint32_t like = 0;
    if (history->like_len >= 4) {
        uint32_t word = bspi_load32(history->like);
        bool agrees = place == 0 || word >> (32 - 8 * place) == history->prefix;
        like = 1u + (word >> (24 - 8 * place) & 0xff) + (agrees ? 256u : 0u);
    }
    contexts[0] = mix(2, kind);
    contexts[1] = start;
    contexts[2] = mix(mix(start, 3), last_op);
    contexts[3] = mix(mix(start, 4), last_op | before_op << 8);
    contexts[4] = mix(mix(start, 5), last);
    contexts[5] = mix(mix(mix(start, 6), last), before);
    contexts[6] = mix(mix(start, 7), like);
    contexts[7] = mix(mix(mix(8, kind), history->prefix & 0xff),
                      (last >> (8 * place) & 0xff) | (before >> (8 * place) & 0xff) << 8);
    return 8 + place;
}

uint32_t bspi_literal_contexts(const bspi_literal_history *history, uint32_t *contexts) {
    if (history->group == 4)
        return history->arch == BSPI_ARCH_ARM64 ? word_contexts(history, contexts)
                                                : displacement_contexts(history, contexts);
    uint64_t recent = history->recent;
    uint32_t place = (uint32_t)history->new_off & 3;
    uint32_t like = history->like_len > 0 ? 1u + history->like[0] : 0;
    uint32_t kind = place | (history->arch != BSPI_ARCH_NONE ? 4u : 0u);
    uint32_t low = (uint32_t)recent;
    contexts[0] = mix(1, kind);
    contexts[1] = mix(mix(2, low & 0xff), kind);
    contexts[2] = mix(mix(3, low & 0xffff), kind);
    contexts[3] = mix(mix(4, low & 0xffffff), kind);
    contexts[4] = mix(mix(5, low), kind);
    contexts[5] = mix(mix(mix(6, low), (uint32_t)(recent >> 32) & 0xffff), kind);
    contexts[6] = mix(mix(mix(7, like), low & 0xff), kind);
    contexts[7] = mix(mix(8, (uint32_t)(recent >> 24) & 0xff), (uint32_t)(recent >> 56));
    return kind;
}

void bspi_literal_learn(bspi_literal_history *history, uint8_t byte) {
    history->prefix = history->prefix << 8 | byte;
    if (++history->done < history->group)
        return;
    if (history->group == 4)
        history->last_place = history->prefix;
    for (unsigned i = 0; i < history->group; i++) { /* in the file's order */
        uint8_t next = (uint8_t)(history->group == 1 ? byte : history->prefix >> (8 * i));
        history->recent = history->recent << 8 | next;
    }
    history->new_off += history->group;
    history->left -= history->group;
    uint64_t step = BSPI_MIN(history->like_len, (uint64_t)history->group);
    if (step != 0) /* like may be NULL */
        history->like += step;
    history->like_len -= step;
}
