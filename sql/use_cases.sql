-- Common uses of syncs: an activity in a CRM that shows 'In Transit', an e-mail two days
-- after delivery unless the goal was reached, and a text message as soon as the goal is
-- reached.
CREATE EXTENSION postalytics_status;
SET search_path = public, postalytics;
SELECT postalytics.configure('latest', '36500d');
SET timezone = 'UTC';

CREATE TABLE activity (piece_id text PRIMARY KEY, person int, subject text, done boolean);
CREATE TABLE message (kind text, person int, body text);

SELECT name FROM create_sync('activity', statuses => '{Mailed,InTransit,InLocalArea,ProcessedForDelivery}');
SELECT name FROM create_sync('email', statuses => '{ProcessedForDelivery}', wait => '2 days', unless => '{pURLCompleted}');
SELECT name FROM create_sync('text', statuses => '{pURLCompleted}');

-- One step of a worker for each sync: fetch, update the CRM, and acknowledge.
CREATE FUNCTION step() RETURNS TABLE (told text, deliveries bigint)
LANGUAGE plpgsql
AS $$
DECLARE
    d postalytics.delivery;
BEGIN
    FOR d IN SELECT * FROM postalytics.fetch('activity') LOOP
        INSERT INTO activity
        VALUES (d.piece_id, (d.fields ->> 'crm_person_id')::int, 'Mail piece: ' || d.label, d.status = 'ProcessedForDelivery')
        ON CONFLICT (piece_id) DO UPDATE
        SET subject = excluded.subject, done = excluded.done;
        told := 'activity';
        deliveries := postalytics.ack('activity', ARRAY[d.delivery_id]);
        RETURN NEXT;
    END LOOP;
    FOR d IN SELECT * FROM postalytics.fetch('email') LOOP
        INSERT INTO message
        VALUES ('email', (d.fields ->> 'crm_person_id')::int, format('Dear %s, did our letter arrive?', d.first_name));
        told := 'email';
        deliveries := postalytics.ack('email', ARRAY[d.delivery_id]);
        RETURN NEXT;
    END LOOP;
    FOR d IN SELECT * FROM postalytics.fetch('text') LOOP
        INSERT INTO message
        VALUES ('text', (d.fields ->> 'crm_person_id')::int, format('%s is on %s', d.first_name, d.payload -> 'meta' ->> 'url'));
        told := 'text';
        deliveries := postalytics.ack('text', ARRAY[d.delivery_id]);
        RETURN NEXT;
    END LOOP;
END
$$;

-- Two pieces, with events relative to the current time.  One of them reaches the goal.
CREATE FUNCTION event(piece int, code int, ago interval) RETURNS ingest_result
LANGUAGE sql
AS $$
    SELECT ingest(json_build_object(
        'mailId', piece, 'eventType', code, 'eventDate', to_char((now() - ago) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
        'to', json_build_object('firstName', CASE piece WHEN 1 THEN 'Dolores' ELSE 'Bao' END),
        'meta', json_build_object('campaignId', 77120, 'url', 'https://spring.example/' || piece,
                                  'fields', json_build_object('crm_person_id', 20930 + piece))))
$$;

SELECT event(1, 11, '5 days'), event(2, 11, '5 days'), event(1, 4, '4 days');
SELECT * FROM step();
SELECT * FROM step();
SELECT * FROM activity ORDER BY 1;

-- The pieces were delivered yesterday, so the e-mail is due tomorrow.
SELECT event(1, 6, '1 day'), event(2, 6, '1 day');
SELECT * FROM step();
SELECT * FROM activity ORDER BY 1;
SELECT next_due('email') - now() BETWEEN '23 hours' AND '24 hours' AS tomorrow;

-- One recipient responds, and the text message is sent at once.
SELECT event(2, 8, '0');
SELECT * FROM step();
SELECT * FROM message;

-- Two days after delivery, only the other recipient gets the e-mail.
UPDATE deliveries SET due_at = due_at - interval '1 day' WHERE sync = 'email';
SELECT * FROM step();
SELECT * FROM message;
SELECT sync, piece_id, status, state FROM deliveries WHERE sync <> 'activity' ORDER BY 1, 2;

DROP FUNCTION step, event;
DROP TABLE activity, message;
DROP EXTENSION postalytics_status CASCADE;
