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
 * The number of the interface by which SQL calls the library.  Installing files and
 * ALTER EXTENSION are separate steps, and sessions keep the library that they have
 * loaded, so a library serves all SQL versions with the same number, which is the
 * major version, and refuses others.  SQL has the number in the symbol of function
 * interface().
 */
#define EXTENSION_INTERFACE 1

/* The user and security context that restore_user restores. */
typedef struct SavedUser
{
	Oid			user;
	int			context;
} SavedUser;

extern Oid	extension_relation(const char *name);
extern Oid	extension_owner(void);
extern SavedUser switch_to_owner(void);
extern void restore_user(SavedUser before);

#endif							/* POSTALYTICS_EXTENSION_H */
