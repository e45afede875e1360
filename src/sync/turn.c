/*
 * turn.c
 *		A short-term lock that serializes decisions about a sync.
 *
 * The turn of a session is the time for which it holds the lock.  The lock is
 * released before the transaction ends, so that a worker that is idle in
 * transaction does not block others.  Rows that are written during a turn must
 * therefore be read with a snapshot that includes uncommitted rows.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "base/compat.h"
#include "base/extension.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "common/hashfn.h"
#include "storage/lmgr.h"
#include "sync/turn.h"

/*
 * Return the objsubid of the lock of a sync, which is a lock on the extension.
 * Syncs whose names have the same hash share a lock.  The highest bit of the
 * objsubid is set, so that it differs from the objsubid used by show_waiting.
 */
static uint16
turn_id(const Sync *sync)
{
	return hash_bytes((const unsigned char *) sync->name, strlen(sync->name)) | 0x8000;
}

/*
 * Take the lock of a sync, and wait for it if necessary.  The lock is released by
 * end_turn, or when the (sub)transaction aborts.
 *
 * Locks: ExclusiveLock on the extension, with turn_id as objsubid.
 */
void
take_turn(const Sync *sync)
{
	LockDatabaseObject(ExtensionRelationId, get_extension_oid(EXTENSION_NAME, false),
					   turn_id(sync), ExclusiveLock);
}

/* Release the lock that take_turn has taken. */
void
end_turn(const Sync *sync)
{
	UnlockDatabaseObject(ExtensionRelationId, get_extension_oid(EXTENSION_NAME, false),
						 turn_id(sync), ExclusiveLock);
}
