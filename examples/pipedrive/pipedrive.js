// The calls of Pipedrive's API that the worker needs, made with the official client.
import { ActivitiesApi, Configuration, PersonsApi } from 'pipedrive/v2'

const TIMEOUT = Number(process.env.PIPEDRIVE_TIMEOUT ?? 10_000) // milliseconds

class CallFailed extends Error {
  constructor(text, headers, status) {
    super(`HTTP ${status}: ${String(text).slice(0, 500)}`)
    this.status = status
    this.retryAfter = Number(headers['retry-after'])
  }
}

// Parse a response.  For an error the client throws only the parsed body, so that must
// contain the status and the headers as well.
function read(text, headers, status) {
  return status >= 400 ? new CallFailed(text, headers, status) : JSON.parse(text)
}

export class Pipedrive {
  constructor(token, url) {
    const configuration = new Configuration({ apiKey: token, ...(url && { basePath: url }) })
    configuration.baseOptions = { timeout: TIMEOUT, transformResponse: read } // the constructor ignores it
    this.activities = new ActivitiesApi(configuration)
    this.persons = new PersonsApi(configuration)
  }

  async findPerson(email) {
    const { data } = await this.persons.searchPersons({ term: email, fields: 'email', exact_match: true, limit: 2 })
    return data.items.length === 1 ? data.items[0].item.id : undefined
  }

  async findActivity(person, note) {
    let cursor
    do {
      const page = await this.activities.getActivities({ person_id: person, limit: 100, cursor })
      const found = page.data.find((activity) => activity.note === note)
      if (found) return found.id
      cursor = page.additional_data?.next_cursor
    } while (cursor)
  }

  async addActivity(activity) {
    return (await this.activities.addActivity({ AddActivityRequest: activity })).data.id
  }

  async updateActivity(id, activity) {
    await this.activities.updateActivity({ id, AddActivityRequest: activity })
  }

  // Return why a call failed, when to retry (null: after the usual back-off), and
  // whether a retry is hopeless.
  explain({ message, status, retryAfter, hopeless }) {
    return {
      reason: message,
      retryIn: status === 429 && retryAfter > 0 ? `${retryAfter} s` : null,
      hopeless: hopeless ?? (status >= 400 && status < 500 && status !== 429 && status !== 408),
    }
  }
}
