/* macho.h: what the readers of one Mach-O table each are handed. Private to
 * csrc/image. */
#ifndef BSPI_MACHO_H
#define BSPI_MACHO_H

#include "image.h"

#define HEADER_SIZE 32u
#define SEGMENT_COMMAND_SIZE 72u
#define SECTION_SIZE 80u

#define LC_SYMTAB 0x2u
#define LC_DYSYMTAB 0xBu
#define LC_SEGMENT_64 0x19u
#define LC_DYLD_INFO 0x22u
#define LC_DYLD_INFO_ONLY 0x80000022u
#define LC_DATA_IN_CODE 0x29u
#define LC_EXPORTS_TRIE 0x80000033u
#define LC_CHAINED_FIXUPS 0x80000034u

/* A segment whose file bytes lie within the slice and within no other segment. */
typedef struct bspi_segment {
    const uint8_t *name; /* 16 bytes, padded with zeros */
    uint64_t addr;
    uint64_t mem_size;
    uint64_t file_off; /* from the start of the file */
    uint64_t file_size;
    bool sound; /* false: keeps its index, but has no bytes to look at */
} bspi_segment;

/* A slice being read: its image, and its segments in the order of the load
 * commands, which is how tables number them. */
typedef struct bspi_macho {
    bspi_file *file;
    bspi_image *image;
    const bspi_segment *segments;
    size_t segment_count;
} bspi_macho;

/* Readers of one table each, in __LINKEDIT: `off` and `size` delimit it and lie
 * within the slice.  False only when memory is refused. */

/* The load commands themselves: names what they say of addresses, of lengths in
 * memory and of places in the file.  The slice is [begin, begin + size). */
bool bspi_macho_header_refs(const bspi_macho *macho, uint64_t begin, uint64_t size);
/* LC_DYLD_CHAINED_FIXUPS: walks the chains, names every rebase and bind. */
bool bspi_chained_fixups_refs(const bspi_macho *macho, uint64_t off, uint64_t size);
/* LC_DYLD_INFO: runs the rebase opcodes, names every pointer they slide. */
bool bspi_rebase_refs(const bspi_macho *macho, uint64_t off, uint64_t size);
/* LC_SYMTAB: names the values of symbols that are defined in a section, and
 * the names of all, which count from file offset `strings` (0: none). */
bool bspi_nlist_refs(const bspi_macho *macho, uint64_t off, uint64_t count, uint64_t strings);
/* LC_DYSYMTAB: names the symbols, which start at file offset `symbols`, that
 * stubs and pointers stand for. */
bool bspi_indirect_symbols_refs(const bspi_macho *macho, uint64_t off, uint64_t size,
                                uint64_t symbols);
/* LC_DYLD_EXPORTS_TRIE: names the exported addresses and the trie's own nodes. */
bool bspi_export_trie_refs(const bspi_macho *macho, uint64_t off, uint64_t size);
/* LC_DATA_IN_CODE: names the places that the entries describe. */
bool bspi_data_in_code_refs(const bspi_macho *macho, uint64_t off, uint64_t size);

/* What the table is called that `command` names by its place in the file, NULL
 * when it is no command of that form. */
const char *bspi_linkedit_label(uint32_t command);

/* Registers the address of file offset `off` to count from.  *found is false,
 * and nothing registered, when it has none. */
bool bspi_macho_add_base_at(const bspi_macho *macho, uint64_t off, uint32_t *aux, bool *found);

#endif
