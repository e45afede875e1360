# make, make install, make installcheck: plain PGXS, for those who know it.
# make demo, make test: everything from nothing on a Debian machine.

EXTENSION = postalytics_status
EXTVERSION = $(shell sed -n 's|^   "version": "\(.*\)".*|\1|p' META.json)

MODULE_big = postalytics_status
OBJS = $(patsubst %.c,%.o,$(wildcard src/*.c src/*/*.c))

# The install script is these, bottom floor first; the privileges, which name all
# others, come last.
SQL = $(addprefix src/, \
	base/table.sql base/cache.sql base/lock.sql \
	lifecycle/lifecycle.sql lifecycle/current_status.sql \
	rights/settings.sql \
	feed/field_name.sql \
	storage/events.sql storage/leaf.sql storage/partition.sql storage/maintenance_log.sql \
	journey/piece.sql journey/campaign.sql \
	sync/sync.sql sync/match.sql sync/notice.sql sync/delivery.sql sync/fetch.sql \
	sync/ack.sql sync/replay.sql sync/create_sync.sql sync/sync_health.sql sync/notify.sql \
	ingest/ingest.sql ingest/rejects.sql ingest/retry.sql ingest/inbox.sql \
	ingest/offer.sql ingest/inserted.sql ingest/refold.sql \
	report/bar.sql report/payload.sql report/calendar.sql report/facts.sql \
	report/campaign_report.sql report/piece_report.sql report/funnel.sql \
	report/response_report.sql \
	operate/maintain.sql operate/drop_campaign.sql operate/guard.sql \
	worker/status.sql \
	rights/grant.sql)
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
