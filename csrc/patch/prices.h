/* prices.h: what each item of a stream costs, told by writing it again. */
#ifndef BSPI_PRICES_H
#define BSPI_PRICES_H

#include "column.h"
#include "content.h"

/* Writes stream `id` of a complete content, through the models or plainly, into
 * the void, and has `spend` told what every symbol took (see column.h).  What
 * the models cost is what they cost in a patch, up to the rounding at the end
 * of the code. */
bsp_status bspi_stream_prices(bspi_stream_id id, bool modelled, bspi_content *content,
                              const bspi_file *old, bspi_spend spend, void *context,
                              bsp_fault *fault);

#endif
