#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "table.h"
#include "version.h"

int main(int count, char **words)
{
    if (count == 2 && strcmp(words[1], "--health") == 0)
        return 0;
    printf("crc %s as %d:%d\n", VERSION, (int)getuid(), (int)getgid());
    for (int i = 1; i < count; i++)
        table_row(words[i]);
    return 0;
}
