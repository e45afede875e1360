/*
 * subject.h
 *		What a look decides on: a delivery, or all deliveries of a piece.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_SUBJECT_H
#define POSTALYTICS_SUBJECT_H

#include "base/text.h"

/* A piece of an account or, if piece is NULL, a delivery. */
typedef struct Subject
{
	const text *piece;
	const text *account;
	int64		id;				/* of the delivery; 0 for a piece */
} Subject;

static inline Subject
piece_subject(const text *piece, const text *account)
{
	return (Subject)
	{
		piece, account, 0
	};
}

static inline Subject
delivery_subject(int64 id)
{
	return (Subject)
	{
		NULL, NULL, id
	};
}

static inline uint32
hash_subject(Subject subject)
{
	if (subject.piece == NULL)
		return hash_bytes((const unsigned char *) &subject.id, sizeof(subject.id));
	return hash_combine(hash_text(subject.piece), hash_text(subject.account));
}

static inline bool
equal_subjects(Subject a, Subject b)
{
	if (a.piece == NULL || b.piece == NULL)
		return a.piece == b.piece && a.id == b.id;
	return equal_texts(a.piece, b.piece) && equal_texts(a.account, b.account);
}

/* Copy a subject into the current memory context. */
static inline Subject
copy_subject(Subject subject)
{
	if (subject.piece != NULL)
	{
		subject.piece = DatumGetTextPCopy(PointerGetDatum(subject.piece));
		subject.account = DatumGetTextPCopy(PointerGetDatum(subject.account));
	}
	return subject;
}

#endif							/* POSTALYTICS_SUBJECT_H */
