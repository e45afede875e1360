/*
 * grant.h
 *		What roles may do beyond the server's own privileges.
 */
#ifndef POSTALYTICS_GRANT_H
#define POSTALYTICS_GRANT_H

extern bool session_may_act_as(char *const *roles, int nroles);

#endif							/* POSTALYTICS_GRANT_H */
