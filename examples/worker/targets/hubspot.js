// Writes the status of each piece to its recipient in HubSpot, as properties or as an event
// of the timeline, with up to 100 records in a call.
//
// HUBSPOT_TOKEN      the token of a private app, or for the timeline of a public app
// HUBSPOT_OBJECT     contacts (default), companies or deals
// HUBSPOT_ID_FIELD   the field of the mailing list that has the record's id (hubspot_id).
//                    Without it, a contact is found by e-mail address.
// HUBSPOT_PROPERTY   the property for the status (mail_status); the same name with _at is
//                    the property for its time
// HUBSPOT_TIMELINE   the id of an event template: add an event to the timeline instead;
//                    its tokens are status, campaign and piece
import { Client } from '@hubspot/api-client'
import { agentFor, Refused, required } from './http.js'
import { byRecord, noRecipient } from './recipient.js'

const OBJECTS = ['contacts', 'companies', 'deals']
const PERMANENT = ['OBJECT_NOT_FOUND', 'VALIDATION_ERROR'] // categories of errors that a retry cannot fix

export default function () {
  const { HUBSPOT_OBJECT: object = 'contacts', HUBSPOT_ID_FIELD: idField = 'hubspot_id', HUBSPOT_PROPERTY: property = 'mail_status',
    HUBSPOT_TIMELINE: template, HUBSPOT_URL: basePath = 'https://api.hubapi.com' } = process.env
  if (!OBJECTS.includes(object)) throw new Error(`HUBSPOT_OBJECT must be one of ${OBJECTS.join(', ')}`)
  const client = new Client({ accessToken: required('HUBSPOT_TOKEN'), basePath })
  // The client ignores its option httpAgent, so a middleware sets the agent.
  const agent = agentFor(basePath)
  const options = { middleware: [{ pre: async (request) => { request.setAgent(agent); return request }, post: async (response) => response }] }

  // The record of a delivery: idProperty is undefined for HubSpot's own id.
  function recordOf({ fields, email }) {
    const id = fields?.[idField]
    if (id) return { id: String(id) }
    if (object === 'contacts' && email) return { id: email.trim().toLowerCase(), idProperty: 'email' }
  }

  function propertiesOf(delivery) {
    return { [property]: delivery.label, [`${property}_at`]: new Date(delivery.occurred_at).toISOString() }
  }

  // Call the API, and return what it says of each input.
  async function call(inputs) {
    try {
      return template ? await client.crm.timeline.eventsApi.createBatch({ inputs }, options) : await client.crm[object].batchApi.update({ inputs }, options)
    } catch (error) {
      if (!error.headers) throw new Error(`HubSpot: ${error.message}`) // there was no answer, or none that the client understands
      const { policyName, message } = error.body ?? {}
      const after = error.headers['retry-after'] ?? (policyName === 'DAILY' ? 3600 : 10)
      throw new Refused(error.code, message ?? JSON.stringify(error.body), error.code === 429 ? after : error.headers['retry-after'])
    }
  }

  // Send the records, and return an error for each that was not accepted.  A response with
  // fewer results than records should name those that failed.  If it does not, or if the
  // call fails because of its contents, send the records one by one.
  async function send(records) {
    const inputs = records.map((record) => record.input)
    try {
      const answer = await call(inputs)
      const failed = new Map()
      for (const { category, message, context } of answer?.errors ?? []) {
        const error = Object.assign(new Error(`${category}: ${message}`), { dead: PERMANENT.includes(category) })
        for (const id of Object.values(context ?? {}).flat()) failed.set(String(id).toLowerCase(), error)
      }
      const errors = records.map(({ name }) => failed.get(name))
      const accepted = errors.filter((error) => !error).length
      if (answer?.results?.length === accepted) return errors
      if (records.length === 1) return [new Error(answer?.errors?.[0]?.message ?? 'HubSpot did not confirm the record')]
    } catch (error) {
      error.stops = !error.dead // the API is not available, so the other records need not be tried
      if (error.stops || records.length === 1) return records.map(() => error)
    }
    const errors = []
    for (const record of records) {
      const last = errors.at(-1)
      const [error] = last?.stops ? [last] : await send([record])
      errors.push(error)
    }
    return errors
  }

  return {
    batch: 100,
    lease: '5 minutes',

    async deliverAll(deliveries) {
      const found = deliveries.map((delivery) => delivery.is_test ? undefined : recordOf(delivery))
      const errors = deliveries.map((delivery, n) => {
        if (!delivery.is_test && !found[n]) return noRecipient(delivery, object === 'contacts' ? `neither ${idField} nor an e-mail address` : `no ${idField}`)
      })
      const keyOf = (delivery, n) => found[n] && (template ? String(delivery.delivery_id) : `${found[n].idProperty ?? ''} ${found[n].id}`)
      const records = [...byRecord(deliveries, keyOf).values()].map(({ delivery, positions }) => {
        const record = found[positions[0]]
        const event = template && {
          eventTemplateId: template,
          id: `postalytics-${delivery.delivery_id}`, // HubSpot keeps one event for each id
          timestamp: new Date(delivery.occurred_at),
          tokens: { status: delivery.label, campaign: delivery.campaign_name ?? '', piece: delivery.piece_id },
          ...(record.idProperty ? { email: record.id } : { objectId: record.id }),
        }
        return { delivery, positions, name: (event ? event.id : record.id).toLowerCase(), idProperty: record.idProperty,
          input: event || { ...record, properties: propertiesOf(delivery) } }
      })
      // All records of a call must be identified by the same property.
      for (const property of [undefined, 'email']) {
        const group = records.filter((record) => record.idProperty === property)
        if (group.length === 0) continue
        for (const [n, error] of (await send(group)).entries()) for (const position of group[n].positions) errors[position] = error
      }
      return errors
    },
  }
}
