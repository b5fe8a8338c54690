/* rebase.c: runs the rebase opcodes of LC_DYLD_INFO, the older way to say which
 * pointers dyld slides. */
#include "../common/bytes.h"
#include "macho.h"

#define POINTER_SIZE 8u
#define TYPE_POINTER 1u

enum {
    OP_DONE = 0x00,
    OP_SET_TYPE = 0x10,
    OP_SET_SEGMENT_AND_OFFSET = 0x20,
    OP_ADD_OFFSET = 0x30,
    OP_ADD_OFFSET_SCALED = 0x40,
    OP_REBASE_TIMES_SMALL = 0x50,
    OP_REBASE_TIMES = 0x60,
    OP_REBASE_ADD = 0x70,
    OP_REBASE_TIMES_SKIPPING = 0x80
};

/* The state of dyld's little machine. */
typedef struct machine {
    const bspi_macho *macho;
    const uint8_t *pos;
    const uint8_t *end;
    const bspi_segment *segment; /* NULL before one is chosen */
    uint64_t off;                /* into the segment, wraps as dyld's does */
    uint64_t budget;             /* pointers it may still name */
    uint32_t type;
    bool stop;
} machine;

/* ULEB128 with padding allowed, as linkers write it. */
static uint64_t read_uleb(machine *m) {
    uint64_t value = 0;
    unsigned shift = 0;
    while (m->pos < m->end) {
        uint8_t byte = *m->pos++;
        if (shift < 64) {
            value |= (uint64_t)(byte & 0x7F) << shift;
            shift += 7;
        }
        if ((byte & 0x80) == 0)
            return value;
    }
    m->stop = true;
    return 0;
}

/* Names `count` pointers with `skip` bytes after each. */
static bool rebase(machine *m, uint64_t count, uint64_t skip) {
    const bspi_segment *segment = m->segment;
    for (; count > 0 && !m->stop; count--) {
        if (m->budget == 0 || segment == NULL || !segment->sound ||
            !bspi_within(m->off, POINTER_SIZE, segment->file_size)) {
            m->stop = true;
            break;
        }
        m->budget--;
        if (m->type == TYPE_POINTER &&
            !bspi_image_add_ref(m->macho->file, m->macho->image, segment->file_off + m->off,
                                BSPI_REF_ABS64, 0))
            return false;
        m->off += POINTER_SIZE + skip;
    }
    return true;
}

static bool step(machine *m) {
    uint8_t op = *m->pos++;
    uint64_t count;
    unsigned small = op & 0x0F;
    switch (op & 0xF0) {
    case OP_SET_TYPE:
        m->type = small;
        return true;
    case OP_SET_SEGMENT_AND_OFFSET:
        m->segment = small < m->macho->segment_count ? &m->macho->segments[small] : NULL;
        m->off = read_uleb(m);
        return true;
    case OP_ADD_OFFSET:
        m->off += read_uleb(m);
        return true;
    case OP_ADD_OFFSET_SCALED:
        m->off += small * POINTER_SIZE;
        return true;
    case OP_REBASE_TIMES_SMALL:
        return rebase(m, small, 0);
    case OP_REBASE_TIMES:
        return rebase(m, read_uleb(m), 0);
    case OP_REBASE_ADD:
        return rebase(m, 1, read_uleb(m));
    case OP_REBASE_TIMES_SKIPPING:
        count = read_uleb(m);
        return rebase(m, count, read_uleb(m));
    default: /* OP_DONE, and what dyld would refuse */
        m->stop = true;
        return true;
    }
}

bool bspi_rebase_refs(const bspi_macho *macho, uint64_t off, uint64_t size) {
    machine m = {.macho = macho,
                 .pos = macho->file->data + off,
                 .end = macho->file->data + off + size,
                 .budget = macho->image->file_size / POINTER_SIZE};
    while (m.pos < m.end && !m.stop)
        if (!step(&m))
            return false;
    return true;
}
