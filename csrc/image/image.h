/* image.h: "which bytes of this file are addresses, and of what?"
 *
 * A file holds zero or more images (a fat Mach-O one per slice).  An image has
 * sections, which tie file offsets to virtual addresses, and references: found
 * on demand in code, enumerated once in data.  Everything here is derived from
 * the file's bytes alone by total, deterministic rules, because the applier
 * repeats it on the old file.  Parsing never fails the caller: whatever is
 * malformed or unknown is left out, down to a file without images.
 */
#ifndef BSPI_IMAGE_H
#define BSPI_IMAGE_H

#include "../common/memory.h"
#include "data_refs.h"
#include "ref.h"

typedef enum bspi_arch {
    BSPI_ARCH_NONE = 0,
    BSPI_ARCH_ARM64 = 1,
    BSPI_ARCH_X86_64 = 2
} bspi_arch;

typedef enum bspi_format {
    BSPI_FORMAT_RAW = 0,
    BSPI_FORMAT_MACHO = 1,
    BSPI_FORMAT_ELF = 2
} bspi_format;

typedef enum bspi_role {
    BSPI_ROLE_OTHER = 0,   /* no code; references only where a table names them */
    BSPI_ROLE_CODE = 1,    /* instructions of the image's architecture */
    BSPI_ROLE_ZEROFILL = 2 /* memory without file bytes */
} bspi_role;

/* A run of the image that is contiguous both in the file and in memory. */
typedef struct bspi_section {
    uint64_t file_off;  /* from the start of the file; for zero-fill 0 */
    uint64_t file_size; /* 0 for zero-fill */
    uint64_t addr;      /* virtual address; meaningless unless `mapped` */
    uint64_t mem_size;  /* bytes in memory, >= file_size when mapped */
    uint32_t name;      /* bspi_name_hash of its name, to pair sections of two builds */
    uint8_t role;       /* bspi_role */
    uint8_t mapped;     /* 1 when it has an address */
} bspi_section;

typedef struct bspi_image {
    uint64_t file_off; /* of the slice */
    uint64_t file_size;
    uint64_t base_addr; /* image-relative values count from here (Mach-O __TEXT vmaddr) */
    uint8_t format;     /* bspi_format */
    uint8_t arch;       /* bspi_arch */
    uint32_t subtype;   /* cpu subtype or e_type, to pair the images of two builds */
    /* File-backed sections first, sorted by file_off and disjoint, covering at
     * least everything mapped from the file (pieces of segments outside any
     * named section are sections of their own); then zero-fill by address. */
    bspi_section *sections;
    size_t section_count;
    size_t section_capacity;
    bspi_data_refs data;
    uint64_t *bases; /* addresses that BASE kinds count from */
    size_t base_count;
    size_t base_capacity;
    uint32_t *by_addr; /* indices of the mapped sections, lowest address first */
    size_t by_addr_count;
    size_t by_addr_capacity;
    uint64_t addr_low;  /* every mapped byte is in [addr_low, addr_high); */
    uint64_t addr_high; /* both 0 when nothing is mapped */
} bspi_image;

typedef struct bspi_file {
    bspi_heap *heap;
    const uint8_t *data; /* borrowed for the life of the file */
    uint64_t size;
    bspi_image *images; /* sorted by file_off, disjoint */
    size_t image_count;
    size_t image_capacity;
    /* While it is parsed: the data references of one image, as its tables give them. */
    uint64_t *keys;
    size_t key_count;
    size_t key_capacity;
} bspi_file;

/* Understands `data` as far as possible.  Fails only for want of memory. */
bsp_status bspi_file_parse(bspi_heap *heap, const uint8_t *data, uint64_t size, bspi_file *file,
                           bsp_fault *fault);
void bspi_file_free(bspi_file *file);

/* FNV-1a of `len` bytes. */
uint32_t bspi_name_hash(const void *name, size_t len);

/* The section whose file bytes hold `off`, or NULL. O(log n). */
const bspi_section *bspi_section_at(const bspi_image *image, uint64_t off);
/* The section whose memory holds `addr`, or NULL. O(log n). Where a malformed
 * image maps sections over one another, the one that starts nearest below. */
const bspi_section *bspi_section_with_addr(const bspi_image *image, uint64_t addr);
/* True and *off = the file offset of the byte at `addr` when `len` bytes from
 * it on are in one section and in the file. */
bool bspi_addr_to_off(const bspi_image *image, uint64_t addr, uint64_t len, uint64_t *off);

/* References are found block by block so that any part of a file can be looked
 * at on its own: block b covers file offsets [b << 13, (b + 1) << 13).  What is
 * found in a block depends on the file alone. */
#define BSPI_BLOCK_BITS 13

/* Appends every reference whose field starts in block `block` and lies within
 * the file, sorted by offset, disjoint.  Thread safe on a parsed file. */
void bspi_block_refs(const bspi_file *file, uint64_t block, bspi_ref_list *refs);
/* Appends every reference of any block whose field starts in [begin, end).  Takes
 * about as long as the range, with a bit of the code around it. */
void bspi_range_refs(const bspi_file *file, uint64_t begin, uint64_t end, bspi_ref_list *refs);

/* --- used by the readers of one container or table each --- */

/* Readers append to `file` (images) or `image` (sections, data refs).  They
 * return false only when memory is refused; malformed input adds nothing or
 * as much as was sound. */
bool bspi_macho_parse(bspi_file *file);
bool bspi_elf_parse(bspi_file *file);

bool bspi_image_add_section(bspi_file *file, bspi_image *image, const bspi_section *section);
/* Adds a data reference of the image that is being read, unless its numbers are too
 * large for a key.  Order and overlaps are sorted out by bspi_image_finish_refs. */
bool bspi_image_add_ref(bspi_file *file, bspi_image *image, uint64_t off, uint8_t kind,
                        uint32_t aux);
/* Registers an address to count from; *aux is its index. */
bool bspi_image_add_base(bspi_file *file, bspi_image *image, uint64_t addr, uint32_t *aux);
/* Sorts sections into the order promised above; once more does no harm. */
void bspi_image_finish(bspi_image *image);
/* Packs what was added into image->data, which was empty (bspi_data_refs_pack). */
bool bspi_image_finish_refs(bspi_file *file, bspi_image *image);

/* --- one per instruction set --- */

/* Finds the references of the code bytes [begin, end) of `code`; offsets are
 * into code, which holds code_len bytes of one section (begin <= end <=
 * code_len) and starts at address `addr` and file offset `file_off`.  May look
 * at code outside [begin, end), never outside code. Results depend on the
 * section's bytes and (begin, end) alone. */
void bspi_arm64_refs(const uint8_t *code, uint64_t code_len, uint64_t begin, uint64_t end,
                     uint64_t addr, uint64_t file_off, bspi_ref_list *refs);
void bspi_x86_64_refs(const uint8_t *code, uint64_t code_len, uint64_t begin, uint64_t end,
                      uint64_t addr, uint64_t file_off, bspi_ref_list *refs);
/* Those of the same references whose field starts in [from, to), a part of
 * [begin, end). */
void bspi_x86_64_refs_within(const uint8_t *code, uint64_t code_len, uint64_t begin, uint64_t end,
                             uint64_t from, uint64_t to, uint64_t addr, uint64_t file_off,
                             bspi_ref_list *refs);

#endif
