// Keeps a record in Salesforce for each piece, a task of its recipient or a record of a
// custom object, with up to 200 records in a call.
//
// SALESFORCE_URL                          the address of your domain, https://acme.my.salesforce.com
// SALESFORCE_CLIENT_ID, _CLIENT_SECRET    of a connected app with the client credentials flow
// SALESFORCE_OBJECT                       Task (default), or a custom object with the fields Status__c,
//                                         Status_At__c, Campaign__c and Contact__c
// SALESFORCE_EXTERNAL_ID                  the field of that object that identifies the piece, an
//                                         external id and unique (Postalytics_Piece__c)
// SALESFORCE_ID_FIELD                     the field of the mailing list that has the contact's id
//                                         (salesforce_id).  Without it, the contact is found by
//                                         e-mail address.
import jsforce from 'jsforce'
import { setDefaults } from 'jsforce/lib/request.js'
import { REFUSED, required, TIMEOUT } from './http.js'
import { byRecord, isFinished, note, noRecipient, subject } from './recipient.js'

// By default the client follows redirects to any host, with its token, and repeats queries
// for half a minute.
const followRedirect = (url) => { throw new Error(`Salesforce redirects to ${url}, which is not followed`) }
setDefaults({ followRedirect, timeout: TIMEOUT, retry: { maxRetries: 0 } })

const RETRIED = /^(UNABLE_TO_LOCK_ROW|SERVER_UNAVAILABLE|QUERY_TIMEOUT|UNKNOWN_EXCEPTION)/ // of a record
const LIMITED = /^(REQUEST_LIMIT_EXCEEDED|ERROR_HTTP_429|TXN_SECURITY_METERING_ERROR)/
const EMAILS = 50 // in a query, which is part of a URL

// Return the failure of a call.  It is not the fault of one record, so all are tried again.
// The message of an error without errorCode, or of a query, quotes e-mail addresses.
function explain(error) {
  const code = error.errorCode ?? error.code ?? error.type ?? error.name
  const quotes = !error.errorCode && /request to|query/.test(error.message) || code === 'MALFORMED_QUERY'
  const failure = new Error(quotes ? `Salesforce: ${code}` : `Salesforce: ${code}: ${error.message}`.slice(0, 500))
  if (LIMITED.test(code)) failure.pause = 600
  else if (/^(INVALID_SESSION_ID|API_DISABLED_FOR_ORG|INSUFFICIENT_ACCESS|ERROR_HTTP_40[13])/.test(code) || /^Unable to refresh session/.test(error.message)) failure.pause = REFUSED
  return failure
}

const quoted = (text) => `'${text.replace(/[\\']/g, '\\$&')}'`

export default function () {
  const { SALESFORCE_OBJECT: object = 'Task', SALESFORCE_EXTERNAL_ID: externalId = 'Postalytics_Piece__c',
    SALESFORCE_ID_FIELD: idField = 'salesforce_id' } = process.env
  const url = required('SALESFORCE_URL')
  const connection = new jsforce.Connection({
    instanceUrl: url,
    oauth2: { loginUrl: url, clientId: required('SALESFORCE_CLIENT_ID'), clientSecret: required('SALESFORCE_CLIENT_SECRET') },
    // Called when there is no token yet, or when it has expired.
    refreshFn: (it, done) => it.oauth2.requestToken({ grant_type: 'client_credentials' })
      .then(({ access_token: token }) => token ? done(null, token) : done(new Error('Salesforce gave no token')), done),
  })

  // Return the ids of the contacts with these e-mail addresses, in lower case.
  async function contactsOf(emails) {
    const contacts = new Map()
    for (let n = 0; n < emails.length; n += EMAILS) {
      const { records } = await connection.query(`SELECT Id, Email FROM Contact WHERE Email IN (${emails.slice(n, n + EMAILS).map(quoted).join(', ')})`)
      for (const { Id, Email } of records) contacts.set(Email.toLowerCase(), [...contacts.get(Email.toLowerCase()) ?? [], Id])
    }
    return contacts
  }

  function recordOf(delivery, contact) {
    const { account, piece_id: piece, label, campaign_name: campaign, occurred_at: time } = delivery
    const key = { [externalId]: account ? `${account}/${piece}` : piece }
    if (object !== 'Task') return { ...key, Status__c: label, Status_At__c: new Date(time).toISOString(), Campaign__c: campaign, Contact__c: contact }
    return {
      ...key,
      Subject: subject(delivery),
      Description: note(delivery),
      Status: isFinished(delivery) ? 'Completed' : 'Not Started',
      ActivityDate: new Date(time).toISOString().slice(0, 10),
      WhoId: contact,
    }
  }

  return {
    batch: 200,
    lease: '5 minutes',

    async deliverAll(deliveries) {
      const errors = []
      try {
        // An address that cannot be one would make the query fail for all.
        const emailOf = ({ fields, email, is_test: isTest }) => !isTest && !fields?.[idField] && /^[^\s\p{Cc}]{1,254}$/u.exec(email?.trim().toLowerCase() ?? '')?.[0] || undefined
        const contacts = await contactsOf([...new Set(deliveries.map(emailOf).filter(Boolean))])
        const records = []
        for (const { delivery, positions } of byRecord(deliveries, (each) => each.is_test ? undefined : `${each.account}/${each.piece_id}`).values()) {
          const found = delivery.fields?.[idField] ? [delivery.fields[idField]] : contacts.get(emailOf(delivery)) ?? []
          if (found.length === 1) records.push({ delivery, positions, record: recordOf(delivery, found[0]) })
          else {
            const reason = delivery.email ? `${found.length || 'no'} contacts have the recipient's e-mail address` : `neither ${idField} nor an e-mail address`
            for (const n of positions) errors[n] = noRecipient(delivery, reason)
          }
        }
        const results = records.length === 0 ? []
          : await connection.sobject(object).upsert(records.map(({ record }) => record), externalId, { allOrNone: false })
        if (results.length !== records.length) throw new Error('it did not confirm all records')
        for (const [n, { success, errors: [error] = [] }] of results.entries()) {
          if (success) continue
          const failure = new Error(`piece ${records[n].delivery.piece_id}: ${error?.statusCode}: ${error?.message}`)
          failure.dead = !RETRIED.test(error?.statusCode)
          for (const position of records[n].positions) errors[position] = failure
        }
      } catch (error) {
        const failure = explain(error)
        return deliveries.map((_, n) => errors[n] ?? failure)
      }
      return errors
    },
  }
}
