/*
 * configuration.h
 *		Copies the configuration of the front to the slots when a transaction commits.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_CONFIGURATION_H
#define POSTALYTICS_CONFIGURATION_H

extern void configuration_init(void);

#endif							/* POSTALYTICS_CONFIGURATION_H */
