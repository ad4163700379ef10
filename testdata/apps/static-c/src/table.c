#include "table.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "crc.h"

void table_row(const char *word)
{
    printf("%s %08" PRIx32 "\n", word, crc32(word, strlen(word)));
}
