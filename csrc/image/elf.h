/* elf.h: what the ELF reader's files share: one file's headers, read once.
 *
 * elf.c reads the headers, elf_layout.c turns them into the image's sections,
 * and each table that holds addresses has a file of its own.  Only bytes that
 * belong to one section alone (`whole`) are walked as a table, so all walks
 * together are linear in the file's size, however often a hostile header names
 * the same bytes.
 */
#ifndef BSPI_ELF_H
#define BSPI_ELF_H

#include "../common/bytes.h"
#include "image.h"

enum {
    ELF_HEADER_LEN = 64,
    ELF_SEGMENT_LEN = 56, /* Elf64_Phdr */
    ELF_SECTION_LEN = 64, /* Elf64_Shdr */
    ELF_SYMBOL_LEN = 24,
    ELF_RELA_LEN = 24,
    ELF_DYNAMIC_LEN = 16
};

enum { ELF_ET_REL = 1, ELF_ET_EXEC = 2, ELF_ET_DYN = 3 };
enum { ELF_EM_X86_64 = 62, ELF_EM_AARCH64 = 183 };
enum { ELF_PT_LOAD = 1, ELF_PT_DYNAMIC = 2, ELF_PT_GNU_EH_FRAME = 0x6474e550 };
enum {
    ELF_SHT_NULL = 0,
    ELF_SHT_PROGBITS = 1,
    ELF_SHT_SYMTAB = 2,
    ELF_SHT_STRTAB = 3,
    ELF_SHT_RELA = 4,
    ELF_SHT_HASH = 5,
    ELF_SHT_DYNAMIC = 6,
    ELF_SHT_NOBITS = 8,
    ELF_SHT_DYNSYM = 11,
    ELF_SHT_INIT_ARRAY = 14,
    ELF_SHT_FINI_ARRAY = 15,
    ELF_SHT_PREINIT_ARRAY = 16,
    ELF_SHT_RELR = 19,
    ELF_SHT_GNU_HASH = 0x6ffffff6
};
enum { ELF_SHF_WRITE = 1, ELF_SHF_ALLOC = 2, ELF_SHF_EXECINSTR = 4, ELF_SHF_TLS = 0x400 };

/* One section header, or its like made up from the program headers. */
typedef struct bspi_elf_section {
    uint64_t addr; /* virtual; synthetic in relocatable files */
    uint64_t off;
    uint64_t size;
    uint64_t flags;
    uint64_t entry_size;
    uint32_t name; /* bspi_name_hash */
    uint32_t type;
    uint32_t link;
    uint32_t info;
    uint32_t bases[2]; /* 1 + index into image->bases of addr and of addr + 4; 0 not there yet */
    bool mapped;       /* memory at addr is this section's */
    bool whole;        /* [off, off + size) lies in the file and is no other section's */
} bspi_elf_section;

typedef struct bspi_elf_segment {
    uint64_t off;
    uint64_t addr;
    uint64_t file_size;
    uint64_t mem_size;
    bool executable;
} bspi_elf_segment;

/* Type numbers and string offsets of .BTF up to this are modelled. */
#define ELF_BTF_SPACE (UINT64_C(1) << 24)

/* More program headers to load than this, and the rest are ignored. */
#define ELF_MAX_SEGMENTS 64u

typedef struct bspi_elf {
    bspi_file *file;
    bspi_image *image;
    uint16_t type;    /* ELF_ET_* */
    uint16_t machine; /* ELF_EM_* */
    uint64_t entry;
    uint64_t segments_off; /* of the program header table */
    uint64_t segments_len; /* 0 when there is none or it is unsound */
    uint64_t sections_off; /* of the section header table */
    uint64_t sections_len;
    bspi_elf_segment segments[ELF_MAX_SEGMENTS]; /* those to load, with bytes or memory */
    size_t segment_count;
    bspi_elf_section *sections; /* by header index */
    size_t section_count;
    size_t section_capacity;
    bool sections_made_up; /* from the program headers */
    uint64_t btf_types;    /* where the address space of .BTF type numbers starts, 0 for none */
    uint64_t btf_strings;  /* and that of its string offsets */
} bspi_elf;

/* Makes image->sections, in order, out of elf->sections and elf->segments.
 * This and all below return false only when memory is refused. */
bool bspi_elf_layout(bspi_elf *elf);

/* Could a field that is known to be an address hold this one?  Ends of
 * sections and holes between them count, nothing (0) does not. */
static inline bool bspi_elf_plausible(const bspi_elf *elf, uint64_t addr) {
    return addr != 0 && addr >= elf->image->addr_low && addr <= elf->image->addr_high;
}

static inline const uint8_t *bspi_elf_bytes(const bspi_elf *elf, const bspi_elf_section *section) {
    return elf->file->data + section->off;
}

/* Adds an 8-byte address at file offset `off` if it holds a plausible one. */
bool bspi_elf_add_address(bspi_elf *elf, uint64_t off);

/* Adds the 4 bytes at `off` as the number of a row of `symbols`; 0 is none. */
bool bspi_elf_add_index(bspi_elf *elf, uint64_t off, bspi_elf_section *symbols);

/* The section that `section` links to, if it is mapped and of that type (or
 * the other type of symbol table), else NULL. */
bspi_elf_section *bspi_elf_linked(bspi_elf *elf, const bspi_elf_section *section, uint32_t type);

/* Adds the 4 bytes at `off` as an offset from `section`, or from 4 bytes
 * behind its start when `plus4`. */
bool bspi_elf_add_offset(bspi_elf *elf, uint64_t off, bspi_elf_section *section, bool plus4);

/* --- one per table; the section given is whole --- */

bool bspi_elf_rela_refs(bspi_elf *elf, const bspi_elf_section *section);
bool bspi_elf_relr_refs(bspi_elf *elf, const bspi_elf_section *section);
bool bspi_elf_symbol_refs(bspi_elf *elf, const bspi_elf_section *section);
bool bspi_elf_hash_refs(bspi_elf *elf, const bspi_elf_section *section);
bool bspi_elf_gnu_hash_refs(bspi_elf *elf, const bspi_elf_section *section);
bool bspi_elf_btf_refs(bspi_elf *elf, const bspi_elf_section *section);
bool bspi_elf_dynamic_refs(bspi_elf *elf, const bspi_elf_section *section);
/* 8-byte aligned words of the section that hold mapped addresses. */
bool bspi_elf_pointer_refs(bspi_elf *elf, const bspi_elf_section *section);

#endif
