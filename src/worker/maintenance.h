/*
 * maintenance.h
 *		Maintenance by the background worker.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_MAINTENANCE_H
#define POSTALYTICS_MAINTENANCE_H

extern char *run_maintenance(bool *more);

#endif							/* POSTALYTICS_MAINTENANCE_H */
