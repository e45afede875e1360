// Reads what the page shows.  It has numbers, names of campaigns and syncs, and ids of
// pieces, but nothing of a person: errors of deliveries are counted, not shown, because
// they quote addresses.
const CAMPAIGNS = 50
const DAYS = 60
const LATEST = 8

export class Reports {
  constructor(pool) {
    this.pool = pool
  }

  async read() {
    const rows = async (text) => (await this.pool.query(text)).rows
    return {
      // Newest first.  Each rate is relative to the pieces for which the status can be reported.
      campaigns: await rows(`
        SELECT account, campaign_id AS id, COALESCE(campaign_name, campaign_id, 'Without a campaign') AS name,
               pieces::float8, mailed::float8, processed_for_delivery::float8 AS in_mailboxes, responded::float8, returned_to_sender::float8 AS returned,
               mailed_rate::float8, processed_for_delivery_rate::float8 AS in_mailboxes_rate, responded_rate::float8, returned_to_sender_rate::float8 AS returned_rate,
               ARRAY[at_mail_piece_created, at_addressed, at_printed, at_mailed, at_in_transit, at_in_local_area,
                     at_processed_for_delivery, at_re_routed, at_returned_to_sender]::float8[] AS statuses, median_days::float8, last_event_at
        FROM postalytics.campaign_funnel
        ORDER BY last_event_at DESC NULLS LAST, name, account, id
        LIMIT ${CAMPAIGNS}`),
      countries: await rows(`
        SELECT account, campaign_id AS id, COALESCE(country, '') AS country, pieces::float8, mailed::float8, in_transit::float8, in_local_area::float8,
               processed_for_delivery::float8, re_routed::float8, returned_to_sender::float8, responded::float8
        FROM postalytics.campaign_funnel_by_country`),
      days: await rows(`
        SELECT account, campaign_id AS id, day::text, sum(arrived)::float8 AS arrived, sum(responded)::float8 AS responded
        FROM (SELECT account, campaign_id, processed_for_delivery_at::date AS day, count(*) AS arrived, 0 AS responded
              FROM postalytics.pieces
              WHERE processed_for_delivery_at > now() - interval '${DAYS} days'
              GROUP BY 1, 2, 3
              UNION ALL
              SELECT account, campaign_id, day, 0, visitors
              FROM postalytics.responses_by_day
              WHERE day > current_date - ${DAYS}) AS d
        GROUP BY 1, 2, 3
        ORDER BY day`),
      syncs: await rows(`
        SELECT name, enabled, waiting::float8, due::float8, leased::float8, dead::float8, done_last_hour::float8, dead_by_reason, paused_until, last_error_at
        FROM postalytics.sync_health
        WHERE name <> 'board'
        ORDER BY name`),
      latest: await rows(`
        SELECT event_id::float8, piece_id, postalytics.label(status) AS label, occurred_at
        FROM postalytics.events
        WHERE occurred_at > now() - interval '3 months'
        ORDER BY event_id DESC
        LIMIT ${LATEST}`),
    }
  }
}
