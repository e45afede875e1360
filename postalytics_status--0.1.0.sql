\echo Use "CREATE EXTENSION postalytics_status" to load this file. \quit
/*
 * lifecycle.sql
 *		mail_status, its order, labels and current_status.  Open to PUBLIC.
 *		Needs nothing but the library.
 */

CREATE TYPE postalytics.mail_status AS ENUM (
    'MailPieceCreated',
    'Addressed',
    'Printed',
    'Mailed',
    'InTransit',
    'InLocalArea',
    'ProcessedForDelivery',
    'ReRouted',
    'ReturnedToSender',
    'pURLOpened',
    'pURLCompleted'
);
COMMENT ON TYPE postalytics.mail_status IS
    'status of a mail piece; < is declaration order, << the lifecycle''s partial order';

-- The partial order.  It has no negators: where neither a << b nor b <<= a,
-- the two are incomparable.

CREATE FUNCTION postalytics.order_support(internal)
RETURNS internal
LANGUAGE c
STRICT
AS 'MODULE_PATHNAME', 'postalytics_order_support';
COMMENT ON FUNCTION postalytics.order_support(internal) IS
    'planner support: turns << and its kin against a constant into = ANY (...)';

CREATE FUNCTION postalytics.precedes(a postalytics.mail_status, b postalytics.mail_status)
RETURNS boolean
LANGUAGE c
IMMUTABLE STRICT PARALLEL SAFE
SUPPORT postalytics.order_support
AS 'MODULE_PATHNAME', 'postalytics_precedes';
COMMENT ON FUNCTION postalytics.precedes(postalytics.mail_status, postalytics.mail_status) IS
    'does b belong later in the lifecycle than a? (a << b)';

CREATE FUNCTION postalytics.follows(a postalytics.mail_status, b postalytics.mail_status)
RETURNS boolean
LANGUAGE c
IMMUTABLE STRICT PARALLEL SAFE
SUPPORT postalytics.order_support
AS 'MODULE_PATHNAME', 'postalytics_follows';
COMMENT ON FUNCTION postalytics.follows(postalytics.mail_status, postalytics.mail_status) IS
    'does a belong later in the lifecycle than b? (a >> b)';

CREATE FUNCTION postalytics.precedes_or_equals(a postalytics.mail_status, b postalytics.mail_status)
RETURNS boolean
LANGUAGE c
IMMUTABLE STRICT PARALLEL SAFE
SUPPORT postalytics.order_support
AS 'MODULE_PATHNAME', 'postalytics_precedes_or_equals';
COMMENT ON FUNCTION postalytics.precedes_or_equals(postalytics.mail_status, postalytics.mail_status) IS
    'is b the same as a, or later in the lifecycle? (a <<= b)';

CREATE FUNCTION postalytics.follows_or_equals(a postalytics.mail_status, b postalytics.mail_status)
RETURNS boolean
LANGUAGE c
IMMUTABLE STRICT PARALLEL SAFE
SUPPORT postalytics.order_support
AS 'MODULE_PATHNAME', 'postalytics_follows_or_equals';
COMMENT ON FUNCTION postalytics.follows_or_equals(postalytics.mail_status, postalytics.mail_status) IS
    'is a the same as b, or later in the lifecycle? (a >>= b)';

CREATE FUNCTION postalytics.comparable(a postalytics.mail_status, b postalytics.mail_status)
RETURNS boolean
LANGUAGE c
IMMUTABLE STRICT PARALLEL SAFE
SUPPORT postalytics.order_support
AS 'MODULE_PATHNAME', 'postalytics_comparable';
COMMENT ON FUNCTION postalytics.comparable(postalytics.mail_status, postalytics.mail_status) IS
    'are a and b the same, or one later in the lifecycle than the other?';

CREATE OPERATOR postalytics.<< (
    FUNCTION = postalytics.precedes,
    LEFTARG = postalytics.mail_status,
    RIGHTARG = postalytics.mail_status,
    COMMUTATOR = OPERATOR(postalytics.>>),
    RESTRICT = scalarltsel,
    JOIN = scalarltjoinsel
);
COMMENT ON OPERATOR postalytics.<< (postalytics.mail_status, postalytics.mail_status) IS
    'earlier in the lifecycle than';

CREATE OPERATOR postalytics.>> (
    FUNCTION = postalytics.follows,
    LEFTARG = postalytics.mail_status,
    RIGHTARG = postalytics.mail_status,
    COMMUTATOR = OPERATOR(postalytics.<<),
    RESTRICT = scalargtsel,
    JOIN = scalargtjoinsel
);
COMMENT ON OPERATOR postalytics.>> (postalytics.mail_status, postalytics.mail_status) IS
    'later in the lifecycle than';

CREATE OPERATOR postalytics.<<= (
    FUNCTION = postalytics.precedes_or_equals,
    LEFTARG = postalytics.mail_status,
    RIGHTARG = postalytics.mail_status,
    COMMUTATOR = OPERATOR(postalytics.>>=),
    RESTRICT = scalarlesel,
    JOIN = scalarlejoinsel
);
COMMENT ON OPERATOR postalytics.<<= (postalytics.mail_status, postalytics.mail_status) IS
    'the same as, or earlier in the lifecycle than';

CREATE OPERATOR postalytics.>>= (
    FUNCTION = postalytics.follows_or_equals,
    LEFTARG = postalytics.mail_status,
    RIGHTARG = postalytics.mail_status,
    COMMUTATOR = OPERATOR(postalytics.<<=),
    RESTRICT = scalargesel,
    JOIN = scalargejoinsel
);
COMMENT ON OPERATOR postalytics.>>= (postalytics.mail_status, postalytics.mail_status) IS
    'the same as, or later in the lifecycle than';

-- What a status is called, and where it applies.

CREATE FUNCTION postalytics.label(status postalytics.mail_status)
RETURNS text
LANGUAGE c
IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'postalytics_label';
COMMENT ON FUNCTION postalytics.label(postalytics.mail_status) IS
    'the status as people read it: In Transit';

CREATE FUNCTION postalytics.track(status postalytics.mail_status)
RETURNS text
LANGUAGE c
IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'postalytics_track';
COMMENT ON FUNCTION postalytics.track(postalytics.mail_status) IS
    'production, postal, exception or response';

CREATE FUNCTION postalytics.feed_code(status postalytics.mail_status)
RETURNS integer
LANGUAGE c
IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'postalytics_feed_code';
COMMENT ON FUNCTION postalytics.feed_code(postalytics.mail_status) IS
    'the number the feed uses for the status';

CREATE FUNCTION postalytics.is_terminal(status postalytics.mail_status)
RETURNS boolean
LANGUAGE c
IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'postalytics_is_terminal';
COMMENT ON FUNCTION postalytics.is_terminal(postalytics.mail_status) IS
    'does a piece''s journey end with the status?';

CREATE FUNCTION postalytics.is_repeatable(status postalytics.mail_status)
RETURNS boolean
LANGUAGE c
IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'postalytics_is_repeatable';
COMMENT ON FUNCTION postalytics.is_repeatable(postalytics.mail_status) IS
    'is each occurrence a fact of its own, as each visit is?';

CREATE FUNCTION postalytics.applies_in(status postalytics.mail_status, country text)
RETURNS boolean
LANGUAGE c
IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'postalytics_applies_in';
COMMENT ON FUNCTION postalytics.applies_in(postalytics.mail_status, text) IS
    'do pieces mailed to the country (US, CA) report the status? NULL for other countries';

CREATE FUNCTION postalytics.to_mail_status(spelling text)
RETURNS postalytics.mail_status
LANGUAGE c
IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'postalytics_to_mail_status';
COMMENT ON FUNCTION postalytics.to_mail_status(text) IS
    'the status of a name, a label in any spelling of the feed, or a feed code; NULL for anything else';

CREATE VIEW postalytics.statuses AS
SELECT s.status,
       postalytics.label(s.status) AS label,
       postalytics.track(s.status) AS track,
       postalytics.feed_code(s.status) AS feed_code,
       postalytics.applies_in(s.status, 'US') AS us,
       postalytics.applies_in(s.status, 'CA') AS canada,
       postalytics.is_terminal(s.status) AS terminal,
       postalytics.is_repeatable(s.status) AS repeatable
FROM pg_catalog.unnest(pg_catalog.enum_range(NULL::postalytics.mail_status)) AS s (status);
COMMENT ON VIEW postalytics.statuses IS
    'the statuses, in order, with what is to be known of each';

-- The current status of a piece, from its events.

CREATE FUNCTION postalytics.current_status_accum(internal, postalytics.mail_status, timestamptz)
RETURNS internal
LANGUAGE c
IMMUTABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'postalytics_current_status_accum';
COMMENT ON FUNCTION postalytics.current_status_accum(internal, postalytics.mail_status, timestamptz) IS
    'aggregate transition function';

CREATE FUNCTION postalytics.current_status_combine(internal, internal)
RETURNS internal
LANGUAGE c
IMMUTABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'postalytics_current_status_combine';
COMMENT ON FUNCTION postalytics.current_status_combine(internal, internal) IS
    'aggregate combine function';

CREATE FUNCTION postalytics.current_status_serialize(internal)
RETURNS bytea
LANGUAGE c
IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'postalytics_current_status_serialize';
COMMENT ON FUNCTION postalytics.current_status_serialize(internal) IS
    'aggregate serial function';

CREATE FUNCTION postalytics.current_status_deserialize(bytea, internal)
RETURNS internal
LANGUAGE c
IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'postalytics_current_status_deserialize';
COMMENT ON FUNCTION postalytics.current_status_deserialize(bytea, internal) IS
    'aggregate deserial function';

CREATE FUNCTION postalytics.current_status_final(internal)
RETURNS postalytics.mail_status
LANGUAGE c
IMMUTABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'postalytics_current_status_final';
COMMENT ON FUNCTION postalytics.current_status_final(internal) IS
    'aggregate final function';

CREATE AGGREGATE postalytics.current_status(postalytics.mail_status, timestamptz) (
    SFUNC = postalytics.current_status_accum,
    STYPE = internal,
    SSPACE = 88,
    FINALFUNC = postalytics.current_status_final,
    COMBINEFUNC = postalytics.current_status_combine,
    SERIALFUNC = postalytics.current_status_serialize,
    DESERIALFUNC = postalytics.current_status_deserialize,
    PARALLEL = SAFE
);
COMMENT ON AGGREGATE postalytics.current_status(postalytics.mail_status, timestamptz) IS
    'current status of a piece from its events'' statuses and instants, in any order';

-- ---- open to all ----

GRANT USAGE ON SCHEMA postalytics TO PUBLIC;
GRANT SELECT ON postalytics.statuses TO PUBLIC;
GRANT EXECUTE ON FUNCTION
    postalytics.precedes(postalytics.mail_status, postalytics.mail_status),
    postalytics.follows(postalytics.mail_status, postalytics.mail_status),
    postalytics.precedes_or_equals(postalytics.mail_status, postalytics.mail_status),
    postalytics.follows_or_equals(postalytics.mail_status, postalytics.mail_status),
    postalytics.comparable(postalytics.mail_status, postalytics.mail_status),
    postalytics.label(postalytics.mail_status),
    postalytics.track(postalytics.mail_status),
    postalytics.feed_code(postalytics.mail_status),
    postalytics.is_terminal(postalytics.mail_status),
    postalytics.is_repeatable(postalytics.mail_status),
    postalytics.applies_in(postalytics.mail_status, text),
    postalytics.to_mail_status(text),
    postalytics.current_status_accum(internal, postalytics.mail_status, timestamptz),
    postalytics.current_status_combine(internal, internal),
    postalytics.current_status_serialize(internal),
    postalytics.current_status_deserialize(bytea, internal),
    postalytics.current_status_final(internal),
    postalytics.current_status(postalytics.mail_status, timestamptz)
TO PUBLIC;
/*
 * partition.sql
 *		events, partitioned by month, and the making of its months.
 *
 * The parent has no key, index or identity, and only the leaves do: a dump
 * carries the leaves, the extension's script the parent, and keys on both
 * would be made twice in a restore.
 */

CREATE SEQUENCE postalytics.event_id_seq;
COMMENT ON SEQUENCE postalytics.event_id_seq IS
    'event_id of events';

CREATE TABLE postalytics.events (
    event_id bigint NOT NULL DEFAULT pg_catalog.nextval('postalytics.event_id_seq'),
    piece_id text COLLATE pg_catalog."C" NOT NULL,
    status postalytics.mail_status NOT NULL,
    occurred_at timestamptz NOT NULL,
    received_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    account text,
    campaign_id text,
    payload json
)
PARTITION BY RANGE (occurred_at);

COMMENT ON TABLE postalytics.events IS
    'every event once: this piece, this status, this instant; append-only, a partition a month';
COMMENT ON COLUMN postalytics.events.event_id IS 'grows with arrival, with gaps';
COMMENT ON COLUMN postalytics.events.piece_id IS 'mail id, or campaign/contact (postalytics_status.identity)';
COMMENT ON COLUMN postalytics.events.occurred_at IS 'the feed''s own instant';
COMMENT ON COLUMN postalytics.events.received_at IS 'when the event was stored';
COMMENT ON COLUMN postalytics.events.account IS 'the client''s account: ingest''s argument, or else the feed''s';
COMMENT ON COLUMN postalytics.events.payload IS 'the event as it came; NULL with postalytics_status.keep_payload off';

SELECT pg_catalog.pg_extension_config_dump('postalytics.events', '');
SELECT pg_catalog.pg_extension_config_dump('postalytics.event_id_seq', '');

CREATE FUNCTION postalytics.ensure_partitions("from" timestamptz, until timestamptz)
RETURNS integer
LANGUAGE c
STRICT
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'postalytics_ensure_partitions';
COMMENT ON FUNCTION postalytics.ensure_partitions(timestamptz, timestamptz) IS
    'make the missing months of events from "from" to before until; how many were made';
/*
 * ingest.sql
 *		ingest, inbox, rejects, and the users' own field names.
 */

CREATE TYPE postalytics.ingest_result AS (
    inserted bigint,
    duplicates bigint,
    rejected bigint
);
COMMENT ON TYPE postalytics.ingest_result IS
    'what became of the events of a call: the three add up to the events offered';

CREATE SEQUENCE postalytics.reject_id_seq;
COMMENT ON SEQUENCE postalytics.reject_id_seq IS
    'reject_id of rejects';

CREATE TABLE postalytics.rejects (
    reject_id bigint NOT NULL DEFAULT pg_catalog.nextval('postalytics.reject_id_seq') PRIMARY KEY,
    received_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    account text,
    reason text NOT NULL,
    payload json
);
COMMENT ON TABLE postalytics.rejects IS
    'what arrived and could not be understood, whole, with the reason';
COMMENT ON COLUMN postalytics.rejects.account IS 'the account named with the call or in inbox';
COMMENT ON COLUMN postalytics.rejects.payload IS 'the event as it came';

SELECT pg_catalog.pg_extension_config_dump('postalytics.rejects', '');
SELECT pg_catalog.pg_extension_config_dump('postalytics.reject_id_seq', '');

CREATE TABLE postalytics.field_names (
    path text NOT NULL PRIMARY KEY
        CHECK (pg_catalog.length(pg_catalog.translate(path, E' ._-\t\n\r\f\v', '')) BETWEEN 1 AND 63
               AND pg_catalog.octet_length(pg_catalog.translate(path, E' ._-\t\n\r\f\v', '')) <= 63),
    field text NOT NULL
        CHECK (field IN ('mail_id', 'event_date', 'event_type', 'expected_delivery_date',
                         'account', 'campaign_id', 'campaign_name', 'contact_id',
                         'first_name', 'last_name', 'company', 'email', 'zip', 'country',
                         'url', 'fields'))
);
COMMENT ON TABLE postalytics.field_names IS
    'further spellings of the feed''s fields; then call retry_rejects()';
COMMENT ON COLUMN postalytics.field_names.path IS
    'where the field stands in an event (to.givenName); case, blanks, ''_'' and ''-'' do not count';
COMMENT ON COLUMN postalytics.field_names.field IS
    'the field it is: a column of inbox, or fields';

SELECT pg_catalog.pg_extension_config_dump('postalytics.field_names', '');

CREATE FUNCTION postalytics.configuration_changed()
RETURNS trigger
LANGUAGE c
AS 'MODULE_PATHNAME', 'postalytics_configuration_changed';
COMMENT ON FUNCTION postalytics.configuration_changed() IS
    'trigger: tells every session to read the table anew';

CREATE TRIGGER configuration_changed
AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON postalytics.field_names
FOR EACH STATEMENT
EXECUTE FUNCTION postalytics.configuration_changed();

CREATE FUNCTION postalytics.ingest(payload json, account text DEFAULT NULL)
RETURNS postalytics.ingest_result
LANGUAGE c
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'postalytics_ingest';
COMMENT ON FUNCTION postalytics.ingest(json, text) IS
    'store an event, or an array of them, wrapped in data, events or items or not';

CREATE FUNCTION postalytics.retry_rejects()
RETURNS postalytics.ingest_result
LANGUAGE c
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'postalytics_retry_rejects';
COMMENT ON FUNCTION postalytics.retry_rejects() IS
    'ingest the rejects again; those understood now leave the table';

CREATE VIEW postalytics.inbox AS
SELECT NULL::text AS mail_id,
       NULL::text AS event_date,
       NULL::text AS event_type,
       NULL::text AS expected_delivery_date,
       NULL::text AS account,
       NULL::text AS campaign_id,
       NULL::text AS campaign_name,
       NULL::text AS contact_id,
       NULL::text AS first_name,
       NULL::text AS last_name,
       NULL::text AS company,
       NULL::text AS email,
       NULL::text AS zip,
       NULL::text AS country,
       NULL::text AS url,
       NULL::json AS payload
WHERE false;
COMMENT ON VIEW postalytics.inbox IS
    'insert-only: a row is an event, in flat columns or whole in payload; for INSERT and COPY';

CREATE FUNCTION postalytics.inbox_insert()
RETURNS trigger
LANGUAGE c
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'postalytics_inbox_insert';
COMMENT ON FUNCTION postalytics.inbox_insert() IS
    'trigger: ingests a statement''s rows together at its end';

CREATE FUNCTION postalytics.inbox_row()
RETURNS trigger
LANGUAGE c
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'postalytics_inbox_row';
COMMENT ON FUNCTION postalytics.inbox_row() IS
    'trigger: keeps a row until its statement ends';

CREATE TRIGGER inbox_begin
BEFORE INSERT ON postalytics.inbox
FOR EACH STATEMENT
EXECUTE FUNCTION postalytics.inbox_insert();

CREATE TRIGGER inbox_row
INSTEAD OF INSERT ON postalytics.inbox
FOR EACH ROW
EXECUTE FUNCTION postalytics.inbox_row();

CREATE TRIGGER inbox_end
AFTER INSERT ON postalytics.inbox
FOR EACH STATEMENT
EXECUTE FUNCTION postalytics.inbox_insert();

CREATE FUNCTION postalytics.offered_events()
RETURNS SETOF postalytics.events
LANGUAGE c
AS 'MODULE_PATHNAME', 'postalytics_offered_events';
COMMENT ON FUNCTION postalytics.offered_events() IS
    'internal: the events of the running ingest, for its INSERT';
/*
 * derive.sql
 *		The statement trigger on events, on which everything derived hangs.
 *		A restore fills the leaves, not events, so it does not fire there.
 */

CREATE FUNCTION postalytics.events_inserted()
RETURNS trigger
LANGUAGE c
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'postalytics_events_inserted';
COMMENT ON FUNCTION postalytics.events_inserted() IS
    'trigger: brings pieces, campaigns and syncs up to new events';

CREATE TRIGGER events_inserted
AFTER INSERT ON postalytics.events
REFERENCING NEW TABLE AS inserted
FOR EACH STATEMENT
EXECUTE FUNCTION postalytics.events_inserted();
/*
 * journey.sql
 *		pieces: what is known of each mail piece, folded from its events.
 *		campaigns: their names.
 *
 * All that a row of pieces holds is a function of the set of the piece's
 * events, whatever their order.  marks is what makes that so: for each status,
 * and for each group of columns that the latest event decides, the event that
 * was last, as microseconds since 2000 times 16, plus the status's place.
 *
 * What reports count stands before what is long and often NULL, for a row is
 * read from its start.
 */

CREATE TABLE postalytics.pieces (
    piece_id text COLLATE pg_catalog."C" NOT NULL PRIMARY KEY,
    account text,
    campaign_id text,
    contact_id text,
    status postalytics.mail_status,
    status_at timestamptz,
    response postalytics.mail_status,
    mail_piece_created_at timestamptz,
    addressed_at timestamptz,
    printed_at timestamptz,
    mailed_at timestamptz,
    in_transit_at timestamptz,
    in_local_area_at timestamptz,
    processed_for_delivery_at timestamptz,
    re_routed_at timestamptz,
    returned_to_sender_at timestamptz,
    first_opened_at timestamptz,
    first_completed_at timestamptz,
    opens integer NOT NULL,
    completions integer NOT NULL,
    first_event_at timestamptz NOT NULL,
    last_event_at timestamptz NOT NULL,
    expected_delivery_at timestamptz,
    country text,
    first_name text,
    last_name text,
    company text,
    email text,
    zip text,
    fields jsonb,
    last_url text,
    marks bytea NOT NULL
)
WITH (fillfactor = 95);

CREATE INDEX pieces_campaign_id_idx ON postalytics.pieces (campaign_id);

COMMENT ON TABLE postalytics.pieces IS
    'a row a mail piece: its journey, its current status and its recipient';
COMMENT ON COLUMN postalytics.pieces.status IS 'current status; NULL while there are only responses';
COMMENT ON COLUMN postalytics.pieces.status_at IS 'instant of the last event of the current status';
COMMENT ON COLUMN postalytics.pieces.response IS 'pURLCompleted, pURLOpened or NULL';
COMMENT ON COLUMN postalytics.pieces.fields IS 'the mailing list''s own fields, from the latest event that has any';
COMMENT ON COLUMN postalytics.pieces.first_name IS 'the recipient, as a whole from the latest event that names one';
COMMENT ON COLUMN postalytics.pieces.mailed_at IS 'instant of the first such event, as for the other statuses';
COMMENT ON COLUMN postalytics.pieces.opens IS 'visits to the personal URL';
COMMENT ON COLUMN postalytics.pieces.completions IS 'visits to the goal URL';
COMMENT ON COLUMN postalytics.pieces.last_url IS 'of the latest visit that names one';
COMMENT ON COLUMN postalytics.pieces.expected_delivery_at IS 'from the latest event that has one';
COMMENT ON COLUMN postalytics.pieces.marks IS 'internal: which event decided each part of the row';

CREATE TABLE postalytics.campaigns (
    campaign_id text NOT NULL PRIMARY KEY,
    account text,
    name text,
    named_at timestamptz
);
COMMENT ON TABLE postalytics.campaigns IS
    'a row a campaign that events name; counts are in pieces';
COMMENT ON COLUMN postalytics.campaigns.named_at IS 'instant of the event that gave it this name';

SELECT pg_catalog.pg_extension_config_dump('postalytics.pieces', '');
SELECT pg_catalog.pg_extension_config_dump('postalytics.campaigns', '');

CREATE FUNCTION postalytics.merge_piece(stored postalytics.pieces, new postalytics.pieces)
RETURNS postalytics.pieces
LANGUAGE c
IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'postalytics_merge_piece';
COMMENT ON FUNCTION postalytics.merge_piece(postalytics.pieces, postalytics.pieces) IS
    'internal: a piece''s row from two, that have different events of it';

-- A body in quotes, for what is parsed at creation keeps users from adding
-- columns to pieces; so the operator is named in full.
CREATE FUNCTION postalytics.reached_at(piece postalytics.pieces, status postalytics.mail_status)
RETURNS timestamptz
LANGUAGE sql
IMMUTABLE PARALLEL SAFE
AS $$
SELECT CASE
           WHEN status OPERATOR(pg_catalog.=) 'MailPieceCreated' THEN piece.mail_piece_created_at
           WHEN status OPERATOR(pg_catalog.=) 'Addressed' THEN piece.addressed_at
           WHEN status OPERATOR(pg_catalog.=) 'Printed' THEN piece.printed_at
           WHEN status OPERATOR(pg_catalog.=) 'Mailed' THEN piece.mailed_at
           WHEN status OPERATOR(pg_catalog.=) 'InTransit' THEN piece.in_transit_at
           WHEN status OPERATOR(pg_catalog.=) 'InLocalArea' THEN piece.in_local_area_at
           WHEN status OPERATOR(pg_catalog.=) 'ProcessedForDelivery' THEN piece.processed_for_delivery_at
           WHEN status OPERATOR(pg_catalog.=) 'ReRouted' THEN piece.re_routed_at
           WHEN status OPERATOR(pg_catalog.=) 'ReturnedToSender' THEN piece.returned_to_sender_at
           WHEN status OPERATOR(pg_catalog.=) 'pURLOpened' THEN piece.first_opened_at
           WHEN status OPERATOR(pg_catalog.=) 'pURLCompleted' THEN piece.first_completed_at
       END
$$;
COMMENT ON FUNCTION postalytics.reached_at(postalytics.pieces, postalytics.mail_status) IS
    'the instant of a piece''s first event of a status; NULL if it has none';
/*
 * sync.sql
 *		syncs: which events a CRM is to be told of, and on which channel.
 */

CREATE TABLE postalytics.syncs (
    name text NOT NULL PRIMARY KEY
        CHECK (name <> '' AND pg_catalog.octet_length(name) <= 63),
    channel text NOT NULL
        CHECK (channel <> '' AND pg_catalog.octet_length(channel) <= 63),
    enabled boolean NOT NULL,
    campaigns text[]
        CHECK (pg_catalog.cardinality(campaigns) > 0 AND pg_catalog.array_position(campaigns, NULL) IS NULL),
    accounts text[]
        CHECK (pg_catalog.cardinality(accounts) > 0 AND pg_catalog.array_position(accounts, NULL) IS NULL),
    statuses postalytics.mail_status[]
        CHECK (pg_catalog.cardinality(statuses) > 0 AND pg_catalog.array_position(statuses, NULL) IS NULL),
    wait interval NOT NULL
        CHECK (wait BETWEEN '0' AND '100 years'),
    unless postalytics.mail_status[]
        CHECK (pg_catalog.cardinality(unless) > 0 AND pg_catalog.array_position(unless, NULL) IS NULL),
    latest_only boolean NOT NULL,
    ordered boolean NOT NULL,
    durable boolean NOT NULL,
    max_attempts integer NOT NULL
        CHECK (max_attempts > 0),
    workers name[] NOT NULL DEFAULT '{}'
);
COMMENT ON TABLE postalytics.syncs IS
    'what a Zap is elsewhere: which events a CRM is told of, and how; see create_sync';
COMMENT ON COLUMN postalytics.syncs.channel IS 'what to LISTEN to';
COMMENT ON COLUMN postalytics.syncs.enabled IS 'while off, new events make no deliveries and fetch gives none';
COMMENT ON COLUMN postalytics.syncs.campaigns IS 'campaign ids; NULL for every campaign';
COMMENT ON COLUMN postalytics.syncs.accounts IS 'accounts; NULL for every account';
COMMENT ON COLUMN postalytics.syncs.statuses IS 'statuses; NULL for every status';
COMMENT ON COLUMN postalytics.syncs.wait IS 'from an event''s instant until its delivery is due';
COMMENT ON COLUMN postalytics.syncs.unless IS 'a piece that has reached one of these statuses has its due deliveries cancelled';
COMMENT ON COLUMN postalytics.syncs.latest_only IS 'a delivery is superseded once the piece has a later one';
COMMENT ON COLUMN postalytics.syncs.ordered IS 'a piece''s deliveries are handed out one after the other, in order';
COMMENT ON COLUMN postalytics.syncs.durable IS 'with deliveries; else with notifications alone';
COMMENT ON COLUMN postalytics.syncs.max_attempts IS 'so many fetches without an ack make a delivery dead';
COMMENT ON COLUMN postalytics.syncs.workers IS 'roles that may fetch and ack, besides the owner; see grant_sync';

SELECT pg_catalog.pg_extension_config_dump('postalytics.syncs', '');

CREATE TRIGGER configuration_changed
AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON postalytics.syncs
FOR EACH STATEMENT
EXECUTE FUNCTION postalytics.configuration_changed();

-- Errors: 22023 and 22004 for what a sync cannot be.
CREATE FUNCTION postalytics.check_sync(sync postalytics.syncs)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF COALESCE(sync.name, '') = '' OR octet_length(sync.name) > 63 THEN
        RAISE EXCEPTION 'a sync needs a name of 1 to 63 bytes'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF sync.channel = '' OR octet_length(sync.channel) > 63 THEN
        RAISE EXCEPTION 'channel "%" is not of 1 to 63 bytes', sync.channel
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'Name a channel: create_sync(..., channel => ''...'').';
    END IF;
    IF 0 IN (cardinality(sync.campaigns), cardinality(sync.accounts), cardinality(sync.statuses)) THEN
        RAISE EXCEPTION 'sync "%" would match nothing: a list of campaigns, accounts or statuses is empty', sync.name
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'Leave the list out to match all.';
    END IF;
    IF cardinality(sync.unless) = 0 THEN
        RAISE EXCEPTION 'the list "unless" of sync "%" is empty', sync.name
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'Leave it out to cancel nothing.';
    END IF;
    IF array_position(sync.campaigns, NULL) IS NOT NULL
       OR array_position(sync.accounts, NULL) IS NOT NULL
       OR array_position(sync.statuses, NULL) IS NOT NULL
       OR array_position(sync.unless, NULL) IS NOT NULL THEN
        RAISE EXCEPTION 'a list of sync "%" holds NULL', sync.name
            USING ERRCODE = 'null_value_not_allowed';
    END IF;
    IF num_nulls(sync.enabled, sync.wait, sync.latest_only, sync.ordered, sync.durable, sync.max_attempts) > 0 THEN
        RAISE EXCEPTION 'a setting of sync "%" is NULL', sync.name
            USING ERRCODE = 'null_value_not_allowed';
    END IF;
    IF sync.wait < '0' OR sync.wait > '100 years' THEN
        RAISE EXCEPTION 'sync "%" cannot wait for %', sync.name, sync.wait
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF sync.max_attempts < 1 THEN
        RAISE EXCEPTION 'max_attempts of sync "%" must be at least 1', sync.name
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF NOT sync.durable AND (sync.wait > '0' OR sync.unless IS NOT NULL OR sync.latest_only) THEN
        RAISE EXCEPTION 'sync "%" is not durable, so it has no deliveries that could wait', sync.name
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'Leave out wait, unless and latest_only, or durable => false.';
    END IF;
END
$$;
COMMENT ON FUNCTION postalytics.check_sync(postalytics.syncs) IS
    'internal: an error for what a sync cannot be';

-- With since, it waits for the writers that are at it, and keeps others waiting
-- until the transaction ends: EXCLUSIVE on syncs, on which writers of events
-- hold ROW SHARE.  So what they bring is either filled in or matched, not both.
-- Errors: those of check_sync; 42710 where there is one of the name; 25001 in
-- a transaction whose snapshot is older than that lock.
CREATE FUNCTION postalytics.create_sync(
    name text,
    campaigns text[] DEFAULT NULL,
    accounts text[] DEFAULT NULL,
    statuses postalytics.mail_status[] DEFAULT NULL,
    wait interval DEFAULT '0',
    unless postalytics.mail_status[] DEFAULT NULL,
    latest_only boolean DEFAULT false,
    ordered boolean DEFAULT true,
    durable boolean DEFAULT true,
    max_attempts integer DEFAULT 25,
    channel text DEFAULT NULL,
    enabled boolean DEFAULT true,
    since timestamptz DEFAULT NULL)
RETURNS postalytics.syncs
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    new postalytics.syncs;
BEGIN
    new.name := create_sync.name;
    new.channel := COALESCE(create_sync.channel, 'postalytics_' || create_sync.name);
    new.enabled := create_sync.enabled;
    new.campaigns := create_sync.campaigns;
    new.accounts := create_sync.accounts;
    new.statuses := create_sync.statuses;
    new.wait := create_sync.wait;
    new.unless := create_sync.unless;
    new.latest_only := create_sync.latest_only;
    new.ordered := create_sync.ordered;
    new.durable := create_sync.durable;
    new.max_attempts := create_sync.max_attempts;
    new.workers := '{}';
    PERFORM postalytics.check_sync(new);
    IF since IS NOT NULL THEN
        IF NOT new.durable THEN
            RAISE EXCEPTION 'sync "%" is not durable, so it has no deliveries to fill in', new.name
                USING ERRCODE = 'invalid_parameter_value';
        END IF;
        IF current_setting('transaction_isolation') <> 'read committed' THEN
            RAISE EXCEPTION 'create_sync with since must run in a READ COMMITTED transaction'
                USING ERRCODE = 'active_sql_transaction';
        END IF;
        LOCK TABLE postalytics.syncs IN EXCLUSIVE MODE;
    END IF;
    INSERT INTO postalytics.syncs
    SELECT new.*
    ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'sync "%" already exists', new.name
            USING ERRCODE = 'duplicate_object',
                  HINT = 'Drop it first: drop_sync(name).';
    END IF;
    IF since IS NOT NULL THEN
        PERFORM postalytics.owe(new, since, 'infinity');
    END IF;
    RETURN new;
END
$$;
COMMENT ON FUNCTION postalytics.create_sync(text, text[], text[], postalytics.mail_status[], interval, postalytics.mail_status[], boolean, boolean, boolean, integer, text, boolean, timestamptz) IS
    'make a sync: events of these campaigns, accounts and statuses are told on its channel and delivered; with since, those stored already too';

-- Locks the sync's row, so that it stays.  Errors: 42704 where there is none.
CREATE FUNCTION postalytics.find_sync(name text)
RETURNS postalytics.syncs
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    sync postalytics.syncs;
BEGIN
    SELECT s.*
    INTO sync
    FROM postalytics.syncs AS s
    WHERE s.name = find_sync.name
    FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'sync "%" does not exist', name
            USING ERRCODE = 'undefined_object',
                  HINT = 'Their names are in postalytics.syncs.';
    END IF;
    RETURN sync;
END
$$;
COMMENT ON FUNCTION postalytics.find_sync(text) IS
    'internal: the sync of that name, locked, or an error';

-- Wakes the sync's workers, for something may have waited.  Errors: 42704.
CREATE FUNCTION postalytics.enable_sync(name text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    sync postalytics.syncs := postalytics.find_sync(name);
BEGIN
    UPDATE postalytics.syncs AS s
    SET enabled = true
    WHERE s.name = sync.name;
    PERFORM postalytics.wake(sync, w.waiting)
    FROM (SELECT count(*) AS waiting
          FROM postalytics.deliveries_unfinished AS d
          WHERE d.sync = sync.name
            AND d.due_at < 'infinity') AS w
    WHERE w.waiting > 0;
END
$$;
COMMENT ON FUNCTION postalytics.enable_sync(text) IS
    'turn a sync on: it goes on with the deliveries it had';

-- Errors: 42704.
CREATE FUNCTION postalytics.disable_sync(name text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    sync postalytics.syncs := postalytics.find_sync(name);
BEGIN
    UPDATE postalytics.syncs AS s
    SET enabled = false
    WHERE s.name = sync.name;
END
$$;
COMMENT ON FUNCTION postalytics.disable_sync(text) IS
    'turn a sync off: new events make no deliveries, and fetch gives none; those it has stay';

-- Waits for the writers that are at it and for transactions that hold its
-- deliveries: EXCLUSIVE on syncs, then the deliveries' rows.  Errors: 42704.
CREATE FUNCTION postalytics.drop_sync(name text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    LOCK TABLE postalytics.syncs IN EXCLUSIVE MODE;
    PERFORM postalytics.find_sync(name);
    DELETE FROM postalytics.syncs AS s
    WHERE s.name = drop_sync.name;
    DELETE FROM postalytics.deliveries AS d
    WHERE d.sync = drop_sync.name;
END
$$;
COMMENT ON FUNCTION postalytics.drop_sync(text) IS
    'do away with a sync and its deliveries, those in the hands of workers too';
/*
 * delivery.sql
 *		deliveries: what each sync is still owed, and for a time what it got.
 *
 * What is not finished is in one leaf, from which it is deleted when it is
 * done: so that neither its heap nor its indexes grow with what was.  What is
 * finished moves to a leaf a day (UTC), which is dropped whole.  As with
 * events, the parent has no key, and the leaves of days are made when needed.
 *
 * A lease changes no indexed column.  So due_at stays while one lasts, and an
 * index scan by due_at passes over the leased, of which there are few; what is
 * put off gets a later due_at, and what is dead 'infinity'.
 */

CREATE TYPE postalytics.delivery_state AS ENUM (
    'waiting', 'leased', 'done', 'dead', 'cancelled', 'superseded'
);
COMMENT ON TYPE postalytics.delivery_state IS
    'what became of a delivery so far; a lease that has run out is due again, whatever its state says';

CREATE TYPE postalytics.delivery_error AS (
    attempt integer,
    at timestamptz,
    error text
);
COMMENT ON TYPE postalytics.delivery_error IS
    'why an attempt failed';

CREATE SEQUENCE postalytics.delivery_id_seq;
COMMENT ON SEQUENCE postalytics.delivery_id_seq IS
    'delivery_id of deliveries';

CREATE TABLE postalytics.deliveries (
    delivery_id bigint NOT NULL DEFAULT pg_catalog.nextval('postalytics.delivery_id_seq'),
    sync text COLLATE pg_catalog."C" NOT NULL,
    piece_id text COLLATE pg_catalog."C" NOT NULL,
    status postalytics.mail_status NOT NULL,
    occurred_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    due_at timestamptz NOT NULL,
    state postalytics.delivery_state NOT NULL DEFAULT 'waiting',
    attempt integer NOT NULL DEFAULT 0,
    is_test boolean NOT NULL DEFAULT false,
    lease_until timestamptz,
    leases bigint[],
    finished_at timestamptz,
    failed_at timestamptz,
    errors postalytics.delivery_error[],
    payload json
)
PARTITION BY LIST (((finished_at AT TIME ZONE 'UTC')::date));

CREATE TABLE postalytics.deliveries_unfinished
PARTITION OF postalytics.deliveries (
    PRIMARY KEY (delivery_id)
)
FOR VALUES IN (NULL)
WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);

CREATE INDEX deliveries_unfinished_due_idx ON postalytics.deliveries_unfinished (sync, due_at);
CREATE INDEX deliveries_unfinished_piece_idx ON postalytics.deliveries_unfinished (piece_id, sync, occurred_at);
CREATE INDEX deliveries_unfinished_failed_idx ON postalytics.deliveries_unfinished (sync, failed_at)
    WHERE failed_at IS NOT NULL;

COMMENT ON TABLE postalytics.deliveries IS
    'what each sync is owed: an event each, until it is acknowledged, and for a time (history) afterwards';
COMMENT ON TABLE postalytics.deliveries_unfinished IS
    'the deliveries that are waiting, leased or dead';
COMMENT ON COLUMN postalytics.deliveries.delivery_id IS 'stable over all attempts: the key for idempotent calls';
COMMENT ON COLUMN postalytics.deliveries.due_at IS 'occurred_at and the sync''s wait; after a failed attempt, when the next may start';
COMMENT ON COLUMN postalytics.deliveries.attempt IS 'how often it was fetched';
COMMENT ON COLUMN postalytics.deliveries.lease_until IS 'until when the worker that fetched it has it for itself';
COMMENT ON COLUMN postalytics.deliveries.leases IS 'internal: the session of each attempt';
COMMENT ON COLUMN postalytics.deliveries.failed_at IS 'when an attempt last failed';
COMMENT ON COLUMN postalytics.deliveries.errors IS 'why attempts failed; as rows in delivery_errors';
COMMENT ON COLUMN postalytics.deliveries.payload IS 'internal: the event''s own JSON where events no longer has it';

SELECT pg_catalog.pg_extension_config_dump('postalytics.deliveries', '');
SELECT pg_catalog.pg_extension_config_dump('postalytics.deliveries_unfinished', '');
SELECT pg_catalog.pg_extension_config_dump('postalytics.delivery_id_seq', '');

CREATE VIEW postalytics.delivery_errors AS
SELECT d.sync,
       d.delivery_id,
       d.piece_id,
       d.status,
       d.state,
       e.attempt,
       e.at,
       e.error
FROM postalytics.deliveries AS d
CROSS JOIN LATERAL pg_catalog.unnest(d.errors) AS e
WHERE d.failed_at IS NOT NULL;
COMMENT ON VIEW postalytics.delivery_errors IS
    'why deliveries failed: a row an attempt';

/* ---- what workers call ---- */

CREATE TYPE postalytics.delivery AS (
    delivery_id bigint,
    attempt integer,
    is_test boolean,
    status postalytics.mail_status,
    label text,
    occurred_at timestamptz,
    due_at timestamptz,
    piece_id text,
    account text,
    campaign_id text,
    campaign_name text,
    contact_id text,
    first_name text,
    last_name text,
    company text,
    email text,
    country text,
    fields jsonb,
    payload json
);
COMMENT ON TYPE postalytics.delivery IS
    'what fetch hands to a worker: all that one call to a CRM needs';

-- The settings keep its plans on the indexes whatever the statistics say: a
-- queue is empty when it is analyzed and full when it matters.
CREATE FUNCTION postalytics.fetch(
    sync text,
    batch integer DEFAULT 100,
    lease interval DEFAULT '1 minute',
    max_wait interval DEFAULT '0')
RETURNS SETOF postalytics.delivery
LANGUAGE c
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
SET jit = off
AS 'MODULE_PATHNAME', 'postalytics_fetch';
COMMENT ON FUNCTION postalytics.fetch(text, integer, interval, interval) IS
    'lease up to batch deliveries that are due to the caller; if there are none, wait for one up to max_wait';

CREATE FUNCTION postalytics.ack(sync text, delivery_ids bigint[], attempts integer[] DEFAULT NULL)
RETURNS bigint
LANGUAGE c
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
SET jit = off
AS 'MODULE_PATHNAME', 'postalytics_ack';
COMMENT ON FUNCTION postalytics.ack(text, bigint[], integer[]) IS
    'these deliveries are done; how many of them were the caller''s to finish';

CREATE FUNCTION postalytics.nack(
    sync text,
    delivery_ids bigint[],
    error text,
    retry_in interval DEFAULT NULL,
    dead boolean DEFAULT false,
    attempts integer[] DEFAULT NULL)
RETURNS bigint
LANGUAGE c
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
SET jit = off
AS 'MODULE_PATHNAME', 'postalytics_nack';
COMMENT ON FUNCTION postalytics.nack(text, bigint[], text, interval, boolean, integer[]) IS
    'these deliveries failed: try again in retry_in, or after ever longer waits, or never (dead); how many were the caller''s';

CREATE FUNCTION postalytics.next_due(sync text)
RETURNS timestamptz
LANGUAGE c
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
SET plan_cache_mode = force_generic_plan
SET jit = off
AS 'MODULE_PATHNAME', 'postalytics_next_due';
COMMENT ON FUNCTION postalytics.next_due(text) IS
    'when a worker should fetch again if it hears nothing before; NULL if nothing waits';

/* ---- what people call ---- */

-- Notifies the sync's channel as the arrival of count events does.
CREATE FUNCTION postalytics.wake(sync postalytics.syncs, count bigint)
RETURNS void
LANGUAGE sql
BEGIN ATOMIC
    SELECT pg_catalog.pg_notify((sync).channel,
                                pg_catalog.json_build_object('sync', (sync).name, 'count', count, 'events', '[]'::json)::text);
END;
COMMENT ON FUNCTION postalytics.wake(postalytics.syncs, bigint) IS
    'internal: notify the workers of a sync';

CREATE FUNCTION postalytics.is_for(event postalytics.events, sync postalytics.syncs)
RETURNS boolean
LANGUAGE sql
STABLE
BEGIN ATOMIC
    SELECT ((sync).statuses IS NULL OR (event).status = ANY ((sync).statuses))
       AND ((sync).campaigns IS NULL OR (event).campaign_id = ANY ((sync).campaigns))
       AND ((sync).accounts IS NULL OR (event).account = ANY ((sync).accounts));
END;
COMMENT ON FUNCTION postalytics.is_for(postalytics.events, postalytics.syncs) IS
    'internal: is the sync told of such an event';

-- Days and months count in UTC, whatever the session's time zone.
CREATE FUNCTION postalytics.due_at(occurred_at timestamptz, wait interval)
RETURNS timestamptz
LANGUAGE sql
IMMUTABLE
RETURN (occurred_at AT TIME ZONE 'UTC' + wait) AT TIME ZONE 'UTC';
COMMENT ON FUNCTION postalytics.due_at(timestamptz, interval) IS
    'internal: when the delivery of an event is due';

-- Makes deliveries for stored events that have no unfinished one, and wakes
-- the workers.  The caller sees to it that no other does so for this sync.
CREATE FUNCTION postalytics.owe(sync postalytics.syncs, since timestamptz, until timestamptz)
RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    made bigint;
BEGIN
    INSERT INTO postalytics.deliveries_unfinished (sync, piece_id, status, occurred_at, due_at)
    SELECT sync.name, e.piece_id, e.status, e.occurred_at, postalytics.due_at(e.occurred_at, sync.wait)
    FROM postalytics.events AS e
    WHERE e.occurred_at >= since
      AND e.occurred_at < until
      AND postalytics.is_for(e, sync)
      AND NOT EXISTS (SELECT
                      FROM postalytics.deliveries_unfinished AS d
                      WHERE (d.sync, d.piece_id, d.status, d.occurred_at) = (sync.name, e.piece_id, e.status, e.occurred_at)
                        AND NOT d.is_test)
    ORDER BY e.occurred_at, e.status;
    GET DIAGNOSTICS made = ROW_COUNT;
    IF made > 0 AND sync.enabled THEN
        PERFORM postalytics.wake(sync, made);
    END IF;
    RETURN made;
END
$$;
COMMENT ON FUNCTION postalytics.owe(postalytics.syncs, timestamptz, timestamptz) IS
    'internal: make deliveries for stored events; how many';

-- Locks the sync's row.  Errors: 42704 where there is none, 22004 for NULL,
-- 22023 where until is not after since or the sync has no deliveries.
CREATE FUNCTION postalytics.replay_sync(name text, since timestamptz, until timestamptz DEFAULT 'infinity')
RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    sync postalytics.syncs := postalytics.find_sync(name);
    revived bigint;
BEGIN
    IF since IS NULL OR until IS NULL THEN
        RAISE EXCEPTION 'since and until must not be NULL'
            USING ERRCODE = 'null_value_not_allowed';
    END IF;
    IF until <= since THEN
        RAISE EXCEPTION 'until must be after since'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM postalytics.check_durable(sync);
    UPDATE postalytics.deliveries_unfinished AS d
    SET state = 'waiting',
        attempt = 0,
        leases = NULL,
        due_at = postalytics.due_at(d.occurred_at, sync.wait)
    WHERE d.sync = sync.name
      AND d.due_at = 'infinity'
      AND d.occurred_at >= since
      AND d.occurred_at < until;
    GET DIAGNOSTICS revived = ROW_COUNT;
    IF revived > 0 AND sync.enabled THEN
        PERFORM postalytics.wake(sync, revived);
    END IF;
    RETURN revived + postalytics.owe(sync, since, until);
END
$$;
COMMENT ON FUNCTION postalytics.replay_sync(text, timestamptz, timestamptz) IS
    'deliver again what occurred from since to before until, the dead ones included; how many';

-- Errors: 22023 where the sync has no deliveries.
CREATE FUNCTION postalytics.check_durable(sync postalytics.syncs)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT sync.durable THEN
        RAISE EXCEPTION 'sync "%" is not durable, so it has no deliveries', sync.name
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
END
$$;
COMMENT ON FUNCTION postalytics.check_durable(postalytics.syncs) IS
    'internal: an error if a sync has no deliveries';

-- The sample is the latest event that the sync is for, or else made up.  Locks
-- the sync's row.  Errors: 42704 where there is none, 55000 where it is
-- disabled, 22023 where it has no deliveries.
CREATE FUNCTION postalytics.test_sync(name text)
RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    sync postalytics.syncs := postalytics.find_sync(name);
    sample record;
    made bigint;
BEGIN
    PERFORM postalytics.check_durable(sync);
    IF NOT sync.enabled THEN
        RAISE EXCEPTION 'sync "%" is disabled, so its test would not be handed out', sync.name
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'Enable it first: enable_sync(name).';
    END IF;
    SELECT e.piece_id, e.status, e.occurred_at, NULL::json AS payload
    INTO sample
    FROM postalytics.events AS e
    WHERE postalytics.is_for(e, sync)
    ORDER BY e.occurred_at DESC
    LIMIT 1;
    IF NOT FOUND THEN
        SELECT 'test' AS piece_id, s.status, date_trunc('second', now()) AS occurred_at,
               json_build_object('mailId', 'test', 'eventType', postalytics.feed_code(s.status),
                                 'eventDate', to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
                                 'to', json_build_object('firstName', 'Test', 'lastName', 'Recipient', 'country', 'US'),
                                 'meta', json_build_object('campaignId', COALESCE(sync.campaigns[1], '0'), 'campaignName', 'Test campaign')) AS payload
        INTO sample
        FROM (SELECT COALESCE(sync.statuses[1], 'InTransit') AS status) AS s;
    END IF;
    INSERT INTO postalytics.deliveries_unfinished (sync, piece_id, status, occurred_at, due_at, is_test, payload)
    VALUES (sync.name, sample.piece_id, sample.status, sample.occurred_at, now(), true, sample.payload)
    RETURNING delivery_id
    INTO made;
    PERFORM postalytics.wake(sync, 1);
    RETURN made;
END
$$;
COMMENT ON FUNCTION postalytics.test_sync(text) IS
    'send one sample delivery, marked as a test, the way all go; its delivery_id';

CREATE VIEW postalytics.sync_health AS
SELECT s.name,
       s.enabled,
       d.unleased_due + f.future AS waiting,
       d.unleased_due AS due,
       d.oldest_due_at,
       d.leased,
       x.dead,
       h.done_last_hour,
       e.last_error,
       e.last_error_at
FROM postalytics.syncs AS s
CROSS JOIN LATERAL (
    SELECT pg_catalog.count(*) FILTER (WHERE u.lease_until > pg_catalog.now()) AS leased,
           pg_catalog.count(*) FILTER (WHERE u.lease_until > pg_catalog.now() IS NOT TRUE) AS unleased_due,
           pg_catalog.min(u.due_at) FILTER (WHERE u.lease_until > pg_catalog.now() IS NOT TRUE) AS oldest_due_at
    FROM postalytics.deliveries_unfinished AS u
    WHERE u.sync = s.name
      AND u.due_at <= pg_catalog.now()
) AS d
CROSS JOIN LATERAL (
    SELECT pg_catalog.count(*) AS future
    FROM postalytics.deliveries_unfinished AS u
    WHERE u.sync = s.name
      AND u.due_at > pg_catalog.now()
      AND u.due_at < 'infinity'
) AS f
CROSS JOIN LATERAL (
    SELECT pg_catalog.count(*) AS dead
    FROM postalytics.deliveries_unfinished AS u
    WHERE u.sync = s.name
      AND u.due_at = 'infinity'
) AS x
CROSS JOIN LATERAL (
    SELECT pg_catalog.count(*) AS done_last_hour
    FROM postalytics.deliveries AS g
    WHERE g.sync = s.name
      AND g.state = 'done'
      AND g.finished_at > pg_catalog.now() - '1 hour'::interval
) AS h
LEFT JOIN LATERAL (
    SELECT g.errors[pg_catalog.cardinality(g.errors)].error AS last_error,
           g.failed_at AS last_error_at
    FROM postalytics.deliveries AS g
    WHERE g.sync = s.name
      AND g.failed_at IS NOT NULL
    ORDER BY g.failed_at DESC
    LIMIT 1
) AS e ON true;
COMMENT ON VIEW postalytics.sync_health IS
    'a row a sync: what waits, what is due, in hand, dead and done, and the last error';
COMMENT ON COLUMN postalytics.sync_health.waiting IS 'not handed out, the due ones included';
COMMENT ON COLUMN postalytics.sync_health.due IS 'not handed out, and their time has come';
COMMENT ON COLUMN postalytics.sync_health.leased IS 'in the hands of workers';
COMMENT ON COLUMN postalytics.sync_health.dead IS 'given up; replay_sync brings them back';
/*
 * maintain.sql
 *		Housekeeping: months made ahead, old months and old history retired,
 *		campaigns forgotten.
 */

CREATE TABLE postalytics.maintenance_log (
    at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    action text NOT NULL,
    relation text NOT NULL,
    detail text
);
CREATE INDEX maintenance_log_at_idx ON postalytics.maintenance_log (at);
COMMENT ON TABLE postalytics.maintenance_log IS
    'what maintain() did: a row a leaf that it made, dropped, detached or had to leave; kept for a year';

SELECT pg_catalog.pg_extension_config_dump('postalytics.maintenance_log', '');

CREATE FUNCTION postalytics.setting(name text)
RETURNS text
LANGUAGE c
STRICT
AS 'MODULE_PATHNAME', 'postalytics_setting';
COMMENT ON FUNCTION postalytics.setting(text) IS
    'internal: the value of postalytics_status.name, the library being loaded for it';

CREATE FUNCTION postalytics.log_maintenance(action text, relation text, detail text DEFAULT NULL)
RETURNS postalytics.maintenance_log
LANGUAGE sql
BEGIN ATOMIC
    INSERT INTO postalytics.maintenance_log (action, relation, detail)
    VALUES (action, relation, detail)
    RETURNING *;
END;
COMMENT ON FUNCTION postalytics.log_maintenance(text, text, text) IS
    'internal: note what maintain() did';

-- The leaves of a partitioned table with the instant at which each ends; a
-- day's leaf of deliveries is IN ('2026-11-23'), a month's of events
-- FROM (...) TO ('2026-12-01 ...').
CREATE FUNCTION postalytics.leaves(parent regclass)
RETURNS TABLE (leaf regclass, ends_at timestamptz)
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
    SELECT c.oid::regclass,
           COALESCE((regexp_match(b.bound, 'TO \(''([^'']*)''\)'))[1]::timestamptz,
                    (regexp_match(b.bound, 'IN \(''([^'']*)''\)'))[1]::timestamptz + '1 day')
    FROM pg_inherits AS i
    JOIN pg_class AS c ON c.oid = i.inhrelid
    CROSS JOIN LATERAL pg_get_expr(c.relpartbound, c.oid) AS b (bound)
    WHERE i.inhparent = parent
    ORDER BY 2
$$;
COMMENT ON FUNCTION postalytics.leaves(regclass) IS
    'internal: the leaves of events or deliveries, and when each ends';

-- Deliveries that still wait for events of a month carry their payload from
-- then on.  Locks: ACCESS EXCLUSIVE on events, no longer than lock_timeout for
-- each leaf, and until the transaction ends.
CREATE FUNCTION postalytics.retire_month(leaf regclass, retention_action text)
RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    carried bigint;
BEGIN
    LOCK TABLE ONLY postalytics.events IN ACCESS EXCLUSIVE MODE;
    EXECUTE format('UPDATE postalytics.deliveries_unfinished AS d
                    SET payload = e.payload
                    FROM %s AS e
                    WHERE (d.piece_id, d.status, d.occurred_at) = (e.piece_id, e.status, e.occurred_at)
                      AND e.payload IS NOT NULL',
                   leaf);
    GET DIAGNOSTICS carried = ROW_COUNT;
    IF retention_action = 'drop' THEN
        EXECUTE format('DROP TABLE %s', leaf);
    ELSE
        EXECUTE format('ALTER TABLE postalytics.events DETACH PARTITION %s', leaf);
    END IF;
    RETURN format('%s deliveries still wait', carried);
END
$$;
COMMENT ON FUNCTION postalytics.retire_month(regclass, text) IS
    'internal: drop or detach a month of events';

-- Safe to run at any time and twice at once: the second finds the first's lock
-- and does nothing.  A leaf that cannot be had within lock_timeout is left for
-- the next run, which the log says.
CREATE FUNCTION postalytics.maintain()
RETURNS SETOF postalytics.maintenance_log
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '1s'
AS $$
DECLARE
    retention interval := postalytics.setting('retention')::interval;
    history interval := postalytics.setting('history')::interval;
    old record;
    made integer;
BEGIN
    BEGIN
        LOCK TABLE postalytics.maintenance_log IN SHARE ROW EXCLUSIVE MODE NOWAIT;
    EXCEPTION
        WHEN lock_not_available THEN
            RETURN;
    END;
    DELETE FROM postalytics.maintenance_log AS l
    WHERE l.at < now() - '1 year'::interval;

    made := postalytics.ensure_partitions(now(),
        (date_trunc('month', now() AT TIME ZONE 'UTC')
         + make_interval(months => 1 + postalytics.setting('premake_months')::integer)) AT TIME ZONE 'UTC');
    IF made > 0 THEN
        RETURN NEXT postalytics.log_maintenance('create', 'postalytics.events', format('%s months', made));
    END IF;
    FOR old IN
        SELECT l.leaf, l.leaf::text AS name, 'postalytics.events'::regclass AS parent
        FROM postalytics.leaves('postalytics.events') AS l
        WHERE retention > '0'
          AND l.ends_at <= now() - retention
        UNION ALL
        SELECT l.leaf, l.leaf::text, 'postalytics.deliveries'::regclass
        FROM postalytics.leaves('postalytics.deliveries') AS l
        WHERE l.ends_at <= now() - history
    LOOP
        BEGIN
            IF old.parent = 'postalytics.events'::regclass THEN
                RETURN NEXT postalytics.log_maintenance(postalytics.setting('retention_action'), old.name,
                                                        postalytics.retire_month(old.leaf, postalytics.setting('retention_action')));
            ELSE
                EXECUTE format('DROP TABLE %s', old.leaf);
                RETURN NEXT postalytics.log_maintenance('drop', old.name);
            END IF;
        EXCEPTION
            WHEN lock_not_available OR deadlock_detected OR dependent_objects_still_exist THEN
                RETURN NEXT postalytics.log_maintenance('failed', old.name, SQLERRM);
        END;
    END LOOP;
END
$$;
COMMENT ON FUNCTION postalytics.maintain() IS
    'make the months ahead, retire those beyond retention and the history beyond history; what was done';

-- Keeps writers of events waiting until the transaction ends: SHARE ROW
-- EXCLUSIVE on events.  Errors: 42704 where there is no such campaign.
CREATE FUNCTION postalytics.drop_campaign(campaign_id text)
RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    dropped bigint;
BEGIN
    LOCK TABLE postalytics.events IN SHARE ROW EXCLUSIVE MODE;
    DELETE FROM postalytics.deliveries AS d
    USING postalytics.pieces AS p
    WHERE p.campaign_id = drop_campaign.campaign_id
      AND d.piece_id = p.piece_id;
    DELETE FROM postalytics.events AS e
    USING postalytics.pieces AS p
    WHERE p.campaign_id = drop_campaign.campaign_id
      AND e.piece_id = p.piece_id;
    GET DIAGNOSTICS dropped = ROW_COUNT;
    DELETE FROM postalytics.pieces AS p
    WHERE p.campaign_id = drop_campaign.campaign_id;
    DELETE FROM postalytics.campaigns AS c
    WHERE c.campaign_id = drop_campaign.campaign_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'campaign "%" does not exist', campaign_id
            USING ERRCODE = 'undefined_object',
                  HINT = 'Their ids are in postalytics.campaigns.';
    END IF;
    RETURN dropped;
END
$$;
COMMENT ON FUNCTION postalytics.drop_campaign(text) IS
    'forget a campaign: its events, pieces, recipients and deliveries; how many events';
/*
 * notify.sql
 *		notify(), the trigger for the users' own tables.
 */

CREATE FUNCTION postalytics.notify()
RETURNS trigger
LANGUAGE c
AS 'MODULE_PATHNAME', 'postalytics_notify';
COMMENT ON FUNCTION postalytics.notify() IS
    'trigger: notify(''channel'', ''key_column'', ...) tells a channel which rows of a table changed, once a statement';
/*
 * guard.sql
 *		The guard against losing all events to a plain DROP EXTENSION.
 */

CREATE FUNCTION postalytics.guard_drop()
RETURNS event_trigger
LANGUAGE c
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'postalytics_guard_drop';
COMMENT ON FUNCTION postalytics.guard_drop() IS
    'event trigger: refuses DROP EXTENSION and DROP OWNED without CASCADE while there are events';

CREATE EVENT TRIGGER postalytics_guard_drop
ON ddl_command_start
WHEN TAG IN ('DROP EXTENSION', 'DROP OWNED')
EXECUTE FUNCTION postalytics.guard_drop();
COMMENT ON EVENT TRIGGER postalytics_guard_drop IS
    'refuses to drop the extension without CASCADE while there are events';
/*
 * grant.sql
 *		Who may do what.  PUBLIC has the vocabulary of the lifecycle, and no
 *		more.  The grants are the server's own, so REVOKE and DROP OWNED take
 *		them back; only whose a sync is is noted with it.
 *
 * Update scripts end with this file too, hence OR REPLACE: the server refuses to
 * replace what is not the extension's own.
 */

CREATE OR REPLACE FUNCTION postalytics.grant_ingest(role name)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    EXECUTE format('GRANT EXECUTE ON FUNCTION postalytics.ingest(json, text), postalytics.retry_rejects() TO %I', role);
    EXECUTE format('GRANT INSERT ON postalytics.inbox TO %I', role);
END
$$;
COMMENT ON FUNCTION postalytics.grant_ingest(name) IS
    'let a role bring events, by ingest and inbox, and see nothing';

CREATE OR REPLACE FUNCTION postalytics.grant_read(role name)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    EXECUTE format('GRANT SELECT ON postalytics.events, postalytics.pieces, postalytics.campaigns,
                        postalytics.rejects, postalytics.field_names, postalytics.syncs,
                        postalytics.deliveries, postalytics.delivery_errors, postalytics.sync_health,
                        postalytics.maintenance_log TO %I', role);
    EXECUTE format('GRANT EXECUTE ON FUNCTION
                        postalytics.reached_at(postalytics.pieces, postalytics.mail_status) TO %I', role);
END
$$;
COMMENT ON FUNCTION postalytics.grant_read(name) IS
    'let a role read all, and change nothing';

-- Errors: 42704 where there is no such role or sync.
CREATE OR REPLACE FUNCTION postalytics.grant_sync(role name, sync text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    EXECUTE format('GRANT EXECUTE ON FUNCTION
                        postalytics.fetch(text, integer, interval, interval),
                        postalytics.ack(text, bigint[], integer[]),
                        postalytics.nack(text, bigint[], text, interval, boolean, integer[]),
                        postalytics.next_due(text) TO %I', role);
    UPDATE postalytics.syncs AS s
    SET workers = array_remove(s.workers, role) || role
    WHERE s.name = sync;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'sync "%" does not exist', sync
            USING ERRCODE = 'undefined_object',
                  HINT = 'Their names are in postalytics.syncs.';
    END IF;
END
$$;
COMMENT ON FUNCTION postalytics.grant_sync(name, text) IS
    'let a role fetch, ack and nack the deliveries of one sync, and see nothing else';

CREATE OR REPLACE FUNCTION postalytics.revoke_sync(role name, sync text)
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE postalytics.syncs AS s
    SET workers = array_remove(s.workers, role)
    WHERE s.name = sync
$$;
COMMENT ON FUNCTION postalytics.revoke_sync(name, text) IS
    'take a sync from a role that grant_sync gave it to';

-- All that is new and that nobody has been granted.
DO $$
DECLARE
    new regprocedure;
BEGIN
    FOR new IN
        SELECT p.oid
        FROM pg_proc AS p
        JOIN pg_depend AS d ON d.objid = p.oid
        JOIN pg_extension AS x ON x.oid = d.refobjid
        WHERE x.extname = 'postalytics_status'
          AND d.deptype = 'e'
          AND d.classid = 'pg_proc'::regclass
          AND p.proacl IS NULL
    LOOP
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', new);
    END LOOP;
END
$$;
