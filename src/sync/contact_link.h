/*
 * contact_link.h
 *		The links to contacts, and the update of the contacts of a link.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_CONTACT_LINK_H
#define POSTALYTICS_CONTACT_LINK_H

#include "postgres.h"

/* A row of contact_links. */
typedef struct Link
{
	const char *name;			/* of the contacts, qualified and quoted */
	Oid			contacts;		/* InvalidOid in the list of links, because
								 * the contacts can be dropped and created
								 * again */
	const char *owner;			/* role that owned the contacts when they were
								 * linked */
	const char *id_field;		/* NULL to find contacts only by e-mail
								 * address */
	const char *id_column;
	const char *email_column;	/* NULL to find contacts only by id */
	const char *status_column;
	const char *status_at_column;
	struct Link *next;
} Link;

/* The number of pieces up to which the plan of the update is kept. */
#define MAX_FEW			100

extern const Link *first_link(void);
extern const char *qualified_name(Oid relation);
extern int64 update_contacts(const Link *link, int64 npieces);

#endif							/* POSTALYTICS_CONTACT_LINK_H */
