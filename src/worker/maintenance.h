/*
 * maintenance.h
 *		Maintenance by the background worker.
 */
#ifndef POSTALYTICS_MAINTENANCE_H
#define POSTALYTICS_MAINTENANCE_H

extern char *run_maintenance(bool *more);

#endif							/* POSTALYTICS_MAINTENANCE_H */
