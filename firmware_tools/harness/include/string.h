/* string.h: the part of it that the runtime uses, for targets without a C library. */
#ifndef EDGE_STRING_H
#define EDGE_STRING_H

#include <stddef.h>

void *memcpy(void *restrict to, const void *restrict from, size_t bytes);
void *memset(void *to, int value, size_t bytes);

#endif
