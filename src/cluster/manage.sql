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
    INSERT INTO postalytics.sync_starts AS b (sync, since)
    VALUES ((make_deliveries.sync).name, make_deliveries.since)
    ON CONFLICT ON CONSTRAINT sync_starts_pkey DO UPDATE
    SET since = excluded.since;
    RETURN NULL;
END
$$;

-- create_sync calls this for the limits of an earlier sync of the same name.
CREATE OR REPLACE FUNCTION postalytics.forget_limits(sync text)
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    DELETE FROM postalytics.sync_starts AS b
    WHERE b.sync = forget_limits.sync
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
    PERFORM postalytics.forget_limits(name);
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
AS 'MODULE_PATHNAME', 'postalytics_call_slots';
COMMENT ON FUNCTION postalytics.drop_campaign_of(text, text) IS
    'internal: drop_campaign on the slots that have the campaign';

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

CREATE FUNCTION postalytics.slots_move_account_on_slots(old text, new text)
RETURNS SETOF bigint
LANGUAGE plproxy
AS $$
    CLUSTER 'postalytics';
    RUN ON ALL;
    TARGET postalytics.move_account;
$$;
COMMENT ON FUNCTION postalytics.slots_move_account_on_slots(text, text) IS
    'internal: move_account on the slots';

CREATE FUNCTION postalytics.move_account_on_slots(old text, new text)
RETURNS bigint
LANGUAGE c
AS 'MODULE_PATHNAME', 'postalytics_call_slots';
COMMENT ON FUNCTION postalytics.move_account_on_slots(text, text) IS
    'internal: move_account on the slots';

-- The syncs and bindings of the front change like those of the slots.  A slot has already
-- moved its rejects when the front's statement finds none of them.
CREATE OR REPLACE FUNCTION postalytics.move_account(old text, new text)
RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    moved bigint;
BEGIN
    PERFORM postalytics.lock_bindings();
    moved := postalytics.move_account_on_slots(old, new);
    PERFORM postalytics.move_account_references(old, new);
    PERFORM postalytics.audit('move_account', NULL, old, format('to %L, events: %s', new, moved));
    IF old = '' THEN
        PERFORM postalytics.check_all_accounts();
    END IF;
    RETURN moved;
END
$$;

CREATE FUNCTION postalytics.slots_forget_on_slots(contact_id text, email text, piece_id text, account text, anonymise boolean)
RETURNS TABLE (relation text, action text, affected bigint)
LANGUAGE plproxy
AS $$
    CLUSTER 'postalytics';
    RUN ON ALL;
    TARGET postalytics.forget;
$$;
COMMENT ON FUNCTION postalytics.slots_forget_on_slots(text, text, text, text, boolean) IS
    'internal: forget on the slots';

CREATE FUNCTION postalytics.forget_on_slots(contact_id text, email text, piece_id text, account text, anonymise boolean)
RETURNS TABLE (relation text, action text, affected bigint)
LANGUAGE c
AS 'MODULE_PATHNAME', 'postalytics_call_slots';
COMMENT ON FUNCTION postalytics.forget_on_slots(text, text, text, text, boolean) IS
    'internal: forget on the slots';

-- Each slot must erase data of the same account, so the front determines it, from pieces.
CREATE OR REPLACE FUNCTION postalytics.forget(
    contact_id text DEFAULT NULL,
    email text DEFAULT NULL,
    piece_id text DEFAULT NULL,
    account text DEFAULT NULL,
    anonymise boolean DEFAULT false)
RETURNS TABLE (relation text, action text, affected bigint)
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    accounts text[];
BEGIN
    IF account IS NULL THEN
        accounts := ARRAY(SELECT DISTINCT p.account
                          FROM postalytics.pieces AS p
                          WHERE p.contact_id = postalytics.trimmed(forget.contact_id)
                             OR lower(p.email) = lower(postalytics.trimmed(forget.email))
                             OR p.piece_id = postalytics.trimmed(forget.piece_id));
        IF cardinality(accounts) > 1 THEN
            RAISE EXCEPTION 'person exists in more than one account'
                USING ERRCODE = 'cardinality_violation',
                      HINT = 'Specify the account as an argument, and call the function for each account from which the person is to be erased.';
        END IF;
        account := COALESCE(accounts[1], '');
    END IF;
    RETURN QUERY
    SELECT f.relation, f.action, sum(f.affected)::bigint
    FROM postalytics.forget_on_slots(contact_id, email, piece_id, account, anonymise) AS f
    GROUP BY f.relation, f.action
    ORDER BY f.relation, f.action;
    PERFORM postalytics.audit('forget', NULL, account, CASE WHEN anonymise THEN 'anonymised' END);
END
$$;

-- ---- maintenance ----

CREATE FUNCTION postalytics.slots_maintain_slots()
RETURNS SETOF postalytics.maintenance_log
LANGUAGE plproxy
AS $$
    CLUSTER 'postalytics';
    RUN ON ALL;
    TARGET postalytics.maintain;
$$;
COMMENT ON FUNCTION postalytics.slots_maintain_slots() IS
    'internal: maintain on all slots';

CREATE FUNCTION postalytics.maintain_slots()
RETURNS SETOF postalytics.maintenance_log
LANGUAGE c
AS 'MODULE_PATHNAME', 'postalytics_call_slots';
COMMENT ON FUNCTION postalytics.maintain_slots() IS
    'internal: maintain on all slots';

-- Slots that lag take over the configuration first.
CREATE OR REPLACE FUNCTION postalytics.maintain()
RETURNS SETOF postalytics.maintenance_log
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM postalytics.update_policies('10 s');
    PERFORM postalytics.copy_to_slots();
    PERFORM postalytics.copy_to_each_slot(c.version, c.document)
    FROM postalytics.cluster_configuration AS c;
    RETURN QUERY
    SELECT m.*
    FROM postalytics.maintain_slots() AS m;
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
    'internal: trigger function that refuses rows which a slot would not derive anything from';

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
