/*
 * text.h
 *		Comparison and hashing of texts by their bytes, as in collation "C", and
 *		removal of whitespace.
 *
 * Ids are always compared by their bytes: in the keys of tables, in the order
 * in which a call takes locks, and in memory.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_TEXT_H
#define POSTALYTICS_TEXT_H

#include "postgres.h"

#include "base/compat.h"
#include "common/hashfn.h"

/* Compare two strings that need not be null-terminated, as memcmp does. */
static inline int
compare_bytes(const char *a, uint32 a_length, const char *b, uint32 b_length)
{
	int			result = memcmp(a, b, Min(a_length, b_length));

	if (result != 0)
		return result;
	return a_length == b_length ? 0 : a_length < b_length ? -1 : 1;
}

/* True if two strings consist of the same bytes. */
static inline bool
equal_bytes(const char *a, uint32 a_length, const char *b, uint32 b_length)
{
	return a_length == b_length && memcmp(a, b, a_length) == 0;
}

/*
 * True if two texts, which must be neither compressed nor out of line, consist
 * of the same bytes.
 */
static inline bool
equal_texts(const text *a, const text *b)
{
	return equal_bytes(VARDATA_ANY(a), VARSIZE_ANY_EXHDR(a), VARDATA_ANY(b), VARSIZE_ANY_EXHDR(b));
}

/* True if one of the texts consists of the given bytes. */
static inline bool
texts_include(text *const *texts, int count, const char *value, uint32 length)
{
	for (int i = 0; i < count; i++)
		if (equal_bytes(VARDATA_ANY(texts[i]), VARSIZE_ANY_EXHDR(texts[i]), value, length))
			return true;
	return false;
}

/* Hash a text that is neither compressed nor out of line. */
static inline uint32
hash_text(const text *key)
{
	return hash_bytes((const unsigned char *) VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key));
}

/* True for whitespace, independent of the locale. */
static inline bool
is_blank(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

/* Remove whitespace from both ends of a string. */
static inline const char *
trim(const char *string, int *length)
{
	while (*length > 0 && is_blank(string[*length - 1]))
		(*length)--;
	for (; *length > 0 && is_blank(*string); string++)
		(*length)--;
	return string;
}

#endif							/* POSTALYTICS_TEXT_H */
