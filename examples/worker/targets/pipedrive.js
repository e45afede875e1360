// Shows each piece in Pipedrive as an activity of its recipient, with the status in the
// subject: 'Mail piece: In Transit'.
//
// PIPEDRIVE_TOKEN is the API token.  PIPEDRIVE_URL is needed only for tests.
import { ActivitiesApi, Configuration, PersonsApi } from 'pipedrive/v2'
import { Refused, required, TIMEOUT } from './http.js'
import { isFinished, note, noRecipient, subject } from './recipient.js'

// Parse a response.  For an error the client throws only what this returns, so that must
// contain the status and the headers as well.
function read(text, headers, status) {
  return status >= 200 && status < 300 ? JSON.parse(text) : new Refused(status, text, headers['retry-after'])
}

export default function () {
  const configuration = new Configuration({ apiKey: required('PIPEDRIVE_TOKEN'), ...(process.env.PIPEDRIVE_URL && { basePath: process.env.PIPEDRIVE_URL }) })
  // The constructor ignores baseOptions.  The token is in a header of its own, which a
  // followed redirect would take to any host.
  configuration.baseOptions = { timeout: TIMEOUT, maxRedirects: 0, transformResponse: read }
  const activities = new ActivitiesApi(configuration), persons = new PersonsApi(configuration)

  // Find the person by the id in the mailing list's own field, or by e-mail address.
  async function personOf(delivery) {
    const id = delivery.fields?.pipedrive_person_id
    if (id) return Number(id)
    if (!delivery.email) throw noRecipient(delivery, 'neither pipedrive_person_id nor an e-mail address')
    const found = (await persons.searchPersons({ term: delivery.email, fields: 'email', exact_match: true, limit: 2 })).data.items
    if (found.length !== 1) throw noRecipient(delivery, `${found.length || 'no'} persons have the recipient's e-mail address`)
    return found[0].item.id
  }

  async function findActivity(person, note) {
    let cursor
    do {
      const page = await activities.getActivities({ person_id: person, limit: 100, cursor })
      const found = page.data.find((activity) => activity.note === note)
      if (found) return found.id
      cursor = page.additional_data?.next_cursor
    } while (cursor)
  }

  return {
    lease: '10 minutes',

    // An earlier attempt may have created the activity without recording its id, so search
    // for its note first: a delivery that is leased twice must not create a second activity.
    async deliver(delivery, db) {
      if (delivery.is_test) return
      const activity = {
        subject: subject(delivery),
        type: 'task',
        done: isFinished(delivery),
        note: note(delivery),
      }
      const key = [delivery.piece_id, delivery.account]
      const { rows } = await db.query('SELECT activity_id FROM public.pipedrive_activity WHERE (piece_id, account) = ($1, $2)', key)
      const known = rows[0] && Number(rows[0].activity_id)
      if (known) return activities.updateActivity({ id: known, AddActivityRequest: activity })

      const person = await personOf(delivery)
      const found = await findActivity(person, activity.note)
      if (found) await activities.updateActivity({ id: found, AddActivityRequest: activity })
      const made = found ?? (await activities.addActivity({ AddActivityRequest: { ...activity, person_id: person } })).data.id
      await db.query('INSERT INTO public.pipedrive_activity VALUES ($1, $2, $3) ON CONFLICT DO NOTHING', [...key, made])
    },
  }
}
