// Runs worker.js for each target, with stand-ins for the APIs, while a piece is on its way.
import { execFileSync, spawn } from 'node:child_process'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import { hubspot } from './stand-ins/hubspot.js'
import { pipedrive } from './stand-ins/pipedrive.js'
import { salesforce } from './stand-ins/salesforce.js'
import { standIn } from './stand-ins/server.js'

const freePort = () => execFileSync('../free-port').toString().trim()
const db = new pg.Client()
await db.connect()
const receiver = standIn(freePort(), () => [204, ''])
const apis = { pipedrive: pipedrive(freePort()), hubspot: hubspot(freePort()), salesforce: salesforce(freePort()), relay: receiver }
const settings = {
  PIPEDRIVE_TOKEN: 'token', PIPEDRIVE_URL: apis.pipedrive.url, HUBSPOT_TOKEN: 'token', HUBSPOT_URL: apis.hubspot.url,
  SALESFORCE_URL: apis.salesforce.url, SALESFORCE_CLIENT_ID: 'id', SALESFORCE_CLIENT_SECRET: 'secret', RELAY_SECRET: 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw',
}
const workers = []
for (const target of Object.keys(apis)) {
  execFileSync('psql', ['-Xq', '-v', 'ON_ERROR_STOP=1', '-v', `target=${target}`, '-f', 'setup.sql'], { stdio: ['ignore', 'ignore', 'inherit'] })
  workers.push(spawn('node', ['worker.js', target, target, `${receiver.url}/hook`], { env: { ...process.env, ...settings }, stdio: 'inherit' }))
}
for (const code of [11, 4, 6]) {
  await db.query('SELECT postalytics.ingest($1::json)', [JSON.stringify({ mailId: 1, eventType: code, eventDate: `2026-10-06T${10 + code}:00:00Z`, to: { email: 'dolores@harbourvale.example' } })])
  await sleep(2000)
  console.log('pipedrive: ', apis.pipedrive.activities.map(({ subject }) => subject))
  console.log('hubspot:   ', apis.hubspot.contacts.get('1').mail_status)
  console.log('salesforce:', [...apis.salesforce.tasks.values()].map(({ Subject }) => Subject))
  console.log('relay:     ', receiver.calls.map(({ body }) => body.type))
}
for (const worker of workers) worker.kill()
await db.end()
