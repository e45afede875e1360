/*
 * launcher.h
 *		The process that starts the background workers.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_LAUNCHER_H
#define POSTALYTICS_LAUNCHER_H

extern void launcher_init(void);

#endif							/* POSTALYTICS_LAUNCHER_H */
