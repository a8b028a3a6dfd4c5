/* SPDX-License-Identifier: Apache-2.0
 *
 * A picture of the started interpreter, taken once at build time and put back at each start.
 */
#ifndef ADDER_SNAPSHOT_H
#define ADDER_SNAPSHOT_H

/* Call first in main. In the executable that the build links, which carries no picture yet,
 * prepare to take one. */
void snapshot_prepare(void);

/* Whether this executable carries a picture. */
int snapshot_exists(void);

/* Put the picture in `program`, which is this executable, back: the interpreter stands as it
 * stood when the picture was taken. Returns NULL, or why that cannot be done, with errno where a
 * system call said why, and what may mend it in `hint`. */
const char *snapshot_restore(const char *program, const char **hint);

/* Write the picture to `path`. Only after snapshot_prepare, with no Python code on the stack.
 * Returns NULL, or why no picture can be taken. */
const char *snapshot_take(const char *path);

#endif
