#ifndef CRC_H
#define CRC_H

#include <stddef.h>
#include <stdint.h>

/* CRC-32 as of Ethernet and zip. */
uint32_t crc32(const void *data, size_t size);

#endif
