-- A hostile role cannot make the extension call its objects: functions and operators
-- in public that match better than the server's, and temporary tables with the names
-- of the extension's tables, both ahead of everything else in search_path.
CREATE EXTENSION postalytics_status;
SELECT postalytics.configure('latest', '36500d');
CREATE TABLE public.caught (by_whom text);
CREATE ROLE regress_postalytics_mallory;
GRANT ALL ON SCHEMA public TO regress_postalytics_mallory;
GRANT INSERT, SELECT ON public.caught TO PUBLIC;
SET ROLE regress_postalytics_mallory;
CREATE FUNCTION public.trap(postalytics.mail_status, postalytics.mail_status) RETURNS boolean LANGUAGE plpgsql AS
$$ BEGIN INSERT INTO public.caught VALUES (current_user); RETURN false; END $$;
CREATE OPERATOR public.= (FUNCTION = public.trap, LEFTARG = postalytics.mail_status, RIGHTARG = postalytics.mail_status);
CREATE OPERATOR public.< (FUNCTION = public.trap, LEFTARG = postalytics.mail_status, RIGHTARG = postalytics.mail_status);
CREATE OPERATOR public.>= (FUNCTION = public.trap, LEFTARG = postalytics.mail_status, RIGHTARG = postalytics.mail_status);
CREATE FUNCTION public.trap(text, text) RETURNS boolean LANGUAGE plpgsql AS
$$ BEGIN INSERT INTO public.caught VALUES (current_user); RETURN false; END $$;
CREATE OPERATOR public.= (FUNCTION = public.trap, LEFTARG = text, RIGHTARG = text);
CREATE FUNCTION public.trap(timestamptz, timestamptz) RETURNS boolean LANGUAGE plpgsql AS
$$ BEGIN INSERT INTO public.caught VALUES (current_user); RETURN false; END $$;
CREATE OPERATOR public.<= (FUNCTION = public.trap, LEFTARG = timestamptz, RIGHTARG = timestamptz);
CREATE OPERATOR public.> (FUNCTION = public.trap, LEFTARG = timestamptz, RIGHTARG = timestamptz);
CREATE FUNCTION public.now() RETURNS timestamptz LANGUAGE plpgsql AS
$$ BEGIN INSERT INTO public.caught VALUES (current_user); RETURN '2001-01-01'; END $$;
CREATE FUNCTION public.count(text) RETURNS bigint LANGUAGE plpgsql AS
$$ BEGIN INSERT INTO public.caught VALUES (current_user); RETURN 0; END $$;
CREATE FUNCTION public.format(text, VARIADIC text[]) RETURNS text LANGUAGE plpgsql AS
$$ BEGIN INSERT INTO public.caught VALUES (current_user); RETURN 'SELECT'; END $$;
CREATE FUNCTION public.unnest(postalytics.mail_status[]) RETURNS SETOF postalytics.mail_status LANGUAGE plpgsql AS
$$ BEGIN INSERT INTO public.caught VALUES (current_user); END $$;
RESET ROLE;
CREATE TEMP TABLE events (LIKE postalytics.events);
CREATE TEMP TABLE pieces (LIKE postalytics.pieces);
CREATE TEMP TABLE syncs (LIKE postalytics.syncs);
CREATE TEMP TABLE deliveries_unfinished (LIKE postalytics.deliveries);
CREATE TEMP TABLE pg_class (LIKE pg_catalog.pg_class);
SET search_path = public, pg_temp, pg_catalog, postalytics;

-- Call the functions that the extension's owner is likely to call.
SELECT name FROM postalytics.create_sync('all', unless => '{ReturnedToSender}', latest_only => true);
SELECT postalytics.grant_sync('regress_postalytics_mallory', 'all');
SELECT postalytics.grant_read('regress_postalytics_mallory');
SELECT postalytics.grant_ingest('regress_postalytics_mallory');
SELECT * FROM postalytics.ingest('[{"mailId": 1, "eventType": 4, "eventDate": "2026-10-06", "campaignId": "c"},
                                   {"mailId": 1, "eventType": 5, "eventDate": "2026-10-07"}, 7]');
SELECT * FROM postalytics.retry_rejects();
INSERT INTO postalytics.inbox (mail_id, event_type, event_date) VALUES ('2', 'Mailed', '2026-10-06');
SELECT p.piece_id, p.status, postalytics.reached_at(p, 'InTransit') FROM postalytics.pieces AS p ORDER BY p.piece_id;
SELECT piece_id, status FROM postalytics.fetch('all') ORDER BY 1, 2;
SELECT postalytics.nack('all', ARRAY[2], 'busy'), postalytics.ack('all', ARRAY[1, 2, 3]);
SELECT postalytics.next_due('all') OPERATOR(pg_catalog.>) pg_catalog.now() AS later;
SELECT postalytics.replay_sync('all', '-infinity', 'infinity');
SELECT count(*) FROM postalytics.maintain() AS m WHERE m.action OPERATOR(pg_catalog.=) 'failed';
SELECT name, waiting, dead FROM postalytics.sync_health;
SELECT postalytics.disable_sync('all'), postalytics.enable_sync('all');
SELECT postalytics.drop_campaign('c');
SELECT postalytics.drop_sync('all');
SET client_min_messages = warning;
DROP EXTENSION postalytics_status CASCADE;
RESET client_min_messages;
SELECT * FROM public.caught;

RESET search_path;
DROP TABLE events, pieces, syncs, deliveries_unfinished, pg_temp.pg_class, public.caught;
DROP OWNED BY regress_postalytics_mallory;
DROP ROLE regress_postalytics_mallory;
