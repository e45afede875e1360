// Prints the notifications of a channel: node listen.js CHANNEL
import pg from 'pg'
import { setTimeout as sleep } from 'node:timers/promises'

const channel = process.argv[2]

async function listen() {
  const client = new pg.Client()
  const lost = new Promise((resolve) => client.on('error', resolve).on('end', resolve))
  // Anybody can send a notification, so do not trust the payload.
  client.on('notification', (notice) => console.log(notice.channel, notice.payload))
  try {
    await client.connect()
    await client.query(`LISTEN ${client.escapeIdentifier(channel)}`)
    console.log('listening') // a worker fetches here: earlier notifications are not sent again
    await lost
  } finally {
    client.end().catch(() => {})
  }
}

for (;;) {
  await listen().catch((error) => console.error('connection lost:', error.message))
  await sleep(1000)
}
