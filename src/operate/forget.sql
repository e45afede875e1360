/*
 * forget.sql
 *		forget: erases a person.
 *
 * A person is a recipient of mail pieces, identified by a contact id or an e-mail
 * address in the events, under any name that field_names maps.  In a reject, the e-mail
 * address is searched for in the whole payload, because the payload could not be
 * interpreted.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

-- The columns must be those that erase_pieces clears.
CREATE FUNCTION postalytics.has_recipient(piece postalytics.pieces)
RETURNS boolean
LANGUAGE sql
IMMUTABLE
AS $$
SELECT num_nonnulls(piece.contact_id, piece.first_name, piece.last_name, piece.company, piece.email, piece.city, piece.state, piece.zip,
                    piece.fields, piece.last_url) OPERATOR(pg_catalog.>) 0
$$;
COMMENT ON FUNCTION postalytics.has_recipient(postalytics.pieces) IS
    'internal: true if a piece has anything that identifies its recipient';

-- A production error is about a person if it names the contact or one of the pieces, or
-- its description or payload contains one of the addresses.  If account is NULL, all
-- accounts are searched.
CREATE FUNCTION postalytics.errors_of_person(piece_ids text[], account text, contact_ids text[], emails text[])
RETURNS SETOF postalytics.production_errors
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT e.*
    FROM postalytics.production_errors AS e
    WHERE (errors_of_person.account IS NULL OR e.account = errors_of_person.account)
      AND (e.piece_id = ANY (piece_ids)
           OR e.contact_id = ANY (contact_ids)
           OR postalytics.mentions(to_json(e.description), emails)
           OR postalytics.is_about(e.payload, e.account, e.account, piece_ids, contact_ids, emails))
$$;
COMMENT ON FUNCTION postalytics.errors_of_person(text[], text, text[], text[]) IS
    'internal: the production errors about a person';

-- Deletes the production errors about a person or, if anonymise is true, removes only
-- what identifies the person, as erase_pieces does.  Locks: the rows of these errors,
-- in key order.
CREATE FUNCTION postalytics.erase_errors(
    piece_ids text[],
    account text,
    contact_ids text[],
    emails text[],
    anonymise boolean)
RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    error_pieces text[];
    error_accounts text[];
    error_times timestamptz[];
    erased bigint;
BEGIN
    SELECT array_agg(l.piece_id), array_agg(l.account), array_agg(l.occurred_at)
    INTO error_pieces, error_accounts, error_times
    FROM (SELECT e.piece_id, e.account, e.occurred_at
          FROM postalytics.production_errors AS e
          WHERE (e.piece_id, e.account, e.occurred_at)
                IN (SELECT p.piece_id, p.account, p.occurred_at
                    FROM postalytics.errors_of_person(piece_ids, erase_errors.account, contact_ids, emails) AS p)
          ORDER BY e.piece_id, e.account, e.occurred_at
          FOR UPDATE) AS l;
    DELETE FROM postalytics.deliveries AS d
    USING unnest(error_pieces, error_accounts, error_times) AS p (piece_id, account, occurred_at)
    WHERE (d.piece_id, d.account, d.occurred_at) = (p.piece_id, p.account, p.occurred_at)
      AND d.status IS NULL;
    IF anonymise THEN
        UPDATE postalytics.production_errors AS e
        SET piece_id = CASE
                           WHEN e.piece_id = e.campaign_id || '/' || e.contact_id THEN 'anonymous/' || gen_random_uuid()
                           ELSE e.piece_id
                       END,
            contact_id = NULL,
            description = NULL,
            payload = NULL
        FROM unnest(error_pieces, error_accounts, error_times) AS p (piece_id, account, occurred_at)
        WHERE (e.piece_id, e.account, e.occurred_at) = (p.piece_id, p.account, p.occurred_at);
    ELSE
        DELETE FROM postalytics.production_errors AS e
        USING unnest(error_pieces, error_accounts, error_times) AS p (piece_id, account, occurred_at)
        WHERE (e.piece_id, e.account, e.occurred_at) = (p.piece_id, p.account, p.occurred_at);
    END IF;
    GET DIAGNOSTICS erased = ROW_COUNT;
    RETURN erased;
END
$$;
COMMENT ON FUNCTION postalytics.erase_errors(text[], text, text[], text[], boolean) IS
    'internal: erase the production errors about a person, or only what identifies the person; returns the number of errors';

CREATE FUNCTION postalytics.event_tables()
RETURNS SETOF regclass
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 'postalytics.events'::regclass
    UNION ALL
    SELECT m
    FROM postalytics.detached_months() AS m
$$;
COMMENT ON FUNCTION postalytics.event_tables() IS
    'internal: events, and the months that were detached from it';

-- Deletes pieces of an account and their events, including those in detached months.
-- If anonymise is true, pieces and events stay, without the data that identifies the
-- recipient, so that the counts in reports do not change.  A piece id that read_piece
-- (validate.c) made from campaign id and contact id is then replaced with a random id.
-- Deliveries are deleted in both cases.  Returns a row for each table.
--
-- As in lock_pieces, the settings make the planner look up each piece by index.
--
-- Locks: the unfinished deliveries of the pieces in the order of delivery_id, ROW
-- EXCLUSIVE on events, then the rows of the pieces in key order.  Events that other
-- sessions are inserting are not found.
CREATE FUNCTION postalytics.erase_pieces(piece_ids text[], account text, anonymise boolean)
RETURNS TABLE (relation text, affected bigint)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET jit = off
AS $$
DECLARE
    month regclass;
    new_ids text[];
BEGIN
    PERFORM
    FROM postalytics.deliveries_unfinished AS d
    WHERE d.piece_id = ANY (piece_ids)
      AND d.account = erase_pieces.account
    ORDER BY d.delivery_id
    FOR UPDATE;
    LOCK TABLE ONLY postalytics.events IN ROW EXCLUSIVE MODE;
    PERFORM
    FROM postalytics.pieces AS p
    WHERE p.piece_id = ANY (piece_ids)
      AND p.account = erase_pieces.account
    ORDER BY p.piece_id
    FOR UPDATE;
    SELECT array_agg(CASE
                         WHEN p.piece_id = p.campaign_id || '/' || p.contact_id THEN 'anonymous/' || gen_random_uuid()
                         ELSE i.piece_id
                     END ORDER BY i.place)
    INTO new_ids
    FROM unnest(piece_ids) WITH ORDINALITY AS i (piece_id, place)
    LEFT JOIN postalytics.pieces AS p ON (p.piece_id, p.account) = (i.piece_id, erase_pieces.account);

    relation := 'postalytics.deliveries';
    DELETE FROM postalytics.deliveries AS d
    WHERE d.piece_id = ANY (piece_ids)
      AND d.account = erase_pieces.account;
    GET DIAGNOSTICS affected = ROW_COUNT;
    RETURN NEXT;
    FOR month IN SELECT postalytics.event_tables() LOOP
        relation := month;
        EXECUTE format(CASE
                           WHEN anonymise THEN 'UPDATE %s AS e
                                                SET payload = NULL,
                                                    piece_id = i.new_id
                                                FROM unnest($1, $3) AS i (piece_id, new_id)
                                                WHERE e.piece_id = i.piece_id
                                                  AND e.account = $2'
                           ELSE 'DELETE FROM %s AS e
                                 WHERE e.piece_id = ANY ($1)
                                   AND e.account = $2'
                       END, month)
        USING piece_ids, account, new_ids;
        GET DIAGNOSTICS affected = ROW_COUNT;
        RETURN NEXT;
    END LOOP;
    relation := 'postalytics.pieces';
    IF anonymise THEN
        UPDATE postalytics.pieces AS p
        SET piece_id = i.new_id,
            contact_id = NULL,
            first_name = NULL,
            last_name = NULL,
            company = NULL,
            email = NULL,
            city = NULL,
            state = NULL,
            zip = NULL,
            fields = NULL,
            last_url = NULL
        FROM unnest(piece_ids, new_ids) AS i (piece_id, new_id)
        WHERE (p.piece_id, p.account) = (i.piece_id, erase_pieces.account);
    ELSE
        DELETE FROM postalytics.pieces AS p
        WHERE p.piece_id = ANY (piece_ids)
          AND p.account = erase_pieces.account;
    END IF;
    GET DIAGNOSTICS affected = ROW_COUNT;
    RETURN NEXT;
END
$$;
COMMENT ON FUNCTION postalytics.erase_pieces(text[], text, boolean) IS
    'internal: erase pieces of an account, or only their recipients; returns the number of rows in each table';

-- Removes the same whitespace as trim in base/text.h, which is applied to values of the
-- feed.
CREATE FUNCTION postalytics.trimmed(value text)
RETURNS text
LANGUAGE sql
IMMUTABLE
RETURN pg_catalog.btrim(value, E' \t\n\v\f\r');
COMMENT ON FUNCTION postalytics.trimmed(text) IS
    'internal: a text without leading and trailing whitespace';

-- If account is NULL, all accounts are searched.
CREATE FUNCTION postalytics.pieces_of_recipient(contact_id text, email text, piece_id text, account text)
RETURNS TABLE (found_id text, found_account text)
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    month regclass;
BEGIN
    IF contact_id IS NOT NULL OR email IS NOT NULL THEN
        RETURN QUERY
        SELECT p.piece_id, p.account
        FROM postalytics.pieces AS p
        WHERE (p.contact_id = pieces_of_recipient.contact_id OR postalytics.is_recipient(p.email, pieces_of_recipient.email))
          AND (pieces_of_recipient.account IS NULL OR p.account = pieces_of_recipient.account);
        -- Unfinished deliveries have copies of the payloads of events in retired
        -- months.
        RETURN QUERY
        SELECT d.piece_id, d.account
        FROM postalytics.deliveries_unfinished AS d
        WHERE postalytics.names_recipient(d.payload, contact_id, email)
          AND (pieces_of_recipient.account IS NULL OR d.account = pieces_of_recipient.account);
    END IF;
    RETURN QUERY
    SELECT p.piece_id, p.account
    FROM postalytics.pieces AS p
    WHERE p.piece_id = pieces_of_recipient.piece_id
      AND (pieces_of_recipient.account IS NULL OR p.account = pieces_of_recipient.account);
    FOR month IN SELECT postalytics.event_tables() LOOP
        RETURN QUERY EXECUTE format('SELECT DISTINCT e.piece_id, e.account
                                     FROM %s AS e
                                     WHERE ($1 IS NULL OR e.account = $1)
                                       AND %s', month,
                                    CASE
                                        WHEN contact_id IS NULL AND email IS NULL THEN 'e.piece_id = $4'
                                        ELSE '(e.piece_id = $4 OR postalytics.names_recipient(e.payload, $2, $3))'
                                    END)
        USING account, contact_id, email, piece_id;
    END LOOP;
END
$$;
COMMENT ON FUNCTION postalytics.pieces_of_recipient(text, text, text, text) IS
    'internal: the pieces of which a person is the recipient, now or according to any event; may contain duplicates';

-- Returns the contact ids and e-mail addresses that the pieces, or their events, give
-- for the recipient.  forget searches rejects and production errors for them.  Values
-- that do not identify anybody are ignored: a contact id that other pieces also have,
-- and an e-mail field that does not contain exactly one address.
CREATE FUNCTION postalytics.names_of_recipient(piece_ids text[], account text, OUT contact_ids text[], OUT emails text[])
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    month regclass;
    found record;
BEGIN
    SELECT array_agg(DISTINCT p.contact_id), array_agg(DISTINCT p.email)
    INTO contact_ids, emails
    FROM postalytics.pieces AS p
    WHERE p.piece_id = ANY (piece_ids)
      AND p.account = names_of_recipient.account;
    FOR month IN
        SELECT t
        FROM postalytics.event_tables() AS t
        UNION ALL
        SELECT 'postalytics.deliveries_unfinished'
    LOOP
        EXECUTE format('SELECT array_agg(DISTINCT f.contact_id) AS contact_ids, array_agg(DISTINCT f.email) AS emails
                        FROM %s AS e
                        CROSS JOIN LATERAL postalytics.payload_fields(e.payload) AS f
                        WHERE e.piece_id = ANY ($1)
                          AND e.account = $2', month)
        INTO found
        USING piece_ids, account;
        contact_ids := contact_ids || found.contact_ids;
        emails := emails || found.emails;
    END LOOP;
    contact_ids := ARRAY(SELECT DISTINCT c.contact_id
                         FROM unnest(contact_ids) AS c (contact_id)
                         WHERE NOT EXISTS (SELECT
                                           FROM postalytics.pieces AS p
                                           WHERE (p.contact_id, p.account) = (c.contact_id, names_of_recipient.account)
                                             AND p.piece_id <> ALL (piece_ids)));
    emails := ARRAY(SELECT DISTINCT lower(substring(e FROM '[^\s<>;,:"()]+@[^\s<>;,:"()]+'))
                    FROM unnest(emails) AS e
                    WHERE e ~ '^[^@]*[^\s@]@[^\s@][^@]*$');
END
$$;
COMMENT ON FUNCTION postalytics.names_of_recipient(text[], text) IS
    'internal: the contact ids and e-mail addresses of pieces, according to pieces and events';

-- If field_names maps an account, a reject without an account can have events of any
-- account, because each event then belongs to the account that it names.
CREATE FUNCTION postalytics.may_have_events_of(reject_account text, account text)
RETURNS boolean
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT reject_account = account
        OR reject_account = ''
           AND EXISTS (SELECT
                       FROM postalytics.field_names AS f
                       WHERE f.field = 'account')
$$;
COMMENT ON FUNCTION postalytics.may_have_events_of(text, text) IS
    'internal: true if a reject of reject_account can have events of account';

-- If a reject has several events, only the events of the person are removed, and the
-- others are kept as an array.  A reject with more than 100,000 rejected events is
-- deleted as a whole.
CREATE FUNCTION postalytics.erase_rejects(piece_ids text[], account text, contact_ids text[], emails text[])
RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    reject record;
    kept record;
    erased bigint := 0;
BEGIN
    FOR reject IN
        SELECT r.reject_id, r.account, r.payload
        FROM postalytics.rejects AS r
        WHERE postalytics.may_have_events_of(r.account, erase_rejects.account)
          AND (r.account = erase_rejects.account AND r.piece_id = ANY (piece_ids)
               OR postalytics.is_about(r.payload, r.account, erase_rejects.account, piece_ids, contact_ids, emails))
        ORDER BY r.reject_id
        FOR UPDATE
    LOOP
        SELECT json_agg(e.event) AS events, count(*) AS number
        INTO kept
        FROM postalytics.rejected_events(reject.payload, reject.account, erase_rejects.account, piece_ids, contact_ids, emails) AS e
        WHERE NOT e.is_about;
        IF kept.number = 0 THEN
            DELETE FROM postalytics.rejects AS r
            WHERE r.reject_id = reject.reject_id;
        ELSE
            UPDATE postalytics.rejects AS r
            SET payload = kept.events,
                piece_id = NULL,
                reason = format('events kept from a payload from which others were erased: %s', kept.number)
            WHERE r.reject_id = reject.reject_id;
        END IF;
        erased := erased + 1;
    END LOOP;
    RETURN erased;
END
$$;
COMMENT ON FUNCTION postalytics.erase_rejects(text[], text, text[], text[]) IS
    'internal: remove the events of a person from the rejects of an account; returns the number of rejects';

-- Counts events, deliveries, pauses and pieces that contain one of the e-mail addresses
-- anywhere: in a member of a payload that is not mapped to the recipient's address, in
-- a worker's error message, in the reason of a pause, in fields or in a URL.
CREATE FUNCTION postalytics.count_mentions(account text, emails text[])
RETURNS TABLE (relation text, affected bigint)
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    month regclass;
BEGIN
    FOR month IN SELECT postalytics.event_tables() LOOP
        relation := month;
        EXECUTE format('SELECT count(*)
                        FROM %s AS e
                        WHERE e.account = $1
                          AND postalytics.mentions(e.payload, $2)', month)
        INTO affected
        USING account, emails;
        RETURN NEXT;
    END LOOP;
    relation := 'postalytics.deliveries';
    SELECT count(*)
    INTO affected
    FROM postalytics.deliveries AS d
    WHERE d.account = count_mentions.account
      AND d.failed_at IS NOT NULL
      AND postalytics.mentions(json_build_array(d.errors, d.reason), emails);
    RETURN NEXT;
    relation := 'postalytics.pauses';
    SELECT count(*)
    INTO affected
    FROM postalytics.pauses AS p
    WHERE postalytics.mentions(to_json(p.reason), emails);
    RETURN NEXT;
    relation := 'postalytics.pieces';
    SELECT count(*)
    INTO affected
    FROM postalytics.pieces AS p
    WHERE p.account = count_mentions.account
      AND num_nonnulls(p.fields, p.last_url) > 0
      AND postalytics.mentions(json_build_array(p.fields, p.last_url), emails);
    RETURN NEXT;
END
$$;
COMMENT ON FUNCTION postalytics.count_mentions(text, text[]) IS
    'internal: numbers of events, deliveries and pieces of an account, and of pauses of any sync, that contain an e-mail address';

-- Finds the pieces of a person, and the accounts in which the person exists.  If account
-- is NULL, all accounts are searched, also in rejects and production errors.  piece_ids is
-- NULL if there are none; accounts is then NULL or empty.
CREATE FUNCTION postalytics.find_person(
    contact_id text,
    email text,
    piece_id text,
    account text,
    OUT piece_ids text[],
    OUT accounts text[])
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    SELECT array_agg(DISTINCT p.found_id), array_agg(DISTINCT p.found_account)
    INTO piece_ids, accounts
    FROM postalytics.pieces_of_recipient(contact_id, email, piece_id, account) AS p;
    IF account IS NULL THEN
        accounts := ARRAY(SELECT unnest(accounts)
                          UNION
                          SELECT e.event_account
                          FROM postalytics.rejects AS r
                          CROSS JOIN LATERAL postalytics.rejected_events(r.payload, r.account, NULL, ARRAY[find_person.piece_id],
                                                                         ARRAY[find_person.contact_id], ARRAY[find_person.email]) AS e
                          WHERE postalytics.is_about(r.payload, r.account, NULL, ARRAY[find_person.piece_id], ARRAY[find_person.contact_id],
                                                     ARRAY[find_person.email])
                            AND e.is_about
                          UNION
                          SELECT e.account
                          FROM postalytics.errors_of_person(ARRAY[find_person.piece_id], NULL, ARRAY[find_person.contact_id],
                                                            ARRAY[find_person.email]) AS e);
    END IF;
END
$$;
COMMENT ON FUNCTION postalytics.find_person(text, text, text, text) IS
    'internal: pieces of a person, and the accounts in which the person exists';

-- piece_id is the piece that the caller of forget gave, which may have only rejects.
CREATE FUNCTION postalytics.erase_person(
    piece_ids text[],
    piece_id text,
    account text,
    contact_ids text[],
    emails text[],
    anonymise boolean)
RETURNS TABLE (relation text, action text, affected bigint)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    relation := 'postalytics.rejects';
    action := 'delete';
    affected := postalytics.erase_rejects(piece_ids || piece_id, account, contact_ids, emails);
    RETURN NEXT;
    relation := 'postalytics.production_errors';
    action := CASE WHEN anonymise THEN 'anonymise' ELSE 'delete' END;
    affected := postalytics.erase_errors(piece_ids || piece_id, account, contact_ids, emails, anonymise);
    RETURN NEXT;
    RETURN QUERY
    SELECT e.relation,
           CASE WHEN erase_person.anonymise AND e.relation <> 'postalytics.deliveries' THEN 'anonymise' ELSE 'delete' END,
           e.affected
    FROM postalytics.erase_pieces(COALESCE(piece_ids, '{}'), account, anonymise) AS e;
    RETURN QUERY
    SELECT m.relation, 'mention', m.affected
    FROM postalytics.count_mentions(account, emails) AS m
    WHERE m.affected > 0;
END
$$;
COMMENT ON FUNCTION postalytics.erase_person(text[], text, text, text[], text[], boolean) IS
    'internal: erase the data of a person, whose pieces and names forget has found';

-- Erases all data that matches the contact id, the e-mail address or the piece; NULL
-- and empty arguments are ignored.  If account is NULL, the person must exist in only
-- one account.  Reads all events, including those of detached months.  Blocks only the
-- ingest of the same pieces.  Events that arrive while the function runs are not found.
-- To verify the erasure, call the function again: it must find nothing.
--
-- Remaining occurrences of the person's addresses are only counted (action mention),
-- because they are in events, deliveries and pieces of somebody else, or in members of
-- payloads that are not mapped.
--
-- Locks: the rejects and then the production errors that it changes, then the locks of
-- erase_pieces.  Errors: 22023 if no contact id, e-mail address or piece is given,
-- 21000 if account is NULL and the person exists in more than one account, 25001 unless
-- the transaction is READ COMMITTED.
CREATE FUNCTION postalytics.forget(
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
    sought_contact text := NULLIF(postalytics.trimmed(contact_id), '');
    sought_email text := NULLIF(postalytics.trimmed(email), '');
    sought_piece text := NULLIF(postalytics.trimmed(piece_id), '');
    person record;
    names record;
    erased bigint := 0;
BEGIN
    PERFORM postalytics.check_read_committed('forget');
    PERFORM postalytics.check_not_distributed();
    IF num_nonnulls(sought_contact, sought_email, sought_piece) = 0 THEN
        RAISE EXCEPTION 'contact id, e-mail address or piece must be specified'
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'For example, forget(email => ''ann@example.com'').';
    END IF;
    person := postalytics.find_person(sought_contact, sought_email, sought_piece, account);
    IF account IS NULL THEN
        IF cardinality(person.accounts) > 1 THEN
            RAISE EXCEPTION 'person exists in more than one account'
                USING ERRCODE = 'cardinality_violation',
                      HINT = 'Specify the account as an argument, and call the function for each account from which the person is to be erased.';
        END IF;
        account := COALESCE(person.accounts[1], '');
    END IF;
    names := postalytics.names_of_recipient(person.piece_ids, account);
    FOR relation, action, affected IN
        SELECT e.relation, e.action, e.affected
        FROM postalytics.erase_person(person.piece_ids, sought_piece, account, names.contact_ids || sought_contact,
                                      names.emails || sought_email, COALESCE(anonymise, false)) AS e
    LOOP
        erased := erased + CASE WHEN action = 'mention' THEN 0 ELSE affected END;
        RETURN NEXT;
    END LOOP;
    IF person.piece_ids IS NULL AND erased = 0 THEN
        RAISE NOTICE 'no data about this person found in account "%"', account;
    END IF;
    PERFORM postalytics.audit('forget', NULL, account,
                              format('pieces: %s%s', COALESCE(cardinality(person.piece_ids), 0),
                                     CASE WHEN anonymise THEN ', anonymised' END));
END
$$;
COMMENT ON FUNCTION postalytics.forget(text, text, text, text, boolean) IS
    'erase a person, given by contact id, e-mail address or piece; with anonymise, erase only the identifying data; returns a row for each table searched';
