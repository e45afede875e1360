/*
 * manage.sql
 *		Functions for managers whose form at the front differs from that on a slot.
 *
 * create_sync, enable_sync, disable_sync and configure change only tables of the front,
 * which configuration.sql copies.  Therefore they are the same as on a slot, except for
 * the functions that they call to change deliveries.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

-- create_sync calls this with the argument since; the slots make the deliveries.
CREATE OR REPLACE FUNCTION postalytics.make_deliveries(sync postalytics.syncs, since timestamptz, until timestamptz)
RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE postalytics.sync_starts AS b
    SET since = make_deliveries.since
    WHERE b.sync = (make_deliveries.sync).name;
    RETURN NULL;
END
$$;

-- create_sync calls this for the limits of an earlier sync of the same name.
CREATE OR REPLACE FUNCTION postalytics.forget_limits(sync text)
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO postalytics.sync_starts AS b (sync)
    VALUES (forget_limits.sync)
    ON CONFLICT ON CONSTRAINT sync_starts_pkey DO UPDATE
    SET created_at = excluded.created_at,
        since = NULL
$$;

-- create_sync calls this to find accounts that appear only in payloads, which slots have.
CREATE OR REPLACE FUNCTION postalytics.check_accounts(sync postalytics.syncs)
RETURNS void
LANGUAGE sql
BEGIN ATOMIC
END;

-- enable_sync calls this; copy_syncs notifies the workers.
CREATE OR REPLACE FUNCTION postalytics.wake_waiting(sync text)
RETURNS void
LANGUAGE sql
BEGIN ATOMIC
END;

CREATE OR REPLACE FUNCTION postalytics.drop_sync(name text)
RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM postalytics.find_sync(name);
    DELETE FROM postalytics.syncs AS s
    WHERE s.name = drop_sync.name;
    DELETE FROM postalytics.sync_starts AS b
    WHERE b.sync = drop_sync.name;
    PERFORM postalytics.audit('drop_sync', name, NULL, NULL);
END
$$;

-- ---- rejects and pieces ----

CREATE OR REPLACE FUNCTION postalytics.retry_rejects()
RETURNS postalytics.ingest_result
LANGUAGE c
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'postalytics_front_retry_rejects';

CREATE FUNCTION postalytics.slots_rebuild_pieces(piece_ids text[], account text)
RETURNS SETOF bigint
LANGUAGE plproxy
AS $$
    CLUSTER 'postalytics';
    SPLIT piece_ids;
    RUN ON postalytics.slot_of_piece(piece_ids);
    TARGET postalytics.rebuild_pieces;
$$;
COMMENT ON FUNCTION postalytics.slots_rebuild_pieces(text[], text) IS
    'internal: rebuild pieces, each on its slot';

CREATE OR REPLACE FUNCTION postalytics.rebuild_pieces(piece_ids text[], account text DEFAULT NULL)
RETURNS bigint
LANGUAGE c
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'postalytics_call_slots';

-- ---- accounts and campaigns ----

CREATE FUNCTION postalytics.slots_drop_campaign_of(campaign_id text, account text)
RETURNS SETOF bigint
LANGUAGE plproxy
AS $$
    CLUSTER 'postalytics';
    RUN ON ALL;
    SELECT postalytics.drop_campaign($1, $2)
    WHERE EXISTS (SELECT FROM postalytics.campaigns AS c WHERE (c.campaign_id, c.account) = ($1, $2))
       OR EXISTS (SELECT FROM postalytics.production_errors AS e WHERE (e.campaign_id, e.account) = ($1, $2));
$$;
COMMENT ON FUNCTION postalytics.slots_drop_campaign_of(text, text) IS
    'internal: drop_campaign on the slots that have the campaign';

CREATE FUNCTION postalytics.drop_campaign_of(campaign_id text, account text)
RETURNS bigint
LANGUAGE c
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'postalytics_call_slots';
COMMENT ON FUNCTION postalytics.drop_campaign_of(text, text) IS
    'internal: drop_campaign on the slots that have the campaign';

-- After an error, some slots may have dropped the campaign, and the call must be repeated.
CREATE OR REPLACE FUNCTION postalytics.drop_campaign(campaign_id text, account text DEFAULT NULL)
RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    owner CONSTANT text := postalytics.account_of_campaign(campaign_id, account);
    deleted CONSTANT bigint := COALESCE(postalytics.drop_campaign_of(campaign_id, owner), 0);
BEGIN
    PERFORM postalytics.audit('drop_campaign', campaign_id, owner, format('events: %s', deleted));
    RETURN deleted;
END
$$;

CREATE FUNCTION postalytics.slots_move_account_everywhere(old text, new text)
RETURNS SETOF bigint
LANGUAGE plproxy
AS $$
    CLUSTER 'postalytics';
    RUN ON ALL;
    TARGET postalytics.move_account;
$$;
COMMENT ON FUNCTION postalytics.slots_move_account_everywhere(text, text) IS
    'internal: move_account on the slots';

CREATE FUNCTION postalytics.move_account_everywhere(old text, new text)
RETURNS bigint
LANGUAGE c
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'postalytics_call_slots';
COMMENT ON FUNCTION postalytics.move_account_everywhere(text, text) IS
    'internal: move_account on the slots';

-- The slots check the arguments.  Each slot commits separately: after an error, some slots
-- have moved the account, and the call must be repeated.  Errors: those of move_account on
-- a slot, and of call_slots (front_call.c).
CREATE OR REPLACE FUNCTION postalytics.move_account(old text, new text)
RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    moved bigint;
BEGIN
    PERFORM postalytics.lock_bindings();
    moved := postalytics.move_account_everywhere(old, new);
    PERFORM postalytics.move_account_references(old, new);
    PERFORM postalytics.audit('move_account', NULL, old, format('to %L, events: %s', new, moved));
    IF old = '' THEN
        PERFORM postalytics.check_all_accounts();
    END IF;
    RETURN moved;
END
$$;

-- forget is the same as on a slot, but the functions that it calls search and erase on
-- all slots.  Each name that a slot finds is searched for on all of them.  After an error,
-- some slots may have erased their data, and the call must be repeated.
CREATE FUNCTION postalytics.slots_find_on_slots(contact_id text, email text, piece_id text, account text)
RETURNS TABLE (piece_ids text[], accounts text[])
LANGUAGE plproxy
AS $$
    CLUSTER 'postalytics';
    RUN ON ALL;
    TARGET postalytics.find_person;
$$;
COMMENT ON FUNCTION postalytics.slots_find_on_slots(text, text, text, text) IS
    'internal: find_person on the slots';

CREATE FUNCTION postalytics.find_on_slots(contact_id text, email text, piece_id text, account text)
RETURNS TABLE (piece_ids text[], accounts text[])
LANGUAGE c
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'postalytics_call_slots';
COMMENT ON FUNCTION postalytics.find_on_slots(text, text, text, text) IS
    'internal: find_person on the slots';

CREATE OR REPLACE FUNCTION postalytics.find_person(
    contact_id text,
    email text,
    piece_id text,
    account text,
    OUT piece_ids text[],
    OUT accounts text[])
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    WITH found AS MATERIALIZED (
        SELECT p.piece_ids, p.accounts
        FROM postalytics.find_on_slots(contact_id, email, piece_id, account) AS p
    )
    SELECT (SELECT array_agg(DISTINCT u.id) FROM found AS f CROSS JOIN LATERAL unnest(f.piece_ids) AS u (id)),
           (SELECT array_agg(DISTINCT u.account) FROM found AS f CROSS JOIN LATERAL unnest(f.accounts) AS u (account))
$$;

CREATE FUNCTION postalytics.slots_find_names_on_slots(piece_ids text[], account text)
RETURNS TABLE (contact_ids text[], emails text[])
LANGUAGE plproxy
AS $$
    CLUSTER 'postalytics';
    RUN ON ALL;
    TARGET postalytics.names_of_recipient;
$$;
COMMENT ON FUNCTION postalytics.slots_find_names_on_slots(text[], text) IS
    'internal: names_of_recipient on the slots';

CREATE FUNCTION postalytics.find_names_on_slots(piece_ids text[], account text)
RETURNS TABLE (contact_ids text[], emails text[])
LANGUAGE c
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'postalytics_call_slots';
COMMENT ON FUNCTION postalytics.find_names_on_slots(text[], text) IS
    'internal: names_of_recipient on the slots';

-- A contact id that another piece has, on whichever slot, is excluded, as on a slot.
CREATE FUNCTION postalytics.slots_find_other_contacts(contact_ids text[], account text, piece_ids text[])
RETURNS SETOF text
LANGUAGE plproxy
AS $$
    CLUSTER 'postalytics';
    RUN ON ALL;
    SELECT DISTINCT p.contact_id
    FROM postalytics.pieces AS p
    WHERE p.contact_id = ANY ($1)
      AND p.account = $2
      AND p.piece_id <> ALL ($3);
$$;
COMMENT ON FUNCTION postalytics.slots_find_other_contacts(text[], text, text[]) IS
    'internal: those of the contact ids that other pieces have';

CREATE FUNCTION postalytics.find_other_contacts(contact_ids text[], account text, piece_ids text[])
RETURNS SETOF text
LANGUAGE c
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'postalytics_call_slots';
COMMENT ON FUNCTION postalytics.find_other_contacts(text[], text, text[]) IS
    'internal: those of the contact ids that other pieces have';

CREATE OR REPLACE FUNCTION postalytics.names_of_recipient(
    piece_ids text[],
    account text,
    OUT contact_ids text[],
    OUT emails text[])
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    WITH found AS MATERIALIZED (
        SELECT n.contact_ids, n.emails
        FROM postalytics.find_names_on_slots(piece_ids, account) AS n
    )
    SELECT ARRAY(SELECT DISTINCT u.id FROM found AS f CROSS JOIN LATERAL unnest(f.contact_ids) AS u (id)),
           ARRAY(SELECT DISTINCT u.email FROM found AS f CROSS JOIN LATERAL unnest(f.emails) AS u (email))
    INTO contact_ids, emails;
    contact_ids := ARRAY(SELECT unnest(contact_ids)
                         EXCEPT
                         SELECT o FROM postalytics.find_other_contacts(contact_ids, account, COALESCE(piece_ids, '{}')) AS o);
END
$$;

CREATE FUNCTION postalytics.slots_erase_on_slots(
    piece_ids text[],
    piece_id text,
    account text,
    contact_ids text[],
    emails text[],
    anonymise boolean)
RETURNS TABLE (relation text, action text, affected bigint)
LANGUAGE plproxy
AS $$
    CLUSTER 'postalytics';
    RUN ON ALL;
    TARGET postalytics.erase_person;
$$;
COMMENT ON FUNCTION postalytics.slots_erase_on_slots(text[], text, text, text[], text[], boolean) IS
    'internal: erase_person on the slots';

CREATE FUNCTION postalytics.erase_on_slots(
    piece_ids text[],
    piece_id text,
    account text,
    contact_ids text[],
    emails text[],
    anonymise boolean)
RETURNS TABLE (relation text, action text, affected bigint)
LANGUAGE c
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'postalytics_call_slots';
COMMENT ON FUNCTION postalytics.erase_on_slots(text[], text, text, text[], text[], boolean) IS
    'internal: erase_person on the slots';

CREATE OR REPLACE FUNCTION postalytics.erase_person(
    piece_ids text[],
    piece_id text,
    account text,
    contact_ids text[],
    emails text[],
    anonymise boolean)
RETURNS TABLE (relation text, action text, affected bigint)
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT e.relation, e.action, sum(e.affected)::bigint
    FROM postalytics.erase_on_slots(piece_ids, piece_id, account, contact_ids, emails, anonymise) AS e
    GROUP BY e.relation, e.action
    ORDER BY min(array_position('{postalytics.rejects,postalytics.production_errors}', e.relation)), e.relation
$$;

-- ---- maintenance ----

CREATE FUNCTION postalytics.slots_maintain_all()
RETURNS SETOF postalytics.maintenance_log
LANGUAGE plproxy
AS $$
    CLUSTER 'postalytics';
    RUN ON ALL;
    TARGET postalytics.maintain;
$$;
COMMENT ON FUNCTION postalytics.slots_maintain_all() IS
    'internal: maintain on all slots';

CREATE FUNCTION postalytics.maintain_all()
RETURNS SETOF postalytics.maintenance_log
LANGUAGE c
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'postalytics_call_slots';
COMMENT ON FUNCTION postalytics.maintain_all() IS
    'internal: maintain on all slots';

-- Slots that lag get the configuration first, unless it has changed without a trigger, for
-- example because a role was renamed: then all slots get it when this commits.
CREATE OR REPLACE FUNCTION postalytics.maintain()
RETURNS SETOF postalytics.maintenance_log
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM postalytics.check_no_block('maintain');
    PERFORM postalytics.check_read_committed('maintain');
    PERFORM postalytics.update_policies('10 s');
    PERFORM postalytics.stage_configuration();
    IF NOT postalytics.is_staged() THEN
        PERFORM postalytics.copy_to_each_slot();
    END IF;
    RETURN QUERY
    SELECT m.*
    FROM postalytics.maintain_all() AS m;
END
$$;

-- ---- what a front cannot do ----

CREATE FUNCTION postalytics.refuse_at_front()
RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION 'cannot insert into table "%" at the front of a cluster', TG_TABLE_NAME
        USING ERRCODE = 'feature_not_supported',
              HINT = 'Call postalytics.ingest, or insert into postalytics.inbox.';
END
$$;
COMMENT ON FUNCTION postalytics.refuse_at_front() IS
    'internal: trigger function that refuses rows inserted into events and pieces at the front';

CREATE TRIGGER refuse_at_front
BEFORE INSERT ON postalytics.events
FOR EACH STATEMENT
EXECUTE FUNCTION postalytics.refuse_at_front();
CREATE TRIGGER refuse_at_front
BEFORE INSERT ON postalytics.pieces
FOR EACH STATEMENT
EXECUTE FUNCTION postalytics.refuse_at_front();

CREATE OR REPLACE FUNCTION postalytics.link_contacts(
    contacts regclass,
    id_field text,
    id_column name DEFAULT 'id',
    email_column name DEFAULT NULL,
    status_column name DEFAULT 'mail_status',
    status_at_column name DEFAULT 'mail_status_at')
RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION 'cannot link contacts at the front of a cluster'
        USING ERRCODE = 'feature_not_supported',
              DETAIL = 'The events are in other databases.',
              HINT = 'Use a sync, whose worker writes the contacts.';
END
$$;
