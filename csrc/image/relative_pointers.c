/* relative_pointers.c: small tables of Objective-C, Swift and dyld that name
 * addresses by their distance from the field or from the image base. */
#include "../common/bytes.h"
#include "tables.h"

#define METHOD_SIZE 12u /* name, types, implementation: three relative pointers */
#define METHOD_LIST_RELATIVE 0x80000000u
#define METHOD_LIST_SIZE_MASK 0xFFFCu
#define FIELD_HEADER_SIZE 16u /* type, superclass, kind and record size, count */
#define FIELD_RECORD_SIZE 12u /* flags, type, name */

/* A relative pointer; 0 is Swift's null. */
static bool add_relative(bspi_file *file, bspi_image *image, uint64_t off) {
    if (bspi_load32(file->data + off) == 0)
        return true;
    return bspi_image_add_ref(file, image, off, BSPI_REF_PC32, 0);
}

bool bspi_image_offsets_refs(bspi_file *file, bspi_image *image, const bspi_section *section) {
    uint32_t base;
    if (!bspi_image_add_base(file, image, image->base_addr, &base))
        return false;
    for (uint64_t at = 0; bspi_within(at, 4, section->file_size); at += 4)
        if (!bspi_image_add_ref(file, image, section->file_off + at, BSPI_REF_BASE32, base))
            return false;
    return true;
}

bool bspi_relative_pointers_refs(bspi_file *file, bspi_image *image,
                                 const bspi_section *section) {
    for (uint64_t at = 0; bspi_within(at, 4, section->file_size); at += 4)
        if (!add_relative(file, image, section->file_off + at))
            return false;
    return true;
}

bool bspi_objc_methlist_refs(bspi_file *file, bspi_image *image, const bspi_section *section) {
    const uint8_t *data = file->data + section->file_off;
    uint64_t at = 0;
    while (bspi_within(at, 8, section->file_size)) {
        uint32_t flags = bspi_load32(data + at);
        uint64_t count = bspi_load32(data + at + 4);
        if ((flags & METHOD_LIST_RELATIVE) == 0 ||
            (flags & METHOD_LIST_SIZE_MASK) != METHOD_SIZE ||
            count > (section->file_size - at - 8) / METHOD_SIZE) {
            at += 4; /* padding */
            continue;
        }
        at += 8;
        for (uint64_t i = 0; i < count * 3; i++, at += 4)
            if (!add_relative(file, image, section->file_off + at))
                return false;
    }
    return true;
}

bool bspi_swift_fieldmd_refs(bspi_file *file, bspi_image *image, const bspi_section *section) {
    const uint8_t *data = file->data + section->file_off;
    uint64_t at = 0, size = section->file_size;
    while (bspi_within(at, FIELD_HEADER_SIZE, size)) {
        uint64_t off = section->file_off + at;
        uint64_t count = bspi_load32(data + at + 12);
        if (bspi_load16(data + at + 10) != FIELD_RECORD_SIZE ||
            count > (size - at - FIELD_HEADER_SIZE) / FIELD_RECORD_SIZE) {
            at += 4;
            continue;
        }
        if (!add_relative(file, image, off) || !add_relative(file, image, off + 4))
            return false;
        for (uint64_t i = 0; i < count; i++) {
            uint64_t record = off + FIELD_HEADER_SIZE + i * FIELD_RECORD_SIZE;
            if (!add_relative(file, image, record + 4) || !add_relative(file, image, record + 8))
                return false;
        }
        at += FIELD_HEADER_SIZE + count * FIELD_RECORD_SIZE;
    }
    return true;
}
