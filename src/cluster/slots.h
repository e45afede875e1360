/*
 * slots.h
 *		The slots of a cluster, as the front calls them.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_SLOTS_H
#define POSTALYTICS_SLOTS_H

#include "executor/spi.h"

/*
 * Bits of an id below the number of the slot that assigned it; see slot.sql.
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
