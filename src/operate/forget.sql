/*
 * forget.sql
 *		forget: erases a person.
 *
 * A person is whoever is the recipient of mail pieces: events give a contact id and an
 * e-mail address, in any spelling that field_names maps.  Rejects are searched for the
 * address anywhere in their payload, because they are not understood.
 */

-- The columns that identify a recipient; erase_pieces clears them.
CREATE FUNCTION postalytics.has_recipient(piece postalytics.pieces)
RETURNS boolean
LANGUAGE sql
IMMUTABLE
AS $$
SELECT num_nonnulls(piece.contact_id, piece.first_name, piece.last_name, piece.company, piece.email, piece.zip,
                    piece.fields, piece.last_url) OPERATOR(pg_catalog.>) 0
$$;
COMMENT ON FUNCTION postalytics.has_recipient(postalytics.pieces) IS
    'internal: true if a piece has anything that identifies its recipient';

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

-- Deletes pieces of an account with their events, also from detached months, or removes
-- only their recipients if anonymise is true: then pieces and events stay, without what
-- identifies the recipient, so that reports count the same.  A piece id that read_piece
-- (validate.c) made from campaign id and contact id is replaced with a random one.
-- Deliveries are deleted in both cases.  Returns a row for each table.
--
-- Locks: the unfinished deliveries of the pieces in the order of delivery_id, then the
-- rows of the pieces in key order.  Events that others are inserting are not found.
CREATE FUNCTION postalytics.erase_pieces(piece_ids text[], account text, anonymise boolean)
RETURNS TABLE (relation text, affected bigint)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    condition CONSTANT text := 'piece_id = ANY ($1) AND account = $2';
    month regclass;
    old_ids text[];
    new_ids text[];
BEGIN
    PERFORM
    FROM postalytics.deliveries_unfinished AS d
    WHERE d.piece_id = ANY (piece_ids)
      AND d.account = erase_pieces.account
    ORDER BY d.delivery_id
    FOR UPDATE;
    PERFORM
    FROM postalytics.pieces AS p
    WHERE p.piece_id = ANY (piece_ids)
      AND p.account = erase_pieces.account
    ORDER BY p.piece_id
    FOR UPDATE;
    SELECT array_agg(p.piece_id), array_agg('anonymous/' || gen_random_uuid())
    INTO old_ids, new_ids
    FROM postalytics.pieces AS p
    WHERE p.piece_id = ANY (piece_ids)
      AND p.account = erase_pieces.account
      AND p.piece_id = p.campaign_id || '/' || p.contact_id;

    relation := 'postalytics.deliveries';
    DELETE FROM postalytics.deliveries AS d
    WHERE d.piece_id = ANY (piece_ids)
      AND d.account = erase_pieces.account;
    GET DIAGNOSTICS affected = ROW_COUNT;
    RETURN NEXT;
    FOR month IN SELECT postalytics.event_tables() LOOP
        relation := month;
        EXECUTE format(CASE
                           WHEN anonymise THEN 'UPDATE %s SET payload = NULL,
                                                              piece_id = COALESCE($4[array_position($3, piece_id)], piece_id)
                                                WHERE %s'
                           ELSE 'DELETE FROM %s WHERE %s'
                       END, month, condition)
        USING piece_ids, account, old_ids, new_ids;
        GET DIAGNOSTICS affected = ROW_COUNT;
        RETURN NEXT;
    END LOOP;
    relation := 'postalytics.pieces';
    IF anonymise THEN
        UPDATE postalytics.pieces AS p
        SET piece_id = COALESCE(new_ids[array_position(old_ids, p.piece_id)], p.piece_id),
            contact_id = NULL,
            first_name = NULL,
            last_name = NULL,
            company = NULL,
            email = NULL,
            zip = NULL,
            fields = NULL,
            last_url = NULL
        WHERE p.piece_id = ANY (piece_ids)
          AND p.account = erase_pieces.account;
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
    'internal: erase pieces of an account, or only their recipients; the number of rows in each table';

-- As values of the feed are compared (base/text.h).
CREATE FUNCTION postalytics.trimmed(value text)
RETURNS text
LANGUAGE sql
IMMUTABLE
RETURN pg_catalog.btrim(value, E' \t\n\v\f\r');
COMMENT ON FUNCTION postalytics.trimmed(text) IS
    'internal: a text without the whitespace around it';

-- Without an account, searches all.
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
        WHERE (p.contact_id = pieces_of_recipient.contact_id OR lower(postalytics.trimmed(p.email)) = lower(pieces_of_recipient.email))
          AND (pieces_of_recipient.account IS NULL OR p.account = pieces_of_recipient.account);
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
    'internal: the pieces, possibly more than once, that a person has or had according to any event';

-- Returns the contact ids and e-mail addresses that the pieces, or their events, give for
-- the recipient.  Rejects are searched for these.  Values without an @, such as "none",
-- are ignored: they do not identify anybody.
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
    FOR month IN SELECT postalytics.event_tables() LOOP
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
    emails := ARRAY(SELECT DISTINCT lower(postalytics.trimmed(e)) FROM unnest(emails) AS e WHERE e ~ '\S@\S');
END
$$;
COMMENT ON FUNCTION postalytics.names_of_recipient(text[], text) IS
    'internal: the contact ids and e-mail addresses of pieces, according to pieces and events';

-- A reject can consist of many events.  Then only those of the person are removed, and
-- the others are kept as an array; of more than 100,000 rejected events, none is.
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
        SELECT r.reject_id, r.payload
        FROM postalytics.rejects AS r
        WHERE r.account = erase_rejects.account
          AND (r.piece_id = ANY (piece_ids) OR postalytics.is_about(r.payload, piece_ids, contact_ids, emails))
        ORDER BY r.reject_id
        FOR UPDATE
    LOOP
        SELECT json_agg(e.event) AS events, count(*) AS number
        INTO kept
        FROM postalytics.rejected_events(reject.payload, piece_ids, contact_ids, emails) AS e
        WHERE NOT e.is_about;
        IF kept.number = 0 THEN
            DELETE FROM postalytics.rejects AS r
            WHERE r.reject_id = reject.reject_id;
        ELSE
            UPDATE postalytics.rejects AS r
            SET payload = kept.events,
                piece_id = NULL,
                reason = format('%s events left after others of the same payload were erased', kept.number)
            WHERE r.reject_id = reject.reject_id;
        END IF;
        erased := erased + 1;
    END LOOP;
    RETURN erased;
END
$$;
COMMENT ON FUNCTION postalytics.erase_rejects(text[], text, text[], text[]) IS
    'internal: remove the events of a person from the rejects of an account; the number of rejects';

-- Erases what matches any of the arguments; NULL and empty ones are ignored.  Without an
-- account, the person must exist in only one.  Reads all events, also those of detached
-- months.  Does not block ingest, except of the same pieces; events that arrive meanwhile
-- are not found, so a second call, which finds nothing, verifies the erasure.
--
-- Locks: the rejects that it changes, then those of erase_pieces.  Errors: 22023 if
-- neither a contact id, an e-mail address nor a piece is given, 21000 if the person exists
-- in more than one account and none is given, 25001 unless the transaction is READ
-- COMMITTED.
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
    piece_ids text[];
    accounts text[];
    names record;
BEGIN
    PERFORM postalytics.check_read_committed('forget');
    PERFORM postalytics.check_not_distributed();
    IF num_nonnulls(sought_contact, sought_email, sought_piece) = 0 THEN
        RAISE EXCEPTION 'a contact id, an e-mail address or a piece must be specified'
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'For example, forget(email => ''ann@example.com'').';
    END IF;
    SELECT array_agg(DISTINCT p.found_id), array_agg(DISTINCT p.found_account)
    INTO piece_ids, accounts
    FROM postalytics.pieces_of_recipient(sought_contact, sought_email, sought_piece, account) AS p;
    IF account IS NULL THEN
        accounts := ARRAY(SELECT unnest(accounts)
                          UNION
                          SELECT r.account
                          FROM postalytics.rejects AS r
                          WHERE r.piece_id = sought_piece
                             OR postalytics.is_about(r.payload, ARRAY[sought_piece], ARRAY[sought_contact], ARRAY[sought_email]));
    END IF;
    IF cardinality(accounts) > 1 THEN
        RAISE EXCEPTION 'person exists in more than one account'
            USING ERRCODE = 'cardinality_violation',
                  HINT = 'Specify the account as an argument, and call the function for each account from which the person is to be erased.';
    END IF;
    account := COALESCE(account, accounts[1], '');
    names := postalytics.names_of_recipient(piece_ids, account);
    relation := 'postalytics.rejects';
    action := 'delete';
    affected := postalytics.erase_rejects(piece_ids || sought_piece, account,
                                          names.contact_ids || sought_contact, names.emails || sought_email);
    RETURN NEXT;
    RETURN QUERY
    SELECT e.relation,
           CASE WHEN forget.anonymise AND e.relation <> 'postalytics.deliveries' THEN 'anonymise' ELSE 'delete' END,
           e.affected
    FROM postalytics.erase_pieces(COALESCE(piece_ids, '{}'), account, COALESCE(anonymise, false)) AS e;
    PERFORM postalytics.audit('forget', NULL, account,
                              format('pieces: %s%s', COALESCE(cardinality(piece_ids), 0),
                                     CASE WHEN anonymise THEN ', anonymised' END));
END
$$;
COMMENT ON FUNCTION postalytics.forget(text, text, text, text, boolean) IS
    'erase a person, given a contact id, e-mail address or piece, or with anonymise only the recipient; returns a row for each table searched';
