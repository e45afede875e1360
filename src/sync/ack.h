/*
 * ack.h
 *		Acknowledgement of deliveries by the workers that fetched them.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_ACK_H
#define POSTALYTICS_ACK_H

#include "utils/array.h"

extern int64 ack_deliveries(const text *sync, ArrayType *delivery_ids, ArrayType *attempts);

#endif							/* POSTALYTICS_ACK_H */
