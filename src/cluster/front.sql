/*
 * front.sql
 *		Distributes the tables of deliveries and rejects, and removes from the front what
 *		only slots use.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

SELECT postalytics.distribute('dead_letters', 'HASH (piece_id)');
SELECT postalytics.distribute('delivery_errors', 'HASH (piece_id)');
SELECT postalytics.distribute('returned_mail', 'HASH (piece_id)');
SELECT postalytics.distribute('deliveries_unfinished', 'HASH (piece_id)');
SELECT postalytics.distribute('deliveries', 'HASH (piece_id)');
SELECT postalytics.distribute('rejects', 'RANGE (reject_id)');
DROP FUNCTION postalytics.distribute(name, text);

DROP TRIGGER events_inserted ON postalytics.events;
DROP TRIGGER limits_changed ON postalytics.syncs;
DROP VIEW postalytics.day_counts;
DROP FUNCTION
    postalytics.account_of_pieces,
    postalytics.begin_maintenance,
    postalytics.campaign_depends_on,
    postalytics.carry_payloads,
    postalytics.check_contacts,
    postalytics.check_maintenance,
    postalytics.check_not_retired,
    postalytics.check_payload_accounts,
    postalytics.check_piece_references,
    postalytics.check_server,
    postalytics.check_syncs,
    postalytics.claim_slot,
    postalytics.copy_bindings,
    postalytics.copy_configuration,
    postalytics.copy_names,
    postalytics.copy_syncs,
    postalytics.count_mentions,
    postalytics.create_partitions_ahead,
    postalytics.dead_deliveries,
    postalytics.delete_campaign,
    postalytics.delete_day_old_rows,
    postalytics.delete_deliveries,
    postalytics.delete_duplicate_events,
    postalytics.delete_event,
    postalytics.delete_event_of_campaign,
    postalytics.detached_months,
    postalytics.end_breaker_pause,
    postalytics.ensure_days,
    postalytics.erase_errors,
    postalytics.erase_pieces,
    postalytics.erase_rejects,
    postalytics.errors_of_person,
    postalytics.event_tables,
    postalytics.events_inserted,
    postalytics.finish_deliveries,
    postalytics.forget_recent_leases,
    postalytics.has_recipient,
    postalytics.hundredths_of_days,
    postalytics.ingest_parts,
    postalytics.is_about,
    postalytics.is_for,
    postalytics.is_recipient,
    postalytics.join_cluster,
    postalytics.latest_name,
    postalytics.leaves,
    postalytics.leaves_to_retire,
    postalytics.limits_changed,
    postalytics.lock_dead,
    postalytics.lock_pieces,
    postalytics.log_maintenance,
    postalytics.make_error_deliveries,
    postalytics.may_have_events_of,
    postalytics.mentions,
    postalytics.merge_piece,
    postalytics.move_campaigns,
    postalytics.move_pieces,
    postalytics.move_production_errors,
    postalytics.move_rejects,
    postalytics.move_rows,
    postalytics.names_recipient,
    postalytics.notify_sync,
    postalytics.offered_events,
    postalytics.old_pieces,
    postalytics.oldest_due,
    postalytics.payload_account,
    postalytics.payload_fields,
    postalytics.pieces_of_campaign,
    postalytics.pieces_of_recipient,
    postalytics.raise_retired,
    postalytics.raise_undefined_event,
    postalytics.rebuild_campaign,
    postalytics.refold_campaign,
    postalytics.refold_pieces,
    postalytics.rejected_events,
    postalytics.responses_by_day_in,
    postalytics.retire_leaf,
    postalytics.retire_month,
    postalytics.retire_pieces,
    postalytics.retire_rejects,
    postalytics.retry_links,
    postalytics.shrink_deliveries,
    postalytics.stay_counts,
    postalytics.sync_latencies,
    postalytics.table_sizes,
    postalytics.try_erase_pieces,
    postalytics.want_worker,
    postalytics.with_error;
DROP TABLE
    postalytics.in_flight,
    postalytics.recent_leases,
    postalytics.retired_months,
    postalytics.retirement_progress,
    postalytics.slot,
    postalytics.tallies;
DROP SEQUENCE
    postalytics.delivery_id_seq,
    postalytics.event_id_seq,
    postalytics.reject_id_seq;
