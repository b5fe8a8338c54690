/* tables.h: readers of one table each that holds addresses in data, shared by
 * the container readers.  Private to csrc/image.
 *
 * Each is handed a section with file bytes that lie within the image and adds
 * the references it finds; whatever is malformed adds nothing or as much as was
 * sound.  False only when memory is refused. */
#ifndef BSPI_TABLES_H
#define BSPI_TABLES_H

#include "image.h"

typedef bool bspi_table_reader(bspi_file *file, bspi_image *image, const bspi_section *section);

/* __TEXT,__unwind_info: Apple's compact unwind index. */
bool bspi_unwind_info_refs(bspi_file *file, bspi_image *image, const bspi_section *section);
/* __TEXT,__init_offsets and the like: 32-bit offsets from the image base. */
bool bspi_image_offsets_refs(bspi_file *file, bspi_image *image, const bspi_section *section);
/* __TEXT,__objc_methlist: method lists of relative pointers. */
bool bspi_objc_methlist_refs(bspi_file *file, bspi_image *image, const bspi_section *section);
/* __TEXT,__swift5_types and the like: arrays of 32-bit relative pointers. */
bool bspi_relative_pointers_refs(bspi_file *file, bspi_image *image, const bspi_section *section);
/* __TEXT,__swift5_fieldmd: Swift field descriptors. */
bool bspi_swift_fieldmd_refs(bspi_file *file, bspi_image *image, const bspi_section *section);

/* __gopclntab: Go's table of functions. */
bool bspi_go_pclntab_refs(bspi_file *file, bspi_image *image, const bspi_section *section);

/* Jump tables that the code of `section` leads to. Needs the image's sections
 * in order (bspi_image_finish). */
bool bspi_jump_table_refs(bspi_file *file, bspi_image *image, const bspi_section *section);

/* .eh_frame and __TEXT,__eh_frame: call frame records, and the type tables of
 * the exception tables (LSDA) that they lead to.  Needs the image's sections in
 * order (bspi_image_finish). */
bool bspi_eh_frame_refs(bspi_file *file, bspi_image *image, const bspi_section *section);
/* .eh_frame_hdr: the sorted index of the records. */
bool bspi_eh_frame_header_refs(bspi_file *file, bspi_image *image, const bspi_section *section);
/* .gcc_except_table: `starts` has a bit for each byte of the section, set where
 * a frame record says that a table begins. */
bool bspi_lsda_refs(bspi_file *file, bspi_image *image, const bspi_section *section,
                    const uint8_t *starts);

#endif
