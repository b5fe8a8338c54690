/* macho_header.c: the load commands of a Mach-O image: they repeat where every
 * section is, in memory and in the file. */
#include "../common/bytes.h"
#include "macho.h"

typedef struct header {
    const bspi_macho *macho;
    uint64_t begin; /* of the slice in the file */
} header;

static uint32_t word(const header *h, uint64_t at) {
    return bspi_load32(h->macho->file->data + at);
}

static bool add(const header *h, uint64_t at, uint8_t kind, uint64_t base) {
    uint32_t aux = 0;
    if (kind != BSPI_REF_ABS64 &&
        !bspi_image_add_base(h->macho->file, h->macho->image, base, &aux))
        return false;
    return bspi_image_add_ref(h->macho->file, h->macho->image, at, kind, aux);
}

/* The place in the file that the word at `at` names. */
static bool add_place(const header *h, uint64_t at) {
    uint64_t off = h->begin + word(h, at);
    const bspi_section *section = bspi_section_at(h->macho->image, off);
    if (word(h, at) == 0 || section == NULL || !section->mapped)
        return true;
    return add(h, at, BSPI_REF_FILE32, section->addr - (section->file_off - h->begin));
}

static bool add_segment(const header *h, uint64_t at, uint32_t size) {
    const uint8_t *data = h->macho->file->data;
    if (size < SEGMENT_COMMAND_SIZE)
        return true;
    if (bspi_load64(data + at + 24) != 0 && !add(h, at + 24, BSPI_REF_ABS64, 0))
        return false;
    uint32_t count = word(h, at + 64);
    count = BSPI_MIN(count, (size - SEGMENT_COMMAND_SIZE) / SECTION_SIZE);
    at += SEGMENT_COMMAND_SIZE;
    for (uint32_t i = 0; i < count; i++, at += SECTION_SIZE)
        if (!add(h, at + 32, BSPI_REF_ABS64, 0) ||
            !add(h, at + 40, BSPI_REF_BASE64, bspi_load64(data + at + 32)) ||
            !add_place(h, at + 48))
            return false;
    return true;
}

static bool add_command(const header *h, uint64_t at, uint32_t size) {
    uint32_t command = word(h, at);
    switch (command) {
    case LC_SEGMENT_64:
        return add_segment(h, at, size);
    case LC_SYMTAB:
        return size < 24 || (add_place(h, at + 8) && add_place(h, at + 16));
    case LC_DYSYMTAB:
        return size < 80 || add_place(h, at + 56); /* of the indirect symbols */
    case LC_DYLD_INFO:
    case LC_DYLD_INFO_ONLY:
        for (uint32_t i = 8; size >= 48 && i < 48; i += 8)
            if (!add_place(h, at + i))
                return false;
        return true;
    default:
        return size < 16 || bspi_linkedit_label(command) == NULL || add_place(h, at + 8);
    }
}

bool bspi_macho_header_refs(const bspi_macho *macho, uint64_t begin, uint64_t size) {
    header h = {macho, begin};
    uint32_t count = word(&h, begin + 16);
    uint64_t at = begin + HEADER_SIZE;
    uint64_t end = BSPI_MIN(at + word(&h, begin + 20), begin + size);
    for (uint32_t i = 0; i < count && end - at >= 8; i++) {
        uint32_t len = word(&h, at + 4);
        if (len < 8 || len > end - at)
            break;
        if (!add_command(&h, at, len))
            return false;
        at += len;
    }
    return true;
}
