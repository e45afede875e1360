// Tests the worker against a stand-in for Pipedrive that fails in many ways.
import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { after, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import { standIn } from './stand-in.js'

const port = execFileSync('../free-port').toString().trim()
const pipedrive = standIn(port)
const db = new pg.Client()
await db.connect()
let worker

function start() {
  worker = spawn('node', ['worker.js'], { env: { ...process.env, PIPEDRIVE_TOKEN: 'token', PIPEDRIVE_TIMEOUT: 3000, PIPEDRIVE_URL: `http://127.0.0.1:${port}` }, stdio: ['ignore', 'inherit', 'ignore'] })
}
start()
after(async () => {
  worker.kill('SIGKILL')
  await db.end()
  pipedrive.server.close()
  pipedrive.server.closeAllConnections()
})

const event = (mailId, eventType, more = {}) => ({ mailId, eventType, eventDate: `2026-10-0${eventType}T12:00:00Z`, meta: { campaignId: 77120, campaignName: 'Spring recall' }, ...more })
const ingest = (...events) => db.query('SELECT postalytics.ingest($1::json)', [JSON.stringify(events)])
const dolores = { to: { firstName: 'Dolores', email: 'dolores@harbourvale.example' } }

async function until(what, condition) {
  for (let i = 0; i < 600; i++) {
    if (await condition()) return
    await sleep(100)
  }
  assert.fail(`${what}: ${JSON.stringify(pipedrive.activities)} ${JSON.stringify((await db.query('SELECT * FROM postalytics.sync_health')).rows)}`)
}
const states = async () => Object.fromEntries((await db.query("SELECT state, count(*)::int FROM postalytics.deliveries GROUP BY 1")).rows.map((row) => [row.state, row.count]))
const finished = (count) => async () => ((await states()).done ?? 0) === count
// Make postponed deliveries due, to avoid waiting for the back-off.
const retryNow = (what, condition) => until(what, async () => {
  await db.query("UPDATE postalytics.deliveries_unfinished SET due_at = now() WHERE due_at > now() AND due_at < 'infinity'")
  await db.query('NOTIFY postalytics_pipedrive')
  return condition()
})
const of = (piece) => pipedrive.activities.filter((activity) => activity.note.startsWith(`Mail piece ${piece} `))

test("a contact's activity shows 'In Transit', and then what comes", async () => {
  await ingest(event(1, 4, dolores))
  await until('in transit', finished(1))
  assert.deepEqual(of(1), [{ id: 100, subject: 'Mail piece: In Transit', type: 'task', done: false, note: 'Mail piece 1 of Spring recall', person_id: 1 }])
  await ingest(event(1, 5), event(1, 6))
  await until('processed', finished(3))
  assert.equal(of(1).length, 1)
  assert.equal(of(1)[0].subject, 'Mail piece: Processed for Delivery')
  assert.equal(of(1)[0].done, true)
})

test("the person is found by the mailing list's field, too", async () => {
  await ingest(event(2, 4, { meta: { campaignId: 77120, fields: { pipedrive_person_id: '2' } } }))
  await until('by field', finished(4))
  assert.equal(of(2)[0].person_id, 2)
})

test('what passes is tried again: 429 when it says, 5xx and lost connections later', async () => {
  pipedrive.faults.push({ status: 429, headers: { 'retry-after': '3600' } })
  await ingest(event(3, 4, dolores))
  const put_off = "SELECT errors[1].error, round(extract(epoch FROM due_at - failed_at))::int AS seconds FROM postalytics.deliveries_unfinished WHERE piece_id = '3'"
  await until('429', async () => (await db.query(put_off)).rows[0]?.error)
  const { rows } = await db.query(put_off)
  assert.match(rows[0].error, /^HTTP 429/)
  assert.equal(rows[0].seconds, 3600)
  await retryNow('after it', finished(5))
  pipedrive.faults.push({ status: 503 }, 'hang up', 'silence')
  await ingest(event(4, 4, dolores))
  await until('noted', async () => (await db.query("SELECT count(*)::int FROM postalytics.delivery_errors WHERE piece_id = '4'")).rows[0].count >= 1)
  await retryNow('5xx', finished(6))
  assert.equal(of(4).length, 1)
  const errors = (await db.query("SELECT error FROM postalytics.delivery_errors WHERE piece_id = '4' ORDER BY attempt")).rows.map((row) => row.error)
  assert.match(errors.join('; '), /^HTTP 503.*; .*(hang up|ECONNRESET).*; .*timeout/)
})

test('what cannot be is dead, with its reason', async () => {
  await ingest(event(5, 4, { to: { firstName: 'Nobody', email: 'nobody@x.example' } }))
  await until('dead', async () => (await states()).dead === 1)
  const { rows } = await db.query("SELECT last_error FROM postalytics.sync_health WHERE name = 'pipedrive'")
  assert.equal(rows[0].last_error, 'no person for piece 5 (nobody@x.example)')
  pipedrive.faults.push({ status: 422, error: 'subject is too dull' })
  await ingest(event(9, 4, dolores))
  await until('dead', async () => (await states()).dead === 2)
  const { rows: [refused] } = await db.query("SELECT error, attempt FROM postalytics.delivery_errors WHERE piece_id = '9'")
  assert.match(refused.error, /^HTTP 422: .*subject is too dull/)
  assert.equal(refused.attempt, 1)
})

test('an activity that is made, and the answer lost, is not made again', async () => {
  pipedrive.faults.push(null, null, null, 'forget')
  await ingest(event(6, 4, dolores))
  await until('lost', async () => (await db.query("SELECT count(*)::int FROM postalytics.delivery_errors WHERE piece_id = '6'")).rows[0].count === 1)
  await retryNow('again', finished(7))
  assert.equal(of(6).length, 1)
})

test('a killed worker misses nothing', async () => {
  worker.kill('SIGKILL')
  await ingest(event(7, 4, dolores), event(8, 4, dolores))
  start()
  await until('both', async () => of(7).length === 1 && of(8).length === 1)
})
