/*
 * delivery_row.h
 *		The rows that fetch returns.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_DELIVERY_ROW_H
#define POSTALYTICS_DELIVERY_ROW_H

#include "nodes/execnodes.h"

extern void return_leased(ReturnSetInfo *result);

#endif							/* POSTALYTICS_DELIVERY_ROW_H */
