/* SPDX-License-Identifier: Apache-2.0
 *
 * Saying why the executable cannot start, to whoever started it.
 */
#ifndef ADDER_FAILURE_H
#define ADDER_FAILURE_H

/* Codes of the specification's error object, as in libcni.types.errors. */
#define IO_FAILURE 5
#define FAULT 999

/* Whether a runtime is asking (CNI_COMMAND is set), rather than a person. */
int asked_by_runtime(void);

/* Report the failure that `format` words, with the system's word for `error` unless that is 0,
 * and what mends it in `hint` (may be empty). A runtime gets the specification's error object
 * on stdout, a person a line on stderr. Returns the exit status. */
__attribute__((format(printf, 4, 5))) int fail(int code, int error, const char *hint,
                                               const char *format, ...);

#endif
