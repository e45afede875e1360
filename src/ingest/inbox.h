/*
 * inbox.h
 *		The triggers of the view inbox.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_INBOX_H
#define POSTALYTICS_INBOX_H

#include "feed/batch.h"
#include "fmgr.h"

/*
 * Stores a batch of rows of a statement.  Called as the owner of the extension, once for
 * each batch; is_last is true for the last one, which can be empty.  *stored is NULL at
 * the first call of a statement, and then the function's own state.
 */
typedef void (*StoreRows) (EventBatch *batch, void **stored, bool is_last);

extern void inbox_statement(FunctionCallInfo fcinfo, StoreRows store);

#endif							/* POSTALYTICS_INBOX_H */
