/*
 * extension.h
 *		The extension's name, schema, relations and owner.
 */
#ifndef POSTALYTICS_EXTENSION_H
#define POSTALYTICS_EXTENSION_H

#define EXTENSION_NAME		"postalytics_status"
#define EXTENSION_SCHEMA	"postalytics"

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
