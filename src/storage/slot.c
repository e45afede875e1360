/*
 * slot.c
 *		The slot that this database is in a cluster, and the slot of a piece.
 *
 * A cluster distributes pieces over databases, which are called slots, by a hash of
 * piece_id.  Pieces of different accounts that have the same piece_id are in the same
 * slot, so a query for a piece needs only one slot, even if it names no account.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "base/cache.h"
#include "base/compat.h"
#include "catalog/partition.h"
#include "common/hashfn.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "storage/slot.h"

PG_FUNCTION_INFO_V1(postalytics_slot_of);

/* Attribute numbers of slot, in the order of slot.sql. */
enum
{
	ATTR_SLOT = 1, ATTR_SLOTS
};

/* The row of slot. */
static Slot slot;

static void
begin_slot(void)
{
	slot.slots = 0;
}

static void
add_slot(TupleTableSlot *row)
{
	bool		isnull;

	slot.number = DatumGetInt32(slot_getattr(row, ATTR_SLOT, &isnull));
	slot.slots = DatumGetInt32(slot_getattr(row, ATTR_SLOTS, &isnull));
}

static TableCache slot_cache = {
	.table = "slot",
	.begin = begin_slot,
	.add = add_slot
};

/*
 * Return the slot of a piece, from 0 to slots - 1.  length is in bytes, and slots is at
 * least 1.  The result is the remainder that PARTITION BY HASH (piece_id) computes with
 * modulus slots, so that the planner can prune the partitions at the front.  It depends
 * on the encoding of the database.
 */
int
slot_of_piece(const char *piece, int length, int slots)
{
	uint64		hash = hash_bytes_extended((const unsigned char *) piece, length, HASH_PARTITION_SEED);

	return hash_combine64(0, hash) % slots;
}

/*
 * Return the slot that this database is.  Its member slots is 0 if the database is not
 * in a cluster.
 */
Slot
own_slot(void)
{
	refresh_cache(&slot_cache);
	return slot;
}

/*
 * Check that a piece belongs to a slot, which is the result of own_slot.  piece is not
 * null-terminated.  Error 22023 if the piece belongs to another slot.
 */
void
check_slot_of_piece(Slot own, const char *piece, int length)
{
	int			right;

	if (own.slots <= 1)
		return;
	right = slot_of_piece(piece, length, own.slots);
	if (right != own.number)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("piece \"%s\" belongs to slot %d, but this database is slot %d",
						pnstrdup(piece, length), right, own.number),
				 errhint("Ingest events at the front of the cluster.")));
}

/*
 * slot_of(piece_id text, slots integer) returns integer
 *
 * Returns the slot of a piece in a cluster with this number of slots.  Strict.  Error
 * 22023 if slots is less than 1.
 */
Datum
postalytics_slot_of(PG_FUNCTION_ARGS)
{
	text	   *piece = PG_GETARG_TEXT_PP(0);
	int			slots = PG_GETARG_INT32(1);

	if (slots < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("number of slots must be at least 1")));
	PG_RETURN_INT32(slot_of_piece(VARDATA_ANY(piece), VARSIZE_ANY_EXHDR(piece), slots));
}
