/* SPDX-License-Identifier: Apache-2.0
 *
 * Telling pointers into what will not be there from everything else, by /proc/self/maps.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "foreign.h"

int foreign_keep_high(void)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t top = ((uintptr_t)sbrk(0) + page - 1) & ~(page - 1);
    /* In the way of brk(2), which then fails; malloc goes on with mmap(2). */
    void *got = mmap((void *)top, page, PROT_NONE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    return got == (void *)top ? 0 : -1;
}

const char *foreign_read(struct foreign *foreign, uintptr_t program_end, uintptr_t region,
                         size_t size)
{
    char line[4096], access[8];
    unsigned long start, end;
    int low = 0;
    FILE *maps = fopen("/proc/self/maps", "re");
    if (maps == NULL)
        return "cannot read /proc/self/maps";
    foreign->count = 0;
    while (fgets(line, sizeof line, maps) && foreign->count < 512) {
        if (sscanf(line, "%lx-%lx %7s", &start, &end, access) != 3)
            continue;
        if (start < program_end || start - region < size || access[0] == '-')
            continue;
        low |= start < region;
        foreign->start[foreign->count] = start;
        foreign->end[foreign->count++] = end;
    }
    fclose(maps);
    return low ? "something lies so low that numbers would be taken for addresses in it" : NULL;
}

static void report(const uintptr_t *word)
{
    char line[4096];
    unsigned long start, end;
    fprintf(stderr, "snapshot: %p holds %#lx, an address in\n", (const void *)word,
            (unsigned long)*word);
    FILE *maps = fopen("/proc/self/maps", "re");
    while (maps && fgets(line, sizeof line, maps))
        if (sscanf(line, "%lx-%lx", &start, &end) == 2 && *word >= start && *word < end)
            fprintf(stderr, "    %s", line);
    if (maps)
        fclose(maps);
}

int foreign_count(const struct foreign *foreign, const char *start, const char *end)
{
    int found = 0;
    for (const uintptr_t *word = (const uintptr_t *)start; (const char *)word < end; word++)
        for (size_t i = 0; i < foreign->count; i++)
            if (*word >= foreign->start[i] && *word < foreign->end[i]) {
                report(word);
                found++;
            }
    return found;
}
