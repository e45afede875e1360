-- Checks the partial order of statuses for all 121 pairs, against the order written out
-- here and the laws of a partial order.
BEGIN;
SET search_path = public, postalytics;
SELECT plan(13);

-- Each status with those that immediately follow it.
CREATE TEMP TABLE covers (a mail_status, b mail_status);
INSERT INTO covers VALUES
    ('MailPieceCreated', 'Addressed'),
    ('Addressed', 'Printed'),
    ('Printed', 'Mailed'),
    ('Mailed', 'InTransit'),
    ('InTransit', 'InLocalArea'),
    ('InLocalArea', 'ProcessedForDelivery'),
    ('ProcessedForDelivery', 'pURLOpened'),
    ('pURLOpened', 'pURLCompleted'),
    ('Mailed', 'ReRouted'),
    ('ReRouted', 'ReturnedToSender'),
    ('ProcessedForDelivery', 'ReturnedToSender');

CREATE TEMP TABLE earlier AS
WITH RECURSIVE e AS (
    SELECT a, b FROM covers
    UNION
    SELECT e.a, c.b FROM e JOIN covers AS c ON c.a = e.b
)
SELECT a, b FROM e;

CREATE TEMP TABLE pairs AS
SELECT a.status AS a, b.status AS b, e.a IS NOT NULL AS before
FROM statuses AS a
CROSS JOIN statuses AS b
LEFT JOIN earlier AS e ON e.a = a.status AND e.b = b.status;

SELECT is(count(*), 121::bigint, 'there are all pairs') FROM pairs;
SELECT is(count(*) FILTER (WHERE before), 48::bigint, 'the expected number of pairs is ordered') FROM pairs;

SELECT set_eq('SELECT a, b FROM pairs WHERE a << b', 'SELECT a, b FROM pairs WHERE before', '<<');
SELECT set_eq('SELECT a, b FROM pairs WHERE b >> a', 'SELECT a, b FROM pairs WHERE before', '>>');
SELECT set_eq('SELECT a, b FROM pairs WHERE a <<= b', 'SELECT a, b FROM pairs WHERE before OR a = b', '<<=');
SELECT set_eq('SELECT a, b FROM pairs WHERE b >>= a', 'SELECT a, b FROM pairs WHERE before OR a = b', '>>=');
SELECT set_eq('SELECT a, b FROM pairs WHERE comparable(a, b)',
              'SELECT p.a, p.b FROM pairs AS p JOIN pairs AS q ON q.a = p.b AND q.b = p.a WHERE p.before OR q.before OR p.a = p.b',
              'comparable');
SELECT set_eq('SELECT a, b FROM pairs WHERE precedes(a, b) AND follows(b, a)',
              'SELECT a, b FROM pairs WHERE before', 'the functions agree with the operators');
SELECT is_empty('SELECT a FROM pairs WHERE a << a', 'irreflexive');
SELECT is_empty('SELECT a, b FROM pairs WHERE a << b AND b << a', 'antisymmetric');
SELECT is_empty('SELECT p.a, p.b, q.b FROM pairs AS p JOIN pairs AS q ON q.a = p.b
                 WHERE p.a << p.b AND q.a << q.b AND NOT p.a << q.b', 'transitive');

SELECT set_eq($$SELECT o.oprname || ' ' || c.oprname FROM pg_operator AS o JOIN pg_operator AS c ON c.oid = o.oprcom
                WHERE o.oprnamespace = 'postalytics'::regnamespace$$,
              ARRAY['<< >>', '>> <<', '<<= >>=', '>>= <<='], 'commutators');
SELECT is_empty($$SELECT oid FROM pg_operator WHERE oprnamespace = 'postalytics'::regnamespace AND oprnegate <> 0$$,
                'a partial order has no negators');

SELECT * FROM finish();
ROLLBACK;
