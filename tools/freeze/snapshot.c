/* SPDX-License-Identifier: Apache-2.0
 *
 * Start the interpreter at build time, keep its memory, and map that at each start.
 *
 * Starting CPython and importing our modules is the same work each time, and three quarters of
 * what a plugin would do. The result is plain memory: objects, dictionaries and code. So the
 * build runs the executable once, lets it import everything that plugins use, and appends the
 * memory to the file. Emacs was dumped in this way for decades.
 *
 * What makes it safe here:
 *  - The executable is not position independent: its functions and data are where they were.
 *  - All that the interpreter allocates until then lies in one region at a fixed address, far
 *    from where the kernel puts anything: its object arenas, and malloc as the linker wraps it
 *    for the objects of this executable (--wrap). Shared libraries use libc's own malloc.
 *  - libc is not in the picture. Of the executable's own data, the words that changed since
 *    main began are kept, so what the dynamic linker wrote stays as this process has it; and
 *    snapshot_take refuses when a word that it keeps points into a shared library, the stack or
 *    the C library's own memory (foreign.c).
 *  - Whatever belongs to a process, launcher.c sets anew: arguments, environment, thread.
 *
 * The picture includes the seed of the hash function, one per build: a document made to collide
 * costs time in proportion to the square of its size, which is bounded (1 MiB on stdin).
 */
#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <fcntl.h>
#include <link.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "foreign.h"
#include "snapshot.h"

/* 64 GiB. Above a non-PIE program, which is linked at 4 MiB (arm64 too), and its heap, which the
 * kernel begins at most 1 GiB further up. Below every address from which it places mappings
 * upwards (the "legacy" layout, with an unlimited stack; downwards they begin far above): a third
 * of the address space on x86-64 (0x2aaaaaaaa000) and RISC-V (0x1555556000 of Sv39), a quarter on
 * arm64, which with 39 bits is 128 GiB: 0x2000000000. */
#define REGION ((uintptr_t)0x1000000000)
#define ARENA_SIZE ((size_t)1 << 20)
#define ARENAS_SIZE ((size_t)32 << 20)
#define HEAP (REGION + ARENAS_SIZE)
#define HEAP_SIZE ((size_t)32 << 20)
/* The largest page of any Linux on these processors, so that one layout suits all. */
#define PAGE ((size_t)65536)
#define MAX_CLASS ((size_t)4096)

/* Where in the executable the picture is. The build finds this by its mark and fills it in. */
struct place {
    char mark[16];
    uint64_t offset;
    uint64_t size;
};
__attribute__((used)) static const volatile struct place place = {
    {'A', 'd', 'd', 'e', 'r', 's', 'n', 'a', 'p', 's', 'h', 'o', 't', '\001', '\002', '\003'}, 0, 0,
};

/* The picture: this header, the extents, the runs, their bytes, then, on a page boundary, the
 * extents' bytes one after the other: arenas and heap less the pages that are zero. */
struct header {
    uint64_t runs;
    uint64_t extents;
    uint64_t bytes_offset;
    uint64_t arenas_size;
    uint64_t heap_size;
};
struct extent {
    uint64_t address;
    uint64_t length;
};
struct run {
    uint64_t address;
    uint64_t length;
};

/* The executable's writable data, less what the dynamic linker made read-only again. */
struct data {
    char *start;
    char *end;
};

static int taking;
static char *before;
static char *arenas_end = (char *)REGION;
static char *heap_end = (char *)HEAP;
static void *freed[MAX_CLASS / 16 + 1];

void *__real_malloc(size_t);
void *__real_calloc(size_t, size_t);
void *__real_realloc(void *, size_t);
void __real_free(void *);

/* Each block is preceded by 16 bytes that hold its size. */
static int in_heap(const void *pointer)
{
    return (uintptr_t)pointer - HEAP < HEAP_SIZE;
}

static size_t block_size(const void *pointer)
{
    return ((const size_t *)pointer)[-2];
}

void *__wrap_malloc(size_t size)
{
    if (!taking)
        return __real_malloc(size);
    if (size > HEAP_SIZE)
        return NULL;
    size = size ? (size + 15) & ~(size_t)15 : 16;
    if (size <= MAX_CLASS && freed[size / 16]) {
        void **block = freed[size / 16];
        freed[size / 16] = *block;
        return block;
    }
    if ((uintptr_t)heap_end + 16 + size > HEAP + HEAP_SIZE)
        return NULL;
    size_t *block = (size_t *)heap_end;
    block[0] = size;
    heap_end += 16 + size;
    return block + 2;
}

void __wrap_free(void *pointer)
{
    if (!in_heap(pointer)) {
        __real_free(pointer);
        return;
    }
    /* Of a restored picture nothing is given back: the process is short. */
    if (!taking)
        return;
    size_t size = block_size(pointer);
    memset(pointer, 0, size);
    if (size <= MAX_CLASS) {
        *(void **)pointer = freed[size / 16];
        freed[size / 16] = pointer;
    }
}

void *__wrap_calloc(size_t count, size_t size)
{
    if (!taking)
        return __real_calloc(count, size);
    if (size && count > HEAP_SIZE / size)
        return NULL;
    void *block = __wrap_malloc(count * size);
    if (block)
        memset(block, 0, count * size);
    return block;
}

void *__wrap_realloc(void *pointer, size_t size)
{
    if (pointer == NULL)
        return __wrap_malloc(size);
    if (!in_heap(pointer))
        return __real_realloc(pointer, size);
    size_t old = block_size(pointer);
    if (size <= old)
        return pointer;
    void *block = __wrap_malloc(size);
    if (block) {
        memcpy(block, pointer, old);
        __wrap_free(pointer);
    }
    return block;
}

static void *allocate_arena(void *context, size_t size)
{
    (void)context;
    if (taking) {
        /* Aligned as wanted, since the region is. */
        char *arena = arenas_end;
        size = (size + ARENA_SIZE - 1) & ~(ARENA_SIZE - 1);
        if ((uintptr_t)arena + size > REGION + ARENAS_SIZE)
            return NULL;
        arenas_end += size;
        return arena;
    }
    void *arena = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return arena == MAP_FAILED ? NULL : arena;
}

static void free_arena(void *context, void *arena, size_t size)
{
    (void)context;
    if ((uintptr_t)arena - REGION >= ARENAS_SIZE)
        munmap(arena, size);
}

static int find_data(struct dl_phdr_info *info, size_t size, void *context)
{
    struct data *data = context;
    uintptr_t sealed = 0;
    (void)size;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];
        uintptr_t start = info->dlpi_addr + part->p_vaddr;
        if (part->p_type == PT_LOAD && part->p_flags & PF_W) {
            data->start = (char *)start;
            data->end = (char *)start + part->p_memsz;
        }
        if (part->p_type == PT_GNU_RELRO)
            sealed = start + part->p_memsz; /* which the linker put on a page boundary */
    }
    if (sealed > (uintptr_t)data->start)
        data->start = (char *)sealed;
    return 1; /* the executable is the first */
}

static struct data own_data(void)
{
    struct data data = {NULL, NULL};
    dl_iterate_phdr(find_data, &data);
    data.start = (char *)(((uintptr_t)data.start + 7) & ~(uintptr_t)7);
    data.end = (char *)((uintptr_t)data.end & ~(uintptr_t)7);
    return data;
}

static int map(uintptr_t at, size_t size, int fd, off_t offset)
{
    int kind = MAP_PRIVATE | (fd < 0 ? MAP_ANONYMOUS | MAP_FIXED_NOREPLACE : MAP_FIXED);
    void *got = mmap((void *)at, size, PROT_READ | PROT_WRITE, kind, fd, offset);
    return got == (void *)at;
}

void snapshot_prepare(void)
{
    struct data data = own_data();
    size_t size = (size_t)(data.end - data.start);
    before = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (before == MAP_FAILED || !map(REGION, ARENAS_SIZE + HEAP_SIZE, -1, 0) ||
        foreign_keep_high() != 0)
        return;
    memcpy(before, data.start, size);
    PyObjectArenaAllocator arenas = {NULL, allocate_arena, free_arena};
    PyObject_SetArenaAllocator(&arenas);
    taking = 1;
}

int snapshot_exists(void)
{
    return place.offset != 0;
}

const char *snapshot_restore(const char *program, const char **hint)
{
    int fd = open(program, O_RDONLY | O_CLOEXEC);
    *hint = "plugins need /proc, and the right to read their executable";
    if (fd < 0)
        return "cannot open the executable";
    off_t offset = (off_t)place.offset;
    struct stat status;
    if (fstat(fd, &status) != 0)
        return "cannot look at the executable";
    *hint = "it was cut off or stripped; install it again";
    if ((uint64_t)status.st_size < place.offset + place.size)
        return "the executable is not whole";
    *hint = "is there a limit on address space (ulimit -v)?";
    const char *file = mmap(NULL, place.size, PROT_READ, MAP_PRIVATE, fd, offset);
    if (file == MAP_FAILED)
        return "cannot map the executable";
    const struct header *header = (const struct header *)file;
    static const char failed[] = "cannot map the interpreter's memory at its place";
    if (!map(REGION, header->arenas_size, -1, 0) || !map(HEAP, header->heap_size, -1, 0))
        return failed;
    const struct extent *extents = (const struct extent *)(header + 1);
    offset += (off_t)header->bytes_offset;
    for (uint64_t i = 0; i < header->extents; i++) {
        if (!map(extents[i].address, extents[i].length, fd, offset))
            return failed;
        offset += (off_t)extents[i].length;
    }
    close(fd);
    const struct run *runs = (const struct run *)(extents + header->extents);
    const char *bytes = (const char *)(runs + header->runs);
    for (uint64_t i = 0; i < header->runs; i++) {
        memcpy((void *)runs[i].address, bytes, runs[i].length);
        bytes += runs[i].length;
    }
    return NULL;
}

/* The next stretch of pages from `at` on that are not zero; empty at the end. */
static struct extent next_extent(uintptr_t at, uintptr_t end)
{
    static const char zero[PAGE];
    struct extent extent = {0, 0};
    while (at < end && memcmp((void *)at, zero, PAGE) == 0)
        at += PAGE;
    extent.address = at;
    while (at < end && memcmp((void *)at, zero, PAGE) != 0)
        at += PAGE;
    extent.length = at - extent.address;
    return extent;
}

const char *snapshot_take(const char *path)
{
    static struct foreign foreign;
    struct data data = own_data();
    if (!taking)
        return "not prepared";
    taking = 0;
    memset(freed, 0, sizeof freed);
    struct header header = {0};
    static struct extent extents[(ARENAS_SIZE + HEAP_SIZE) / PAGE];
    /* What is left of the last arena will be used; the heap is not added to. */
    header.arenas_size = (uint64_t)(arenas_end - (char *)REGION);
    header.heap_size = ((uintptr_t)heap_end - HEAP + PAGE - 1) & ~(PAGE - 1);
    const uintptr_t regions[][2] = {{REGION, header.arenas_size}, {HEAP, header.heap_size}};
    for (int i = 0; i < 2; i++) {
        uintptr_t end = regions[i][0] + regions[i][1];
        struct extent extent = next_extent(regions[i][0], end);
        for (; extent.length; extent = next_extent(extent.address + extent.length, end))
            extents[header.extents++] = extent;
    }
    const char *problem =
        foreign_read(&foreign, (uintptr_t)data.end, REGION, ARENAS_SIZE + HEAP_SIZE);
    if (problem != NULL)
        return problem;
    int bad = foreign_count(&foreign, (char *)REGION, (char *)REGION + header.arenas_size);
    bad += foreign_count(&foreign, (char *)HEAP, (char *)HEAP + header.heap_size);
    FILE *file = fopen(path, "we");
    if (file == NULL)
        return "cannot write the file";
    /* First pass counts the runs, second writes them, third their bytes. */
    const char *own[] = {(char *)&before, (char *)&foreign, (char *)extents};
    for (int pass = 0; pass < 3; pass++) {
        if (pass == 1) {
            fwrite(&header, sizeof header, 1, file);
            fwrite(extents, sizeof *extents, header.extents, file);
        }
        for (char *at = data.start; at < data.end;) {
            if (memcmp(at, before + (at - data.start), 8) == 0) {
                at += 8;
                continue;
            }
            if (at == own[0] || (at >= own[1] && at < own[1] + sizeof foreign) ||
                (at >= own[2] && at < own[2] + sizeof extents)) {
                at += 8;
                continue;
            }
            char *end = at;
            while (end < data.end && end != own[0] && end != own[1] && end != own[2] &&
                   memcmp(end, before + (end - data.start), 8) != 0)
                end += 8;
            struct run run = {(uint64_t)(uintptr_t)at, (uint64_t)(end - at)};
            if (pass == 0) {
                header.runs++;
                bad += foreign_count(&foreign, at, end);
            } else if (pass == 1)
                fwrite(&run, sizeof run, 1, file);
            else
                fwrite(at, 1, (size_t)(end - at), file);
            at = end;
        }
    }
    while (ftell(file) % (long)PAGE)
        fputc(0, file);
    header.bytes_offset = (uint64_t)ftell(file);
    for (uint64_t i = 0; i < header.extents; i++)
        fwrite((void *)extents[i].address, 1, extents[i].length, file);
    rewind(file);
    fwrite(&header, sizeof header, 1, file);
    if (ferror(file) || fclose(file) != 0)
        return "cannot write the file";
    return bad ? "memory refers to what will not be there" : NULL;
}
