// Stands in for Pipedrive: keeps persons and activities in memory, refuses requests
// that do not match the client's type declarations, and returns the errors in faults.
import { createServer } from 'node:http'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'

// The properties of an activity and their types, from the client's declarations.
const home = dirname(createRequire(import.meta.url).resolve('pipedrive/v2'))
const declared = readFileSync(join(home, 'models/add-activity-request.d.ts'), 'utf8')
const types = Object.fromEntries([...declared.matchAll(/^\s+'(\w+)'\?: ([^;]+);/gm)].map(([, name, type]) => [name, type]))

function check(body) {
  for (const [name, value] of Object.entries(body)) {
    if (!(name in types)) return `${name} is no property of an activity`
    if (['string', 'number', 'boolean'].includes(types[name]) && typeof value !== types[name]) return `${name} is no ${types[name]}`
  }
}

export function standIn(port) {
  const persons = [{ id: 1, email: 'dolores@harbourvale.example' }, { id: 2, email: 'bao@vale.example' }]
  const activities = []
  const faults = [] // responses to give instead, first in, first out
  const calls = []
  const server = createServer((request, response) => {
    let text = ''
    request.on('data', (part) => { text += part }).on('end', () => {
      const url = new URL(request.url, 'http://x')
      const answer = (status, body, headers = {}) => response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(body))
      calls.push(`${request.method} ${url.pathname}`)
      const fault = faults.shift()
      if (fault === 'hang up') return request.socket.destroy()
      if (fault === 'silence') return
      if (fault) return answer(fault.status, { success: false, error: fault.error ?? 'fault' }, fault.headers)
      if (request.headers['x-api-token'] !== 'token') return answer(401, { success: false, error: 'unauthorized' })
      if (request.method === 'GET' && url.pathname === '/persons/search') {
        const items = persons.filter((person) => person.email === url.searchParams.get('term')).map((item) => ({ item }))
        return answer(200, { success: true, data: { items } })
      }
      if (request.method === 'GET' && url.pathname === '/activities') {
        const data = activities.filter((activity) => String(activity.person_id) === url.searchParams.get('person_id'))
        return answer(200, { success: true, data, additional_data: { next_cursor: null } })
      }
      const body = text ? JSON.parse(text) : {}
      const wrong = check(body)
      if (wrong) return answer(400, { success: false, error: wrong })
      if (request.method === 'POST' && url.pathname === '/activities') {
        if (!Number.isInteger(body.person_id)) return answer(400, { success: false, error: 'person_id is missing' })
        activities.push({ id: activities.length + 100, ...body })
        const made = activities.at(-1)
        if (faults[0] === 'forget') { faults.shift(); return request.socket.destroy() } // created, but the response is lost
        return answer(201, { success: true, data: made })
      }
      const id = Number(/^\/activities\/(\d+)$/.exec(url.pathname)?.[1])
      const activity = activities.find((each) => each.id === id)
      if (request.method === 'PATCH' && activity) return answer(200, { success: true, data: Object.assign(activity, body) })
      answer(404, { success: false, error: `no ${request.method} ${url.pathname}` })
    })
  }).listen(port, '127.0.0.1')
  return { activities, faults, calls, server }
}
