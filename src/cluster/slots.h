/*
 * slots.h
 *		The slots of a cluster, as the front calls them.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_SLOTS_H
#define POSTALYTICS_SLOTS_H

#include "executor/spi.h"

/* The maximum number of slots, as in slot.sql. */
#define MAX_SLOTS		1024

/*
 * Number of the low-order bits of an id that are not the number of its slot, as in
 * first_id_of_slot (slot.sql).
 */
#define SLOT_ID_BITS	43

extern int	setting_slot_timeout;	/* milliseconds */
extern int	setting_fetch_timeout;	/* milliseconds */
extern int	setting_command_timeout;	/* milliseconds */

extern void slots_init(void);
extern int	number_of_slots(void);
extern void check_no_block(const char *function);
extern void slots_execute(const char *sql, int nargs, Oid *types, Datum *values, const char *nulls, int timeout);
extern ErrorData *slots_try(const char *sql, int nargs, Oid *types, Datum *values, const char *nulls, int timeout);
extern const char *slot_name(int slot);

#endif							/* POSTALYTICS_SLOTS_H */
