/* SPDX-License-Identifier: Apache-2.0
 *
 * Addresses that mean nothing outside this process, which a picture must not hold.
 */
#ifndef ADDER_FOREIGN_H
#define ADDER_FOREIGN_H

#include <stddef.h>
#include <stdint.h>

/* The mappings of this process that are not in the picture: shared libraries, the stack, what
 * the C library allocates for itself. */
struct foreign {
    uintptr_t start[512];
    uintptr_t end[512];
    size_t count;
};

/* Call before anything allocates: keep the C library from having a heap where the kernel puts
 * one, just above the program. An address in there is a number below 2^30, and any line table,
 * bytecode or counter can hold the same eight bytes; which ones do would depend on where the
 * kernel happened to put the heap. The library's other place is as high as the libraries are,
 * where no number reaches by chance. Returns 0, or -1 when that is not possible. */
int foreign_keep_high(void);

/* Read the readable mappings, but for those that begin below `program_end` or in the `size` bytes
 * from `region` on. Returns NULL, or why addresses cannot be told from numbers. */
const char *foreign_read(struct foreign *foreign, uintptr_t program_end, uintptr_t region,
                         size_t size);

/* How many words from `start` to `end` are such addresses; each is reported on stderr, with the
 * mapping that it points into. */
int foreign_count(const struct foreign *foreign, const char *start, const char *end);

#endif
