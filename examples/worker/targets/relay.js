// Posts each delivery to a URL, signed by Standard Webhooks (https://www.standardwebhooks.com):
// node worker.js SYNC relay URL
//
// RELAY_SECRET is the secret, as in whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw, or several
// with blanks between them: the message is signed with each, so that a secret can be
// replaced without a break.  The URL may have a user and a password; then pass it as
// RELAY_URL, because the arguments of a command can be seen by others.
import { Webhook } from 'standardwebhooks'
import { Refused, required, retryAfter, TIMEOUT } from './http.js'

export default function (address = process.env.RELAY_URL) {
  if (!URL.canParse(address) || !['http:', 'https:'].includes(new URL(address).protocol)) throw new Error('usage: node worker.js SYNC relay URL')
  const url = new URL(address)
  // User and password in the URL are sent as Basic auth.
  const user = [url.username, url.password].map(decodeURIComponent).join(':')
  const authorization = url.username && { authorization: `Basic ${Buffer.from(user).toString('base64')}` }
  url.username = url.password = ''
  const webhooks = required('RELAY_SECRET').trim().split(/\s+/).map((secret) => {
    if (!/^(whsec_)?[A-Za-z0-9+/]{32,}={0,2}$/.test(secret)) throw new Error('RELAY_SECRET must be at least 24 random bytes in base64: whsec_ and the output of "openssl rand -base64 24"')
    return new Webhook(secret)
  })
  return {
    parallel: 8,
    lease: '2 minutes',

    async deliver(delivery) {
      const { payload, attempt, ...row } = delivery
      const data = `${JSON.stringify(row).slice(0, -1)},"payload":${payload}}` // as it was received, large integers too
      const body = `{"type":"mail_piece.${delivery.status ?? 'Error'}","timestamp":${JSON.stringify(delivery.occurred_at)},"data":${data}}`
      const id = `delivery_${delivery.delivery_id}`, now = new Date()
      const answer = await fetch(url, {
        method: 'POST',
        headers: {
          ...authorization,
          'content-type': 'application/json',
          'webhook-id': id,
          'webhook-timestamp': String(Math.floor(now / 1000)),
          'webhook-signature': webhooks.map((webhook) => webhook.sign(id, now, body)).join(' '),
        },
        body,
        redirect: 'manual',
        signal: AbortSignal.timeout(TIMEOUT),
      }).catch((error) => { throw new Error(error.cause?.message ?? error.message) })
      const text = await beginning(answer)
      if (answer.ok) return
      const after = answer.headers.get('retry-after')
      const failure = new Refused(answer.status, text, after)
      if (answer.status === 410) throw Object.assign(failure, { dead: false, disable: true, retryIn: 0 })
      if (answer.status === 429) throw failure
      // The receiver may be a program that its user is still changing, so all other answers
      // are tried again, as Standard Webhooks asks, until max_attempts.
      throw Object.assign(failure, { dead: false, pause: undefined, retryIn: retryAfter(after) })
    },
  }
}

// Return the beginning of the answer, and do not read the rest.
async function beginning(answer) {
  let text = ''
  const decoder = new TextDecoder()
  try {
    for await (const part of answer.body ?? []) {
      text += decoder.decode(part, { stream: true })
      if (text.length >= 500) break
    }
  } catch { /* the status says enough */ }
  return text.slice(0, 500)
}
