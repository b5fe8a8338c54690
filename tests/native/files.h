/* files.h: whole files for the test programs. */
#ifndef FILES_H
#define FILES_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct bytes {
    uint8_t *data; /* from malloc */
    size_t len;
} bytes;

/* Ends the program when there is no such file. */
static inline bytes read_file(const char *name) {
    FILE *file = fopen(name, "rb");
    bytes read = {NULL, 0};
    size_t room = 0;
    while (file != NULL) {
        if (read.len == room) {
            room = 2 * room + 4096;
            uint8_t *grown = realloc(read.data, room);
            if (grown == NULL)
                break;
            read.data = grown;
        }
        size_t more = fread(read.data + read.len, 1, room - read.len, file);
        read.len += more;
        if (more == 0 && !ferror(file)) {
            fclose(file);
            return read;
        }
        if (more == 0)
            break;
    }
    fprintf(stderr, "error: cannot read %s\n", name);
    exit(2);
}

#endif
