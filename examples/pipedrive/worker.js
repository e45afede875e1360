// Shows each mail piece in Pipedrive as an activity of its recipient, with the status
// of the piece in the subject: 'Mail piece: In Transit'.
//
//   PIPEDRIVE_TOKEN=… node worker.js
//
// The PG* variables specify the database.
import pg from 'pg'
import { setTimeout as sleep } from 'node:timers/promises'
import { Pipedrive } from './pipedrive.js'

const pipedrive = new Pipedrive(process.env.PIPEDRIVE_TOKEN, process.env.PIPEDRIVE_URL)

// Find the person by the id in the mailing list's own field, or by e-mail address.
async function personOf(delivery) {
  const id = delivery.fields?.pipedrive_person_id
  if (id) return Number(id)
  const person = delivery.email && await pipedrive.findPerson(delivery.email)
  if (!person) throw Object.assign(new Error(`no person for piece ${delivery.piece_id} (${delivery.email ?? 'no e-mail'})`), { hopeless: true })
  return person
}

// Create or update the activity of the piece.  An earlier attempt may have created it
// without recording its id, so search for its note first: a delivery that is leased
// twice must not create a second activity.
async function tell(db, delivery) {
  const activity = {
    subject: `Mail piece: ${delivery.label}`,
    type: 'task',
    done: ['ProcessedForDelivery', 'ReturnedToSender'].includes(delivery.status),
    note: `Mail piece ${delivery.piece_id} of ${delivery.campaign_name ?? 'a campaign'}`,
  }
  const { rows } = await db.query('SELECT activity_id FROM public.pipedrive_activity WHERE piece_id = $1', [delivery.piece_id])
  const known = rows[0]?.activity_id
  if (known) return pipedrive.updateActivity(Number(known), activity)

  const person = await personOf(delivery)
  const found = await pipedrive.findActivity(person, activity.note)
  if (found) await pipedrive.updateActivity(found, activity)
  const made = found ?? await pipedrive.addActivity({ ...activity, person_id: person })
  await db.query('INSERT INTO public.pipedrive_activity VALUES ($1, $2) ON CONFLICT DO NOTHING', [delivery.piece_id, made])
}

async function work(db, delivery) {
  const id = [delivery.delivery_id]
  try {
    if (!delivery.is_test) await tell(db, delivery)
    await db.query("SELECT postalytics.ack('pipedrive', $1)", [id])
  } catch (error) {
    if (error instanceof pg.DatabaseError) throw error
    const { reason, retryIn, hopeless } = pipedrive.explain(error)
    console.error(delivery.piece_id, reason)
    await db.query("SELECT postalytics.nack('pipedrive', $1, $2, retry_in => $3, dead => $4)", [id, reason, retryIn, hopeless])
  }
}

// Until the connection is lost, fetch until nothing is left, then sleep until a
// notification arrives or the next delivery is due.
async function run() {
  const db = new pg.Client()
  let wake = () => {}
  let heard = true
  const ended = new Promise((resolve, reject) => db.on('error', reject))
  ended.catch(() => {})
  db.on('notification', () => { heard = true; wake() })
  await db.connect()
  await db.query('LISTEN postalytics_pipedrive')
  for (;;) {
    heard = false
    for (;;) {
      const { rows } = await db.query("SELECT * FROM postalytics.fetch('pipedrive', 20)")
      if (rows.length === 0) break
      for (const delivery of rows) await work(db, delivery)
    }
    const { rows } = await db.query("SELECT extract(epoch FROM postalytics.next_due('pipedrive') - now())::float AS due")
    const due = Math.max(rows[0].due ?? 3600, 0.05) * 1000
    if (!heard) await Promise.race([new Promise((resolve) => { wake = resolve }), sleep(Math.min(due, 3.6e6)), ended])
  }
}

for (;;) {
  await run().catch((error) => console.error('connection lost:', error.message))
  await sleep(1000)
}
