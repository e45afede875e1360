/*
 * extension.h
 *		The extension's name, schema, relations and owner.
 */
#ifndef POSTALYTICS_EXTENSION_H
#define POSTALYTICS_EXTENSION_H

#define EXTENSION_NAME		"postalytics_status"
#define EXTENSION_SCHEMA	"postalytics"

extern Oid	extension_relation(const char *name);
extern Oid	extension_owner(void);

#endif							/* POSTALYTICS_EXTENSION_H */
