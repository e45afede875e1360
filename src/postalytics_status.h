/*
 * postalytics_status.h
 *		What the modules show each other, in the order data flows.
 */
#ifndef POSTALYTICS_STATUS_H
#define POSTALYTICS_STATUS_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif
#include "pgtime.h"
#include "storage/lockdefs.h"
#include "utils/palloc.h"
#include "utils/relcache.h"

#define EXTENSION_NAME		"postalytics_status"
#define EXTENSION_SCHEMA	"postalytics"

/* ---- postalytics_status.c: settings and what every module needs ---- */

typedef enum Identity
{
	IDENTITY_MAIL,				/* a piece is its mail id */
	IDENTITY_CONTACT			/* a piece is campaign/contact where known */
} Identity;

extern int	setting_identity;
extern bool setting_keep_payload;
extern int	setting_earliest;	/* minutes back */
extern int	setting_latest;		/* minutes ahead */
extern int	setting_history;	/* minutes back */
extern int	setting_notify_interval;	/* milliseconds */
extern int	setting_maintenance_interval;	/* seconds */
extern char *setting_worker_databases;
extern pg_tz *feed_time_zone;

extern Oid	extension_relation(const char *name);
extern Oid	extension_owner(void);
extern SPIPlanPtr keep_plan(SPIPlanPtr *plan, const char *query, int nargs,
							Oid *types);
extern void new_row(TupleDesc tupdesc, Datum **values, bool **nulls);

/*
 * A column of a table of ours that is written by its place: its type, or
 * ANYENUMOID for one of our enums; InvalidOid where only NULL is written.
 */
typedef struct TableColumn
{
	const char *name;
	Oid			type;
	bool		not_null;		/* NULL is never written to it */
	int			merge;			/* for journey.c: how two rows' values merge */
} TableColumn;

#define COLUMN(name, type)			{name, type, false, 0}
#define COLUMN_NOT_NULL(name, type)	{name, type, true, 0}

extern bool has_columns(Relation relation, const TableColumn *columns, int ncolumns);
extern void check_columns(Relation relation, const TableColumn *columns, int ncolumns);
extern bool has_key(Relation relation, AttrNumber first, int ncolumns);
extern void check_key(Relation relation);
extern Relation open_table(const char *name, const TableColumn *columns, int ncolumns,
						   LOCKMODE mode);
extern void raise_serialization_failure(void);
extern void check_not_distributed(Oid relation);

/* True if two texts are the same bytes. */
static inline bool
equal_texts(const text *a, const text *b)
{
	return VARSIZE_ANY_EXHDR(a) == VARSIZE_ANY_EXHDR(b) &&
		memcmp(VARDATA_ANY(a), VARDATA_ANY(b), VARSIZE_ANY_EXHDR(a)) == 0;
}

extern void register_rows(const char *name, Oid relation,
						  Tuplestorestate *rows, int64 count);

/*
 * What a session keeps of one of the extension's small tables.  begin and add
 * run in the cache's own memory context: one empties it, the other is given a
 * row.
 */
typedef struct TableCache
{
	const char *table;
	void		(*begin) (void);
	void		(*add) (TupleTableSlot *row);
	MemoryContext context;
	Oid			relation;		/* that was read; invalid when it has changed */
	bool		complete;
} TableCache;

extern void refresh_cache(TableCache *cache);

/* ---- lifecycle.c: mail_status and its order ---- */

typedef enum MailStatus
{
	MAIL_PIECE_CREATED,
	ADDRESSED,
	PRINTED,
	MAILED,
	IN_TRANSIT,
	IN_LOCAL_AREA,
	PROCESSED_FOR_DELIVERY,
	RE_ROUTED,
	RETURNED_TO_SENDER,
	PURL_OPENED,
	PURL_COMPLETED
} MailStatus;

#define N_STATUSES	(PURL_COMPLETED + 1)
#define NO_STATUS	(-1)

extern int	status_from_text(const char *text, int len);
extern int	find_status(Oid value);
extern int	status_from_oid(Oid value);
extern Oid	status_oid(MailStatus status);
extern const char *status_name(MailStatus status);
extern const char *status_label(MailStatus status);
extern int	status_from_instants(const TimestampTz *last);

/* ---- event.c: JSON to event records ---- */

typedef enum Field
{
	MAIL_ID,
	EVENT_DATE,
	EVENT_TYPE,
	EXPECTED_DELIVERY_DATE,
	ACCOUNT,
	CAMPAIGN_ID,
	CAMPAIGN_NAME,
	CONTACT_ID,
	FIRST_NAME,
	LAST_NAME,
	COMPANY,
	EMAIL,
	ZIP,
	COUNTRY,
	URL,
	FIELDS,
	/* those that only the reports read, from stored payloads */
	ERROR_CODE,
	ERROR_DESCRIPTION,
	ADDRESS_UPDATED,
	ADDRESS,
	ADDRESS2,
	CITY,
	STATE
} Field;

#define N_FIELDS	(FIELDS + 1)	/* of an event record */
#define N_ALL_FIELDS (STATE + 1)

/* A stretch of a source's text; empty means absent. */
typedef struct Span
{
	uint32		offset;
	uint32		length;
} Span;

/* One text handed in, whole; what is read from it points into it. */
typedef struct EventSource
{
	const char *text;
	uint32		length;
	const char *account;		/* overrides the event's own, or NULL */
	int64		number;			/* in order of arrival */
	int64		accepted;		/* how many of its events were */
	int64		rejected;
	bool		folded;			/* its rejects are kept as one */
} EventSource;

/*
 * One event.  Kept small, for a call may hold hundreds of thousands of them:
 * fields stay where they are in the source until somebody asks for one.
 */
typedef struct EventRecord
{
	EventSource *source;
	const char *piece;			/* piece_id, not terminated */
	TimestampTz occurred_at;
	TimestampTz expected_at;	/* DT_NOBEGIN for none */
	Span		payload;
	Span		field[N_FIELDS];
	uint32		piece_length;
	uint16		escaped;		/* bit per field: the text must be converted to get the value */
	uint8		status;
} EventRecord;

/* A source with more rejects than this is stored as one reject. */
#define MAX_REJECTS	1000

typedef struct Reject
{
	EventSource *source;
	Span		payload;
	const char *piece;			/* as far as it could be read, or NULL */
	const char *reason;
} Reject;

typedef struct EventBatch
{
	MemoryContext context;
	MemoryContext scratch;		/* of the event being read */
	TimestampTz earliest;		/* the accepted window */
	TimestampTz latest;
	EventRecord **chunks;
	int64		nchunks;
	int64		max_chunks;
	int64		nrecords;
	int64		nsources;
	Reject	   *rejects;
	int64		nrejects;
	int64		max_rejects;
	int64		nrejected;		/* events, including those not noted one by one */
	void		(*progress) (uint32 done);	/* bytes read so far, or NULL */
} EventBatch;

extern EventBatch *event_batch_create(MemoryContext parent);
extern EventSource *event_batch_read(EventBatch *batch, const char *text,
									 uint32 length, const char *account);
extern EventRecord *event_batch_record(EventBatch *batch, int64 i);
extern void event_batch_reject(EventBatch *batch, int64 i, const char *reason);
extern bool event_read_fields(EventRecord *record, EventSource *source);
extern const char *event_field(const EventRecord *record, Field field,
							   int *length);
extern Datum event_field_text(const EventRecord *record, Field field);
extern int	event_compare(const EventRecord *record, const char *piece,
						  uint32 length, MailStatus status,
						  TimestampTz occurred_at);

/* ---- spill.c: event records that are too many for memory ---- */

typedef struct Spill Spill;

extern Spill *spill_create(MemoryContext parent);
extern void spill_add(Spill *spill, EventBatch *batch);
extern int64 spill_sort(Spill *spill);
extern void spill_rewind(Spill *spill);
extern const EventRecord *spill_next(Spill *spill);
extern const EventRecord *spill_record(Spill *spill);
extern void spill_end(Spill *spill);

/* ---- partition.c: months of events, days of deliveries ---- */

typedef enum LeafKind
{
	LEAF_MONTH,					/* of events */
	LEAF_DAY					/* of deliveries */
} LeafKind;

typedef enum LeafState
{
	LEAF_THERE,
	LEAF_MADE,
	LEAF_IN_THE_WAY				/* something that is not a partition has its name */
} LeafState;

extern LeafState ensure_month(TimestampTz time);
extern char *month_name(TimestampTz instant);
extern void make_months_in_worker(const TimestampTz *times, int count);
extern bool ensure_day(TimestampTz time);
extern void ensure_leaf_of(LeafKind kind, TimestampTz time);
extern TimestampTz month_start(TimestampTz instant);

extern Oid	month_of_events(Relation events, TimestampTz instant);

/* Columns of events, as partition.sql has them; an attribute's number less one. */
enum
{
	EVENTS_EVENT_ID, EVENTS_PIECE_ID, EVENTS_STATUS, EVENTS_OCCURRED_AT,
	EVENTS_RECEIVED_AT, EVENTS_ACCOUNT, EVENTS_CAMPAIGN_ID, EVENTS_PAYLOAD,
	N_EVENTS_COLUMNS
};

extern const TableColumn events_columns[N_EVENTS_COLUMNS];

/* ---- direct.c: rows written without a query ---- */

typedef struct DirectTable DirectTable;

/* Change a row that is offered by the stored one with its key. */
typedef void (*DirectMerge) (Datum *values, bool *nulls,
							 const Datum *stored, const bool *stored_nulls);

extern bool direct_allowed(Relation relation, const TableColumn *columns, int ncolumns);
extern bool direct_allowed_below(Relation parent, const TableColumn *columns, int ncolumns,
								 const char *trigger);
extern DirectTable *direct_open(Relation relation, int ncolumns);
extern bool direct_insert(DirectTable *table, const Datum *values, const bool *nulls, bool hope);
extern void direct_upsert(DirectTable *table, const Datum *values, const bool *nulls, DirectMerge merge);
extern void direct_close(DirectTable *table);

/* ---- ingest.c: ingest, inbox, rejects ---- */

extern const EventRecord *ingested_record(const char *piece, uint32 length,
										  MailStatus status,
										  TimestampTz occurred_at);

/* ---- derive.c: all that is derived from events ---- */

/* A row of events, as it is handed to what is derived from it. */
typedef struct EventRow
{
	int64		event_id;
	const char *piece;			/* not terminated */
	uint32		piece_length;
	MailStatus	status;
	TimestampTz occurred_at;
	text	   *account;		/* or NULL */
	text	   *campaign_id;	/* or NULL */
	const EventRecord *record;	/* what its payload says, or NULL */
} EventRow;

typedef struct Derivation Derivation;

extern Derivation *derive_begin(bool are_new);
extern MemoryContext derive_piece(Derivation *derivation, const char *piece, uint32 length);
extern void derive_row(Derivation *derivation, const EventRow *row);
extern void derive_end(Derivation *derivation);

/* ---- journey.c: pieces and campaigns ---- */

/* Columns of pieces, as journey.sql has them; an attribute's number less one. */
enum
{
	PIECE_ID, PIECE_ACCOUNT, PIECE_CAMPAIGN_ID, PIECE_CONTACT_ID,
	PIECE_STATUS, PIECE_STATUS_AT, PIECE_RESPONSE,
	FIRST_OF_STATUS,			/* one of each, in enum order */
	OPENS = FIRST_OF_STATUS + N_STATUSES,
	COMPLETIONS, FIRST_EVENT_AT, LAST_EVENT_AT, EXPECTED_DELIVERY_AT,
	PIECE_COUNTRY, PIECE_FIRST_NAME, PIECE_LAST_NAME, PIECE_COMPANY,
	PIECE_EMAIL, PIECE_ZIP, PIECE_FIELDS, LAST_URL,
	PIECE_MARKS, N_PIECE_COLUMNS
};

/* Columns of campaigns. */
enum
{
	CAMPAIGNS_ID, CAMPAIGNS_ACCOUNT, CAMPAIGNS_NAME, CAMPAIGNS_NAMED_ON,
	N_CAMPAIGNS_COLUMNS
};

extern Relation open_pieces(LOCKMODE mode);
extern Relation open_campaigns(LOCKMODE mode);
extern bool piece_has_reached(TupleTableSlot *piece, uint16 statuses);

typedef struct JourneyWriter JourneyWriter;

extern JourneyWriter *journey_writer_create(MemoryContext parent);
extern void journey_add(JourneyWriter *writer, const EventRow *row);
extern void journey_next_piece(JourneyWriter *writer);
extern void journey_finish(JourneyWriter *writer);

/* ---- notify.c: what a channel is told ---- */

typedef struct Notice
{
	const char *about;			/* the start of the JSON */
	const char *list;			/* what the items are called */
	StringInfoData items;		/* those that fit */
	int			before;			/* length without the one being written */
	int			room;			/* bytes for items; 0 when full */
	int64		count;			/* of all */
} Notice;

extern void notice_begin(Notice *notice, const char *about, const char *list);
extern StringInfo notice_item(Notice *notice);
extern void notice_item_end(Notice *notice);
extern void notice_send(const Notice *notice, const char *channel);

/* ---- wake.c: what sessions tell the background worker ---- */

extern bool wake_has_worker(void);
extern void wake_worker(const char *sync, const char *channel, int64 count);
extern void wake_want_worker(Oid database);

/* ---- leaf_worker.c: partitions created by a background worker ---- */

extern bool make_leaves_in_worker(LeafKind kind, const TimestampTz *times, int count);

/* ---- worker.c: the background worker and its launcher ---- */

extern void worker_init(void);

/* ---- sync.c: syncs, and which events they are for ---- */

/* Some texts; none of them means any. */
typedef struct TextList
{
	int			count;
	text	  **texts;
} TextList;

typedef struct Sync
{
	char	   *name;
	char	   *channel;
	bool		enabled;
	TextList	campaigns;
	TextList	accounts;
	uint16		statuses;		/* a bit each */
	Interval	wait;
	uint16		unless;			/* a bit each, 0 for none */
	bool		latest_only;
	bool		ordered;
	bool		durable;
	int			max_attempts;
	int			nworkers;
	char	  **workers;		/* names of roles */
	struct Sync *next;
} Sync;

typedef struct SyncMatch SyncMatch;

extern const Sync *find_sync(const char *name);
extern const Sync *first_sync(void);
extern void sync_notify(const char *name, const char *channel, int64 count);
extern void check_sync_worker(const Sync *sync);
extern SyncMatch *sync_match_begin(MemoryContext parent);
extern void sync_match_event(SyncMatch *match, const EventRow *row);
extern void sync_match_finish(SyncMatch *match);

/* ---- delivery_writer.c: deliveries ---- */

typedef struct DeliveryWriter DeliveryWriter;

extern DeliveryWriter *delivery_writer_create(MemoryContext parent);
extern void delivery_add(DeliveryWriter *writer, const Sync *sync,
						 const EventRow *row);
extern void delivery_finish(DeliveryWriter *writer);

#endif							/* POSTALYTICS_STATUS_H */
