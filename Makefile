# make, make install, make installcheck: plain PGXS, for those who know it.
# make demo, make test: everything from nothing on a Debian machine.

EXTENSION = postalytics_status
EXTVERSION = $(shell sed -n 's|^   "version": "\(.*\)".*|\1|p' META.json)

MODULE_big = postalytics_status
OBJS = $(patsubst %.c,%.o,$(wildcard src/*.c src/*/*.c))

# The install script is these, in the order in which they need each other.
SQL = $(addprefix src/, lifecycle/lifecycle.sql storage/partition.sql \
	ingest/ingest.sql ingest/derive.sql journey/journey.sql sync/sync.sql \
	sync/delivery.sql operate/maintain.sql sync/notify.sql operate/guard.sql \
	report/calendar.sql report/report.sql worker/worker.sql rights/grant.sql)
INSTALL_SQL = $(EXTENSION)--$(EXTVERSION).sql
DATA_built = $(INSTALL_SQL)

REGRESS = lifecycle planner ingest rejects inbox events sync delivery use_cases notify \
	attack names calendar altered distributed arrives figures
ISOLATION = same_month same_piece same_event progress two_fetches \
	expired_lease nack_ack drop_fetch since retire_ingest retry_ingest
ISOLATION_OPTS = --inputdir=$(srcdir)/test

# The two that are off are what the server's own headers warn of.
PG_CFLAGS = -std=gnu11 -Wall -Wextra -Wno-unused-parameter -Wno-sign-compare
PG_CPPFLAGS = -Isrc -DPOSTALYTICS_VERSION='"$(EXTVERSION)"'
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

$(OBJS): $(wildcard src/*.h src/*/*.h)

$(INSTALL_SQL): $(SQL)
	(printf '%s\n' '\echo Use "CREATE EXTENSION $(EXTENSION)" to load this file. \quit'; \
	 cat $^) > $@

endif

.PHONY: demo test bench bench-scale bench-queue soak fuzz assert examples fresh matrix
