/*
 * slot.h
 *		The slot that this database is in a cluster.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_SLOT_H
#define POSTALYTICS_SLOT_H

/* A slot in a cluster. */
typedef struct Slot
{
	int			number;
	int			slots;			/* number of slots; 0 if the database is not
								 * in a cluster */
} Slot;

extern int	slot_of_piece(const char *piece, int length, int slots);
extern Slot own_slot(void);
extern void check_slot_of_piece(Slot own, const char *piece, int length);

#endif							/* POSTALYTICS_SLOT_H */
