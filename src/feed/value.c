/*
 * value.c
 *		Converts JSON values to text, and checks whether the database can store
 *		the values.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "base/compat.h"
#include "base/text.h"
#include "feed/value.h"
#include "mb/pg_wchar.h"
#include "utils/fmgrprotos.h"

/*
 * Decode the escapes of a JSON string, and set *unescaped to the length of the
 * result.  string is the text between the quotes, which must surround it in
 * memory.  Returns NULL if the database cannot store the result because it
 * contains \u0000, half a surrogate pair, or a character that the encoding
 * lacks.  Allocates in the current memory context.
 */
const char *
unescape(const char *string, int length, int *unescaped)
{
	JsonLexContext *lex = compat_json_lexer(string - 1, length + 2,
											GetDatabaseEncoding(), true);

	if (compat_json_lex_string(lex) != JSON_SUCCESS)
		return NULL;
	*unescaped = lex->strval->len;
	return lex->strval->data;
}

/* A JSON number within these limits fits into numeric, and thus into jsonb. */
#define MAX_NUMBER_LENGTH	100
#define MAX_EXPONENT		1000

static bool
is_jsonb_number(const char *number, int length)
{
	const char *end = number + length;
	int			exponent = 0;

	if (length > MAX_NUMBER_LENGTH)
		return false;
	while (number < end && *number != 'e' && *number != 'E')
		number++;
	for (; number < end && exponent <= MAX_EXPONENT; number++)
		if (*number >= '0' && *number <= '9')
			exponent = 10 * exponent + (*number - '0');
	return exponent <= MAX_EXPONENT;
}

/*
 * True if a number is written like an id, with digits only and without a
 * leading zero.
 */
bool
is_plain_number(const char *string, int length)
{
	if (string[0] == '0')
		return length == 1;
	for (int i = 0; i < length; i++)
		if (string[i] < '0' || string[i] > '9')
			return false;
	return true;
}

/*
 * Return a number in plain notation, without an exponent or trailing zeros in
 * its fraction, and set *canonical_length to the length of the result.  Returns
 * NULL if the number exceeds MAX_NUMBER_LENGTH or MAX_EXPONENT.
 */
const char *
canonical_number(const char *string, int length, int *canonical_length)
{
	Datum		number;
	const char *canonical;

	if (!is_jsonb_number(string, length))
		return NULL;
	number = DirectFunctionCall3(numeric_in, CStringGetDatum(pnstrdup(string, length)),
								 ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
	canonical = DatumGetCString(DirectFunctionCall1(numeric_out,
													DirectFunctionCall1(numeric_trim_scale, number)));
	*canonical_length = strlen(canonical);
	return canonical;
}

#define MAX_JSONB_DEPTH	64

/*
 * True if jsonb can store a JSON value.  jsonb is stricter than json: it allows
 * neither \u0000 nor numbers outside the range of numeric.  It also exceeds the
 * stack limit at a lower nesting depth, so the depth is limited to
 * MAX_JSONB_DEPTH.
 */
bool
is_jsonb(const char *string, int length)
{
	JsonLexContext *lex = compat_json_lexer(string, length, GetDatabaseEncoding(),
											memchr(string, '\\', length) != NULL);
	int			depth = 0;

	do
	{
		if (compat_json_lex_string(lex) != JSON_SUCCESS)
			return false;
		if (lex->token_type == JSON_TOKEN_OBJECT_START ||
			lex->token_type == JSON_TOKEN_ARRAY_START)
			depth++;
		else if (lex->token_type == JSON_TOKEN_OBJECT_END ||
				 lex->token_type == JSON_TOKEN_ARRAY_END)
			depth--;
		else if (lex->token_type == JSON_TOKEN_NUMBER &&
				 !is_jsonb_number(lex->token_start,
								  lex->token_terminator - lex->token_start))
			return false;
	} while (depth > 0 && depth <= MAX_JSONB_DEPTH);
	return depth == 0;
}

/*
 * Return the code unit of a \uXXXX escape, which the lexer has checked, or
 * 0x10000 for anything else.
 */
static unsigned int
escaped_unit(const char *string)
{
	char		digits[5] = {0};

	if (string[0] != '\\' || string[1] != 'u')
		return 0x10000;
	memcpy(digits, string + 2, 4);
	return strtoul(digits, NULL, 16);
}

/*
 * True if the operators of type json can read a value.  The type accepts
 * \u0000 and half a surrogate pair, but then every query that reads the value
 * fails.
 */
bool
is_readable(const char *string, int length)
{
	const char *end = string + length;

	while ((string = memchr(string, '\\', end - string)) != NULL)
	{
		unsigned int unit = escaped_unit(string);

		if (unit == 0 || (unit >= 0xDC00 && unit <= 0xDFFF))
			return false;
		if (unit >= 0xD800 && unit <= 0xDBFF)
		{
			string += 6;
			unit = escaped_unit(string);
			if (unit < 0xDC00 || unit > 0xDFFF)
				return false;
		}
		string += unit == 0x10000 ? 2 : 6;
	}
	return true;
}

/* True if an array or object is empty. */
bool
is_empty_container(const char *string, int length)
{
	for (int i = 1; i < length - 1; i++)
		if (!is_blank(string[i]))
			return false;
	return true;
}
