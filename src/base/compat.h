/*
 * compat.h
 *		Differences between PostgreSQL 15 to 19, and nothing else.
 *
 * The comments name the major version in which a difference was introduced.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_COMPAT_H
#define POSTALYTICS_COMPAT_H

#include "postgres.h"

#include "access/genam.h"
#include "access/tableam.h"
#include "catalog/pg_database.h"
#include "common/jsonapi.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "utils/acl.h"
#include "utils/rangetypes.h"
#include "utils/regproc.h"
#include "utils/relcache.h"
#include "utils/snapmgr.h"

#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

/* 19 moves get_database_name */
#if PG_VERSION_NUM >= 190000
#include "utils/lsyscache.h"
#else
#include "commands/dbcommands.h"
#endif

/*
 * Since 16, the server's macros export the functions that SQL calls.  All other
 * functions are hidden (-fvisibility=hidden), because their names could clash
 * with names in another library that the server has loaded.
 */
#if PG_VERSION_NUM < 160000
#define COMPAT_EXPORT __attribute__((visibility("default")))
#undef PG_FUNCTION_INFO_V1
#define PG_FUNCTION_INFO_V1(function) \
extern COMPAT_EXPORT Datum function(PG_FUNCTION_ARGS); \
extern COMPAT_EXPORT const Pg_finfo_record *CppConcat(pg_finfo_,function) (void); \
const Pg_finfo_record * \
CppConcat(pg_finfo_,function) (void) \
{ \
	static const Pg_finfo_record info = {1}; \
	return &info; \
} \
extern int	no_such_variable
#undef PGDLLEXPORT
#define PGDLLEXPORT COMPAT_EXPORT
#endif

/* 17 adds the lexing context as the first argument */
static inline JsonLexContext *
compat_json_lexer(const char *json, size_t length, int encoding,
				  bool need_escapes)
{
#if PG_VERSION_NUM >= 170000
	return makeJsonLexContextCstringLen(NULL, json, length, encoding,
										need_escapes);
#else
	return makeJsonLexContextCstringLen((char *) json, (int) length, encoding,
										need_escapes);
#endif
}

/*
 * 16 returns an error code if the server's encoding cannot represent an escape,
 * where 15 raises an error
 */
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

/* 19 adds flags */
static inline TableScanDesc
compat_beginscan(Relation relation, Snapshot snapshot)
{
#if PG_VERSION_NUM >= 190000
	return table_beginscan(relation, snapshot, 0, NULL, 0);
#else
	return table_beginscan(relation, snapshot, 0, NULL);
#endif
}

/* 18 adds instrumentation, 19 adds flags */
static inline IndexScanDesc
compat_index_beginscan(Relation relation, Relation index, Snapshot snapshot, int nkeys)
{
#if PG_VERSION_NUM >= 190000
	return index_beginscan(relation, index, snapshot, NULL, nkeys, 0, 0);
#elif PG_VERSION_NUM >= 180000
	return index_beginscan(relation, index, snapshot, NULL, nkeys, 0);
#else
	return index_beginscan(relation, index, snapshot, nkeys, 0);
#endif
}

/* 18 adds an argument that allows a deferrable key */
static inline Oid
compat_primary_key(Relation relation)
{
#if PG_VERSION_NUM >= 180000
	return RelationGetPrimaryKeyIndex(relation, false);
#else
	return RelationGetPrimaryKeyIndex(relation);
#endif
}

/*
 * 16 adds an argument to insert only into summarizing indexes; 19 combines the
 * options in flags
 */
static inline void
compat_insert_index_tuples(ResultRelInfo *result, TupleTableSlot *row,
						   EState *estate, bool update, bool *conflict,
						   List *arbiters, bool only_summarizing)
{
#if PG_VERSION_NUM >= 190000
	list_free(ExecInsertIndexTuples(result, estate,
									(update ? EIIT_IS_UPDATE : 0) |
									(conflict != NULL ? EIIT_NO_DUPE_ERROR : 0) |
									(only_summarizing ? EIIT_ONLY_SUMMARIZING : 0),
									row, arbiters, conflict));
#elif PG_VERSION_NUM >= 160000
	list_free(ExecInsertIndexTuples(result, row, estate, update, conflict != NULL,
									conflict, arbiters, only_summarizing));
#else
	list_free(ExecInsertIndexTuples(result, row, estate, update, conflict != NULL,
									conflict, arbiters));
#endif
}

/* 18 adds the TID of a row to ignore */
static inline bool
compat_check_index_constraints(ResultRelInfo *result, TupleTableSlot *row,
							   EState *estate, ItemPointer place,
							   List *arbiters)
{
#if PG_VERSION_NUM >= 180000
	ItemPointerData none;

	ItemPointerSetInvalid(&none);
	return ExecCheckIndexConstraints(result, row, estate, place, &none, arbiters);
#else
	return ExecCheckIndexConstraints(result, row, estate, place, arbiters);
#endif
}

/* 16 reports which kind of indexes need the new row; 19 adds options */
static inline TM_Result
compat_tuple_update(Relation relation, ItemPointer place, TupleTableSlot *row,
					CommandId command, ResultRelInfo *result, EState *estate)
{
	TM_FailureData failure;
	LockTupleMode mode;
	TM_Result	done;
#if PG_VERSION_NUM >= 160000
	TU_UpdateIndexes indexes;
#else
	bool		indexes;
#endif

	done = table_tuple_update(relation, place, row, command,
#if PG_VERSION_NUM >= 190000
							  0,
#endif
							  GetActiveSnapshot(), InvalidSnapshot, true,
							  &failure, &mode, &indexes);
	if (done != TM_Ok)
		return done;
#if PG_VERSION_NUM >= 160000
	if (indexes != TU_None)
		compat_insert_index_tuples(result, row, estate, true, NULL, NIL,
								   indexes == TU_Summarizing);
#else
	if (indexes)
		compat_insert_index_tuples(result, row, estate, true, NULL, NIL, false);
#endif
	return done;
}

/* 16 replaces pg_database_ownercheck */
static inline bool
compat_owns_database(Oid database, Oid role)
{
#if PG_VERSION_NUM >= 160000
	return object_ownercheck(DatabaseRelationId, database, role);
#else
	return pg_database_ownercheck(database, role);
#endif
}

/* 16 adds an argument for soft errors */
static inline List *
compat_qualified_names(const char *string)
{
#if PG_VERSION_NUM >= 160000
	return stringToQualifiedNameList(string, NULL);
#else
	return stringToQualifiedNameList(string);
#endif
}

/* 16 adds an argument for soft errors */
static inline RangeType *
compat_make_range(TypeCacheEntry *type, RangeBound *lower, RangeBound *upper)
{
#if PG_VERSION_NUM >= 160000
	return make_range(type, lower, upper, false, NULL);
#else
	return make_range(type, lower, upper, false);
#endif
}

/* 19 requires that tuple descriptors built by hand be finished */
static inline void
compat_finish_tupdesc(TupleDesc tupdesc)
{
#if PG_VERSION_NUM >= 190000
	TupleDescFinalize(tupdesc);
#endif
}

/* 18 adds the name and version of the module */
#if PG_VERSION_NUM >= 180000
#define COMPAT_MODULE_MAGIC(module, ver) \
	PG_MODULE_MAGIC_EXT(.name = module, .version = ver)
#else
#define COMPAT_MODULE_MAGIC(module, ver) PG_MODULE_MAGIC
#endif

#endif							/* POSTALYTICS_COMPAT_H */
