/*
 * ingest.h
 *		Arguments of ingest.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_INGEST_H
#define POSTALYTICS_INGEST_H

#include "fmgr.h"
#include "rights/binding.h"

extern EventAccount account_argument(FunctionCallInfo fcinfo);

#endif							/* POSTALYTICS_INGEST_H */
