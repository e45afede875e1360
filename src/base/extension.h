/*
 * extension.h
 *		The extension's name, schema, relations and owner.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_EXTENSION_H
#define POSTALYTICS_EXTENSION_H

#define EXTENSION_NAME		"postalytics_status"
#define EXTENSION_SCHEMA	"postalytics"

/*
 * Number of the interface between the extension's SQL objects and the library;
 * equal to the major version.  Files are installed and ALTER EXTENSION is run at
 * different times, and sessions keep the library that they have loaded.  Therefore, a
 * library supports every version of the extension that has the same number, and
 * rejects others.  The C symbol of the SQL function interface() ends with the number
 * that the extension requires.
 */
#define EXTENSION_INTERFACE 1

/* The hint of errors that a later library would not raise. */
#define RELOAD_HINT \
	"If the library is in shared_preload_libraries, restart the server; otherwise reconnect."

/* The user and security context that restore_user restores. */
typedef struct SavedUser
{
	Oid			user;
	int			context;
} SavedUser;

extern Oid	extension_relation(const char *name);
extern Oid	relation_owner(Oid relation);
extern Oid	extension_owner(void);
extern SavedUser switch_to_owner(void);
extern void restore_user(SavedUser before);
extern void set_parameter(const char *name, const char *value);

#endif							/* POSTALYTICS_EXTENSION_H */
