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
                        postalytics.maintenance_log,
                        postalytics.campaign_funnel, postalytics.campaign_funnel_by_country,
                        postalytics.campaign_progress, postalytics.campaign_responses,
                        postalytics.responses_by_day, postalytics.returned_mail TO %I', role);
    EXECUTE format('GRANT EXECUTE ON FUNCTION
                        postalytics.reached_at(postalytics.pieces, postalytics.mail_status),
                        postalytics.was_sent(postalytics.pieces),
                        postalytics.was_scanned(postalytics.pieces),
                        postalytics.is_tracked(postalytics.pieces),
                        postalytics.late_from(postalytics.pieces),
                        postalytics.expected_day(timestamptz),
                        postalytics.setting(text),
                        postalytics.payload_details(json),
                        postalytics.funnel(text, timestamptz),
                        postalytics.journey(text),
                        postalytics.status_as_of(text, timestamptz),
                        postalytics.stuck_pieces(interval, text, interval),
                        postalytics.delivery_window(timestamptz, text),
                        postalytics.estimated_delivery(postalytics.pieces),
                        postalytics.federal_holidays(integer),
                        postalytics.is_delivery_day(date),
                        postalytics.zip_time_zone(text),
                        postalytics.bar(double precision, double precision, integer),
                        postalytics.worker_status(),
                        postalytics.rate(bigint, bigint) TO %I', role);
END
$$;
COMMENT ON FUNCTION postalytics.grant_read(name) IS
    'let a role read all, and change nothing';

-- What was noted for a role that has no grant is of one that was dropped, or had
-- it taken back, and is forgotten.  Errors: 42704 where there is no such role or sync.
CREATE FUNCTION postalytics.grant_sync(role name, sync text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT has_function_privilege(role, 'postalytics.fetch(text, integer, interval, interval)', 'EXECUTE') THEN
        UPDATE postalytics.syncs AS s
        SET workers = array_remove(s.workers, role)
        WHERE role = ANY (s.workers);
    END IF;
    EXECUTE format('GRANT EXECUTE ON FUNCTION
                        postalytics.fetch(text, integer, interval, interval),
                        postalytics.ack(text, bigint[], integer[]),
                        postalytics.nack(text, bigint[], text, interval, boolean, integer[]),
                        postalytics.next_due(text) TO %I', role);
    UPDATE postalytics.syncs AS s
    SET workers = array_remove(s.workers, role) || role
    WHERE s.name = sync;
    IF NOT FOUND THEN
        PERFORM postalytics.raise_undefined_sync(sync);
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

-- For the checks of syncs, which run as whoever changes a row of it.
GRANT EXECUTE ON FUNCTION postalytics.are_known_statuses(postalytics.mail_status[]) TO PUBLIC;
