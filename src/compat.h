/*
 * compat.h
 *		What differs between server versions 15 to 19, and nothing else.
 */
#ifndef POSTALYTICS_COMPAT_H
#define POSTALYTICS_COMPAT_H

#include "postgres.h"

#include "common/jsonapi.h"
#include "fmgr.h"

#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

/* 17 takes the context first */
static inline JsonLexContext *
compat_json_lexer(const char *text, size_t length, int encoding,
				  bool need_escapes)
{
#if PG_VERSION_NUM >= 170000
	return makeJsonLexContextCstringLen(NULL, text, length, encoding,
										need_escapes);
#else
	return makeJsonLexContextCstringLen((char *) text, (int) length, encoding,
										need_escapes);
#endif
}

/* 15 throws where an escape cannot be said in the server's encoding */
static inline JsonParseErrorType
compat_json_lex_string(JsonLexContext *lex)
{
#if PG_VERSION_NUM >= 160000
	return json_lex(lex);
#else
	MemoryContext context = CurrentMemoryContext;
	volatile JsonParseErrorType result = JSON_UNICODE_HIGH_ESCAPE;

	PG_TRY();
	{
		result = json_lex(lex);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		if (geterrcode() != ERRCODE_UNTRANSLATABLE_CHARACTER &&
			geterrcode() != ERRCODE_FEATURE_NOT_SUPPORTED)
			PG_RE_THROW();
		FlushErrorState();
	}
	PG_END_TRY();
	return result;
#endif
}

/* 18 names the module */
#if PG_VERSION_NUM >= 180000
#define COMPAT_MODULE_MAGIC(module, ver) \
	PG_MODULE_MAGIC_EXT(.name = module, .version = ver)
#else
#define COMPAT_MODULE_MAGIC(module, ver) PG_MODULE_MAGIC
#endif

#endif							/* POSTALYTICS_COMPAT_H */
