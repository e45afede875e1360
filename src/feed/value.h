/*
 * value.h
 *		Values of JSON members as text that the database can hold.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_VALUE_H
#define POSTALYTICS_VALUE_H

#include "postgres.h"

extern const char *unescape(const char *string, int length, int *unescaped);
extern const char *canonical_number(const char *string, int length, int *canonical_length);
extern bool is_plain_number(const char *string, int length);
extern bool is_jsonb(const char *string, int length);
extern bool is_readable(const char *string, int length);
extern bool is_empty_container(const char *string, int length);

#endif							/* POSTALYTICS_VALUE_H */
