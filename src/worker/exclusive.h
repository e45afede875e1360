/*
 * exclusive.h
 *		Commands that need a database for themselves.
 */
#ifndef POSTALYTICS_EXCLUSIVE_H
#define POSTALYTICS_EXCLUSIVE_H

extern void exclusive_init(void);

#endif							/* POSTALYTICS_EXCLUSIVE_H */
