/*
 * grant.sql
 *		Who may do what.  PUBLIC has the vocabulary of the lifecycle, and no
 *		more.  The grants are the server's own, so REVOKE and DROP OWNED take
 *		them back; only whose a sync is is noted with it.
 */

CREATE FUNCTION postalytics.grant_ingest(role name)
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

CREATE FUNCTION postalytics.grant_read(role name)
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
CREATE FUNCTION postalytics.grant_sync(role name, sync text)
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

CREATE FUNCTION postalytics.revoke_sync(role name, sync text)
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

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA postalytics FROM PUBLIC;
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
