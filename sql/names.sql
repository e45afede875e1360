-- Names with quotes, blanks, capitals, emoji, or a length of 63 bytes, wherever names are
-- used.
CREATE EXTENSION postalytics_status;
SET search_path = public, postalytics;
SELECT postalytics.configure('latest', '36500d');
SET client_min_messages = warning;
CREATE TABLE names (id int GENERATED ALWAYS AS IDENTITY, name text);
INSERT INTO names (name)
VALUES ('regress_plain'), ('Upper Case'), ('it''s "quoted"'), ($$\$'; DROP TABLE names; --$$), (U&'\+01F4EC mail'), ('%I %s'),
       (repeat('x', 63)), (repeat(U&'\00E9', 31));

-- Use each name for a role, a sync, its channel, a campaign, an account and a piece.
SELECT format('CREATE ROLE %I', n.name) FROM names AS n ORDER BY id
\gexec
SELECT n.id, s.name = n.name AS name, s.channel = n.name AS channel
FROM names AS n,
     create_sync(n.name, channel => n.name, campaigns => ARRAY[n.name], accounts => ARRAY[n.name]) AS s
ORDER BY 1;
SELECT count(grant_sync(n.name::name, n.name)), count(grant_ingest(n.name::name)), count(grant_read(n.name::name)) FROM names AS n;
SELECT n.id, i.*
FROM names AS n,
     ingest(json_build_object('mailId', n.name, 'eventType', 'Mailed', 'eventDate', '2026-10-06', 'campaignId', n.name,
                              'campaignName', n.name, 'firstName', n.name), account => n.name) AS i
ORDER BY 1;
SELECT n.id, p.account = n.name AS account, p.campaign_id = n.name AS campaign, p.first_name = n.name AS first_name, c.name = n.name AS name
FROM names AS n
JOIN pieces AS p ON p.piece_id = n.name
JOIN campaigns AS c ON c.campaign_id = n.name
ORDER BY 1;

-- Each role can fetch from its own sync, and is refused at another role's sync.
CREATE FUNCTION as_role(role text, query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    result text;
BEGIN
    EXECUTE format('SET LOCAL ROLE %I', role);
    EXECUTE query INTO result;
    RESET ROLE;
    RETURN result;
EXCEPTION
    WHEN insufficient_privilege THEN
        RESET ROLE;
        RETURN SQLSTATE;
END
$$;
SELECT n.id,
       as_role(n.name, format('SELECT string_agg(piece_id, '','') FROM postalytics.fetch(%L)', n.name)) = n.name AS own,
       as_role(n.name, format('SELECT count(*) FROM postalytics.fetch(%L)', o.name)) AS others,
       as_role(n.name, format('SELECT postalytics.ack(%L, ARRAY[1,2,3,4,5,6,7,8])', o.name)) AS ack_others,
       as_role(n.name, format('SELECT postalytics.ack(%L, ARRAY[1,2,3,4,5,6,7,8])', n.name)) AS ack_own
FROM names AS n
JOIN names AS o ON o.id = n.id % 8 + 1
ORDER BY 1;
SELECT n.id, h.waiting, h.done_last_hour
FROM names AS n
JOIN sync_health AS h USING (name)
ORDER BY 1;
SELECT revoke_sync('regress_plain', 'regress_plain');
SELECT as_role('regress_plain', $$SELECT count(*) FROM postalytics.fetch('regress_plain')$$);
-- A role does not inherit the privileges of a dropped role with the same name.
SELECT name FROM create_sync('other');
CREATE ROLE regress_again;
SELECT grant_sync('regress_again', 'regress_plain');
DROP OWNED BY regress_again;
DROP ROLE regress_again;
CREATE ROLE regress_again;
SELECT grant_sync('regress_again', 'other');
SELECT as_role('regress_again', $$SELECT count(*) FROM postalytics.fetch('other')$$),
       as_role('regress_again', $$SELECT count(*) FROM postalytics.fetch('regress_plain')$$);
SELECT grant_sync('regress_again', 'regress_plain');
SELECT as_role('regress_again', $$SELECT count(*) FROM postalytics.fetch('other')$$),
       as_role('regress_again', $$SELECT count(*) FROM postalytics.fetch('regress_plain')$$);
DROP OWNED BY regress_again;
DROP ROLE regress_again;
SELECT count(drop_sync(n.name)), sum(drop_campaign(n.name)) FROM names AS n;
SELECT revoke_sync('nobody', 'nothing');
SELECT grant_sync('regress_plain', 'nothing');
SELECT grant_sync('nobody there', 'regress_plain');
SELECT grant_read(NULL);

SELECT format('DROP OWNED BY %I; DROP ROLE %1$I', n.name) FROM names AS n ORDER BY id
\gexec
DROP FUNCTION as_role;
DROP TABLE names;
DROP EXTENSION postalytics_status CASCADE;
