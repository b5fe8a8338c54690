/* memory.c: the budgeted heap and growing buffers. */
#define _DEFAULT_SOURCE /* madvise */
#include "memory.h"

#include <stdlib.h>
#include <string.h>

#if defined(__linux__)
#include <sys/mman.h>
#endif

/* Each block carries its size in front, padded so that the block that follows
 * keeps malloc's alignment. */
#define HEAD 16u
#define LARGE_PAGE ((uintptr_t)2 << 20)

void bspi_heap_init(bspi_heap *heap, uint64_t budget) {
    memset(heap, 0, sizeof *heap);
    heap->budget = budget;
}

static bool charge(bspi_heap *heap, uint64_t bytes) {
    uint64_t request = __atomic_add_fetch(&heap->requests, 1, __ATOMIC_RELAXED);
    if (heap->fail_at != 0 && request == heap->fail_at)
        return false;
    uint64_t used = __atomic_add_fetch(&heap->in_use, bytes, __ATOMIC_RELAXED);
    if (heap->budget != 0 && used > heap->budget) {
        __atomic_sub_fetch(&heap->in_use, bytes, __ATOMIC_RELAXED);
        return false;
    }
    uint64_t peak = __atomic_load_n(&heap->peak, __ATOMIC_RELAXED);
    while (used > peak && !__atomic_compare_exchange_n(&heap->peak, &peak, used, true,
                                                       __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
    return true;
}

static void discharge(bspi_heap *heap, uint64_t bytes) {
    __atomic_sub_fetch(&heap->in_use, bytes, __ATOMIC_RELAXED);
}

static bool total_size(size_t count, size_t size, size_t *total) {
    if (size != 0 && count > (SIZE_MAX - HEAD) / size)
        return false;
    *total = count * size + HEAD;
    return true;
}

static uint64_t block_size(const void *block) {
    uint64_t size;
    memcpy(&size, (const uint8_t *)block - HEAD, sizeof size);
    return size;
}

void *bspi_alloc(bspi_heap *heap, size_t count, size_t size, bool zero) {
    size_t total;
    if (!total_size(count, size, &total) || !charge(heap, total))
        return NULL;
    uint8_t *raw = zero ? calloc(1, total) : malloc(total);
    if (raw == NULL) {
        discharge(heap, total);
        return NULL;
    }
    uint64_t stored = total;
    memcpy(raw, &stored, sizeof stored);
    return raw + HEAD;
}

void *bspi_grow(bspi_heap *heap, void *block, size_t count, size_t size) {
    if (block == NULL)
        return bspi_alloc(heap, count, size, false);
    size_t total;
    if (!total_size(count, size, &total))
        return NULL;
    uint64_t before = block_size(block);
    if (!charge(heap, total))
        return NULL;
    uint8_t *raw = realloc((uint8_t *)block - HEAD, total);
    if (raw == NULL) {
        discharge(heap, total);
        return NULL;
    }
    discharge(heap, before);
    uint64_t stored = total;
    memcpy(raw, &stored, sizeof stored);
    return raw + HEAD;
}

void bspi_free(bspi_heap *heap, void *block) {
    if (block == NULL)
        return;
    discharge(heap, block_size(block));
    free((uint8_t *)block - HEAD);
}

bsp_status bspi_nomem(const bspi_heap *heap, bsp_fault *fault, const char *place) {
    bsp_status code = heap->budget != 0 ? BSP_E_MEMLIMIT : BSP_E_NOMEM;
    return bspi_fail(fault, code, place, 0, heap->budget, heap->in_use);
}

bool bspi_ensure(bspi_heap *heap, void **array, size_t *capacity, size_t size) {
    size_t wanted = *capacity < 16 ? 16 : *capacity + *capacity / 2;
    void *grown = bspi_grow(heap, *array, wanted, size);
    if (grown == NULL)
        return false;
    *array = grown;
    *capacity = wanted;
    return true;
}

bool bspi_buffer_reserve(bspi_buffer *buffer, size_t extra) {
    if (extra <= buffer->capacity - buffer->len)
        return true;
    if (extra > SIZE_MAX / 2 - buffer->len)
        return false;
    size_t wanted = buffer->len + extra;
    size_t doubled = buffer->capacity + buffer->capacity / 2;
    if (doubled > wanted)
        wanted = doubled;
    if (wanted < 64)
        wanted = 64;
    uint8_t *grown = bspi_grow(buffer->heap, buffer->data, wanted, 1);
    if (grown == NULL)
        return false;
    buffer->data = grown;
    buffer->capacity = wanted;
    return true;
}

bool bspi_buffer_put(bspi_buffer *buffer, const void *data, size_t len) {
    if (!bspi_buffer_reserve(buffer, len))
        return false;
    if (len != 0)
        memcpy(buffer->data + buffer->len, data, len);
    buffer->len += len;
    return true;
}

bool bspi_buffer_put_varint(bspi_buffer *buffer, uint64_t value) {
    uint8_t bytes[10];
    size_t len = 0;
    while (value >= 0x80) {
        bytes[len++] = (uint8_t)(value | 0x80);
        value >>= 7;
    }
    bytes[len++] = (uint8_t)value;
    return bspi_buffer_put(buffer, bytes, len);
}

void bspi_buffer_free(bspi_buffer *buffer) {
    bspi_free(buffer->heap, buffer->data);
    buffer->data = NULL;
    buffer->len = buffer->capacity = 0;
}

void bspi_large_pages(void *block, size_t len) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    uintptr_t begin = ((uintptr_t)block + LARGE_PAGE - 1) & ~(LARGE_PAGE - 1);
    uintptr_t end = ((uintptr_t)block + len) & ~(LARGE_PAGE - 1);
    if (begin < end)
        (void)madvise((void *)begin, end - begin, MADV_HUGEPAGE);
#else
    (void)block;
    (void)len;
#endif
}
