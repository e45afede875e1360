/*
 * value.h
 *		Values of JSON members as text that the database can hold.
 */
#ifndef POSTALYTICS_VALUE_H
#define POSTALYTICS_VALUE_H

#include "postgres.h"

extern const char *unescape(const char *text, int length, int *unescaped);
extern const char *canonical_number(const char *text, int length, int *canonical_length);
extern bool is_plain_number(const char *text, int length);
extern bool is_jsonb(const char *text, int length);
extern bool is_readable(const char *text, int length);
extern bool is_empty_container(const char *text, int length);
extern const char *trim(const char *text, int *length);

#endif							/* POSTALYTICS_VALUE_H */
