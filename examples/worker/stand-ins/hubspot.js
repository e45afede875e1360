// Stands in for HubSpot: keeps the properties of contacts and the events of timelines in
// memory, and refuses requests that do not match the models of the client.
import { createRequire } from 'node:module'
import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { standIn, wrongType } from './server.js'

const resolve = createRequire(import.meta.url)
const models = join(dirname(resolve.resolve('@hubspot/api-client')), 'codegen/crm')

// Say what is wrong with a value, by the attributes that a model of the client declares.
function check(part, model, value) {
  const file = join(models, part, 'models', model)
  const { attributeTypeMap: attributes } = resolve(`${file}.js`)[model]
  const required = [...readFileSync(`${file}.d.ts`, 'utf8').matchAll(/^ {4}'(\w+)': /gm)].map(([, name]) => name)
  const missing = required.find((name) => value[name] === undefined)
  if (missing) return `${missing} is missing`
  for (const [name, each] of Object.entries(value)) {
    const type = attributes.find(({ baseName }) => baseName === name)?.type
    const element = /^Array<(\w+)>$/.exec(type)?.[1]
    const wrong = wrongType(name, each, type) ?? (element ? each.map((one) => check(part, element, one)).find(Boolean)
      : type?.startsWith('{') ? Object.values(each).map((one) => wrongType(name, one, 'string')).find(Boolean) : undefined)
    if (wrong) return wrong
  }
}

const error = (status, category, message, context = {}) => [status, { status: 'error', category, message, correlationId: 'c', context }]
const time = () => new Date().toISOString()

export function hubspot(port) {
  const contacts = new Map([['1', { email: 'dolores@harbourvale.example' }], ['2', { email: 'bao@vale.example' }]])
  const timeline = new Map()
  const find = ({ id, idProperty }) => idProperty === 'email' ? [...contacts].find(([, { email }]) => email === id)?.[0] : contacts.has(id) ? id : undefined
  return Object.assign(standIn(port, ({ method, path, headers, body }) => {
    if (headers.authorization !== 'Bearer token') return error(401, 'INVALID_AUTHENTICATION', 'the token is wrong')
    if (method !== 'POST') return error(405, 'METHOD', method)
    const events = path === '/integrators/timeline/v3/events/batch/create'
    if (!events && path !== '/crm/v3/objects/contacts/batch/update') return error(404, 'OBJECT_NOT_FOUND', path)
    const [part, model] = events ? ['timeline', 'BatchInputTimelineEvent'] : ['contacts', 'BatchInputSimplePublicObjectBatchInput']
    const wrong = check(part, model, body)
    if (wrong) return error(400, 'VALIDATION_ERROR', wrong)
    if (body.inputs.length > 100) return error(400, 'VALIDATION_ERROR', 'too many inputs')
    const names = body.inputs.map(({ id, idProperty = '' }) => `${idProperty} ${id}`)
    if (new Set(names).size < names.length) return error(400, 'VALIDATION_ERROR', 'Duplicate IDs found in batch input')
    if (new Set(body.inputs.map(({ idProperty }) => idProperty)).size > 1) return error(400, 'VALIDATION_ERROR', 'idProperty must be the same')
    const results = [], missing = []
    for (const input of body.inputs) {
      if (events) results.push(timeline.set(input.id, input).get(input.id))
      else if (find(input)) results.push({ id: find(input), createdAt: time(), updatedAt: time(), properties: Object.assign(contacts.get(find(input)), input.properties) })
      else missing.push(input.id)
    }
    const answer = { status: 'COMPLETE', results, startedAt: time(), completedAt: time() }
    if (missing.length === 0) return [events ? 201 : 200, answer]
    return [207, { ...answer, numErrors: 1, errors: [{ status: 'error', category: 'OBJECT_NOT_FOUND', message: 'Could not get some CONTACT objects',
      context: { ids: missing }, links: {}, errors: [] }] }]
  }), { contacts, timeline })
}
