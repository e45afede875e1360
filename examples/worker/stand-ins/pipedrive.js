// Stands in for Pipedrive: keeps activities in memory, and refuses those that do not match
// the client's type declarations.
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { standIn, wrongType } from './server.js'

const home = dirname(createRequire(import.meta.url).resolve('pipedrive/v2'))
const declared = readFileSync(join(home, 'models/add-activity-request.d.ts'), 'utf8')
const types = Object.fromEntries([...declared.matchAll(/^\s+'(\w+)'\?: ([^;]+);/gm)].map(([, name, type]) => [name, type]))

export function pipedrive(port) {
  const persons = [{ id: 1, email: 'dolores@harbourvale.example' }, { id: 2, email: 'bao@vale.example' }]
  const activities = []
  const refuse = (status, error) => [status, { success: false, error }]
  return Object.assign(standIn(port, ({ method, path, query, headers, body }) => {
    if (headers['x-api-token'] !== 'token') return refuse(401, 'unauthorized')
    if (method === 'GET' && path === '/persons/search') {
      const items = persons.filter((person) => person.email === query.get('term')).map((item) => ({ item }))
      return [200, { success: true, data: { items } }]
    }
    if (method === 'GET' && path === '/activities') {
      const data = activities.filter((activity) => String(activity.person_id) === query.get('person_id'))
      return [200, { success: true, data, additional_data: { next_cursor: null } }]
    }
    const wrong = Object.entries(body).map(([name, value]) => wrongType(name, value, types[name])).find(Boolean)
    if (wrong) return refuse(400, wrong)
    if (method === 'POST' && path === '/activities') {
      if (!Number.isInteger(body.person_id)) return refuse(400, 'person_id is missing')
      activities.push({ id: activities.length + 100, ...body })
      return [201, { success: true, data: activities.at(-1) }]
    }
    const activity = activities.find((each) => path === `/activities/${each.id}`)
    if (method === 'PATCH' && activity) return [200, { success: true, data: Object.assign(activity, body) }]
    return refuse(404, `no ${method} ${path}`)
  }), { activities })
}
