/*
 * extension.h
 *		The extension's name, schema, relations and owner.
 */
#ifndef POSTALYTICS_EXTENSION_H
#define POSTALYTICS_EXTENSION_H

#define EXTENSION_NAME		"postalytics_status"
#define EXTENSION_SCHEMA	"postalytics"

/* Who a function acts as, to be restored when it ends. */
typedef struct ActingUser
{
	Oid			user;
	int			context;
} ActingUser;

extern Oid	extension_relation(const char *name);
extern Oid	extension_owner(void);
extern ActingUser act_as_owner(void);
extern void act_as_before(ActingUser before);

#endif							/* POSTALYTICS_EXTENSION_H */
