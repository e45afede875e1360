// Tests the targets of worker.js against stand-ins that validate requests and fail in many ways.
import assert from 'node:assert/strict'
import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { after, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import { Webhook } from 'standardwebhooks'
import { hubspot } from './stand-ins/hubspot.js'
import { pipedrive } from './stand-ins/pipedrive.js'
import { salesforce } from './stand-ins/salesforce.js'
import { standIn } from './stand-ins/server.js'
import { retryAfter } from './targets/http.js'

const freePort = () => execFileSync('../free-port').toString().trim()
const db = new pg.Client()
await db.connect()
const workers = []
after(async () => {
  for (const worker of workers) worker.kill('SIGKILL')
  await db.end()
})

// Another host, to which the APIs redirect: it must never be called.
const elsewhere = standIn(freePort(), () => [200, {}])
const redirect = { status: 307, headers: { location: `${elsewhere.url}/stolen` } }

const rows = async (text, ...values) => (await db.query(text, values)).rows
function setUp(target) {
  for (const round of [1, 2]) execFileSync('psql', ['-Xq', '-v', 'ON_ERROR_STOP=1', '-v', `target=${target}`, '-f', 'setup.sql'], { stdio: ['ignore', 'ignore', 'inherit'] })
  return db.query(`ALTER ROLE ${target}_worker PASSWORD 'worker'`)
}
function start(target, environment, ...args) {
  const worker = spawn('node', ['worker.js', target, target, ...args], {
    env: { ...process.env, PGUSER: `${target}_worker`, PGPASSWORD: 'worker', API_TIMEOUT: 2000, ...environment }, stdio: ['ignore', 'inherit', 'pipe'] })
  worker.log = ''
  worker.stderr.on('data', (data) => { worker.log += data })
  workers.push(worker)
  return worker
}
async function stop(worker) {
  const ended = new Promise((resolve) => worker.once('exit', resolve))
  worker.kill()
  assert.equal(await ended, 0)
}
const event = (mailId, eventType, to = {}, more = {}) => ({ mailId, eventType, eventDate: `2026-10-${String(eventType).padStart(2, 0)}T12:00:00Z`, to, meta: { campaignId: 77120, campaignName: 'Spring recall', ...more } })
const ingest = (...events) => db.query('SELECT postalytics.ingest($1::json)', [JSON.stringify(events)])
const dolores = { firstName: 'Dolores', email: 'dolores@harbourvale.example' }

async function until(what, condition) {
  for (let i = 0; i < 150; i++) {
    if (await condition()) return
    await sleep(100)
  }
  assert.fail(`${what}: ${JSON.stringify(await rows('SELECT * FROM postalytics.sync_health'))} ${workers.at(-1).log}`)
}
const state = async (sync, piece) => (await rows('SELECT state FROM postalytics.deliveries WHERE (sync, piece_id) = ($1, $2) ORDER BY delivery_id DESC LIMIT 1', sync, String(piece)))[0]?.state
const is = (sync, wanted, ...pieces) => until(`${pieces} ${wanted}`, async () => {
  for (const piece of pieces) if (await state(sync, piece) !== wanted) return false
  return true
})
const errorOf = async (piece) => (await rows('SELECT error FROM postalytics.delivery_errors WHERE piece_id = $1 ORDER BY attempt DESC LIMIT 1', String(piece)))[0]?.error
const failed = (piece, words) => until(`${piece} fails with ${words}`, async () => (await errorOf(piece))?.match(words))
const pause = async (sync) => Math.round((await rows('SELECT max(extract(epoch FROM until - now()))::float AS seconds FROM postalytics.pauses WHERE sync = $1 AND until > now()', sync))[0].seconds ?? 0)
// Make postponed deliveries due, to avoid waiting for the back-off.
async function retryNow(sync) {
  await db.query('SELECT postalytics.resume_sync($1)', [sync])
  await db.query("UPDATE postalytics.deliveries_unfinished SET due_at = now() WHERE sync = $1 AND due_at > now() AND due_at < 'infinity'", [sync])
  await db.query(`NOTIFY postalytics_${sync}`)
}
// While the sync is paused, the events become deliveries, which are then fetched together.
async function together(sync, ...events) {
  await db.query("SELECT postalytics.pause_sync($1, '1 hour')", [sync])
  await ingest(...events)
  await db.query('SELECT postalytics.resume_sync($1)', [sync])
}
// The target neither sends anything to another host nor gives the delivery up.
async function followsNoRedirect(sync, api, piece) {
  api.faults.push(...Array(8).fill(redirect))
  await ingest(event(piece, 4, dolores))
  await failed(piece, /redirect/)
  assert.equal(await state(sync, piece), 'waiting')
  api.faults.length = 0
  assert.deepEqual(elsewhere.calls, [])
}
// The injected response pauses the whole sync, for about so many seconds.
async function pausesSync(sync, api, piece, fault, seconds) {
  api.faults.push(fault)
  await ingest(event(piece, 4, dolores))
  await until('paused', async () => await pause(sync) > 0)
  const waits = await pause(sync)
  assert.ok(Math.abs(waits - seconds) <= 15, `paused for ${waits} s`)
  const calls = api.calls.length
  await ingest(event(`${piece} beside`, 4, dolores))
  await db.query(`NOTIFY postalytics_${sync}`)
  await sleep(300)
  assert.equal(api.calls.length, calls)
  await retryNow(sync)
  await is(sync, 'done', piece, `${piece} beside`)
}

// Each of the faults makes the delivery wait, with these words; then it succeeds.
async function retries(sync, api, piece, ...faults) {
  for (const [n, [fault, words]] of faults.entries()) {
    api.faults.push(fault)
    if (n === 0) await ingest(event(piece, 4, dolores))
    else await retryNow(sync)
    await failed(piece, words)
    assert.equal(await state(sync, piece), 'waiting')
  }
  await retryNow(sync)
  await is(sync, 'done', piece)
}

test('Retry-After is a number or a date', () => {
  const now = Date.parse('2026-10-06T12:00:00Z')
  assert.equal(retryAfter('120', now), 120)
  assert.equal(retryAfter('Tue, 06 Oct 2026 12:30:00 GMT', now), 1800)
  assert.equal(retryAfter('Tue, 06 Oct 2026 11:00:00 GMT', now), 1)
  assert.equal(retryAfter('9e9', now), undefined)
  assert.equal(retryAfter('99999999999', now), 86_400)
  assert.equal(retryAfter('soon', now), undefined)
  assert.equal(retryAfter(undefined, now), undefined)
})

test('a worker that cannot start says why in one line', () => {
  const run = (environment, ...args) => {
    const { status, stderr } = spawnSync('node', ['worker.js', 'relay', ...args], { env: { ...process.env, ...environment }, encoding: 'utf8' })
    assert.equal(status, 2)
    assert.equal(stderr.trim().split('\n').length, 1)
    return stderr
  }
  assert.match(run({}), /^usage:/)
  assert.match(run({}, '../../etc/passwd'), /^usage:/)
  assert.match(run({ RELAY_SECRET: '' }, 'relay', 'https://x.example'), /^RELAY_SECRET is not set/)
  assert.match(run({ RELAY_SECRET: 'whsec_c2hvcnQ=' }, 'relay', 'https://x.example'), /^RELAY_SECRET must be/)
  assert.match(run({ RELAY_SECRET: 'x' }, 'relay', 'file:///etc/passwd'), /^usage:/)
  for (const name of ['nothing', 'http', 'recipient']) assert.match(run({}, name), /^there is no target/)
  assert.match(run({}, 'pipedrive'), /^PIPEDRIVE_TOKEN is not set/)
  assert.match(run({ HUBSPOT_TOKEN: 'x', HUBSPOT_OBJECT: 'constructor' }, 'hubspot'), /^HUBSPOT_OBJECT must be one of/)
  assert.match(run({}, 'salesforce'), /^SALESFORCE_URL is not set/)
})

test('Pipedrive', async (t) => {
  const port = freePort(), api = pipedrive(port)
  const environment = { PIPEDRIVE_TOKEN: 'token', PIPEDRIVE_URL: api.url }
  const of = (piece) => api.activities.filter((activity) => activity.note.startsWith(`Mail piece ${piece} `))
  await setUp('pipedrive')
  let worker = start('pipedrive', environment)

  await t.test("a person's activity shows 'In Transit', and later statuses", async () => {
    await ingest(event('p1', 4, dolores))
    await is('pipedrive', 'done', 'p1')
    assert.deepEqual(of('p1'), [{ id: 100, subject: 'Mail piece: In Transit', type: 'task', done: false, note: 'Mail piece p1 of Spring recall', person_id: 1 }])
    await ingest(event('p1', 5), event('p1', 6))
    await until('processed', () => of('p1')[0].done)
    assert.deepEqual(of('p1').map((activity) => activity.subject), ['Mail piece: Processed for Delivery'])
  })
  await t.test("the person is found by the mailing list's field, too", async () => {
    await ingest(event('p2', 4, {}, { fields: { pipedrive_person_id: '2' } }))
    await is('pipedrive', 'done', 'p2')
    assert.equal(of('p2')[0].person_id, 2)
  })
  await t.test('temporary failures are retried', async () => {
    await retries('pipedrive', api, 'p3', [{ status: 503 }, /^HTTP 503/], ['hang up', /hang up|ECONNRESET/], ['silence', /timeout/])
    assert.equal(of('p3').length, 1)
  })
  await t.test('429 pauses the sync, for a date as well', () => pausesSync('pipedrive', api, 'p4',
    { status: 429, headers: { 'retry-after': new Date(Date.now() + 3600e3).toUTCString() } }, 3600))
  await t.test('permanent failures are dead, with the reason', async () => {
    await ingest(event('p5', 4, { email: 'nobody@x.example' }))
    await is('pipedrive', 'dead', 'p5')
    assert.equal(await errorOf('p5'), 'piece p5: no persons have the recipient\'s e-mail address')
    api.faults.push({ status: 422, body: { error: 'subject is too dull' } })
    await ingest(event('p6', 4, dolores))
    await is('pipedrive', 'dead', 'p6')
    assert.match(await errorOf('p6'), /^HTTP 422: .*subject is too dull/)
  })
  await t.test('no second activity is created when the response to the first is lost', async () => {
    api.faults.push(null, null, 'forget')
    await ingest(event('p7', 4, dolores))
    await failed('p7', /hang up|ECONNRESET/)
    await retryNow('pipedrive')
    await is('pipedrive', 'done', 'p7')
    assert.equal(of('p7').length, 1)
  })
  await t.test('the token follows no redirect', () => followsNoRedirect('pipedrive', api, 'p8'))
  await t.test('a killed worker misses nothing', async () => {
    worker.kill('SIGKILL')
    await ingest(event('p9', 4, dolores), event('p10', 4, dolores))
    worker = start('pipedrive', environment)
    await is('pipedrive', 'done', 'p9', 'p10')
  })
  await stop(worker)
  await db.query("SELECT postalytics.disable_sync('pipedrive')")
})

test('HubSpot', async (t) => {
  const api = hubspot(freePort())
  await setUp('hubspot')
  let worker = start('hubspot', { HUBSPOT_TOKEN: 'token', HUBSPOT_URL: api.url })

  await t.test('a contact has the status, found by id or e-mail', async () => {
    await ingest(event('h1', 4, { email: 'Dolores@harbourvale.example' }), event('h2', 6, {}, { fields: { hubspot_id: 2 } }))
    await is('hubspot', 'done', 'h1', 'h2')
    assert.deepEqual(api.contacts.get('1'), { email: 'dolores@harbourvale.example', mail_status: 'In Transit', mail_status_at: '2026-10-04T12:00:00.000Z' })
    assert.equal(api.contacts.get('2').mail_status, 'Processed for Delivery')
  })
  await t.test('in a partly accepted batch, only accepted deliveries are acknowledged', async () => {
    api.calls.length = 0
    await together('hubspot', ...Array.from({ length: 150 }, (_, n) => event(`many ${n}`, n === 75 ? 6 : 4, n % 10 === 0 ? { email: `unknown${n}@x.example` } : dolores)))
    await until('all', async () => (await rows("SELECT FROM postalytics.deliveries WHERE piece_id LIKE 'many%' AND state IN ('done', 'dead')")).length === 150)
    const dead = (await rows("SELECT piece_id FROM postalytics.deliveries WHERE piece_id LIKE 'many%' AND state = 'dead'")).map((row) => Number(row.piece_id.slice(5)))
    assert.deepEqual(dead.sort((a, b) => a - b), Array.from({ length: 15 }, (_, n) => 10 * n))
    assert.match(await errorOf('many 10'), /^OBJECT_NOT_FOUND/)
    assert.equal(api.calls.length, 2) // 100 and 50, and of each contact once
  })
  await t.test('records are sent one by one if the response does not name those that failed', async () => {
    const unexplained = { status: 207, body: { status: 'COMPLETE', results: [], numErrors: 1, errors: [{ status: 'error', category: 'X', message: 'some failed', context: {}, links: {}, errors: [] }], startedAt: '2026-10-06T12:00:00Z', completedAt: '2026-10-06T12:00:00Z' } }
    api.faults.push(unexplained)
    await together('hubspot', event('h3', 4, dolores), event('h4', 4, { email: 'unknown@x.example' }))
    await is('hubspot', 'done', 'h3')
    await is('hubspot', 'dead', 'h4')
    api.faults.push({ status: 400, body: { category: 'VALIDATION_ERROR', message: 'a value is wrong' } })
    await together('hubspot', event('h5', 4, dolores), event('h6', 4, { email: 'bao@vale.example' }))
    await is('hubspot', 'done', 'h5', 'h6')
    api.faults.push(unexplained, unexplained) // for one of the records, too: the other is sent all the same
    await together('hubspot', event('h13', 4, dolores), event('h14', 4, { email: 'bao@vale.example' }))
    await until('one of them', async () => [await state('hubspot', 'h13'), await state('hubspot', 'h14')].sort().join() === 'done,waiting')
    await retryNow('hubspot')
    await is('hubspot', 'done', 'h13', 'h14')
  })
  await t.test('429 pauses the sync', () => pausesSync('hubspot', api, 'h7', { status: 429, body: { category: 'RATE_LIMITS', policyName: 'DAILY', message: 'daily limit' } }, 3600))
  await t.test('a token that is refused pauses it, and nothing is dead', () => pausesSync('hubspot', api, 'h8', { status: 401, body: { category: 'INVALID_AUTHENTICATION' } }, 900))
  await t.test('temporary failures are retried', () => retries('hubspot', api, 'h9',
    [{ status: 502, body: 'bad gateway', headers: { 'content-type': 'text/html' } }, /^HTTP 502/], ['hang up', /hang up|ECONNRESET/], ['silence', /timeout/]))
  await t.test('neither token nor recipient follows a redirect', () => followsNoRedirect('hubspot', api, 'h10'))
  await stop(worker)

  await t.test('each delivery adds one timeline event, even when it is leased twice', async () => {
    await db.query('SELECT postalytics.resume_sync($1)', ['hubspot'])
    await ingest(event('h11', 4, dolores), event('h12', 4, {}, { fields: { hubspot_id: '2' } }))
    const expired = await rows("SELECT delivery_id, piece_id FROM postalytics.fetch('hubspot', lease => '1 second') WHERE piece_id IN ('h11', 'h12')")
    worker = start('hubspot', { HUBSPOT_TOKEN: 'token', HUBSPOT_URL: api.url, HUBSPOT_TIMELINE: '1234' })
    await is('hubspot', 'done', 'h11', 'h12')
    assert.equal(expired.length, 2)
    const of = (piece) => [...api.timeline.values()].filter(({ tokens }) => tokens.piece === piece)
    assert.deepEqual(of('h11').map(({ eventTemplateId, email, tokens }) => [eventTemplateId, email, tokens.status]), [['1234', 'dolores@harbourvale.example', 'In Transit']])
    assert.deepEqual(of('h12').map(({ objectId }) => objectId), ['2'])
    await stop(worker)
  })
  await db.query("SELECT postalytics.disable_sync('hubspot')")
})

test('Salesforce', async (t) => {
  const api = salesforce(freePort())
  const environment = { SALESFORCE_URL: api.url, SALESFORCE_CLIENT_ID: 'id', SALESFORCE_CLIENT_SECRET: 'secret' }
  await setUp('salesforce')
  let worker = start('salesforce', environment)

  await t.test('a piece has one task of its contact, found by id or e-mail', async () => {
    await ingest(event('s1', 4, dolores), event('s2', 4, {}, { fields: { salesforce_id: '003B' } }))
    await is('salesforce', 'done', 's1', 's2')
    await ingest(event('s1', 6))
    await until('completed', () => api.tasks.get('s1').Status === 'Completed')
    assert.deepEqual(api.tasks.get('s1'), { Subject: 'Mail piece: Processed for Delivery', Description: 'Mail piece s1 of Spring recall', Status: 'Completed', ActivityDate: '2026-10-06', WhoId: '003A' })
    assert.equal(api.tasks.get('s2').WhoId, '003B')
    assert.equal(api.tasks.size, 2)
  })
  await t.test('in a partly accepted batch, only accepted deliveries are acknowledged', async () => {
    api.locked = 's3'
    await together('salesforce', event('s3', 4, dolores), event('s4', 4, dolores), event('s5', 4, { email: 'twice@vale.example' }), event('s6', 4, { email: "x\\' OR Name != '" }))
    await is('salesforce', 'done', 's4')
    await is('salesforce', 'dead', 's5', 's6')
    assert.equal(await errorOf('s5'), 'piece s5: 2 contacts have the recipient\'s e-mail address')
    assert.match(await errorOf('s6'), /no contacts/)
    await failed('s3', /UNABLE_TO_LOCK_ROW/)
    assert.equal(await state('salesforce', 's3'), 'waiting')
    api.locked = undefined
    await retryNow('salesforce')
    await is('salesforce', 'done', 's3')
  })
  await t.test('a token that has expired is renewed', async () => {
    api.token = 'second'
    await ingest(event('s7', 4, dolores))
    await is('salesforce', 'done', 's7')
  })
  await t.test('its limits pause the sync', () => pausesSync('salesforce', api, 's8',
    { status: 403, body: [{ errorCode: 'REQUEST_LIMIT_EXCEEDED', message: 'TotalRequests Limit exceeded.' }] }, 600))
  await t.test('temporary failures are retried', () => retries('salesforce', api, 's9',
    [{ status: 503, body: [{ errorCode: 'SERVER_UNAVAILABLE', message: 'busy' }] }, /SERVER_UNAVAILABLE/], ['silence', /timeout/i]))
  await t.test('the failure of a call makes no delivery dead, and quotes no address', async () => {
    await retries('salesforce', api, 's12', [{ status: 403, headers: { 'content-type': 'text/html' }, body: '<html>' }, /ERROR_HTTP_403/],
      [{ status: 500, body: [{ errorCode: 'UNKNOWN_EXCEPTION', message: 'x' }] }, /UNKNOWN_EXCEPTION/],
      [{ status: 400, body: [{ errorCode: 'MALFORMED_QUERY', message: dolores.email }] }, /^Salesforce: MALFORMED_QUERY$/], ['hang up', /^Salesforce: ECONNRESET$/])
    api.faults.push(null, { status: 200, body: [] })
    await ingest(event('s13', 4, dolores))
    await failed('s13', /did not confirm/)
    await retryNow('salesforce')
    await is('salesforce', 'done', 's13')
    await together('salesforce', event('s14', 4, { email: `${'x'.repeat(900)}@x.example` }), event('s15', 4, { email: 'a\nb@x.example' }), event('s16', 4, dolores))
    await is('salesforce', 'done', 's16')
    await is('salesforce', 'dead', 's14', 's15')
  })
  await t.test('the token follows no redirect', () => followsNoRedirect('salesforce', api, 's10'))
  await stop(worker)

  await t.test('a wrong secret pauses the sync, and nothing is dead', async () => {
    await retryNow('salesforce')
    worker = start('salesforce', { ...environment, SALESFORCE_CLIENT_SECRET: 'wrong' })
    await ingest(event('s11', 4, dolores))
    await failed('s11', /invalid client credentials/)
    assert.ok(await pause('salesforce') > 800)
    assert.equal(await state('salesforce', 's11'), 'waiting')
    await stop(worker)
  })
  await db.query("SELECT postalytics.disable_sync('salesforce')")
})

test('relay', async (t) => {
  const received = []
  const api = standIn(freePort(), (request) => { received.push(request); return [200, {}] })
  const secrets = ['whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw', 'whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD']
  const environment = { RELAY_SECRET: secrets.join(' ') }
  const of = (piece) => received.filter(({ body }) => body.data.piece_id === piece)
  await setUp('relay')
  const worker = start('relay', environment, `${api.url.replace('//', '//user:pass%40word@')}/hook`)

  await t.test('a message is signed with each secret, and has what fetch returns', async () => {
    await ingest(event('r1', 4, dolores, { listId: 12345678901234567 }))
    await is('relay', 'done', 'r1')
    const [{ text, headers, body }] = of('r1')
    for (const secret of secrets) new Webhook(secret).verify(text, headers)
    assert.throws(() => new Webhook('whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA').verify(text, headers))
    assert.throws(() => new Webhook(secrets[0]).verify(text.replace('r1', 'r2'), headers))
    assert.equal(headers.authorization, `Basic ${btoa('user:pass@word')}`)
    assert.equal(body.type, 'mail_piece.InTransit')
    assert.equal(body.timestamp, '2026-10-04T12:00:00.000Z')
    assert.equal(body.data.label, 'In Transit')
    assert.equal(body.data.payload.mailId, 'r1')
    assert.match(headers['webhook-id'], /^delivery_\d+$/)
  })
  await t.test('a retry has the same id', async () => {
    api.faults.push('forget', { status: 503, headers: { 'retry-after': '100' } })
    await ingest(event('r2', 4, dolores))
    await failed('r2', /other side closed|socket|ECONNRESET/)
    await retryNow('relay')
    await failed('r2', /HTTP 503/)
    const [{ seconds }] = await rows("SELECT extract(epoch FROM due_at - now())::float AS seconds FROM postalytics.deliveries_unfinished WHERE piece_id = 'r2'")
    assert.ok(seconds > 80 && seconds < 110, JSON.stringify(await rows("SELECT now(), * FROM postalytics.deliveries_unfinished WHERE piece_id = 'r2'")))
    await retryNow('relay')
    await is('relay', 'done', 'r2')
    assert.equal(new Set(of('r2').map(({ headers }) => headers['webhook-id'])).size, 1)
    assert.equal(of('r2').length, 2)
  })
  await t.test('429 pauses the sync', () => pausesSync('relay', api, 'r3', { status: 429, headers: { 'retry-after': '1800' } }, 1800))
  await t.test('a receiver that refuses, does not respond or answers without end is tried again', () => retries('relay', api, 'r4',
    [{ status: 404 }, /HTTP 404/], ['silence', /timeout/], [{ status: 500, body: 'x'.repeat(5e6) }, /^HTTP 500: x{480,500}$/]))
  await t.test('no redirect is followed', () => followsNoRedirect('relay', api, 'r5'))
  await t.test('410 disables the sync', async () => {
    await retryNow('relay')
    await is('relay', 'done', 'r5')
    api.faults.push({ status: 410, body: 'gone\0bye' })
    await ingest(event('r6', 4, dolores))
    await until('disabled', async () => !(await rows("SELECT enabled FROM postalytics.syncs WHERE name = 'relay'"))[0].enabled)
    assert.equal(await state('relay', 'r6'), 'waiting')
    await db.query("SELECT postalytics.enable_sync('relay')")
    await retryNow('relay')
    await is('relay', 'done', 'r6')
  })
  await stop(worker)
})
