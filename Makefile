# make, make install and make installcheck are plain PGXS.
# make demo and make test install what they need on a Debian machine.

EXTENSION = postalytics_status postalytics_cluster
EXTVERSION = $(shell sed -n 's|^   "version": "\(.*\)".*|\1|p' META.json)

MODULE_big = postalytics_status
OBJS = $(addprefix src/, postalytics_status.o \
	base/cache.o base/extension.o base/query.o base/table.o base/version.o \
	lifecycle/current_status.o lifecycle/lifecycle.o lifecycle/order_support.o \
	rights/binding.o rights/settings.o \
	feed/batch.o feed/call.o feed/event.o feed/field_name.o feed/reader.o feed/payload_account.o feed/person.o feed/status_name.o feed/validate.o \
	feed/timestamp.o feed/value.o \
	storage/direct.o storage/events.o storage/ensure_partition.o storage/lookup.o storage/slot.o \
	storage/partition.o storage/partition_worker.o \
	journey/campaign.o journey/journey.o journey/piece.o \
	sync/ack.o sync/aside.o sync/breaker.o sync/delivery.o sync/delivery_row.o sync/delivery_writer.o sync/disable.o sync/due.o sync/fetch.o sync/contact_link.o sync/link.o sync/link_contacts.o sync/look.o sync/place.o \
	sync/verdict.o sync/match.o sync/notification.o sync/notify.o sync/pace.o sync/pause.o sync/sibling.o sync/sync.o sync/tally.o sync/timeline.o sync/turn.o sync/wake.o \
	ingest/derive.o ingest/inbox.o ingest/ingest.o ingest/inserted.o ingest/months.o \
	ingest/offer.o ingest/payloads.o ingest/production_error.o ingest/progress.o ingest/refold.o ingest/rejects.o ingest/repeat.o ingest/retry.o \
	ingest/spill.o ingest/store.o \
	report/bar.o report/calendar.o report/payload.o \
	operate/guard.o operate/preload.o \
	worker/exclusive.o worker/launcher.o worker/maintenance.o worker/process.o \
	worker/status.o worker/worker.o \
	cluster/configuration.o cluster/front_call.o cluster/front_ingest.o cluster/front_queue.o cluster/slots.o cluster/split.o)

# The install script consists of these files, lowest layer first.  rights/grant.sql,
# which names objects of all layers, comes last.
SQL = $(addprefix src/, \
	rights/install.sql \
	base/version.sql base/table.sql base/cache.sql base/lock.sql base/acl.sql \
	lifecycle/lifecycle.sql lifecycle/current_status.sql \
	rights/settings.sql rights/audit.sql rights/binding.sql \
	feed/field_name.sql feed/status_name.sql feed/payload_account.sql feed/person.sql \
	storage/events.sql storage/slot.sql storage/partition.sql storage/ensure_partition.sql storage/production_error.sql storage/maintenance_log.sql \
	journey/piece.sql journey/campaign.sql journey/piece_row.sql \
	sync/sync.sql sync/due.sql sync/match.sql sync/notification.sql sync/delivery.sql sync/fetch.sql \
	sync/ack.sql sync/replay.sql sync/breaker.sql sync/pause.sql sync/pace.sql sync/tally.sql sync/create_sync.sql sync/dead_letter.sql sync/sync_health.sql sync/notify.sql sync/link.sql \
	ingest/ingest.sql ingest/rejects.sql ingest/retry.sql ingest/inbox.sql \
	ingest/offer.sql ingest/inserted.sql ingest/refold.sql \
	report/bar.sql report/payload.sql report/calendar.sql report/facts.sql \
	report/campaign_report.sql report/piece_report.sql report/funnel.sql \
	report/response_report.sql report/for_front.sql \
	operate/configure.sql operate/join_cluster.sql operate/copy_configuration.sql operate/move_account.sql operate/rebuild.sql \
	operate/retract.sql operate/forget.sql operate/retire_pieces.sql operate/shrink.sql operate/maintain.sql \
	operate/drop_campaign.sql operate/metrics.sql operate/guard.sql operate/check_setup.sql \
	worker/status.sql \
	rights/account_table.sql rights/grant.sql)

# The script of the front of a cluster consists of the same files, and of files of
# src/cluster between them, which replace what is different at the front.
CLUSTER_SQL = $(subst src/journey/piece_row.sql,$(addprefix src/cluster/, relations.sql) src/journey/piece_row.sql, \
	$(subst src/rights/account_table.sql,$(addprefix src/cluster/, slots.sql connect.sql proxy.sql configuration.sql manage.sql report.sql health.sql front.sql account_table.sql), \
	$(SQL))) src/cluster/grant.sql

INSTALL_SQL = postalytics_status--$(EXTVERSION).sql
CLUSTER_INSTALL_SQL = postalytics_cluster--$(EXTVERSION).sql
DATA_built = $(INSTALL_SQL) $(CLUSTER_INSTALL_SQL)
# The scripts of released versions, and the update scripts.
DATA = $(filter-out $(addprefix releases/, $(DATA_built)), $(wildcard releases/*.sql))

REGRESS = lifecycle planner ingest rejects inbox events sync delivery use_cases notify \
	attack names calendar altered distributed arrives figures limits correct forget feed link
ISOLATION = same_month same_piece same_event progress two_fetches \
	expired_lease nack_ack drop_fetch since retire_ingest retry_ingest move_ingest \
	grant_drop account_change correct_ingest correct_wait repeat
ISOLATION_OPTS = --inputdir=$(srcdir)/test

# The server's headers cause the two warnings that are turned off.
PG_CFLAGS = -std=gnu11 -Wall -Wextra -Wno-unused-parameter -Wno-sign-compare -fvisibility=hidden
PG_CPPFLAGS = -I$(srcdir)/src -DPOSTALYTICS_VERSION='"$(EXTVERSION)"'
EXTRA_CLEAN = $(DATA_built)

# These targets install a server themselves, so PGXS need not exist yet.  fresh runs
# demo and test on a bare system, packages builds and tries the Debian packages, and
# containers the images; they need root.  release is described in DEVELOPERS.md.
ifneq ($(filter demo test docs bench bench-cluster bench-scale bench-queue bench-rivals soak fuzz assert examples fresh matrix indent packages containers dist release release-check,$(MAKECMDGOALS)),)
test docs bench bench-cluster soak fuzz assert examples release-check:
	@test/run $@
# With DATABASE=... on the command line, demo only loads a sample campaign into that
# database, as the user who runs make.
demo:
ifeq ($(origin DATABASE),command line)
	@demo/load -n "$${PIECES:-2000}" "$$DATABASE"
else
	@test/run $@
endif
bench-scale:
	@ROWS='stored memory lookups reports' test/run bench
bench-rivals:
	@test/run rivals
bench-queue:
	@test/run queue
fresh matrix indent packages containers:
	@test/$@
# The archive for PGXN, of the last commit.
dist:
	git archive --format=zip --prefix=postalytics_status-$(EXTVERSION)/ --output=postalytics_status-$(EXTVERSION).zip HEAD
release:
	@test/release $(NEXT)
else

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

$(OBJS): $(wildcard src/*.h src/*/*.h)

$(INSTALL_SQL): $(SQL)
$(CLUSTER_INSTALL_SQL): $(CLUSTER_SQL)
$(DATA_built):
	(printf '%s\n' '\echo Use "CREATE EXTENSION $(firstword $(subst --, ,$@))" to load this file. \quit'; \
	 cat $^) > $@

endif

.PHONY: demo test docs bench bench-cluster bench-scale bench-queue bench-rivals soak fuzz assert examples fresh matrix indent packages containers dist release release-check
