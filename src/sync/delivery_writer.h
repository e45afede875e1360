/*
 * delivery_writer.h
 *		Functions that write the deliveries of new events.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_DELIVERY_WRITER_H
#define POSTALYTICS_DELIVERY_WRITER_H

#include "storage/events.h"
#include "sync/sync.h"
#include "utils/palloc.h"

typedef struct DeliveryWriter DeliveryWriter;

extern DeliveryWriter *delivery_writer_create(MemoryContext parent);
extern void delivery_add(DeliveryWriter *writer, const Sync *sync, const EventRow *row);
extern void delivery_add_error(DeliveryWriter *writer, const Sync *sync, const EventRow *error);
extern void delivery_finish(DeliveryWriter *writer);

#endif							/* POSTALYTICS_DELIVERY_WRITER_H */
