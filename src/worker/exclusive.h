/*
 * exclusive.h
 *		Commands that need exclusive use of a database.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_EXCLUSIVE_H
#define POSTALYTICS_EXCLUSIVE_H

extern void exclusive_init(void);

#endif							/* POSTALYTICS_EXCLUSIVE_H */
