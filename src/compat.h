/*
 * compat.h
 *		What differs between server versions 15 to 19, and nothing else.
 */
#ifndef POSTALYTICS_COMPAT_H
#define POSTALYTICS_COMPAT_H

#include "postgres.h"

#include "access/tableam.h"
#include "common/jsonapi.h"
#include "fmgr.h"
#include "utils/relcache.h"

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

/* 19 takes flags */
static inline TableScanDesc
compat_beginscan(Relation relation, Snapshot snapshot)
{
#if PG_VERSION_NUM >= 190000
	return table_beginscan(relation, snapshot, 0, NULL, 0);
#else
	return table_beginscan(relation, snapshot, 0, NULL);
#endif
}

/* 18 asks whether a deferrable key will do */
static inline Oid
compat_primary_key(Relation relation)
{
#if PG_VERSION_NUM >= 180000
	return RelationGetPrimaryKeyIndex(relation, false);
#else
	return RelationGetPrimaryKeyIndex(relation);
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
