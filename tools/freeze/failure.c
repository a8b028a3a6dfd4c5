/* SPDX-License-Identifier: Apache-2.0
 *
 * Errors from before there is an interpreter that could word them.
 */
#define _GNU_SOURCE
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "failure.h"

int asked_by_runtime(void)
{
    const char *command = getenv("CNI_COMMAND");
    return command != NULL && *command != '\0';
}

/* The text as the inside of a JSON string. Bytes beyond ASCII could be of any encoding. */
static void print_json(const char *text)
{
    for (const unsigned char *at = (const unsigned char *)text; *at; at++) {
        if (*at == '"' || *at == '\\')
            printf("\\%c", *at);
        else if (*at < 0x20)
            printf("\\u%04x", *at);
        else if (*at < 0x7f)
            putchar(*at);
        else
            printf("\\\\x%02x", *at);
    }
}

int fail(int code, int error, const char *hint, const char *format, ...)
{
    char msg[2 * PATH_MAX];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(msg, sizeof msg, format, arguments);
    va_end(arguments);
    const char *colon = error ? ": " : "";
    const char *reason = error ? strerror(error) : "";
    if (!asked_by_runtime()) {
        fprintf(stderr, "adder: %s%s%s%s%s\n", msg, colon, reason, *hint ? "; " : "", hint);
        return 1;
    }
    printf("{\n    \"cniVersion\": \"" ADDER_CNI_VERSION "\",\n    \"code\": %d,\n    \"msg\": \"",
           code);
    print_json(msg);
    print_json(colon);
    print_json(reason);
    if (*hint) {
        printf("\",\n    \"details\": \"");
        print_json(hint);
    }
    printf("\"\n}");
    fflush(stdout);
    return 1;
}
