/*
 * delivery_row.h
 *		The rows that fetch returns.
 */
#ifndef POSTALYTICS_DELIVERY_ROW_H
#define POSTALYTICS_DELIVERY_ROW_H

#include "nodes/execnodes.h"

extern void return_leased(ReturnSetInfo *result);

#endif							/* POSTALYTICS_DELIVERY_ROW_H */
