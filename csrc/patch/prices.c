/* prices.c: finds out what each item of a stream costs by writing it again. */
#include "prices.h"

#include <string.h>

bsp_status bspi_stream_prices(bspi_stream_id id, bool modelled, bspi_content *content,
                              const bspi_file *old, bspi_spend spend, void *context,
                              bsp_fault *fault) {
    bspi_heap *heap = content->heap;
    bspi_buffer out = {.heap = heap};
    bspi_encoder encoder;
    bspi_column column;
    memset(&column, 0, sizeof column);
    bspi_encoder_init(&encoder, &out);
    bspi_column_open(&column, heap, modelled ? BSPI_WRITE_MODEL : BSPI_WRITE_PLAIN);
    column.plain = &out;
    column.encoder = &encoder;
    column.spend = spend;
    column.spend_context = context;
    column.spent = modelled ? bspi_encoder_spent(&encoder) : 0;
    bspi_stream_transfer(id, &column, content, old);
    bsp_status status = bspi_column_close(&column, fault);
    if (status == BSP_OK && encoder.failed)
        status = bspi_nomem(heap, fault, "prices");
    bspi_buffer_free(&out);
    return status;
}
