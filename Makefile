# make, make install, make installcheck: plain PGXS, for those who know it.
# make demo, make test: everything from nothing on a Debian machine.

EXTENSION = postalytics_status
EXTVERSION = $(shell sed -n 's|^   "version": "\(.*\)".*|\1|p' META.json)

MODULE_big = postalytics_status
OBJS = $(addprefix src/,postalytics_status.o lifecycle.o event.o lookup.o partition.o \
	leaf_worker.o direct.o spill.o ingest.o derive.o journey.o sync.o delivery.o \
	delivery_writer.o fetch.o ack.o notify.o guard.o \
	calendar.o report.o wake.o worker.o)

# The install script is these, in the order data flows.
SQL = $(addprefix src/,lifecycle.sql partition.sql ingest.sql derive.sql \
	journey.sql sync.sql delivery.sql maintain.sql notify.sql guard.sql \
	calendar.sql report.sql worker.sql grant.sql)
INSTALL_SQL = $(EXTENSION)--$(EXTVERSION).sql
DATA_built = $(INSTALL_SQL)

REGRESS = lifecycle planner ingest rejects inbox events sync delivery use_cases notify \
	attack names calendar altered distributed arrives figures
ISOLATION = same_month same_piece same_event progress two_fetches \
	expired_lease nack_ack drop_fetch since retire_ingest retry_ingest
ISOLATION_OPTS = --inputdir=$(srcdir)/test

# The two that are off are what the server's own headers warn of.
PG_CFLAGS = -std=gnu11 -Wall -Wextra -Wno-unused-parameter -Wno-sign-compare
PG_CPPFLAGS = -DPOSTALYTICS_VERSION='"$(EXTVERSION)"'
EXTRA_CLEAN = $(DATA_built)

# What installs a server by itself, so that PGXS need not be there yet; fresh is
# demo and test on a bare system, and needs root.
ifneq ($(filter demo test bench bench-scale bench-queue soak fuzz assert examples fresh matrix,$(MAKECMDGOALS)),)
demo test bench soak fuzz assert examples:
	@test/run $@
bench-scale:
	@ROWS='e i j l' test/run bench
bench-queue:
	@test/run queue
fresh matrix:
	@test/$@
else

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

$(OBJS): $(wildcard src/*.h)

$(INSTALL_SQL): $(SQL)
	(printf '%s\n' '\echo Use "CREATE EXTENSION $(EXTENSION)" to load this file. \quit'; \
	 cat $^) > $@

endif

.PHONY: demo test bench bench-scale bench-queue soak fuzz assert examples fresh matrix
