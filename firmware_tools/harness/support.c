/* support.c: what a compiler expects of every C library, for targets without one.
 * Compiled with -fno-builtin and without loop patterns: a compiler must not turn memset into memset.
 */
#include <string.h>

void *memcpy(void *restrict to, const void *restrict from, size_t bytes)
{
    unsigned char *out = to;
    const unsigned char *in = from;
    for (size_t byte = 0; byte < bytes; byte++) {
        out[byte] = in[byte];
    }
    return to;
}

void *memset(void *to, int value, size_t bytes)
{
    unsigned char *out = to;
    for (size_t byte = 0; byte < bytes; byte++) {
        out[byte] = (unsigned char)value;
    }
    return to;
}
