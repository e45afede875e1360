/*
 * drop_campaign.sql
 *		drop_campaign: deletes everything about a campaign.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

CREATE FUNCTION postalytics.pieces_of_campaign(campaign_id text, account text, naming text[])
RETURNS text[]
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT array_agg(a.piece_id ORDER BY a.piece_id)
    FROM (
        SELECT p.piece_id
        FROM postalytics.pieces AS p
        WHERE p.campaign_id = pieces_of_campaign.campaign_id
          AND p.account = pieces_of_campaign.account
        UNION
        SELECT unnest(naming)
    ) AS a
$$;
COMMENT ON FUNCTION postalytics.pieces_of_campaign(text, text, text[]) IS
    'internal: the pieces of a campaign, and the pieces in naming, whose events or production errors name the campaign';

-- The caller has locked the existing deliveries, and then events.  A lock timeout
-- limits the wait for rows that other sessions have locked since then.
CREATE FUNCTION postalytics.delete_campaign(campaign_id text, account text, affected text[])
RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '1s'
AS $$
DECLARE
    deleted bigint;
BEGIN
    WITH gone AS (
        DELETE FROM postalytics.events AS e
        USING unnest(affected) AS a (piece_id)
        LEFT JOIN postalytics.pieces AS p ON (p.piece_id, p.account) = (a.piece_id, delete_campaign.account)
        WHERE (e.piece_id, e.account) = (a.piece_id, delete_campaign.account)
          AND (e.campaign_id = delete_campaign.campaign_id
               OR (e.campaign_id IS NULL OR e.campaign_id = e.drop_id) AND p.campaign_id = delete_campaign.campaign_id)
        RETURNING e.piece_id, e.account, e.status, e.occurred_at
    ), undelivered AS (
        DELETE FROM postalytics.deliveries AS d
        USING gone AS g
        WHERE (d.piece_id, d.account, d.status, d.occurred_at) = (g.piece_id, g.account, g.status, g.occurred_at)
    )
    SELECT count(*)
    INTO deleted
    FROM gone;
    PERFORM postalytics.refold_pieces(affected, account);
    DELETE FROM postalytics.deliveries AS d
    USING unnest(affected) AS a (piece_id)
    WHERE (d.piece_id, d.account) = (a.piece_id, delete_campaign.account)
      AND NOT EXISTS (SELECT
                      FROM postalytics.pieces AS p
                      WHERE (p.piece_id, p.account) = (a.piece_id, delete_campaign.account));
    WITH gone AS (
        DELETE FROM postalytics.production_errors AS e
        WHERE (e.campaign_id, e.account) = (delete_campaign.campaign_id, delete_campaign.account)
        RETURNING e.piece_id, e.account, e.occurred_at
    )
    DELETE FROM postalytics.deliveries AS d
    USING gone AS g
    WHERE (d.piece_id, d.account, d.occurred_at) = (g.piece_id, g.account, g.occurred_at)
      AND d.status IS NULL;
    DELETE FROM postalytics.campaigns AS c
    WHERE (c.campaign_id, c.account) = (delete_campaign.campaign_id, delete_campaign.account);
    RETURN deleted;
END
$$;
COMMENT ON FUNCTION postalytics.delete_campaign(text, text, text[]) IS
    'internal: delete a campaign, whose pieces are in affected; returns the number of deleted events';

-- Errors: 42704 if there is no such campaign, 21000 if it exists in more than one
-- account.
CREATE FUNCTION postalytics.account_of_campaign(campaign_id text, account text)
RETURNS text
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    accounts text[];
BEGIN
    SELECT array_agg(a.account)
    INTO accounts
    FROM (
        SELECT c.account
        FROM postalytics.campaigns AS c
        WHERE c.campaign_id = account_of_campaign.campaign_id
        UNION
        SELECT e.account
        FROM postalytics.production_errors AS e
        WHERE e.campaign_id = account_of_campaign.campaign_id
    ) AS a
    WHERE account_of_campaign.account IS NULL
       OR a.account = account_of_campaign.account;
    IF accounts IS NULL THEN
        RAISE EXCEPTION 'campaign "%" does not exist', campaign_id
            USING ERRCODE = 'undefined_object',
                  HINT = 'Campaign ids are in postalytics.campaigns.';
    END IF;
    IF cardinality(accounts) > 1 THEN
        RAISE EXCEPTION 'campaign "%" exists in more than one account', campaign_id
            USING ERRCODE = 'cardinality_violation',
                  HINT = 'Specify the account as an argument.';
    END IF;
    RETURN accounts[1];
END
$$;
COMMENT ON FUNCTION postalytics.account_of_campaign(text, text) IS
    'internal: the account of a campaign; an error if there is not exactly one';

-- An event belongs to a campaign if it names the campaign, or if it names no campaign
-- or only a drop and its piece belongs to the campaign.  A piece that also has events
-- of another campaign is kept, and is derived again from those events.
--
-- Locks: the unfinished deliveries of the campaign's pieces, then SHARE ROW EXCLUSIVE
-- on events, until the transaction ends.  While the function waits for these locks,
-- writers are not blocked.  Errors: those of account_of_campaign, 55P03 if the lock on
-- events is not available within 10 seconds or, after that, a row lock within 1 second,
-- 25001 unless the transaction is READ COMMITTED.
CREATE FUNCTION postalytics.drop_campaign(campaign_id text, account text DEFAULT NULL)
RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    owner text;
    naming text[];
    deleted bigint;
BEGIN
    PERFORM postalytics.check_read_committed('drop_campaign');
    PERFORM postalytics.check_not_distributed();
    owner := postalytics.account_of_campaign(campaign_id, account);
    -- This reads all events, so it is done before any lock is taken.
    SELECT array_agg(n.piece_id)
    INTO naming
    FROM (
        SELECT e.piece_id
        FROM postalytics.events AS e
        WHERE e.campaign_id = drop_campaign.campaign_id
          AND e.account = owner
        UNION
        SELECT e.piece_id
        FROM postalytics.production_errors AS e
        WHERE e.campaign_id = drop_campaign.campaign_id
          AND e.account = owner
    ) AS n;
    PERFORM
    FROM postalytics.deliveries_unfinished AS d
    WHERE d.piece_id = ANY (postalytics.pieces_of_campaign(campaign_id, owner, naming))
      AND d.account = owner
    ORDER BY d.delivery_id
    FOR UPDATE;
    PERFORM postalytics.lock_briefly('postalytics.events', 'SHARE ROW EXCLUSIVE');
    deleted := postalytics.delete_campaign(campaign_id, owner, postalytics.pieces_of_campaign(campaign_id, owner, naming));
    PERFORM postalytics.audit('drop_campaign', campaign_id, owner, format('events: %s', deleted));
    RETURN deleted;
END
$$;
COMMENT ON FUNCTION postalytics.drop_campaign(text, text) IS
    'delete a campaign with its events, pieces, recipients and deliveries; returns the number of events';
