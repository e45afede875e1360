// Stands in for Salesforce: gives tokens, answers the query for contacts, and keeps tasks
// in memory.  It refuses fields and types that the client's schema of Task does not have.
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { standIn, wrongType } from './server.js'

const home = dirname(createRequire(import.meta.url).resolve('jsforce/package.json'))
const schema = readFileSync(join(home, 'lib/types/standard-schema.d.ts'), 'utf8')
const types = Object.fromEntries([.../type Fields\$Task = \{([^}]*)\}/.exec(schema)[1].matchAll(/(\w+): ([^;]+);/g)].map(([, name, type]) => [name, type]))

export function salesforce(port) {
  const contacts = [['003A', 'Dolores@Harbourvale.example'], ['003B', 'bao@vale.example'], ['003C', 'twice@vale.example'], ['003D', 'twice@vale.example']]
  const tasks = new Map()
  const refuse = (status, errorCode, message) => [status, [{ errorCode, message }]]
  const api = standIn(port, ({ method, path, query, headers, text, body }) => {
    if (path === '/services/oauth2/token') {
      const form = new URLSearchParams(text)
      if (form.get('client_secret') !== 'secret') return [400, { error: 'invalid_client', error_description: 'invalid client credentials' }]
      return [200, { access_token: api.token, instance_url: `http://127.0.0.1:${port}`, token_type: 'Bearer' }]
    }
    if (headers.authorization !== `Bearer ${api.token}`) return refuse(401, 'INVALID_SESSION_ID', 'Session expired or invalid')
    if (method === 'GET' && path.endsWith('/query')) {
      const emails = /^SELECT Id, Email FROM Contact WHERE Email IN \(('(?:[^'\\]|\\.)*'(?:, '(?:[^'\\]|\\.)*')*)\)$/.exec(query.get('q'))
      if (!emails) return refuse(400, 'MALFORMED_QUERY', query.get('q'))
      const wanted = emails[1].slice(1, -1).split("', '").map((each) => each.toLowerCase())
      const records = contacts.filter(([, email]) => wanted.includes(email.toLowerCase())).map(([Id, Email]) => ({ Id, Email }))
      return [200, { totalSize: records.length, done: true, records }]
    }
    if (method !== 'PATCH' || !path.endsWith('/composite/sobjects/Task/Postalytics_Piece__c')) return refuse(404, 'NOT_FOUND', path)
    if (body.records.length > 200) return refuse(400, 'EXCEEDED_ID_LIMIT', 'too many records')
    return [200, body.records.map(({ attributes, Postalytics_Piece__c: key, ...fields }) => {
      const wrong = attributes.type !== 'Task' ? 'type' : Object.entries(fields).map(([name, value]) => wrongType(name, value, types[name])).find(Boolean)
      if (wrong) return { success: false, errors: [{ statusCode: 'INVALID_FIELD', message: wrong, fields: [] }] }
      if (api.locked === key) return { success: false, errors: [{ statusCode: 'UNABLE_TO_LOCK_ROW', message: 'unable to obtain exclusive access', fields: [] }] }
      const created = !tasks.has(key)
      tasks.set(key, { ...tasks.get(key), ...fields })
      return { id: `00T${key}`, success: true, created, errors: [] }
    })]
  })
  return Object.assign(api, { token: 'first', tasks })
}
