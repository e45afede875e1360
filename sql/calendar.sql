-- The calendar of the US mail: holidays, delivery days, and delivery windows.
CREATE EXTENSION postalytics_status;
SET search_path = public, postalytics;
SET datestyle = 'ISO';

-- The holidays that the Office of Personnel Management publishes for ten years.
CREATE TEMP TABLE published (year int, dates text);
INSERT INTO published VALUES
    (2021, 'Jan 1, Jan 18, Feb 15, May 31, Jun 18, Jul 5, Sep 6, Oct 11, Nov 11, Nov 25, Dec 24'),
    (2022, 'Dec 31 2021, Jan 17, Feb 21, May 30, Jun 20, Jul 4, Sep 5, Oct 10, Nov 11, Nov 24, Dec 26'),
    (2023, 'Jan 2, Jan 16, Feb 20, May 29, Jun 19, Jul 4, Sep 4, Oct 9, Nov 10, Nov 23, Dec 25'),
    (2024, 'Jan 1, Jan 15, Feb 19, May 27, Jun 19, Jul 4, Sep 2, Oct 14, Nov 11, Nov 28, Dec 25'),
    (2025, 'Jan 1, Jan 20, Feb 17, May 26, Jun 19, Jul 4, Sep 1, Oct 13, Nov 11, Nov 27, Dec 25'),
    (2026, 'Jan 1, Jan 19, Feb 16, May 25, Jun 19, Jul 3, Sep 7, Oct 12, Nov 11, Nov 26, Dec 25'),
    (2027, 'Jan 1, Jan 18, Feb 15, May 31, Jun 18, Jul 5, Sep 6, Oct 11, Nov 11, Nov 25, Dec 24'),
    (2028, 'Dec 31 2027, Jan 17, Feb 21, May 29, Jun 19, Jul 4, Sep 4, Oct 9, Nov 10, Nov 23, Dec 25'),
    (2029, 'Jan 1, Jan 15, Feb 19, May 28, Jun 19, Jul 4, Sep 3, Oct 8, Nov 12, Nov 22, Dec 25'),
    (2030, 'Jan 1, Jan 21, Feb 18, May 27, Jun 19, Jul 4, Sep 2, Oct 14, Nov 11, Nov 28, Dec 25');
SELECT year, dates = string_agg(to_char(observed, CASE WHEN extract(year FROM observed) = year THEN 'Mon FMDD' ELSE 'Mon FMDD YYYY' END), ', ' ORDER BY observed) AS as_published
FROM published, federal_holidays(year)
GROUP BY year, dates
ORDER BY year;
SELECT * FROM federal_holidays(2026);
SELECT count(*) FROM federal_holidays(2020);
SELECT federal_holidays(0);
SELECT federal_holidays(10000);

-- Sundays, holidays on their date and as observed, and New Year's Day observed in December.
SELECT day::date, to_char(day, 'Dy') AS weekday, is_delivery_day(day::date)
FROM unnest('{2026-07-02,2026-07-03,2026-07-04,2026-07-05,2026-07-06,2027-12-31,2028-01-01,2028-01-03,2026-11-26,2026-11-28}'::timestamp[]) AS day;
SELECT is_delivery_day('infinity'), is_delivery_day(NULL);

-- Windows from a Tuesday, over a Sunday, over Thanksgiving, and over the end of DST.
SET timezone = 'America/New_York';
SELECT delivery_window('2026-10-06 12:00');
SELECT delivery_window('2026-10-09 23:59:59');
SELECT delivery_window('2026-11-25 12:00');
SELECT delivery_window('2026-10-30 12:00');
-- The window starts from the day in the recipient's time zone.
SELECT delivery_window('2026-10-06 23:30', 'America/New_York'), delivery_window('2026-10-07 00:30', 'Pacific/Honolulu');
SELECT delivery_window('infinity'), delivery_window(NULL, 'UTC');
SELECT delivery_window('2026-10-06 12:00', 'Mars/Olympus');
SELECT delivery_window('294276-12-31 12:00 UTC');

SELECT zip, zip_time_zone(zip)
FROM unnest('{04101-4432,10001,32501,33101,37201,37402,46401,57701,79901,85001,89101,94110,97914,96813,99501,00901,09001,123,K1A0B1,""}'::text[]) AS zip;

-- Lemmon SD, the Navajo Nation, the federal ZIP codes of Washington DC, and Pago Pago.
SELECT zip, zip_time_zone(zip)
FROM unnest('{57638,86515,56901,96799,96799-1234,96798}'::text[]) AS zip;
-- The time zones of all ZIP codes, by their first three digits.
SELECT lpad(min(prefix)::text, 3, '0') AS first, lpad(max(prefix)::text, 3, '0') AS last, zone
FROM (SELECT prefix, zone, prefix - row_number() OVER (PARTITION BY zone ORDER BY prefix) AS run
      FROM generate_series(0, 999) AS prefix, zip_time_zone(lpad(prefix::text, 3, '0') || '00') AS zone) AS p
GROUP BY zone, run
ORDER BY 1;

-- A piece has a window while it is processed for delivery, in the zone of its ZIP code.
SELECT inserted FROM ingest('[
    {"mailId": 1, "eventType": 6, "eventDate": "2026-10-07T03:00:00Z", "to": {"firstName": "A", "zip": "96813"}},
    {"mailId": 2, "eventType": 6, "eventDate": "2026-10-07T03:00:00Z"},
    {"mailId": 3, "eventType": 5, "eventDate": "2026-10-07T03:00:00Z"},
    {"mailId": 4, "eventType": 6, "eventDate": "2026-10-07T03:00:00Z"},
    {"mailId": 4, "eventType": 2, "eventDate": "2026-10-08T03:00:00Z"}]');
SELECT piece_id, status, estimated_delivery(p) FROM pieces AS p ORDER BY 1;

-- The width of a bar is in characters, whichever characters the encoding allows.
SELECT length(bar(1, 2)) AS half, length(bar(1, 3, 5)) AS third, length(bar(0, 5)) AS none, bar(9, 3, 4) = bar(3, 3, 4) AS full,
       bar(-1, 3), bar(1, 0), bar('NaN', 1), bar(1, 'infinity'), bar('infinity', 1, 3) = bar(1, 1, 3) AS infinite, bar(NULL, 1);
SET client_encoding = 'LATIN1';
SELECT bar(1, 2), bar(1, 3, 5);
RESET client_encoding;
SELECT bar(1, 2, 0);
SELECT bar(1, 2, 1001);
SELECT rate(1, 3), rate(0, 5), rate(1, 0), rate(NULL, 1);

DROP EXTENSION postalytics_status CASCADE;
