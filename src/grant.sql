/*
 * grant.sql
 *		Who may do what.  PUBLIC has the vocabulary of the lifecycle, and no
 *		more.
 */

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
