/*
 * process.h
 *		Functions that the background processes share.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_PROCESS_H
#define POSTALYTICS_PROCESS_H

/* Longest time that a worker sleeps before it checks for work, in milliseconds. */
#define CHECK_INTERVAL	10000

extern bool is_alive(int pid);
extern void process_begin(void);
extern void sleep_for(long milliseconds);
extern void transaction_begin(const char *activity);
extern void transaction_commit(void);

#endif							/* POSTALYTICS_PROCESS_H */
