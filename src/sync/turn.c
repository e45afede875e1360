/*
 * turn.c
 *		Lets sessions decide on a sync one at a time, for a moment.
 *
 * A turn is a lock that is released before the transaction ends, so that a worker
 * whose transaction is idle stops no other.  What was written in a turn must
 * therefore be read without regard to whether it was committed.
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
 * Return the objsubid of the lock on the extension.  Syncs whose names have the
 * same hash share a lock.  The last bit keeps clear of other locks.
 */
static uint16
turn_id(const Sync *sync)
{
	return hash_bytes((const unsigned char *) sync->name, strlen(sync->name)) | 0x8000;
}

/* Wait for others to end their turns.  An error ends it, too. */
void
take_turn(const Sync *sync)
{
	LockDatabaseObject(ExtensionRelationId, get_extension_oid(EXTENSION_NAME, false),
					   turn_id(sync), ExclusiveLock);
}

void
end_turn(const Sync *sync)
{
	UnlockDatabaseObject(ExtensionRelationId, get_extension_oid(EXTENSION_NAME, false),
						 turn_id(sync), ExclusiveLock);
}
