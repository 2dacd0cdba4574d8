/*
 * A child that breaks the rule: child.c is compiled with
 * -Dcp_child_main=cp_good_child, so that this is what the clone starts.
 * BAD chooses the sin: 1 malloc, 2 errno, 3 a global.
 */
#include <errno.h>
#include <stdlib.h>

#include "internal.h"

int cp_good_child(void *block);

volatile int cp_sinned;

int cp_child_main(void *block)
{
#if BAD == 1
    void *volatile kept = malloc(10); /* volatile, or nothing would be left of it */
    free(kept);
#elif BAD == 2
    errno = 77;
#elif BAD == 3
    cp_sinned++;
#endif
    return cp_good_child(block);
}
